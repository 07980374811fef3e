"""Text tower of CLIP."""

from collections.abc import Mapping

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from evamm.checkpoints import check_options, load_text_checkpoint
from evamm.registry import MODELS

from ..clip_variants import CONTEXT_LENGTH, VOCAB_SIZE, TextArch, resolve_text_arch
from ..flops import count_text_macs
from ..layers.linear import linear
from ..layers.text_block import TextBlock


@MODELS.register_module()
class CLIPTextTransformer(BaseModule):
    """Causal transformer whose output at the end-of-text token is projected to the joint space.

    Papers: CLIP (2103.00020), EVA-CLIP (2303.15389). Names in the state dict are those of EVA-CLIP
    and OpenCLIP (``EVA-CLIP/rei/eva_clip/transformer.py``). The GELU is exact, as in every EVA-CLIP
    model, whatever the file it starts from was trained with.

    Args:
        arch: Name in :data:`evamm.models.clip_variants.TEXT_ARCHS` or a dict of ``TextArch``
            fields.
        embed_dims: Width E of the joint space.
        context_length: Longest sequence.
        vocab_size: Rows of the token embedding; the end-of-text token has the highest number.
        with_cp: Recompute each block in the backward pass to save memory.
        init_cfg: mmengine's; ``dict(type='Pretrained', checkpoint=...)`` takes any CLIP file with a
            text tower and the further keywords of :func:`evamm.checkpoints.load_text_checkpoint`.
    """

    def __init__(
        self,
        arch: str | Mapping | TextArch,
        embed_dims: int,
        context_length: int = CONTEXT_LENGTH,
        vocab_size: int = VOCAB_SIZE,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = arch = resolve_text_arch(arch)
        self.embed_dims = embed_dims
        self.context_length = context_length
        self.vocab_size = vocab_size
        self.with_cp = with_cp
        self.token_embedding = nn.Embedding(vocab_size, arch.width)
        self.positional_embedding = nn.Parameter(torch.zeros(context_length, arch.width))
        blocks = nn.ModuleList(TextBlock(arch.width, arch.num_heads) for _ in range(arch.depth))
        self.transformer = nn.ModuleDict({'resblocks': blocks})
        self.ln_final = nn.LayerNorm(arch.width)
        self.text_projection = nn.Parameter(torch.zeros(arch.width, embed_dims))

    @property
    def blocks(self) -> nn.ModuleList:
        """What is compiled and sharded one by one."""
        return self.transformer['resblocks']

    def init_weights(self) -> None:
        """Loads ``init_cfg`` of type 'Pretrained' over OpenAI's random weights."""
        if self._is_init:
            return
        self._is_init = True
        options = dict(self.init_cfg or {})
        if options and options.pop('type', None) != 'Pretrained':
            raise ValueError(
                f'CLIPTextTransformer: init_cfg={self.init_cfg} is not supported; use '
                "type='Pretrained' or leave init_cfg out."
            )
        self._draw_weights()
        if self.init_cfg:
            path = options.pop('checkpoint', None)
            check_options(options, load_text_checkpoint, 'CLIPTextTransformer: init_cfg')
            report = load_text_checkpoint(self, path, **options)
            print_log(f'Text tower from {report}', logger='current')

    @torch.no_grad()
    def _draw_weights(self) -> None:
        width, depth = self.arch.width, self.arch.depth
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        for block in self.blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.zeros_(block.attn.in_proj_bias)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * depth * width) ** -0.5)
            nn.init.zeros_(block.attn.out_proj.bias)
            block.mlp.c_fc.reset_parameters()  # the biases keep PyTorch's default
            block.mlp.c_proj.reset_parameters()
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * depth * width) ** -0.5)
            block.ln_1.reset_parameters()
            block.ln_2.reset_parameters()
        self.ln_final.reset_parameters()
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds texts.

        Args:
            tokens: Ids, [B, T] with T up to ``context_length``. What stands behind the highest id
                of a row has no influence.

        Returns:
            Features in the joint space, [B, E].

        Raises:
            ValueError: If the sequences are longer than ``context_length``.
        """
        if tokens.shape[1] > self.context_length:
            raise ValueError(
                f'Tokens of length {tokens.shape[1]}, but context_length={self.context_length}; '
                'truncate them when tokenizing.'
            )
        last = tokens.argmax(dim=-1)  # [B]
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]  # [B, T, W]
        recompute = self.with_cp and torch.is_grad_enabled()
        final = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            args = (x, last if index == final else None)
            x = checkpoint(block, *args, use_reentrant=False) if recompute else block(*args)
        return linear(self.ln_final(x), self.text_projection.t())  # [B, E]

    def count_macs(self, input_shape: tuple[int, int]) -> int:
        """Multiply-accumulates of a forward pass for tokens [B, T]."""
        batch, length = input_shape
        return batch * count_text_macs(self.arch, self.embed_dims, length, pooled=True)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay besides biases and other vectors (official set)."""
        return {'positional_embedding'}

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning rates (``rei/training/optim.py``).

        Args:
            param_name: Full name of the parameter.
            prefix: What stands before the tower's own names, such as ``'text.'``.

        Returns:
            The layer id (0: embeddings, i + 1: block i, depth + 1: everything else) and the
            number of layers, depth + 2.
        """
        num_layers = self.arch.depth + 2
        name = param_name.removeprefix(prefix)
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        if name.startswith(('token_embedding.', 'positional_embedding')):
            return 0, num_layers
        if name.startswith('transformer.resblocks.'):
            return int(name.split('.')[2]) + 1, num_layers
        return num_layers - 1, num_layers
