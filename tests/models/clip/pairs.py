"""Small image-text models and batches for the tests of this folder."""

import torch
from mmpretrain.structures import DataSample

from evamm.registry import MODELS

VISION = dict(
    embed_dims=32, depth=3, num_heads=4, ffn_hidden_dims=24, ffn_norm=True, attn_norm=True
)
TEXT = dict(width=24, depth=3, num_heads=3)
CONTEXT, VOCAB = 12, 50


def build(*, vision=None, text=None, **options):
    """A model of two small towers with weights of seed 0, in double precision."""
    cfg = dict(
        type='evamm.EVACLIP',
        backbone=dict(
            type='evamm.EVAViT',
            arch=VISION,
            img_size=16,
            patch_size=4,
            out_type='cls_token',
            **(vision or {}),
        ),
        text=dict(
            type='evamm.CLIPTextTransformer',
            arch=TEXT,
            context_length=CONTEXT,
            vocab_size=VOCAB,
            **(text or {}),
        ),
        embed_dims=16,
    )
    torch.manual_seed(0)
    model = MODELS.build({**cfg, **options})
    model.init_weights()
    return model.double()


def images(count, size=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


def tokens(count):
    """Captions of 3 to CONTEXT tokens: start, words, end, zeros."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.zeros(count, CONTEXT, dtype=torch.long)
    for row in rows:
        length = int(torch.randint(1, CONTEXT - 1, (), generator=generator))
        row[0] = VOCAB - 2
        row[1 : 1 + length] = torch.randint(1, VOCAB - 2, (length,), generator=generator)
        row[1 + length] = VOCAB - 1
    return rows


def samples(rows):
    """Data samples as the data pipeline gives them."""
    result = []
    for row in rows:
        sample = DataSample()
        sample.set_field(row, 'text_tokens')
        result.append(sample)
    return result


def gradients(model):
    return {
        name: param.grad.clone()
        for name, param in model.named_parameters()
        if param.grad is not None
    }
