"""Text towers from OpenAI's, OpenCLIP's and EVA-CLIP's files, and pairs put together from parts."""

import warnings
from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from evamm.checkpoints import (
    CheckpointError,
    convert_checkpoint,
    from_evamm,
    load_checkpoint,
    load_text_checkpoint,
    to_evamm,
)
from evamm.models.clip import EVACLIP, CLIPTextTransformer
from tests.parity import clip_pairs
from tests.parity.common import TOLERANCE, randomise, relative_error

from .common import fill

TEXT = dict(width=32, depth=2, num_heads=2)
CONTEXT, VOCAB, DIMS = 12, 64, 16


def build(embed_dims: int = DIMS, **kwargs: object) -> CLIPTextTransformer:
    sizes = dict(context_length=CONTEXT, vocab_size=VOCAB)
    return CLIPTextTransformer(TEXT, embed_dims, **sizes | kwargs).eval()


def clip_class() -> nn.Module:
    """A small CLIP of the class that OpenAI's and OpenCLIP's files come from: a plain ViT, and the
    text tower at the top level."""
    open_clip = pytest.importorskip('open_clip')
    model = open_clip.CLIP(
        DIMS,
        open_clip.CLIPVisionCfg(layers=1, width=64, patch_size=8, image_size=16),
        open_clip.CLIPTextCfg(
            context_length=CONTEXT, vocab_size=VOCAB, width=32, heads=2, layers=2
        ),
    ).eval()
    randomise(model)
    return model


class Archive(nn.Module):
    """What OpenAI publishes: half precision, three numbers as buffers, as a TorchScript archive."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name in ('positional_embedding', 'text_projection', 'logit_scale'):
            setattr(self, name, getattr(model, name))
        for name, value in dict(input_resolution=16, context_length=12, vocab_size=64).items():
            self.register_buffer(name, torch.tensor(value))

    def forward(self, scale: Tensor) -> Tensor:
        return scale * sum(value.sum() for value in self.state_dict(keep_vars=True).values())


def write(kind: str, model: nn.Module, path: Path) -> None:
    """The file of one publisher."""
    state = model.state_dict()
    if kind == 'openclip':
        torch.save({'epoch': 1, 'state_dict': {f'module.{k}': v for k, v in state.items()}}, path)
    elif kind == 'openai_state_dict':
        numbers = {key: torch.tensor(12) for key in ('input_resolution', 'context_length')}
        torch.save({k: v.half() for k, v in state.items()} | numbers, path)
    elif kind == 'openai':
        archive = Archive(model).half()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            traced = torch.jit.trace(archive, torch.ones(1))
            torch.jit.save(traced, str(path))
        stored = set(torch.jit.load(str(path)).state_dict())
        assert {'visual.proj', 'vocab_size', 'logit_scale'} <= stored
    else:
        text = [k for k in state if not k.startswith(('visual.', 'logit'))]
        torch.save({f'text.{k}': state[k] for k in text}, path)


KINDS = ('openclip', 'openai_state_dict', 'openai', 'text_prefix')


@pytest.mark.parametrize('projection', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_every_publisher(kind: str, projection: bool, tmp_path: Path) -> None:
    source = clip_class()
    state = {k: v.clone() for k, v in source.state_dict().items()}
    if kind.startswith('openai'):
        state = {k: v.half().float() for k, v in state.items()}
    write(kind, source, tmp_path / 'file.pt')
    model = build(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'file.pt')))
    model.init_cfg['projection'] = projection
    torch.manual_seed(3)
    model.init_weights()
    for name, value in model.state_dict().items():
        taken = projection or name != 'text_projection'
        assert torch.equal(value, state[name]) == taken, name
    assert model.text_projection.std() > 0.01  # drawn, not left at zero

    report = load_text_checkpoint(build(), tmp_path / 'file.pt', projection=projection)
    rules = {name: rule for name, rule, _ in report.dropped}
    missing = [] if projection else ['text_projection']
    assert [name for name, _, _ in report.missing] == missing
    assert ('text-projection' in rules.values()) == (not projection)
    if kind != 'text_prefix':
        assert rules['visual.class_embedding'] == 'image-tower'
        assert rules['logit_scale'] == 'temperature'
    if kind.startswith('openai'):
        assert rules['input_resolution'] == 'sizes'


def test_features_are_those_of_open_clip(tmp_path: Path) -> None:
    source = clip_class()
    write('openclip', source, tmp_path / 'file.pt')
    model = build()
    load_text_checkpoint(model, tmp_path / 'file.pt', projection=True)
    tokens = clip_pairs.batch('eva02-clip-b-16')[1]
    with torch.no_grad():
        assert relative_error(model(tokens), source.encode_text(tokens)) < TOLERANCE


@pytest.mark.parametrize('layout', ['official', 'open_clip', 'evamm'])
def test_text_tower_of_a_whole_pair(layout: str, tmp_path: Path) -> None:
    name = 'eva02-clip-b-16'
    pair = to_evamm(clip_pairs.build(name).state_dict())
    torch.save({'model': from_evamm(pair, layout, head_dims=64)}, tmp_path / 'file.pt')
    model = build(clip_pairs.embed_dims(name))
    report = load_text_checkpoint(model, tmp_path / 'file.pt', projection=True)
    assert report.dialect == layout and report.source == 'model'
    assert all(torch.equal(v, pair[f'text.{k}']) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda s: s.pop('transformer.resblocks.1.ln_2.bias'),
            r'missing transformer\.resblocks\.1\.ln_2\.bias',
        ),
        (
            lambda s: s.update({'transformer.resblocks.0.ls_1.gamma': torch.ones(2)}),
            r'unexpected transformer\.resblocks\.0\.ls_1\.gamma',
        ),
        (
            lambda s: s.update({'transformer.resblocks.2.ln_1.bias': torch.ones(32)}),
            'a text tower of width 32 with 3 blocks, the model has width 32 with 2 blocks',
        ),
        (
            lambda s: s.update(positional_embedding=torch.ones(77, 32)),
            r'positional_embedding is \(77, 32\) in the file and \(12, 32\) in the model',
        ),
        (lambda s: s.pop('token_embedding.weight'), 'it holds no CLIP text tower'),
        (
            lambda s: (s.clear(), s.update({'text_model.encoder.layers.0.x': torch.ones(1)})),
            'a CLIP file of the transformers library',
        ),
    ],
)
def test_what_does_not_fit_is_an_error_and_changes_nothing(
    change: object, message: str, tmp_path: Path
) -> None:
    model = build()
    state = fill({k: tuple(v.shape) for k, v in model.state_dict().items()})
    change(state)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(state, tmp_path / 'file.pt')
    with pytest.raises(CheckpointError, match=message) as error:
        load_text_checkpoint(model, tmp_path / 'file.pt')
    assert str(tmp_path / 'file.pt') in str(error.value)
    assert all(torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_projection_of_another_space(tmp_path: Path) -> None:
    """Left out unless asked for, and then it must fit."""
    write('openclip', clip_class(), tmp_path / 'file.pt')
    model = build(DIMS + 8)
    load_text_checkpoint(model, tmp_path / 'file.pt')
    with pytest.raises(CheckpointError, match=r'text_projection is \(32, 16\) in the file'):
        load_text_checkpoint(model, tmp_path / 'file.pt', projection=True)


def test_files_without_an_eva_trunk_are_no_pairs(tmp_path: Path) -> None:
    write('openclip', clip_class(), tmp_path / 'file.pt')
    with pytest.raises(CheckpointError, match='it holds no EVA trunk'):
        convert_checkpoint(tmp_path / 'file.pt', tmp_path / 'out.pt', 'timm')
    with pytest.raises(CheckpointError, match='holds no EVA trunk'):
        load_checkpoint(clip_pairs.build('eva02-clip-b-16'), tmp_path / 'file.pt')


# ---- a pair from parts ---------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['eva01-clip-g-14', 'eva02-clip-b-16', 'eva02-clip-bige-14'])
def test_pair_starts_from_a_pretrained_trunk_and_a_text_tower(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Official training: heads, projections, temperature and inner norms start fresh."""
    pair = to_evamm(clip_pairs.build(name).state_dict())
    inner_norms = {key for key in pair if '.attn.norm.' in key}
    width = pair['norm.weight'].shape[0]
    mim = {
        key: value + 1
        for key, value in pair.items()
        if not key.startswith(('text.', 'head.', 'logit')) and key not in inner_norms
    }
    mim |= fill({'mask_token': (1, 1, width), 'lm_head.weight': (9, width), 'lm_head.bias': (9,)})
    official = from_evamm(mim, 'official', head_dims=clip_pairs.head_dims(name))
    torch.save({'module': official}, tmp_path / 'mim.pt')
    text = {key[5:]: value + 1 for key, value in pair.items() if key.startswith('text.')}
    torch.save(text | {'logit_scale': torch.tensor(9.0)}, tmp_path / 'text.pt')

    cfg = clip_pairs.config(name)
    trunk = dict(type='Pretrained', checkpoint=str(tmp_path / 'mim.pt'))
    if inner_norms:
        trunk['allow_missing'] = ['blocks.*.attn.norm.*']
    cfg['backbone']['init_cfg'] = trunk
    cfg['text']['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'text.pt'))
    model = EVACLIP(**cfg)
    lines: list[str] = []
    logger = MMLogger.get_instance('text-tower-test')
    monkeypatch.setattr(logger, 'log', lambda level, text: lines.append(text))
    monkeypatch.setattr(MMLogger, 'get_current_instance', lambda: logger)
    model.init_weights()

    found = to_evamm(model.state_dict())
    fresh = {'head.weight', 'head.bias', 'text.text_projection', 'logit_scale'} | inner_norms
    for key, value in found.items():
        assert torch.equal(value, pair[key] + 1) == (key not in fresh), key
    for key in inner_norms:
        assert torch.equal(found[key], torch.full_like(found[key], float(key.endswith('weight'))))
    assert found['logit_scale'].exp() == pytest.approx(1 / 0.07)
    log = '\n'.join(lines)
    assert 'missing   text_projection  [text-projection: starts fresh' in log
    assert 'head and logit_scale start fresh' in log
    assert 'mask_token, lm_head.weight, lm_head.bias  [mim-extras' in log
    assert ('blocks.0.attn.norm.weight' in log) == bool(inner_norms)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            dict(projektion=True),
            r'CLIPTextTransformer: init_cfg: projektion \(close to projection\)',
        ),
        (dict(checkpoint=None), 'checkpoint=None: expected the path of a file'),
    ],
)
def test_options_that_do_not_exist(options: dict, message: str, tmp_path: Path) -> None:
    model = build(init_cfg={'type': 'Pretrained', 'checkpoint': 'file.pt', **options})
    with pytest.raises(CheckpointError, match=message):
        model.init_weights()
