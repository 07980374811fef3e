"""Small trunks of every family, with weights of their own in every tensor."""

import json
from pathlib import Path

import torch
from torch import Tensor

from evamm.models.backbones import EVAViT

# Family -> fields of EVAArch. Two heads of 32 channels, two blocks.
FAMILIES = {
    'giant': dict(ffn='mlp', ffn_hidden_dims=209, rope=False),
    'large_mae': dict(ffn='mlp', ffn_hidden_dims=128, rope=False, qkv_bias='qkv'),
    'tiny': dict(),
    'base': dict(ffn_norm=True),
    'clip_base': dict(ffn_norm=True, attn_norm=True),
    'enormous': dict(ffn='mlp', ffn_hidden_dims=96, rope=False, post_norm=True),
}
KINDS = ('classifier', 'mim', 'clip')
HEAD_DIMS = 32

GOLDEN = json.loads((Path(__file__).parents[1] / 'data/golden/cases.json').read_text())


def arch(family: str) -> dict:
    return dict(embed_dims=64, depth=2, num_heads=2, **FAMILIES[family])


def trunk(family: str, **kwargs) -> EVAViT:
    """An evamm trunk of 4 x 4 patches of 14 pixels."""
    return EVAViT(arch(family), **{'img_size': 56, 'patch_size': 14, **kwargs}).eval()


def fill(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator) * 0.1).to(dtype)
        for name, shape in shapes.items()
    }


def canonical(
    family: str,
    kind: str = 'classifier',
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    classes: int = 5,
    **kwargs,
) -> dict[str, Tensor]:
    """A canonical state dict: a trunk and what its kind of checkpoint has beside it."""
    model = trunk(
        family,
        out_type='avg_featmap' if kind == 'classifier' else 'cls_token',
        with_mask_token=kind == 'mim',
        **kwargs,
    )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if kind == 'mim':
        shapes.update({'lm_head.weight': (24, 64), 'lm_head.bias': (24,)})
    else:
        shapes.update({'head.weight': (classes, 64), 'head.bias': (classes,)})
    if kind == 'clip':
        shapes.update(
            {
                'text.token_embedding.weight': (9, 8),
                'text.text_projection': (8, 5),
                'text.transformer.resblocks.0.ln_1.weight': (8,),
                'logit_scale': (),
            }
        )
    return fill(shapes, seed, dtype)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal names, dtypes, shapes and bits."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )
