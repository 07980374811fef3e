# Three commands on a machine with nothing but Python >= 3.10:
#     make quickstart      train, test and use a small EVA-02 on real digit images
#     make cycle           the idea of EVA in small: teacher, pre-training, few labels
#     make test            the whole test suite
# Each makes its virtual environment if it is not there; later runs start at once.

PYTHON ?= python3
VENV := .venv
VENV_UPSTREAM := .venv-upstream

# The compiled operators of mmcv are not needed: evamm.compat replaces them.
export MMCV_WITH_OPS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait without spinning: no slower alone, far faster on a busy machine.
export OMP_WAIT_POLICY := PASSIVE

PINS := -c requirements/constraints.txt
PACKAGING := setup.py requirements/constraints.txt requirements/runtime.txt

.PHONY: help install install-upstream quickstart cycle test lint test-upstream clean

help:  ## show what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 24

install: $(VENV)/.installed  ## make .venv with pinned versions of everything

install-upstream: $(VENV_UPSTREAM)/.installed  ## make .venv-upstream, with the upstream OpenMMLab libraries

quickstart: $(VENV)/.installed  ## train, test and use an EVA-02 on digits
	@$(VENV)/bin/python tools/quickstart.py

cycle: $(VENV)/.installed  ## EVA in small: CLIP, pre-training, few labels, a second CLIP
	@$(VENV)/bin/python tools/eva_cycle.py

test: lint  ## all checks and the whole test suite
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed  ## style, import floors and metafiles
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/python tools/analysis_tools/check_metafile.py

test-upstream: $(VENV_UPSTREAM)/.installed  ## the smoke suite on the upstream libraries
	@$(VENV_UPSTREAM)/bin/python -m pytest tests/smoke

clean:  ## remove the environments and everything that was built
	rm -rf $(VENV) $(VENV_UPSTREAM) build dist evamm.egg-info evamm/.mim
	rm -rf .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: $(PACKAGING) requirements/mminstall.txt requirements/optional.txt requirements/clip.txt requirements/detection.txt requirements/tests.txt
	@$(call make_venv,$(VENV),mminstall optional clip detection tests)

$(VENV_UPSTREAM)/.installed: $(PACKAGING) requirements/mminstall_upstream.txt requirements/tests_upstream.txt
	@$(call make_venv,$(VENV_UPSTREAM),mminstall_upstream tests_upstream)

# $(1) folder, $(2) requirement files beside runtime.txt. Last in goes headless OpenCV, over the
# opencv-python that other packages ask for: both have the same files, but that one needs libGL.
define make_venv
set -e; \
$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit("evamm needs Python >= 3.10, and $(PYTHON) is %d.%d: run make with PYTHON=python3.11, say." % v[:2])'; \
$(PYTHON) -m venv $(1) || { echo 'Python cannot make a virtual environment: install its venv package (python3-venv on Debian and Ubuntu).' >&2; exit 1; }; \
echo "Installing pinned versions into $(1): a few minutes, most of it PyTorch."; \
$(1)/bin/python -m pip install -q $(PINS) setuptools; \
$(1)/bin/python -m pip install $(PINS) $(foreach file,runtime $(2),-r requirements/$(file).txt); \
$(1)/bin/python -m pip install -q $(PINS) --no-deps --force-reinstall opencv-python-headless; \
$(1)/bin/python -m pip install -q --no-deps --no-build-isolation -e .; \
$(1)/bin/python -c 'import cv2, evamm.registry, mmpretrain'; \
touch $(1)/.installed
endef
