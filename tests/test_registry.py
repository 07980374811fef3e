"""One node for every root registry of mmengine, found from a config without custom_imports."""

import importlib
import subprocess
import sys
from pathlib import Path

import mmengine.registry.root as root
import pytest
from mmengine.registry import Registry

import evamm.registry as ours

ROOTS = {name: node for name, node in vars(root).items() if isinstance(node, Registry)}
REPO = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('name', ROOTS)
def test_every_root_registry_has_our_node(name: str) -> None:
    node = getattr(ours, name)
    assert node.parent is ROOTS[name] and node.scope == 'evamm'
    assert ROOTS[name].children['evamm'] is node
    for location in node._locations:
        importlib.import_module(location)


def test_a_type_is_found_by_its_prefix_alone() -> None:
    code = """
from importlib.util import find_spec
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS, TASK_UTILS
import sys
assert 'evamm.models' not in sys.modules
assert MODELS.get('evamm.EVAViT').__name__ == 'EVAViT'
assert OPTIM_WRAPPERS.get('evamm.AmpOptimWrapper').__module__.startswith('evamm.engine')

import evamm.datasets, evamm.evaluation
assert 'mmdet' not in sys.modules
if find_spec('mmdet'):
    assert MODELS.get('evamm.ViTDetCascadeRoIHead').__name__ == 'ViTDetCascadeRoIHead'
    assert TASK_UTILS.get('evamm.IoUMatcher').__module__ == 'evamm.models.detection.matching'
    assert MODELS.get('evamm.NoSuchModel') is None
"""
    subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True)


def test_without_mmdet_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from evamm.compat import requirements

    find_spec = requirements.importlib.util.find_spec
    monkeypatch.setattr(
        requirements.importlib.util,
        'find_spec',
        lambda name: None if name == 'mmdet' else find_spec(name),
    )
    assert ours.MODELS.get('evamm.EVAViT').__name__ == 'EVAViT'
    with pytest.raises(ImportError, match=r'NoSuchHead.*evamm\[onedl\].*onedl-mmdetection'):
        ours.MODELS.get('evamm.NoSuchHead')
    assert ours.HOOKS.get('evamm.NoSuchHook') is None  # nothing of this kind needs mmdet
    assert ours.MODELS.get('no.such.object') is None
