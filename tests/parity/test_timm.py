"""The trunk gives timm's numbers for every EVA model timm has, from timm's own weights."""

from dataclasses import asdict

import pytest
import timm
import torch

from evamm.checkpoints import resize_pos_embed, to_evamm
from evamm.models.backbones import EVAViT
from evamm.models.variants import ARCHS

from .common import TOLERANCE, Classifier, evamm_names, randomise, relative_error

# timm name -> (arch, native image size)
MODELS = {
    'eva02_tiny_patch14_224': ('eva02-tiny', 224),
    'eva02_tiny_patch14_336': ('eva02-tiny', 336),
    'eva02_small_patch14_224': ('eva02-small', 224),
    'eva02_small_patch14_336': ('eva02-small', 336),
    'eva02_base_patch14_224': ('eva02-base', 224),
    'eva02_base_patch14_448': ('eva02-base', 448),
    'eva02_large_patch14_224': ('eva02-large', 224),
    'eva02_large_patch14_448': ('eva02-large', 448),
    'eva02_base_patch16_clip_224': ('eva02-clip-base', 224),
    'eva02_large_patch14_clip_224': ('eva02-clip-large', 224),
    'eva02_large_patch14_clip_336': ('eva02-clip-large', 336),
    'eva02_enormous_patch14_clip_224': ('eva02-clip-enormous', 224),
    'eva_giant_patch14_224': ('eva-giant', 224),
    'eva_giant_patch14_336': ('eva-giant', 336),
    'eva_giant_patch14_560': ('eva-giant', 560),
    'eva_giant_patch14_clip_224': ('eva-clip-giant', 224),
    'eva_large_patch14_196': ('eva-large', 196),
    'eva_large_patch14_336': ('eva-large', 336),
}
CLASSES = 11


def build(name: str, img_size: int | tuple[int, int], **reduced) -> tuple:
    """timm's model with random weights, and ours with the same weights.

    Args:
        name: timm's name.
        img_size: pixels, as both constructors take them.
        reduced: embed_dim, depth, num_heads where the released model is too big for a test.
    """
    arch = asdict(ARCHS[MODELS[name][0]])
    theirs = timm.create_model(name, num_classes=CLASSES, img_size=img_size, **reduced).eval()
    randomise(theirs)
    if reduced:
        hidden = arch['ffn_hidden_dims'] * reduced['embed_dim'] // arch['embed_dims']
        arch.update(
            embed_dims=reduced['embed_dim'],
            depth=reduced['depth'],
            num_heads=reduced['num_heads'],
            ffn_hidden_dims=hidden,
        )
    trunk = EVAViT(arch, img_size=img_size, out_type=out_type(name))
    ours = Classifier(trunk, CLASSES).eval()
    ours.load_state_dict(evamm_names(to_evamm(theirs.state_dict(), 'timm')))
    return theirs, ours


def out_type(name: str) -> str:
    return 'cls_token' if '_clip_' in name else 'avg_featmap'


def compare(theirs: torch.nn.Module, ours: Classifier, img_size: int | tuple[int, int]) -> None:
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features = theirs.forward_features(image)  # [B, 1 + N, D], normalised in class-token mode
        found = ours(image)
        pooled = theirs.forward_head(features, pre_logits=True)
        logits = theirs(image)
        tokens = ours.backbone.norm(found['tokens'])
    assert relative_error(tokens, features) < TOLERANCE
    assert relative_error(found['feat'], pooled) < TOLERANCE
    assert relative_error(found['logits'], logits) < TOLERANCE


def reduced(name: str) -> dict[str, int]:
    """Two blocks of B and L, and two blocks with two heads of the giants, fit a test."""
    arch = ARCHS[MODELS[name][0]]
    if arch.embed_dims <= 384:
        return {}
    if arch.embed_dims <= 1024:
        return dict(embed_dim=arch.embed_dims, num_heads=arch.num_heads, depth=2)
    return dict(embed_dim=2 * arch.head_dims, num_heads=2, depth=2)


def test_every_eva_name_of_timm_is_here() -> None:
    assert set(timm.list_models('eva*')) == set(MODELS)


@pytest.mark.parametrize('name', MODELS)
def test_full_size_keys_and_shapes(name: str) -> None:
    """Every released size, with nothing allocated."""
    arch, img_size = MODELS[name]
    with torch.device('meta'):
        theirs = timm.create_model(name)
        trunk = EVAViT(arch, img_size=img_size, out_type=out_type(name))
    found = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    expected = {
        key: tuple(value.shape) for key, value in to_evamm(theirs.state_dict(), 'timm').items()
    }
    expected.pop('head.weight', None)
    expected.pop('head.bias', None)
    assert found == expected


@pytest.mark.parametrize('name', [n for n in MODELS if not n.endswith(('336', '448', '560'))])
def test_native_size(name: str) -> None:
    img_size = MODELS[name][1]
    compare(*build(name, img_size, **reduced(name)), img_size)


@pytest.mark.parametrize('name', [n for n in MODELS if n.endswith(('336', '448', '560'))])
def test_high_resolution(name: str) -> None:
    """Fine-tuned at a larger image than pre-trained: RoPE keeps its reference grid of 16."""
    img_size = MODELS[name][1]
    heads = dict(num_heads=2, embed_dim=2 * ARCHS[MODELS[name][0]].head_dims)
    compare(*build(name, img_size, depth=2, **heads), img_size)


@pytest.mark.parametrize('name', MODELS)
def test_other_size_not_square(name: str) -> None:
    patch = ARCHS[MODELS[name][0]].patch_size
    img_size = (5 * patch, 9 * patch)
    compare(*build(name, img_size, **reduced(name)), img_size)


@pytest.mark.parametrize(
    'name',
    [
        'eva02_tiny_patch14_224',
        'eva02_base_patch14_224',
        'eva02_base_patch16_clip_224',
        'eva02_enormous_patch14_clip_224',
        'eva_giant_patch14_224',
        'eva_large_patch14_196',
    ],
)
def test_gradients(name: str) -> None:
    """The backward pass: the gradients of timm's parameters, renamed like its weights."""
    patch = ARCHS[MODELS[name][0]].patch_size
    img_size = (6 * patch, 4 * patch)
    theirs, ours = build(name, img_size, **reduced(name))
    generator = torch.Generator().manual_seed(2)
    image = torch.randn(2, 3, *img_size, generator=generator)
    weight = torch.randn(2, CLASSES, generator=generator)
    (theirs(image) * weight).sum().backward()
    (ours(image)['logits'] * weight).sum().backward()
    expected = evamm_names(to_evamm({k: p.grad for k, p in theirs.named_parameters()}, 'timm'))
    found = {key: param.grad for key, param in ours.named_parameters()}
    assert found.keys() == expected.keys()
    everything = [torch.cat([grads[key].flatten() for key in found]) for grads in (found, expected)]
    assert relative_error(*everything) < TOLERANCE
    for key, grad in expected.items():  # sums that nearly cancel (q_bias) carry more noise
        assert relative_error(found[key], grad) < 1e-3, key


@pytest.mark.parametrize('target', [(16, 24), (24, 16), (11, 7), (32, 32)])
def test_pos_embed_is_timms_without_antialiasing(target: tuple[int, int]) -> None:
    """timm antialiases when it resizes; the official code does not."""
    pos_embed = torch.randn(1, 1 + 256, 12, generator=torch.Generator().manual_seed(3))
    expected = timm.layers.resample_abs_pos_embed(
        pos_embed, list(target), old_size=[16, 16], num_prefix_tokens=1, antialias=False
    )
    assert torch.equal(resize_pos_embed(pos_embed, target), expected)
