"""tools/convert_checkpoint.py as a user calls it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evamm.checkpoints import (
    detect_dialect,
    from_evamm,
    load_checkpoint,
    read_checkpoint,
    resize_patch_kernel,
    resize_pos_embed,
    to_evamm,
)
from evamm.models.backbones import EVAViT

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / 'tools' / 'convert_checkpoint.py'
ARCH = dict(embed_dims=64, depth=2, num_heads=1, ffn_norm=True)


@pytest.fixture(scope='module')
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location('convert_checkpoint', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def state(seed: int = 0, **kwargs) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = EVAViT(
        ARCH,
        out_type='cls_token',
        with_mask_token=True,
        **{'img_size': 224, 'patch_size': 14, **kwargs},
    )
    return {
        name: torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An official file with averaged weights."""
    path = tmp_path / 'source.pt'
    torch.save(
        {
            'module': from_evamm(state(0), 'official', head_dims=64),
            'model_ema': from_evamm(state(1), 'official', head_dims=64),
        },
        path,
    )
    return path


@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
@pytest.mark.parametrize('to', ['evamm', 'official', 'timm', 'open_clip', 'mmpretrain'])
def test_there_and_back(
    tool: ModuleType,
    to: str,
    suffix: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    middle, back = tmp_path / f'middle{suffix}', tmp_path / f'back{suffix}'
    assert tool.main([str(source), str(middle), '--to', to]) == 0
    assert 'official, entry model_ema' in capsys.readouterr().out
    args = [str(middle), str(back), '--to', 'official', '--head-dims', '64']
    assert tool.main(args) == 0
    found = read_checkpoint(middle)
    assert detect_dialect(found.state_dict) == to
    assert same(to_evamm(found.state_dict), state(1))
    assert same(read_checkpoint(back).state_dict, from_evamm(state(1), 'official', head_dims=64))


def test_raw_weights(tool: ModuleType, source: Path, tmp_path: Path) -> None:
    target = tmp_path / 'raw.safetensors'
    assert tool.main([str(source), str(target), '--to', 'evamm', '--raw']) == 0
    assert same(load_file(target), state(0))


def test_files_have_the_form_that_each_code_base_reads(
    tool: ModuleType, source: Path, tmp_path: Path
) -> None:
    target = str(tmp_path / 'out.pth')
    keys = {'official': {'model'}, 'mmpretrain': {'meta', 'state_dict'}}
    for to, expected in keys.items():
        assert tool.main([str(source), target, '--to', to, '--force']) == 0
        assert set(torch.load(target, weights_only=True)) == expected
    assert tool.main([str(source), target, '--to', 'timm', '--force']) == 0
    assert 'blocks.0.attn.q_proj.bias' in torch.load(target, weights_only=True)


def test_patch_14_to_16(
    tool: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Half-precision files keep it, except for the kernel, which stays fp32 as in the official
    script."""
    half, target = tmp_path / 'half.pth', tmp_path / 'p14to16.pth'
    tool.main([str(source), str(half), '--to', 'official', '--dtype', 'fp16'])
    args = [str(half), str(target), '--to', 'official', '--patch-size', '16']
    assert tool.main(args) == 0
    assert 'pos_embed  1x257x64 -> 1x197x64' in capsys.readouterr().out
    found = to_evamm(read_checkpoint(target).state_dict)
    expected = {name: value.half() for name, value in state(1).items()}
    expected['pos_embed'] = resize_pos_embed(expected['pos_embed'], (14, 14))
    expected['patch_embed.proj.weight'] = resize_patch_kernel(
        expected['patch_embed.proj.weight'], 16
    )
    assert found['patch_embed.proj.weight'].dtype == torch.float32
    assert same(found, expected)
    tables = read_checkpoint(target).state_dict['blocks.1.attn.rope.freqs_cos']
    assert tables.shape == (196, 64)  # the new grid
    model = EVAViT(ARCH, patch_size=16, out_type='cls_token', with_mask_token=True)
    assert not load_checkpoint(model, target, complete=True).resized


def test_image_size_and_precision(tool: ModuleType, source: Path, tmp_path: Path) -> None:
    target = tmp_path / 'out.safetensors'
    args = [str(source), str(target), '--to', 'timm', '--img-size', '336', '--dtype', 'bf16']
    assert tool.main(args) == 0
    found = load_file(target)
    assert found['pos_embed'].shape == (1, 1 + 24 * 24, 64)
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


def test_nothing_is_overwritten(
    tool: ModuleType, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / 'precious.pth'
    target.write_bytes(b'old')
    assert tool.main([str(source), str(target), '--to', 'timm']) == 1
    assert 'exists; choose another name, or pass --force' in capsys.readouterr().err
    assert target.read_bytes() == b'old'
    assert tool.main([str(source), str(target), '--to', 'timm', '--force']) == 0
    assert tool.main([str(target), str(target), '--to', 'evamm', '--force']) == 0  # onto itself
    assert same(read_checkpoint(target).state_dict, state(1))


@pytest.mark.parametrize(
    'args, message',
    [
        (['--img-size', '230'], '230 pixels cannot be cut into patches of 14'),
        (['--patch-size', '15'], 'give --img-size as a multiple of 15'),
        (['--sha256', '0' * 64], 'expected sha256 0000'),
    ],
)
def test_mistakes_are_explained(
    tool: ModuleType,
    args: list[str],
    message: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    target = tmp_path / 'out.pth'
    assert tool.main([str(source), str(target), '--to', 'timm', *args]) == 1
    assert message in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path)) == ['source.pt']


def test_other_networks_are_refused(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    save_file({'conv1.weight': torch.ones(2)}, tmp_path / 'resnet.safetensors')
    args = [str(tmp_path / 'resnet.safetensors'), str(tmp_path / 'out.pth'), '--to', 'timm']
    assert tool.main(args) == 1
    assert 'found conv1.weight' in capsys.readouterr().err
    assert tool.main([args[0], str(tmp_path / 'no' / 'out.pth'), '--to', 'timm']) == 1
    assert 'no such folder' in capsys.readouterr().err


def test_as_a_command(source: Path, tmp_path: Path) -> None:
    target = tmp_path / 'out.safetensors'
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(source), str(target), '--to', 'timm'],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f'wrote {target} (timm, ' in done.stdout and not done.stderr


@pytest.mark.parametrize(
    'option', ['--patch-size=0', '--img-size=-28', '--head-dims=0', '--head-dims=15']
)
def test_impossible_sizes(
    option: str,
    tool: ModuleType,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    target = tmp_path / 'target.pth'
    assert tool.main([str(source), str(target), '--to', 'official', option]) == 1
    assert option.split('=')[0].strip('-').replace('-', '_') in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize(
    'name',
    [
        'blocks.0.norm1.bias',
        'blocks.0',
        'pos_embed',
        'norm.bias',
        'head.bias',
        'text.transformer.resblocks.0.mlp.c_fc.bias',
        'text.transformer.resblocks.1',
        'text.text_projection',
    ],
)
def test_incomplete_files_are_refused(
    name: str, tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """One tensor or a whole block is missing."""
    whole = state() | {'head.weight': torch.ones(4, 64), 'head.bias': torch.ones(4)}
    for key in ('token_embedding.weight', 'positional_embedding', 'text_projection'):
        whole[f'text.{key}'] = torch.ones(8, 8)
    for key in ('ln_final.weight', 'ln_final.bias'):
        whole[f'text.{key}'] = torch.ones(8)
    for block in range(3):
        for key in ('ln_1.weight', 'mlp.c_fc.bias'):
            whole[f'text.transformer.resblocks.{block}.{key}'] = torch.ones(8)
    args = [str(tmp_path / 'in.pt'), str(tmp_path / 'out.pt'), '--to', 'open_clip']
    damaged = {k: v for k, v in whole.items() if k != name and not k.startswith(f'{name}.')}
    assert len(damaged) < len(whole)
    torch.save(damaged, args[0])
    assert tool.main(args) == 1
    error = capsys.readouterr().err
    assert 'the file is incomplete' in error and name in error
    assert not Path(args[1]).exists()
    torch.save(whole, args[0])
    assert tool.main(args) == 0


def test_detectors_may_have_relative_positions_in_some_blocks(
    tool: ModuleType, tmp_path: Path
) -> None:
    trunk = {k: v for k, v in state().items() if not k.startswith(('norm.', 'mask', 'cls'))}
    trunk['blocks.1.attn.rel_pos_h'] = torch.ones(31, 64)
    torch.save(trunk, tmp_path / 'in.pt')
    args = [str(tmp_path / 'in.pt'), str(tmp_path / 'out.pt'), '--to']
    assert tool.main([*args, 'detectron2']) == 0
    found = read_checkpoint(tmp_path / 'out.pt').state_dict
    assert torch.equal(found['backbone.net.blocks.1.attn.rel_pos_h'], torch.ones(31, 64))


def test_trunk_without_what_stands_around_it(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    detector = state() | {'rpn_head.rpn_cls.weight': torch.ones(3, 8, 1, 1)}
    torch.save(detector, tmp_path / 'in.pt')
    args = [str(tmp_path / 'in.pt'), str(tmp_path / 'out.pt'), '--to', 'timm']
    assert tool.main(args) == 1
    assert '--trunk-only' in capsys.readouterr().err
    assert tool.main([*args, '--trunk-only']) == 0
    assert 'rpn_head.rpn_cls.weight  [trunk-only' in capsys.readouterr().out
    written = to_evamm(read_checkpoint(tmp_path / 'out.pt').state_dict)
    assert written.keys() == state().keys()


def test_weights_that_are_no_numbers_are_pointed_out(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = state()
    broken['blocks.0.norm1.bias'][0] = float('nan')
    torch.save(broken, tmp_path / 'in.pt')
    args = [str(tmp_path / 'in.pt'), str(tmp_path / 'out.pt'), '--to', 'timm']
    with pytest.warns(UserWarning, match='NaN or infinity: blocks.0.norm1.bias'):
        assert tool.main(args) == 0
    assert 'NOT FINITE  blocks.0.norm1.bias' in capsys.readouterr().out
