"""CLIP image towers of open_clip as teachers: OpenAI's B/16 and L/14 above all."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from evamm.checkpoints import CheckpointError, read_checkpoint
from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from .base import CLIP_MEAN, CLIP_STD, Teacher


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise ConfigError('OpenCLIPTeacher needs open_clip: pip install "evamm[clip]".') from error
    return open_clip


@MODELS.register_module()
class OpenCLIPTeacher(Teacher):
    """A plain CLIP image tower of open_clip: the patch tokens after the last norm, projected.

    The official teacher of EVA-01 is OpenAI's ViT-L/14 (visual ``forward`` of
    ``EVA-01/eva/clip/model.py``, which returns all patch tokens): 768 numbers per patch.

    Args:
        model: Name in open_clip. OpenAI's weights belong to the names with ``-quickgelu``.
        img_size: Side of the images it sees; None for the released one.
        model_cfg: Size of a tower of your own instead of ``model``: ``embed_dim`` and
            ``vision_cfg`` as in open_clip's model configs.
        mean, std, allow_random: See :class:`Teacher`.
        init_cfg: ``checkpoint`` is a file of a CLIP in OpenAI's or open_clip's names, its address,
            or ``'open_clip::TAG'`` for weights that open_clip knows for the model by that tag
            (``'open_clip::openai'``); they are downloaded when they are needed.
    """

    def __init__(
        self,
        model: str = 'ViT-L-14-quickgelu',
        *,
        img_size: int | None = None,
        model_cfg: Mapping | None = None,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        init_cfg: Mapping | None = None,
        allow_random: bool = False,
    ) -> None:
        cfg = dict(model_cfg or _open_clip().get_model_config(model) or {})
        if not cfg:
            raise ConfigError(
                f'OpenCLIPTeacher: model={model!r} is unknown to open_clip; '
                'open_clip.list_models() names them.'
            )
        cfg['vision_cfg'] = vision = dict(cfg['vision_cfg'])
        vision['image_size'] = img_size or vision.get('image_size', 224)
        super().__init__(
            target_dims=cfg['embed_dim'],
            img_size=vision['image_size'],
            mean=mean,
            std=std,
            init_cfg=init_cfg,
            allow_random=allow_random,
        )
        self.model = model
        self._cfg = cfg
        self._plan()

    def _build(self) -> None:
        from open_clip.model import CLIPVisionCfg, _build_vision_tower

        tower = _build_vision_tower(
            self._cfg['embed_dim'],
            CLIPVisionCfg(**self._cfg['vision_cfg']),
            quick_gelu=self._cfg.get('quick_gelu', False),
        )
        parts = ('conv1', 'transformer', 'ln_post', 'proj')
        if not all(hasattr(tower, name) for name in parts) or tower.attn_pool is not None:
            raise ConfigError(
                f'OpenCLIPTeacher: model={self.model!r} is no plain vision transformer of '
                'open_clip; use evamm.CLIPTeacher for EVA-CLIP and evamm.BackboneTeacher for '
                'others.'
            )
        self.visual = tower

    def read(self, path: str | os.PathLike, **options: Any) -> str:
        """Loads the tower.

        Args:
            path: File, address or ``'open_clip::TAG'``.
            options: Arguments of :func:`evamm.checkpoints.read_checkpoint`.

        Raises:
            CheckpointError: A tensor is missing or has another shape.
            ConfigError: open_clip does not know the tag.
        """
        if str(path).startswith('open_clip::'):
            path = self._download(str(path).removeprefix('open_clip::'))
        found = read_checkpoint(path, **options).state_dict
        prefix = 'visual.' if 'visual.conv1.weight' in found else ''
        state = {
            name: found[prefix + name].float()
            for name in self.visual.state_dict()
            if prefix + name in found
        }
        wrong = [
            name
            for name, value in self.visual.state_dict().items()
            if name not in state or state[name].shape != value.shape
        ]
        if wrong:
            name = wrong[0]
            stored = tuple(state[name].shape) if name in state else 'nothing'
            wanted = tuple(self.visual.state_dict()[name].shape)
            raise CheckpointError(
                f'{path}: {len(wrong)} tensors do not fit the tower {self.model}; '
                f'{prefix}{name} is {stored} in the file and {wanted} in the model.'
            )
        self.visual.load_state_dict(state)
        return f'{path}: {len(state)} tensors'

    def _download(self, tag: str) -> str:
        pretrained = _open_clip().pretrained
        cfg = pretrained.get_pretrained_cfg(self.model, tag)
        if not cfg:
            known = ', '.join(pretrained.list_pretrained_tags_by_model(self.model)) or 'none'
            raise ConfigError(
                f'OpenCLIPTeacher: open_clip has no weights {tag!r} for {self.model}; '
                f'it has {known}.'
            )
        return pretrained.download_pretrained(cfg)

    def encode(self, images: Tensor) -> Tensor:
        """Targets [B, N, T]."""
        visual = self.visual
        tokens = visual.transformer(visual._embeds(images))[:, 1:]  # [B, N, D]
        return visual.ln_post(tokens) @ visual.proj
