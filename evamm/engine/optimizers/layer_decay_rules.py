"""Which layer a parameter belongs to and whether it decays: the three official rule sets.

Every rule answers two questions about one parameter. The layer comes from the trunk
(``get_layer_depth``): 0 for the embeddings, i + 1 for block i, the last one for everything else.
Sources: ``optim_factory.py`` of EVA-01 and EVA-02 (classification and pre-training),
``EVA-CLIP/rei/training/optim.py`` (image-text training, the same rule for each tower),
``seg/mmcv_custom/layer_decay_optimizer_constructor.py`` (segmentation),
``det/detectron2/modeling/backbone/vit.py`` with ``solver/build.py`` (detection).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .towers import Tower, tower_of

# Parameters of the EVA-01 Mask2Former head that the official constructor files under layer 0.
_SEGMENTATION_LAYER_0 = tuple(
    f'decode_head.{name}'
    for name in ('mask_embed', 'cls_embed', 'level_embed', 'query_embed', 'query_feat')
)
_DEFAULT_NO_DECAY = frozenset({'pos_embed', 'cls_token'})


@dataclass(frozen=True)
class Trunk:
    """A sub-module that can tell the layers of its parameters; ``prefix`` ends with a dot."""

    prefix: str
    module: nn.Module

    @property
    def no_weight_decay(self) -> frozenset[str]:
        """Names, without the prefix, that the trunk wants to be free of weight decay."""
        if hasattr(self.module, 'no_weight_decay'):
            return frozenset(self.module.no_weight_decay())
        return _DEFAULT_NO_DECAY

    def layer_depth(self, name: str) -> tuple[int, int]:
        """Layer id and number of layers for a full parameter name."""
        return self.module.get_layer_depth(name, prefix=self.prefix)


def find_trunks(model: nn.Module) -> list[Trunk]:
    """Sub-modules with ``get_layer_depth``, longest prefix first.

    Classifiers forward ``get_layer_depth`` to their backbone; the innermost module that offers it
    is the trunk itself. Frozen ones (teachers) are left out, unless all are (linear probing).
    """
    offering = {
        name: module for name, module in model.named_modules() if hasattr(module, 'get_layer_depth')
    }
    trunks = []
    for name, module in offering.items():
        prefix = f'{name}.' if name else ''
        if not any(other.startswith(prefix) for other in offering if other != name):
            trunks.append(Trunk(prefix, module))
    trainable = [t for t in trunks if any(p.requires_grad for p in t.module.parameters())]
    return sorted(trainable or trunks, key=lambda trunk: -len(trunk.prefix))


def _is_flat(name: str, param: Tensor) -> bool:
    return param.ndim <= 1 or name.endswith('.bias')


def _classification(name: str, param: Tensor, trunk: Trunk) -> tuple[int, bool]:
    layer, _ = trunk.layer_depth(name)
    exempt = name.removeprefix(trunk.prefix) in trunk.no_weight_decay
    return layer, not (exempt or _is_flat(name, param))


def _segmentation(name: str, param: Tensor, trunk: Trunk) -> tuple[int, bool]:
    # The official skip list (pos_embed, cls_token) is compared with names that carry the prefix
    # `backbone.`, so both are decayed in every official run.
    layer = 0 if name.startswith(_SEGMENTATION_LAYER_0) else trunk.layer_depth(name)[0]
    return layer, not _is_flat(name, param)


def _detection(name: str, param: Tensor, trunk: Trunk) -> tuple[int, bool]:
    # Only pos_embed and patch_embed are layer 0; the residual convolutions inside the blocks train
    # at full rate; norms, biases and embeddings decay like everything else.
    layer, num_layers = trunk.layer_depth(name)
    local = name.removeprefix(trunk.prefix)
    if local in ('cls_token', 'mask_token') or '.residual.' in local:
        layer = num_layers - 1
    return layer, True


Rule = Callable[[str, Tensor, Trunk], tuple[int, bool]]
RULES: dict[str, Rule] = {
    'classification': _classification,
    'segmentation': _segmentation,
    'detection': _detection,
}


@dataclass(frozen=True)
class Placement:
    """Where one parameter goes."""

    name: str
    param: Tensor
    tower: Tower
    layer: int
    num_layers: int
    decays: bool


def place_parameters(
    model: nn.Module, trunks: Sequence[Trunk], rule: str, towers: Sequence[Tower]
) -> Iterator[Placement]:
    """Tower, layer and weight decay of every trainable parameter, in the order of the model.

    A parameter belongs to the trunk whose prefix its name carries. Others go by the first trunk
    of their tower (of the model, if the tower has none), which puts them into its last layer.
    """
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        tower = tower_of(name, towers)
        trunk = next((t for t in trunks if name.startswith(t.prefix)), None)
        if trunk is None:
            inside = [t for t in trunks if tower_of(t.prefix, towers) is tower]
            trunk = (inside or trunks)[0]
        layer, decays = RULES[rule](name, param, trunk)
        yield Placement(name, param, tower, layer, trunk.layer_depth(name)[1], decays)
