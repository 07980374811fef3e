"""The EVA vision transformer: one trunk for every variant and every task."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evamm.checkpoints import (
    REL_POS_RULES,
    check_options,
    load_checkpoint,
    rel_pos_maps,
    resize_pos_embed,
)
from evamm.registry import MODELS

from ..flops import count_macs
from ..layers import Block, LayerNorm, PatchEmbed, draw_drop_path, rope_table
from ..variants import ROPE_REFERENCE_GRID, EVAArch, resolve_arch
from .arguments import block_indices, check_counts, image_size
from .patch_choice import draw_patches, take_patches
from .weight_init import init_finetune, init_pretrain

OUT_TYPES = ('raw', 'cls_token', 'featmap', 'avg_featmap')


@MODELS.register_module()
class EVAViT(BaseModule):
    """Trunk of EVA-01, EVA-L, EVA-02 and the EVA-CLIP image towers.

    Papers: EVA (2211.07636), EVA-02 (2303.11331), EVA-CLIP (2303.15389). Official code:
    ``EVA-01/eva/modeling_finetune.py``, ``EVA-02/asuka/modeling_finetune.py``,
    ``EVA-CLIP/rei/eva_clip/eva_vit_model.py``.

    The image size only sets the grid that ``pos_embed`` is stored for. Any other size, square or
    not, works at call time: the position embedding is resized (bicubic) and the RoPE table is
    computed for the grid. Detectors train that way: ``pretrain_img_size`` keeps the embedding at
    the size of pre-training.

    Args:
        arch: Name in :data:`evamm.models.variants.ARCHS` or a dict of ``EVAArch`` fields.
        img_size: Side of the input in pixels, or (height, width).
        pretrain_img_size: The same for ``pos_embed``; None for ``img_size``.
        patch_size: Side of a patch; None for the released one.
        in_channels: Channels of the input.
        out_indices: Blocks whose output is returned, negative ones count from the end.
        out_type: ``'raw'`` all tokens [B, 1 + N, D]; ``'cls_token'`` [B, D]; ``'featmap'``
            [B, D, h, w]; ``'avg_featmap'`` mean of the patch tokens [B, D].
        final_norm: Apply the trunk norm to the last block's output. None means: unless
            ``out_type='avg_featmap'``, where the official models normalise the mean instead
            (``fc_norm``).
        with_cls_token: Run with a class token. The row of ``pos_embed`` for it is kept either way.
        with_mask_token: Own the mask token that ``forward(x, mask)`` puts in place of patches.
        drop_path_rate: Stochastic depth of the last block; rises linearly from 0.
        patch_dropout: Share of the patches that training leaves out, drawn for every sample (FLIP,
            paper 2212.00794); kept ones keep their positions.
        layer_scale: Initial residual gain per channel; None (all released classifiers) for none.
        window_size: Side of the attention window, in tokens, of the blocks in ``window_blocks``.
        window_blocks: Indices of the blocks with windowed attention (ViTDet).
        relative_position: Learn decomposed relative positions, as EVA-01's detector: one table per
            axis and block, for one window or for the grid of ``img_size``.
        relative_position_resize: How the tables follow another grid: ``'linear'``, the official
            rule ``vitdet``, or ``'geometric'``, ``beit``, with which released detectors are
            evaluated at more pixels than they were trained with.
        frozen_stages: Freeze the embeddings and this many blocks (0: only the embeddings);
            -1 freezes nothing.
        freeze_patch_embed: Freeze only the patch projection, as official fine-tuning does
            (``stop_grad_conv1``).
        with_cp: Recompute each block in the backward pass to save memory.
        weight_init: ``'finetune'`` or ``'pretrain'``: the official random initialisation.
        init_cfg: mmengine's; ``dict(type='Pretrained', checkpoint=...)`` takes any EVA file and
            the further keywords of :func:`evamm.checkpoints.load_checkpoint`.

    Raises:
        ValueError: If an argument does not fit the others; the message names it.
    """

    def __init__(
        self,
        arch: str | Mapping | EVAArch = 'eva02-tiny',
        *,
        img_size: int | Sequence[int] = 224,
        pretrain_img_size: int | Sequence[int] | None = None,
        patch_size: int | None = None,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'avg_featmap',
        final_norm: bool | None = None,
        with_cls_token: bool = True,
        with_mask_token: bool = False,
        drop_path_rate: float = 0.0,
        patch_dropout: float = 0.0,
        layer_scale: float | None = None,
        window_size: int = 0,
        window_blocks: Sequence[int] = (),
        relative_position: bool = False,
        relative_position_resize: str = 'linear',
        frozen_stages: int = -1,
        freeze_patch_embed: bool = False,
        with_cp: bool = False,
        weight_init: str = 'finetune',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = arch = resolve_arch(arch)
        self.embed_dims = arch.embed_dims
        self.patch_size = arch.patch_size if patch_size is None else patch_size
        check_counts(patch_size=self.patch_size, in_channels=in_channels)
        self.img_size = image_size(img_size, self.patch_size)
        self.grid_size = tuple(side // self.patch_size for side in self.img_size)
        if pretrain_img_size is None:
            pretrain_img_size = self.img_size
        stored = image_size(pretrain_img_size, self.patch_size, 'pretrain_img_size')
        self.pos_grid_size = tuple(side // self.patch_size for side in stored)
        if out_type not in OUT_TYPES:
            raise ValueError(f'out_type={out_type!r} is unknown; use one of {OUT_TYPES}.')
        if out_type == 'cls_token' and not with_cls_token:
            raise ValueError("out_type='cls_token' needs with_cls_token=True.")
        if weight_init not in ('finetune', 'pretrain'):
            raise ValueError(f"weight_init={weight_init!r} must be 'finetune' or 'pretrain'.")
        if not 0 <= patch_dropout < 1:
            raise ValueError(f'patch_dropout={patch_dropout} must lie in [0, 1).')
        if patch_dropout and (out_type == 'featmap' or window_blocks):
            raise ValueError('patch_dropout leaves no map: use no windows and no featmap.')
        self.patch_dropout = patch_dropout
        self.out_type = out_type
        self.out_indices = block_indices('out_indices', out_indices, arch.depth)
        self.window_size = window_size
        windowed = self._check_windows(window_blocks, with_cls_token)
        if relative_position and (with_cls_token or patch_dropout):
            raise ValueError(
                'relative_position needs with_cls_token=False and no patch_dropout: all tokens '
                'must form a grid.'
            )
        if relative_position_resize not in REL_POS_RULES:
            raise ValueError(
                f'relative_position_resize={relative_position_resize!r} must be one of '
                f'{REL_POS_RULES}.'
            )
        self.relative_position = relative_position
        self.relative_position_resize = relative_position_resize
        if not -1 <= frozen_stages <= arch.depth:
            raise ValueError(f'frozen_stages={frozen_stages} must lie in [-1, {arch.depth}].')
        self.frozen_stages = frozen_stages
        self.freeze_patch_embed = freeze_patch_embed
        self.with_cp = with_cp
        self.weight_init = weight_init

        dims = arch.embed_dims
        self.patch_embed = PatchEmbed(dims, self.patch_size, in_channels)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims)) if with_cls_token else None
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims)) if with_mask_token else None
        tokens = 1 + self.pos_grid_size[0] * self.pos_grid_size[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dims))
        rates = torch.linspace(0, drop_path_rate, arch.depth, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            Block(
                dims,
                arch.num_heads,
                arch.ffn_hidden_dims,
                ffn=arch.ffn,
                ffn_norm=arch.ffn_norm,
                attn_norm=arch.attn_norm,
                qkv_bias=arch.qkv_bias,
                post_norm=arch.post_norm,
                drop_path_rate=rates[index],
                layer_scale=layer_scale,
                window_size=window_size if index in windowed else 0,
                rel_pos_grid=self.grid_size if relative_position else None,
            )
            for index in range(arch.depth)
        )
        pooled = out_type == 'avg_featmap'
        final_norm = not pooled if final_norm is None else final_norm
        self.norm = LayerNorm(dims) if final_norm else nn.Identity()
        self.fc_norm = LayerNorm(dims) if pooled and not final_norm else nn.Identity()
        self._freeze()

    def _check_windows(self, window_blocks: Sequence[int], with_cls_token: bool) -> set[int]:
        if not window_blocks:
            return set()
        if self.window_size < 1:
            raise ValueError(f'window_blocks needs window_size >= 1, got {self.window_size}.')
        if with_cls_token:
            raise ValueError(
                'window_blocks needs with_cls_token=False: a window has no class token.'
            )
        depth = self.arch.depth
        for index in window_blocks:
            if not 0 <= index < depth:
                raise ValueError(f'window_blocks: {index} is no block of a {depth}-block trunk.')
        return set(window_blocks)

    def init_weights(self) -> None:
        """Loads ``init_cfg`` of type 'Pretrained', else draws the official random weights."""
        if self._is_init:
            return
        self._is_init = True
        options = dict(self.init_cfg or {})
        if options and options.pop('type', None) != 'Pretrained':
            raise ValueError(
                f"EVAViT: init_cfg={self.init_cfg} is not supported; use type='Pretrained' or "
                "leave init_cfg out and choose weight_init='finetune' or 'pretrain'."
            )
        if not self.init_cfg or options.get('allow_missing') or options.get('allow_partial'):
            rule = init_pretrain if self.weight_init == 'pretrain' else init_finetune
            rule(self, self.arch)
        if self.init_cfg:
            path = options.pop('checkpoint', None)
            check_options(options, load_checkpoint, 'EVAViT: init_cfg')
            report = load_checkpoint(self, path, **options)
            print_log(f'Trunk from {report}', logger='current')

    def _freeze(self) -> None:
        if self.freeze_patch_embed or self.frozen_stages >= 0:
            self.patch_embed.requires_grad_(False)
        if self.frozen_stages < 0:
            return
        for token in (self.cls_token, self.mask_token, self.pos_embed):
            if token is not None:
                token.requires_grad_(False)
        self.blocks[: self.frozen_stages].requires_grad_(False)
        if self.frozen_stages == len(self.blocks):
            self.norm.requires_grad_(False)
            self.fc_norm.requires_grad_(False)

    def train(self, mode: bool = True) -> 'EVAViT':
        """Sets the mode; frozen blocks stay in evaluation mode (no drop path)."""
        super().train(mode)
        if self.frozen_stages > 0:
            self.blocks[: self.frozen_stages].eval()
        return self

    def _embed(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[int, int]]:
        x, grid = self.patch_embed(x)  # [B, N, D]
        if mask is not None:
            if self.mask_token is None:
                raise ValueError('forward(x, mask) needs EVAViT(with_mask_token=True).')
            x = torch.where(mask.reshape(*x.shape[:2], 1), self.mask_token.to(x.dtype), x)
        pos_embed = resize_pos_embed(self.pos_embed, grid, self.pos_grid_size)  # [1, 1 + N, D]
        if self.cls_token is None:
            # In the memory order of the convolution every norm and residual would have to copy.
            return (pos_embed[:, 1:] + x).contiguous(), grid
        cls_token = self.cls_token.expand(x.shape[0], -1, -1)
        return torch.cat((cls_token, x), dim=1) + pos_embed, grid  # [B, 1 + N, D]

    def _rope(self, grid: tuple[int, int], x: Tensor, prefix_tokens: int) -> Tensor | None:
        if not self.arch.rope:
            return None
        return rope_table(
            *grid,
            self.arch.head_dims,
            prefix_tokens=prefix_tokens,
            reference=ROPE_REFERENCE_GRID,
            device=x.device,
            dtype=torch.float64 if x.dtype == torch.float64 else torch.float32,
        )

    def _rel_pos_maps(
        self, grid: tuple[int, int], x: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        if not self.relative_position or grid == self.grid_size:
            return None, None
        return rel_pos_maps(
            self.grid_size,
            grid,
            self.relative_position_resize,
            device=x.device,
            dtype=torch.promote_types(x.dtype, torch.float32),
        )

    def _kept_patches(self, patches: int) -> int:
        if not self.training or not self.patch_dropout:
            return patches
        return max(1, int(patches * (1 - self.patch_dropout)))

    def _draw_drop_path(self, x: Tensor) -> Sequence[Tensor | None]:
        """Stochastic depth of every block, [2, B, 1, 1], None where nothing is dropped."""
        drops = [block.training and block.drop_path.rate > 0 for block in self.blocks]
        if not any(drops):
            return [None] * len(drops)
        rates = [block.drop_path.rate for block in self.blocks]
        scales = draw_drop_path(rates, x.shape[0], x.device).unbind()
        return [scale if drop else None for scale, drop in zip(scales, drops, strict=True)]

    def forward(
        self, x: Tensor, mask: Tensor | None = None, keep: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Extracts features.

        Args:
            x: Normalised images, [B, in_channels, H, W].
            mask: True where a patch is replaced by the mask token, [B, N] or [B, h, w].
            keep: Numbers of the patches that run, [B, K]; the others are left out (MAE). Not
                with windows and not for a feature map.

        Returns:
            One tensor per entry of ``out_indices``, shaped by ``out_type``.
        """
        x, grid = self._embed(x, mask)
        prefix_tokens = int(self.cls_token is not None)
        global_rope = self._rope(grid, x, prefix_tokens)
        # Coordinates restart in every window and span the same reference grid (official
        # EVA-02/det/detectron2/modeling/backbone/vit.py).
        windowed = self.window_size and any(block.window_size for block in self.blocks)
        window_rope = self._rope((self.window_size,) * 2, x, 0) if windowed else None
        maps = self._rel_pos_maps(grid, x)
        if keep is None:
            patches = grid[0] * grid[1]
            keep = draw_patches(x.shape[0], patches, self._kept_patches(patches), x.device)
        if keep is not None:
            x, global_rope = take_patches(x, global_rope, keep, prefix_tokens)
        recompute = self.with_cp and torch.is_grad_enabled()
        drop_scales = self._draw_drop_path(x)
        outs, end = [], max(self.out_indices)
        for index, block in enumerate(self.blocks[: end + 1]):
            rope = window_rope if block.window_size else global_rope
            # What the other tokens would become in the end is not asked for.
            queries = 1 if index == end and self.out_type == 'cls_token' else None
            args = (x, rope, grid, drop_scales[index], queries, maps)
            x = checkpoint(block, *args, use_reentrant=False) if recompute else block(*args)
            if index in self.out_indices:
                last = index == len(self.blocks) - 1
                outs.append(self._format(self.norm(x) if last else x, grid))
        return tuple(outs)

    def _format(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.out_type == 'raw':
            return x  # [B, 1 + N, D]
        if self.out_type == 'cls_token':
            return x[:, 0]  # [B, D]
        patches = x if self.cls_token is None else x[:, 1:]  # [B, N, D]
        if self.out_type == 'featmap':
            return patches.transpose(1, 2).unflatten(2, grid)  # [B, D, h, w]
        return self.fc_norm(patches.mean(dim=1))  # [B, D]

    def count_macs(self, input_shape: Sequence[int], kept_patches: int | None = None) -> int:
        """Multiply-accumulates of a forward pass (all blocks) for an input [B, C, H, W].

        Args:
            input_shape: Of the images.
            kept_patches: How many patches run, if ``forward`` is told which; None for all but
                those that patch dropout leaves out.
        """
        rows, columns = (side // self.patch_size for side in input_shape[-2:])
        return input_shape[0] * count_macs(
            self.arch,
            tuple(input_shape[-2:]),
            self.patch_size,
            in_channels=self.patch_embed.proj.in_channels,
            class_token=self.cls_token is not None,
            window_size=self.window_size,
            windowed_blocks=sum(block.window_size > 0 for block in self.blocks),
            relative_position=self.relative_position,
            kept_patches=kept_patches or self._kept_patches(rows * columns),
            pooled=self.out_type == 'cls_token',
        )

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay besides biases and other vectors (official set)."""
        return {'pos_embed', 'cls_token'}

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning rates (``optim_factory.py``).

        Args:
            param_name: Full name of the parameter.
            prefix: What stands before the trunk's own names, such as ``'backbone.'``.

        Returns:
            The layer id (0: embeddings, i + 1: block i, depth + 1: everything else) and the
            number of layers, depth + 2.
        """
        num_layers = self.arch.depth + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name[len(prefix) :]
        if name in ('cls_token', 'mask_token', 'pos_embed') or name.startswith('patch_embed.'):
            return 0, num_layers
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_layers
        return num_layers - 1, num_layers
