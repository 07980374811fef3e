"""What `import evamm` does and does not do, each in a Python of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from evamm.compat import mmcv_ext

REPO = Path(__file__).resolve().parents[2]


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, '-W', 'error::UserWarning', '-c', code],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_import_is_quick_silent_and_light() -> None:
    output = run("""
import sys, time
start = time.perf_counter()
import evamm
spent = time.perf_counter() - start
heavy = {'torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'torchvision', 'yaml', 'socket'}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
assert spent < 0.5, spent  # 10 ms on a machine that does nothing else
""")
    assert output == ''


def test_installing_twice_adds_nothing() -> None:
    run("""
import sys
import evamm
before = list(sys.meta_path)
evamm.compat.install()
assert sys.meta_path == before
""")


def test_torchvision_imports_and_keeps_its_own_operators() -> None:
    # Where the compiled operators have loaded, the schemas are theirs and suppression works; else
    # calling it gives torch's own error instead of a failed import.
    run("""
import evamm
import torch, torchvision
boxes = torch.tensor([[0., 0., 9., 9.], [0., 0., 9., 9.]])
call = lambda: torchvision.ops.nms(boxes, torch.tensor([.9, .8]), .5).tolist()
if torchvision.extension._has_ops():
    assert call() == [0]
else:
    try:
        call()
    except (NotImplementedError, RuntimeError):
        pass
    else:
        raise AssertionError('an operator without a kernel gave a result')
""")


def test_schemas_are_declared_once_and_only_when_missing() -> None:
    run("""
import torch
from evamm.compat.torchvision_schemas import declare_missing_schemas
torch.library.define('torchvision::nms', '(Tensor dets) -> Tensor')
declare_missing_schemas()
declare_missing_schemas()
assert len(torch.ops.torchvision.nms.default._schema.arguments) == 1  # left as it was
assert len(torch.ops.torchvision.qnms.default._schema.arguments) == 3
""")


def test_models_are_announced_to_an_mmpretrain_that_was_imported_before() -> None:
    run("""
import evamm.compat  # lets torchvision be imported
import sys
del sys.modules['evamm']
import mmpretrain
import evamm
name = 'eva02-tiny-p14_in21k-pre_3rdparty_in1k'
assert name in mmpretrain.list_models('eva02')
""")


def test_an_operator_that_is_not_provided_fails_when_called() -> None:
    from types import ModuleType

    module = ModuleType('mmcv._ext')
    mmcv_ext.populate(module)
    operator = module.deform_conv_forward
    with pytest.raises(NotImplementedError, match="'deform_conv_forward' needs a compiled mmcv"):
        operator(1, stride=2)
    with pytest.raises(AttributeError):
        module._private  # noqa: B018
    assert module.nms.__module__ == 'evamm.compat.mmcv_ext.nms'


def test_a_compiled_mmcv_is_preferred(tmp_path: Path) -> None:
    # A module of that name in the package of mmcv stands for the compiled one.
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').write_text('')
    (tmp_path / 'mmcv' / '_ext.py').write_text('compiled = True')
    run(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import evamm, mmcv._ext
assert mmcv._ext.compiled
""")
