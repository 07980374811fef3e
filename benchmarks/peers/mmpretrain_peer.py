"""mmpretrain: its own ViTEVA02 in its classifier.

Its RoPE tables are wrong when it computes them itself; right ones come with the weights, as in the
files it publishes, so that all peers do the same arithmetic.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

from torch import Tensor, nn

from evamm import compat
from evamm.checkpoints import from_evamm


def build(work, weights: dict[str, Tensor]) -> nn.Module:
    compat.install()
    from mmpretrain.registry import MODELS

    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.ViTEVA02',
                arch=work.size,
                img_size=work.img_size,
                patch_size=14,
                sub_ln=work.size in ('base', 'large'),
                final_norm=False,
                out_type='avg_featmap',
                norm_cfg=dict(type='LN', eps=1e-6),
            ),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=work.num_classes,
                in_channels=weights['head.weight'].shape[1],
            ),
        )
    )
    model.load_state_dict(from_evamm(weights, 'mmpretrain'))
    return model


def version() -> str:
    for name in ('onedl-mmpretrain', 'mmpretrain'):
        try:
            return f'{name} {installed(name)}'
        except PackageNotFoundError:
            continue
    return 'unknown'
