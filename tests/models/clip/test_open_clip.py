"""Every released pair computes what OpenCLIP computes with the same weights."""

import copy
from dataclasses import replace

import pytest
import torch

from evamm.checkpoints import load_checkpoint
from evamm.models.clip_variants import CLIP_ARCHS, TEXT_ARCHS
from evamm.models.variants import ARCHS
from evamm.registry import MODELS

open_clip = pytest.importorskip('open_clip')
timm = pytest.importorskip('timm')

THEIR_NAMES = {
    'eva01-clip-g-14': 'EVA01-g-14',
    'eva01-clip-g-14-plus': 'EVA01-g-14-plus',
    'eva02-clip-b-16': 'EVA02-B-16',
    'eva02-clip-l-14': 'EVA02-L-14',
    'eva02-clip-l-14-336': 'EVA02-L-14-336',
    'eva02-clip-bige-14': 'EVA02-E-14',
    'eva02-clip-bige-14-plus': 'EVA02-E-14-plus',
}
WIDTH, HEADS, DEPTH = 64, 2, 3


def their_model(name, monkeypatch):
    """OpenCLIP's model with its own rules and depth of text, but narrow and with few blocks."""
    config = copy.deepcopy(open_clip.get_model_config(THEIR_NAMES[name]))
    patch = ARCHS[CLIP_ARCHS[name].vision].patch_size
    create = timm.create_model
    small = dict(embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, img_size=3 * patch)
    monkeypatch.setattr(
        open_clip.timm_model.timm, 'create_model', lambda *args, **kw: create(*args, **small, **kw)
    )
    config['vision_cfg']['image_size'] = 3 * patch
    config['text_cfg'].update(width=WIDTH, heads=HEADS)
    config.pop('custom_text')
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**config)
    with torch.no_grad():
        for param in model.parameters():  # norms and biases, too
            param.add_(torch.randn_like(param) * 0.02)
        model.visual.trunk.head.weight.normal_(std=0.1)
    return model.eval()


def our_model(name):
    pair = CLIP_ARCHS[name]
    vision = ARCHS[pair.vision]
    # The ratio of the released tower, rounded down as everywhere.
    hidden = int(WIDTH * vision.ffn_hidden_dims / vision.embed_dims + 1e-3)
    arch = replace(vision, embed_dims=WIDTH, depth=DEPTH, num_heads=HEADS, ffn_hidden_dims=hidden)
    text = dict(width=WIDTH, depth=TEXT_ARCHS[pair.text].depth, num_heads=HEADS)
    return MODELS.build(
        dict(
            type='evamm.EVACLIP',
            backbone=dict(
                type='evamm.EVAViT', arch=arch, img_size=3 * arch.patch_size, out_type='cls_token'
            ),
            text=dict(type='evamm.CLIPTextTransformer', arch=text),
            embed_dims=pair.embed_dims,
        )
    ).eval()


def captions():
    return open_clip.get_tokenizer('EVA02-B-16')(
        ['a cat', 'two red dogs, left of a blue seven', '', 'word ' * 100]
    )


def gap(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize('name', CLIP_ARCHS)
def test_features_and_logits(name, monkeypatch, tmp_path):
    theirs = their_model(name, monkeypatch)
    ours = our_model(name)
    torch.save(theirs.state_dict(), tmp_path / 'open_clip.pt')
    load_checkpoint(ours, tmp_path / 'open_clip.pt', complete=True)
    images = torch.randn(3, 3, *ours.backbone.img_size)
    tokens = captions()
    with torch.no_grad():
        image_features, text_features, scale = theirs(images, tokens)
        expected_logits = theirs.get_logits(images, tokens)[0]
        assert gap(ours.encode_image(images), theirs.encode_image(images)) < 1e-5
        assert gap(ours.encode_text(tokens), theirs.encode_text(tokens)) < 1e-5
        assert gap(ours.encode_image(images, normalize=True), image_features) < 1e-5
        assert gap(ours.encode_text(tokens, normalize=True), text_features) < 1e-5
        our_images = ours.encode_image(images, normalize=True)
        our_texts = ours.encode_text(tokens, normalize=True)
        logits = ours.logit_scale.exp() * our_images @ our_texts.t()
    assert scale == ours.logit_scale.exp()
    assert gap(logits, expected_logits) < 1e-5
    # Different inputs are told apart, or the comparison would say nothing.
    assert expected_logits.std() > 1e-2


def test_gradients_of_a_training_step(monkeypatch, tmp_path):
    """Through the loss, both towers and everything that is computed for one token only."""
    theirs = their_model('eva02-clip-b-16', monkeypatch).double()
    ours = our_model('eva02-clip-b-16').double()
    torch.save(theirs.state_dict(), tmp_path / 'open_clip.pt')
    load_checkpoint(ours, tmp_path / 'open_clip.pt', complete=True)
    images = torch.randn(4, 3, *ours.backbone.img_size, dtype=torch.float64)
    tokens = captions()
    open_clip.loss.ClipLoss()(*theirs(images, tokens)).backward()
    pair = ours.encode_image(images, normalize=True), ours.encode_text(tokens, normalize=True)
    ours.loss(*pair, ours.logit_scale.exp()).backward()
    text = dict(theirs.text.named_parameters())
    for name, param in ours.text.named_parameters():
        assert gap(param.grad, text[name].grad) < 1e-6, name
    trunk = theirs.visual.trunk
    last, their_last = ours.backbone.blocks[-1], trunk.blocks[-1]
    for found, expected in [
        (ours.logit_scale.grad, theirs.logit_scale.grad),
        (ours.head.weight.grad, trunk.head.weight.grad),
        (ours.backbone.pos_embed.grad, trunk.pos_embed.grad),
        (ours.backbone.cls_token.grad, trunk.cls_token.grad),
        (ours.backbone.norm.weight.grad, trunk.norm.weight.grad),
        (last.attn.q_bias.grad, their_last.attn.q_proj.bias.grad),
        (last.attn.qkv.weight.grad[:WIDTH], their_last.attn.q_proj.weight.grad),
        (last.attn.norm.weight.grad, their_last.attn.norm.weight.grad),
        (last.mlp.w3.weight.grad, their_last.mlp.fc2.weight.grad),
    ]:
        assert gap(found, expected) < 1e-6
