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
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS
import sys
assert 'evamm.models' not in sys.modules
assert MODELS.get('evamm.EVAViT').__name__ == 'EVAViT'
assert OPTIM_WRAPPERS.get('evamm.AmpOptimWrapper').__module__.startswith('evamm.engine')
"""
    subprocess.run([sys.executable, '-c', code], cwd=REPO, check=True)
