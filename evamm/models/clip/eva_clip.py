"""Image and text towers that meet in one space."""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evamm.checkpoints import check_options, load_checkpoint
from evamm.engine.errors import ConfigError
from evamm.registry import MODELS

from ..layers.linear import Linear
from ..losses import SigmoidLoss
from ..losses.gather import at_least_float32
from .predictors import build_predictor

_TRAIN_CFG = ('micro_batch_size', 'clamp_logit_scale')


@MODELS.register_module()
class EVACLIP(BaseModel):
    """EVA-CLIP (paper 2303.15389): a trunk, a linear head and a text tower.

    Args:
        backbone: Config of :class:`evamm.EVAViT` with ``out_type='cls_token'``.
        text: Config of :class:`evamm.CLIPTextTransformer`; its ``embed_dims`` is filled in.
        embed_dims: Width E of the joint space.
        loss: Config of the loss.
        logit_scale: First value of the factor of the cosines; its logarithm is trained.
        logit_bias: First value of a trained bias of the logits; None for no bias.
        head_init_scale: Factor of the head's first weights. The official 0.001 suits trunks that
            were trained before and rates that warm up from nothing; a trunk that starts from
            random weights needs 1, or the first steps overwrite the head with one direction.
        train_cfg: ``clamp_logit_scale``: largest logarithm of the factor (ln 100 unless told; None
            for none); ``micro_batch_size``: pairs that are encoded at once in training. The loss
            is that of the whole batch of all processes whatever it is: features are computed in
            parts, the activations of a part are computed again, with the same random numbers,
            when its gradients are due. Memory for activations is that of one part, and time that
            of one more forward pass (GradCache, paper 2101.06983).
        test_cfg: What ``mode='predict'`` does, see :mod:`evamm.models.clip.predictors`.
        data_preprocessor: Config of the preprocessor of images.
        init_cfg: mmengine's; ``dict(type='Pretrained', checkpoint=...)`` loads a whole pair.
    """

    def __init__(
        self,
        backbone: dict,
        text: dict,
        embed_dims: int,
        loss: dict | None = None,
        logit_scale: float = 1 / 0.07,
        logit_bias: float | None = None,
        head_init_scale: float = 0.001,
        train_cfg: Mapping | None = None,
        test_cfg: Mapping | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        if getattr(self.backbone, 'out_type', 'cls_token') != 'cls_token':
            raise ValueError(
                f"EVACLIP needs backbone.out_type='cls_token', found {self.backbone.out_type!r}."
            )
        self.embed_dims = embed_dims
        self.head = Linear(self.backbone.embed_dims, embed_dims)
        self.text = MODELS.build({'embed_dims': embed_dims, **text})
        if self.text.embed_dims != embed_dims:
            raise ValueError(
                f'text.embed_dims={self.text.embed_dims} must equal embed_dims={embed_dims}.'
            )
        self.loss = MODELS.build(loss or {'type': 'evamm.ContrastiveLoss'})
        if not logit_scale or logit_scale < 0:
            raise ValueError(
                f'logit_scale={logit_scale} must be a positive number: the first factor of the '
                'cosines, such as 1 / 0.07.'
            )
        if isinstance(self.loss, SigmoidLoss) and logit_bias is None:
            raise ValueError(
                'evamm.SigmoidLoss needs a bias of the logits: set model.logit_bias=-10 and '
                'model.logit_scale=10.'
            )
        self.first_scale, self.first_bias = math.log(logit_scale), logit_bias
        self.head_init_scale = head_init_scale
        self.logit_scale = nn.Parameter(torch.tensor(self.first_scale))
        self.logit_bias = None
        if logit_bias is not None:
            self.logit_bias = nn.Parameter(torch.tensor(float(logit_bias)))
        train_cfg = dict(train_cfg or {})
        unknown = sorted(set(train_cfg) - set(_TRAIN_CFG))
        if unknown:
            raise ValueError(f'model.train_cfg: unknown keys {unknown}; known are {_TRAIN_CFG}.')
        self.micro_batch_size = train_cfg.get('micro_batch_size')
        self.max_logit_scale = train_cfg.get('clamp_logit_scale', math.log(100))
        self.test_cfg = dict(test_cfg or {})
        self.predictor = build_predictor(test_cfg)

    def init_weights(self) -> None:
        """Towers by their own rules, a small random head (official), then ``init_cfg``."""
        if self._is_init:
            return
        self._is_init = True
        options = dict(self.init_cfg or {})
        if options and options.pop('type', None) != 'Pretrained':
            raise ValueError(
                f"EVACLIP: init_cfg={self.init_cfg} is not supported; use type='Pretrained'."
            )
        self.backbone.init_weights()
        self.text.init_weights()
        with torch.no_grad():
            nn.init.trunc_normal_(self.head.weight, std=0.02).mul_(self.head_init_scale)
            nn.init.zeros_(self.head.bias)
            self.logit_scale.fill_(self.first_scale)
            if self.logit_bias is not None:
                self.logit_bias.fill_(self.first_bias)
        if not self.init_cfg:
            print_log('CLIP: head and logit_scale start fresh', logger='current')
        if self.init_cfg:
            path = options.pop('checkpoint', None)
            check_options(options, load_checkpoint, 'EVACLIP: init_cfg')
            report = load_checkpoint(self, path, **options)
            print_log(f'CLIP from {report}', logger='current')

    def encode_image(self, images: Tensor, normalize: bool = False) -> Tensor:
        """Embeds normalised images.

        Args:
            images: [B, 3, H, W].
            normalize: Divide features by their length.

        Returns:
            Tensor of shape [B, E].
        """
        features = self.head(self.backbone(images)[-1])
        return F.normalize(at_least_float32(features), dim=-1) if normalize else features

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """Embeds texts.

        Args:
            tokens: Ids, [B, T], on any device. On the CPU they are cut behind the longest text,
                which saves time and changes nothing.
            normalize: Divide features by their length.

        Returns:
            Tensor of shape [B, E].

        Raises:
            ValueError: The ids, looked at on the CPU, are no batch or of another vocabulary.
        """
        device = self.logit_scale.device
        if tokens.device.type == 'cpu':
            longest = self._check_tokens(tokens)
            if device.type == 'cuda':  # few shapes, in the multiples that its kernels like
                longest = -(-longest // 8) * 8
            tokens = tokens[:, :longest]
        features = self.text(tokens.to(device, non_blocking=True))
        return F.normalize(at_least_float32(features), dim=-1) if normalize else features

    def _check_tokens(self, tokens: Tensor) -> int:
        """Length of the longest text of ids [B, T]."""
        if tokens.ndim != 2 or tokens.is_floating_point() or not len(tokens):
            raise ValueError(
                f'tokens must be ids of shape [B, T], found {tokens.dtype} {list(tokens.shape)}.'
            )
        highest = int(tokens.max())
        if highest >= getattr(self.text, 'vocab_size', math.inf):
            raise ValueError(
                f'tokens: the id {highest} is not in the vocabulary of the text tower '
                f'({self.text.vocab_size} ids); it comes from another tokenizer.'
            )
        return int(tokens.argmax(dim=1).max()) + 1

    def forward(
        self,
        inputs: Tensor | None = None,
        data_samples: Sequence | None = None,
        mode: str = 'tensor',
    ) -> tuple | dict | list:
        """Features, loss or predictions.

        Args:
            inputs: Normalised images, [B, 3, H, W], or None.
            data_samples: Elements with ``text_tokens`` [T], or [n, T] for several texts.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            ``'tensor'``: normalised features of images and texts (None for what is missing) and
            the factor of the cosines. ``'loss'``: dict with ``loss`` and ``logit_scale``.
            ``'predict'``: what ``test_cfg`` says.
        """
        if mode == 'predict':
            if self.predictor is None:
                raise ConfigError(
                    'This model has no test_cfg, so it does not know what to predict. Set '
                    "model.test_cfg=dict(type='zero_shot') or dict(type='retrieval')."
                )
            return self.predictor(self, inputs, data_samples)
        if mode not in ('tensor', 'loss'):
            raise ValueError(f"mode={mode!r} is unknown; use 'tensor', 'loss' or 'predict'.")
        tokens = None if data_samples is None else stack_tokens(data_samples)
        if mode == 'tensor':
            images = None if inputs is None else self.encode_image(inputs, normalize=True)
            texts = None if tokens is None else self.encode_text(tokens, normalize=True)
            return images, texts, self.logit_scale.exp()
        self.clamp_logit_scale()
        images, texts = self._encode_in_parts(inputs, tokens)
        scale = self.logit_scale.exp()
        loss = self.loss(images, texts, scale, self.logit_bias)
        return {'loss': loss, 'logit_scale': scale.detach()}

    def _encode(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_image(images, normalize=True), self.encode_text(tokens, normalize=True)

    def _encode_in_parts(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        size = self.micro_batch_size
        if not size or len(images) <= size or not torch.is_grad_enabled():
            return self._encode(images, tokens)
        parts = [
            checkpoint(self._encode, *part, use_reentrant=False)
            for part in zip(images.split(size), tokens.split(size), strict=True)
        ]
        image_parts, text_parts = zip(*parts, strict=True)
        return torch.cat(image_parts), torch.cat(text_parts)

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keeps the logarithm of the factor in [0, maximum], as official training does."""
        if self.max_logit_scale is not None:
            self.logit_scale.clamp_(0, self.max_logit_scale)

    def count_macs(self, input_shape: Sequence[int]) -> int:
        """Multiply-accumulates of a forward pass of images [B, C, H, W] and as many full texts."""
        batch = input_shape[0]
        head = batch * self.head.in_features * self.head.out_features
        text = self.text.count_macs((batch, self.text.context_length))
        return self.backbone.count_macs(input_shape) + head + text


def stack_tokens(data_samples: Sequence) -> Tensor:
    """Ids of all texts of a batch, [B, T]; samples with several texts follow one another."""
    rows = [sample.text_tokens for sample in data_samples]
    return torch.stack(rows) if rows[0].ndim == 1 else torch.cat(rows)
