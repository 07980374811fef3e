"""Files of whole image-text pairs: every layout in the wild, into every model that can use them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmpretrain.registry import MODELS as MMPRETRAIN
from torch import Tensor, nn

from evamm.checkpoints import (
    CheckpointError,
    convert_checkpoint,
    from_evamm,
    load_checkpoint,
    read_checkpoint,
    to_evamm,
)
from evamm.checkpoints.rope_buffers import RELEASED
from evamm.models.backbones import EVAViT
from evamm.models.clip import EVACLIP
from evamm.models.heads import LinearProbeHead
from evamm.models.variants import ARCHS
from tests.parity import clip_pairs
from tests.parity.clip_pairs import PAIRS, head_dims, img_size, small_arch

from .common import fill, same

ROTATES = [name for name in PAIRS if small_arch(name)['rope']]


def pair(name: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Canonical weights of a small pair, its temperature too."""
    model = EVACLIP(**clip_pairs.config(name))
    state = to_evamm(model.state_dict())
    return fill({key: tuple(value.shape) for key, value in state.items()}, dtype=dtype)


def official(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return from_evamm(state, 'official', head_dims=head_dims(name))


def text_at_top_level(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """EVA-CLIP files from before the text tower had its own class."""
    return {key.removeprefix('text.'): value for key, value in official(name, state).items()}


def temperature_in_text(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As in ``eva_clip_psz14.pt``."""
    out = official(name, state)
    out['text.logit_scale'] = out.pop('logit_scale')
    return out


def trained_here(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file of a training run: names of the model."""
    kept = ('text.', 'logit_', 'head.')
    return {key if key.startswith(kept) else f'backbone.{key}': v for key, v in state.items()}


LAYOUTS: dict[str, Callable] = {
    'official': official,
    'text_at_top_level': text_at_top_level,
    'temperature_in_text': temperature_in_text,
    'open_clip': lambda name, state: from_evamm(state, 'open_clip'),
    'timm': lambda name, state: from_evamm(state, 'timm'),
    'evamm': lambda name, state: state,
    'trained_here': trained_here,
}


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('name', PAIRS)
def test_every_layout_fills_every_pair(name: str, layout: str, tmp_path: Path) -> None:
    state = pair(name, torch.float16)
    torch.save({'state_dict': LAYOUTS[layout](name, state)}, tmp_path / 'file.pt')
    model = EVACLIP(**clip_pairs.config(name))
    report = load_checkpoint(model, tmp_path / 'file.pt', complete=True)
    assert {rule for _, rule, _ in report.dropped} <= {'rope-tables'}
    assert sorted(report.loaded) == sorted(model.state_dict())
    found = to_evamm(model.state_dict())
    assert same(found, {key: value.float() for key, value in state.items()})


@pytest.mark.parametrize('name', PAIRS)
def test_exports_give_the_same_bits_back(name: str, tmp_path: Path) -> None:
    """Official to open_clip to evamm to official, as files."""
    start = official(name, pair(name, torch.float16))
    torch.save(start, tmp_path / 'official.pt')
    previous, options = 'official.pt', dict(head_dims=head_dims(name))
    for to, file in (('open_clip', 'a.pt'), ('evamm', 'b.safetensors'), ('official', 'c.pt')):
        options = dict(head_dims=head_dims(name)) if to == 'official' else {}
        convert_checkpoint(tmp_path / previous, tmp_path / file, to, **options)
        previous = file
    assert same(read_checkpoint(tmp_path / previous).state_dict, start)
    # The table of the trunk's own grid, as wide as its heads.
    tables = {key: value.shape for key, value in start.items() if 'rope' in key}
    patches = start['visual.pos_embed'].shape[1] - 1
    assert len(tables) == (6 if name in ROTATES else 0)
    assert set(tables.values()) <= {(patches, head_dims(name))}


@pytest.mark.parametrize('name', ROTATES)
def test_channels_of_a_head_are_never_guessed(name: str, tmp_path: Path) -> None:
    """The same weights with other heads are another model, and their RoPE tables differ."""
    state = pair(name)
    with pytest.raises(CheckpointError, match=r'not known.*pass head_dims'):
        from_evamm(state, 'official')
    for wrong in (48, 6, 0):
        with pytest.raises(CheckpointError, match=f'head_dims={wrong} does not fit'):
            from_evamm(state, 'official', head_dims=wrong)
    torch.save(from_evamm(state, 'official', head_dims=32), tmp_path / 'file.pt')
    with pytest.raises(CheckpointError, match=r'head_dims=64, but its RoPE tables have \[32\]'):
        convert_checkpoint(tmp_path / 'file.pt', tmp_path / 'out.pt', 'official', head_dims=64)
    assert not (tmp_path / 'out.pt').exists()
    convert_checkpoint(tmp_path / 'file.pt', tmp_path / 'out.pt', 'official')
    found = read_checkpoint(tmp_path / 'out.pt').state_dict
    assert found['visual.blocks.1.attn.rope.freqs_sin'].shape[1] == 32


def test_released_trunks_that_rotate_are_known() -> None:
    rotating = [arch for arch in ARCHS.values() if arch.rope]
    assert RELEASED == {(arch.embed_dims, arch.depth): arch.head_dims for arch in rotating}


@pytest.mark.parametrize('part', ['logit_bias', None])
def test_bias_of_the_sigmoid_loss_stays_outside_the_trunk(part: str | None) -> None:
    state = pair('eva02-clip-b-16') | ({part: torch.ones(())} if part else {})
    written = from_evamm(state, 'open_clip')
    assert ('logit_bias' in written) == (part is not None)
    assert same(to_evamm(written), state)


def test_pair_for_larger_images_starts_from_the_other(tmp_path: Path) -> None:
    """EVA02-CLIP-L-14-336 is trained on from EVA02-CLIP-L-14."""
    state = pair('eva02-clip-l-14')
    torch.save(official('eva02-clip-l-14', state), tmp_path / 'file.pt')
    model = EVACLIP(**clip_pairs.config('eva02-clip-l-14-336'))
    report = load_checkpoint(model, tmp_path / 'file.pt')
    assert not report.missing
    assert [entry[:3] for entry in report.resized] == [
        ('backbone.pos_embed', (1, 17, 128), (1, 37, 128))
    ]
    assert torch.equal(model.logit_scale, state['logit_scale'])


def test_another_text_tower_is_named(tmp_path: Path) -> None:
    torch.save(pair('eva01-clip-g-14'), tmp_path / 'file.pt')
    model = EVACLIP(**clip_pairs.config('eva01-clip-g-14-plus'))
    message = 'a text tower of width 48 with 3 blocks, the model has width 64 with 2'
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(model, tmp_path / 'file.pt')


# ---- downstream models --------------------------------------------------------------------------


def rules(entries: list[tuple[str, str, str]]) -> dict[str, str]:
    return {name: rule for name, rule, _ in entries}


@pytest.mark.parametrize('layout', ['official', 'open_clip', 'trained_here'])
@pytest.mark.parametrize('name', PAIRS)
def test_trunk_alone(name: str, layout: str, tmp_path: Path) -> None:
    """Headless: features of a frozen image tower."""
    state = pair(name)
    torch.save(LAYOUTS[layout](name, state), tmp_path / 'file.pt')
    trunk = EVAViT(small_arch(name), img_size=img_size(name), out_type='cls_token')
    report = load_checkpoint(trunk, tmp_path / 'file.pt', complete=True)
    assert all(torch.equal(value, state[key]) for key, value in trunk.state_dict().items())
    found = rules(report.dropped)
    assert found['logit_scale'] == found['text.ln_final.bias'] == 'text-tower'
    assert found['head.weight'] == 'head'
    assert set(found.values()) <= {'text-tower', 'head', 'rope-tables'}


@pytest.mark.parametrize('classes', [5, clip_pairs.embed_dims('eva02-clip-b-16')])
@pytest.mark.parametrize('pooled', [True, False])
def test_classifier(classes: int, pooled: bool, tmp_path: Path) -> None:
    """The projection is no classifier, even if it has as many outputs as there are classes."""
    name = 'eva02-clip-b-16'
    state = pair(name)
    torch.save(official(name, state), tmp_path / 'file.pt')
    arch, out_type = small_arch(name), 'avg_featmap' if pooled else 'cls_token'
    model = MMPRETRAIN.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='evamm.EVAViT', arch=arch, img_size=img_size(name), out_type=out_type
            ),
            head=dict(type='LinearClsHead', num_classes=classes, in_channels=arch['embed_dims']),
        )
    )
    before = model.head.fc.weight.clone()
    report = load_checkpoint(model, tmp_path / 'file.pt')
    assert torch.equal(model.head.fc.weight, before)
    assert rules(report.dropped)['head.weight'] == 'clip-projection'
    assert rules(report.missing) == {
        'head.fc.weight': 'clip-projection',
        'head.fc.bias': 'clip-projection',
    }
    norm = model.backbone.fc_norm if pooled else model.backbone.norm
    assert torch.equal(norm.weight, state['norm.weight'])
    assert torch.equal(model.backbone.blocks[1].attn.norm.bias, state['blocks.1.attn.norm.bias'])


def test_teacher_gets_norm_and_projection(tmp_path: Path) -> None:
    """A target encoder is the image tower with its projection and no text."""
    name = 'eva01-clip-g-14'
    state = pair(name)
    torch.save(official(name, state), tmp_path / 'file.pt')
    teacher = nn.Module()
    teacher.backbone = EVAViT(small_arch(name), img_size=img_size(name), out_type='raw')
    teacher.head = nn.Linear(*reversed(state['head.weight'].shape))
    report = load_checkpoint(teacher, tmp_path / 'file.pt', complete=True)
    assert torch.equal(teacher.head.weight, state['head.weight'])
    assert torch.equal(teacher.backbone.norm.bias, state['norm.bias'])
    assert 'head.weight' not in rules(report.dropped)


# ---- linear probes ------------------------------------------------------------------------------


class Probe(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        name = 'eva01-clip-g-14'
        self.backbone = EVAViT(small_arch(name), img_size=img_size(name), out_type='cls_token')
        self.head = head


def official_probe() -> dict[str, Tensor]:
    """``eva_clip_vis_enc_sz224_lincls_86p5.pth``: a trunk, BatchNorm without weights, Linear."""
    trunk = EVAViT(small_arch('eva01-clip-g-14'), img_size=56, out_type='cls_token')
    shapes = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    shapes |= {'head.1.weight': (7, 176), 'head.1.bias': (7,)}
    state = fill(shapes)
    state['head.0.running_mean'] = torch.randn(176)
    state['head.0.running_var'] = torch.rand(176) + 0.5
    state['head.0.num_batches_tracked'] = torch.tensor(3200)
    return state


def test_official_probe_and_back(tmp_path: Path) -> None:
    state = official_probe()
    torch.save({'model': state}, tmp_path / 'file.pth')
    model = Probe(LinearProbeHead(176, 7))
    report = load_checkpoint(model, tmp_path / 'file.pth', complete=True)
    assert not report.dropped
    assert torch.equal(model.head.fc.weight, state['head.1.weight'])
    assert torch.equal(model.head.bn.running_var, state['head.0.running_var'])
    assert model.head.bn.num_batches_tracked == 3200
    assert same(from_evamm(to_evamm(model.state_dict()), 'official'), state)

    torch.save({'state_dict': model.state_dict()}, tmp_path / 'ours.pth')
    convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', 'official')
    assert same(read_checkpoint(tmp_path / 'theirs.pth').state_dict, state)


def test_probe_trained_here_is_folded_into_a_classifier(tmp_path: Path) -> None:
    probe = Probe(LinearProbeHead(176, 7)).eval()
    probe.head.bn.running_mean.normal_()
    probe.head.bn.running_var.uniform_(0.5, 2)
    torch.save({'state_dict': probe.state_dict()}, tmp_path / 'file.pth')
    head = nn.Module()
    head.fc = nn.Linear(176, 7)
    model = Probe(head)
    load_checkpoint(model, tmp_path / 'file.pth', complete=True)
    feats = torch.randn(3, 176)
    torch.testing.assert_close(model.head.fc(feats), probe.head((feats,)))


def test_probe_starts_from_a_pair(tmp_path: Path) -> None:
    torch.save(pair('eva01-clip-g-14'), tmp_path / 'file.pt')
    model = Probe(LinearProbeHead(176, 32))  # as many classes as the joint space has dimensions
    report = load_checkpoint(model, tmp_path / 'file.pt')
    assert set(rules(report.missing)) == {key for key in model.state_dict() if 'head.' in key}
    assert rules(report.dropped)['head.weight'] == 'clip-projection'
