"""Every image-text pair gives open_clip's features and logits, from open_clip's own weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evamm.checkpoints import canonicalize, from_evamm, load_checkpoint
from evamm.models.clip import EVACLIP
from evamm.models.clip_variants import CLIP_ARCHS

from . import clip_pairs
from .clip_pairs import OPEN_CLIP, PAIRS
from .common import TOLERANCE, relative_error


@torch.no_grad()
def compare(theirs: nn.Module, ours: EVACLIP, images: Tensor, tokens: Tensor) -> dict[str, float]:
    """Relative errors of both kinds of features and of the logits."""
    expected_image, expected_text, scale = theirs(images, tokens)
    found_image, found_text, found_scale = (
        ours.encode_image(images, normalize=True),
        ours.encode_text(tokens, normalize=True),
        ours.logit_scale.exp(),
    )
    pairs = {
        'image features': (ours.encode_image(images), theirs.encode_image(images)),
        'text features': (ours.encode_text(tokens), theirs.encode_text(tokens)),
        'logits': (
            found_scale * found_image @ found_text.t(),
            scale * expected_image @ expected_text.t(),
        ),
    }
    return {name: relative_error(*values) for name, values in pairs.items()}


@pytest.mark.parametrize('name', PAIRS)
def test_features_and_logits(name: str, tmp_path: Path) -> None:
    """Their file in our model, then other weights of ours in theirs."""
    theirs, ours = clip_pairs.build_open_clip(name), clip_pairs.build(name)
    path = tmp_path / 'file.pt'
    torch.save({'state_dict': theirs.state_dict()}, path)
    other = {key: value.clone() for key, value in ours.state_dict().items()}

    report = load_checkpoint(ours, path, complete=True)
    assert report.dialect == 'open_clip' and not report.dropped and not report.resized
    for output, value in compare(theirs, ours, *clip_pairs.batch(name)).items():
        assert value < TOLERANCE, output

    ours.load_state_dict(other)
    theirs.load_state_dict(from_evamm(canonicalize(ours.state_dict()).state_dict, 'open_clip'))
    for output, value in compare(theirs, ours, *clip_pairs.batch(name)).items():
        assert value < TOLERANCE, output


@pytest.mark.parametrize('name', PAIRS)
def test_released_size(name: str) -> None:
    """Names, shapes and the number of parameters at full size."""
    open_clip = pytest.importorskip('open_clip')
    pair = CLIP_ARCHS[name]
    with torch.device('meta'):
        theirs = open_clip.create_model(OPEN_CLIP[name], pretrained=None, device='meta')
        ours = EVACLIP(
            backbone=dict(
                type='evamm.EVAViT',
                arch=pair.vision,
                img_size=pair.img_size,
                out_type='cls_token',
            ),
            text=dict(type='evamm.CLIPTextTransformer', arch=pair.text),
            embed_dims=pair.embed_dims,
        )
    read = canonicalize(ours.state_dict())
    assert read.prefix == 'backbone.' and not read.dropped
    written = from_evamm(read.state_dict, 'open_clip')
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in written.items()} == expected
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_gradients_of_a_training_step(tmp_path: Path) -> None:
    """Through the loss, both towers and everything that is computed for one token only."""
    open_clip = pytest.importorskip('open_clip')
    name = 'eva02-clip-b-16'
    theirs, ours = clip_pairs.build_open_clip(name).double(), clip_pairs.build(name).double()
    torch.save(theirs.state_dict(), tmp_path / 'file.pt')
    load_checkpoint(ours, tmp_path / 'file.pt', complete=True)
    images, tokens = clip_pairs.batch(name)
    images, tokens = images.double(), tokens[: len(images)]
    open_clip.loss.ClipLoss()(*theirs(images, tokens)).backward()
    pair = ours.encode_image(images, normalize=True), ours.encode_text(tokens, normalize=True)
    ours.loss(*pair, ours.logit_scale.exp()).backward()
    text = dict(theirs.text.named_parameters())
    for key, param in ours.text.named_parameters():
        assert relative_error(param.grad, text[key].grad) < 1e-6, key
    trunk = theirs.visual.trunk
    last, their_last = ours.backbone.blocks[-1], trunk.blocks[-1]
    width = ours.backbone.embed_dims
    for found, expected in [
        (ours.logit_scale.grad, theirs.logit_scale.grad),
        (ours.head.weight.grad, trunk.head.weight.grad),
        (ours.backbone.pos_embed.grad, trunk.pos_embed.grad),
        (ours.backbone.cls_token.grad, trunk.cls_token.grad),
        (ours.backbone.norm.weight.grad, trunk.norm.weight.grad),
        (last.attn.q_bias.grad, their_last.attn.q_proj.bias.grad),
        (last.attn.qkv.weight.grad[:width], their_last.attn.q_proj.weight.grad),
        (last.attn.norm.weight.grad, their_last.attn.norm.weight.grad),
        (last.mlp.w3.weight.grad, their_last.mlp.fc2.weight.grad),
    ]:
        assert relative_error(found, expected) < 1e-6
