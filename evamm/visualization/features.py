"""Pictures of what the trunk's patch tokens hold: principal components and class attention."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from evamm.models.layers import apply_rope

from .canvas import fit


def pca_colours(features: Tensor, *, clip: float = 0.01) -> np.ndarray:
    """Shows the three strongest directions of variation of the patch features as red, green, blue.

    The components are found over all images together, so the same colour means the same thing in
    each of them. Their signs are fixed (largest weight positive), so pictures are repeatable.

    Args:
        features: Patch features, [B, D, h, w], with D >= 3.
        clip: Share of the patches that is cut off at either end of each colour's range.

    Returns:
        uint8 array [B, h, w, 3].
    """
    batch, dims, height, width = features.shape
    tokens = features.permute(0, 2, 3, 1).reshape(-1, dims)  # [B*h*w, D]
    return PrincipalColours(tokens, clip=clip)(tokens).reshape(batch, height, width, 3)


class PrincipalColours:
    """The three strongest directions of variation of some features, as red, green and blue.

    Args:
        tokens: Features that the directions and their ranges are found from, [N, D], D >= 3.
        clip: Share of them that is cut off at either end of each colour's range.

    Raises:
        ValueError: Less than three channels.
    """

    def __init__(self, tokens: Tensor, *, clip: float = 0.01) -> None:
        dims = tokens.shape[1]
        if dims < 3:
            raise ValueError(f'Three colours need at least 3 channels, found {dims}.')
        tokens = tokens.double().cpu()
        self.mean = tokens.mean(dim=0)
        tokens = tokens - self.mean
        _, vectors = torch.linalg.eigh(tokens.T @ tokens)  # columns, ascending
        basis = vectors[:, -3:].flip(1)  # [D, 3]
        strongest = basis.abs().argmax(dim=0)
        self.basis = basis * basis[strongest, torch.arange(3)].sign()
        colours = tokens @ self.basis  # [N, 3]
        # torch.quantile takes no more than 16 million numbers.
        self.low = torch.from_numpy(np.quantile(colours.numpy(), clip, axis=0))
        self.high = torch.from_numpy(np.quantile(colours.numpy(), 1 - clip, axis=0))

    def __call__(self, tokens: Tensor) -> np.ndarray:
        """Colours of features [N, D], uint8 [N, 3]; these ones or others in the same space."""
        colours = (tokens.double().cpu() - self.mean) @ self.basis
        colours = ((colours - self.low) / (self.high - self.low).clamp(min=1e-12)).clamp(0, 1)
        return (colours * 255).round().byte().numpy()


@torch.no_grad()
def class_attention(trunk: nn.Module, images: Tensor, block: int = -1) -> Tensor:
    """How much the class token attends to each patch in one block.

    Args:
        trunk: An `EVAViT` with a class token.
        images: Normalised images, [B, 3, H, W].
        block: Index of the block; negative ones count from the end.

    Returns:
        Weights [B, heads, h, w]; the share of the class token itself is left out.

    Raises:
        ValueError: The trunk has no class token, or no such block.
    """
    depth = len(trunk.blocks)
    if trunk.cls_token is None:
        raise ValueError('Class attention needs a trunk with a class token.')
    if not -depth <= block < depth:
        raise ValueError(f'block={block} does not exist: the trunk has blocks 0 to {depth - 1}.')
    attention = trunk.blocks[block].attn
    weights: list[Tensor] = []

    def keep(module: nn.Module, args: tuple) -> None:
        x, rope = args[:2]  # as `Block` calls it; all tokens, whatever it asks of them
        weights.append(_class_weights(module, x, rope))

    before = trunk.training, trunk.out_indices
    handle = attention.register_forward_pre_hook(keep)
    trunk.eval()
    trunk.out_indices = (block % depth,)  # the trunk stops after the last block it must return
    try:
        trunk(images)
    finally:
        handle.remove()
        trunk.train(before[0])
        trunk.out_indices = before[1]
    height, width = (side // trunk.patch_size for side in images.shape[-2:])
    return weights[0].unflatten(-1, (height, width))


def _class_weights(attention: nn.Module, x: Tensor, rope: Tensor | None) -> Tensor:
    """softmax(q_cls k^T / sqrt(d)) of the module's own q and k, without the class column."""
    qkv = nn.functional.linear(x, attention.qkv.weight, attention.packed_bias())  # [B, N, 3 * D]
    qk = qkv.unflatten(-1, (3, attention.num_heads, -1))[:, :, :2]  # [B, N, 2, heads, d]
    if rope is not None:
        qk = apply_rope(qk, rope)
    query, keys = qk[:, 0, 0].float(), qk[:, :, 1].float()  # [B, heads, d], [B, N, heads, d]
    logits = torch.einsum('bhd,bnhd->bhn', query, keys) * query.shape[-1] ** -0.5
    return logits.softmax(dim=-1)[..., 1:]


def overlay_heat(image: np.ndarray, heat: np.ndarray, *, strength: float = 0.6) -> np.ndarray:
    """Lays a heat map over an image.

    Args:
        image: RGB image, uint8 [H, W, 3].
        heat: Weights [h, w], any range; enlarged smoothly to the image.
        strength: How much of the picture is heat, 0 to 1.

    Returns:
        RGB image, uint8 [H, W, 3].
    """
    from matplotlib import colormaps

    heat = heat.astype(np.float32)
    heat = (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-12)
    size = (image.shape[1], image.shape[0])
    smooth = Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)
    coloured = colormaps['inferno'](np.asarray(smooth).clip(0, 1))[..., :3] * 255
    return (image * (1 - strength) + coloured * strength).round().astype(np.uint8)


def enlarge(colours: np.ndarray, height: int, width: int) -> np.ndarray:
    """A small picture [h, w, 3], enlarged smoothly to [height, width, 3]."""
    picture = Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture)


def side_by_side(pictures: list[np.ndarray], height: int = 320, gap: int = 8) -> Image.Image:
    """Pictures in one row, scaled to one height."""
    scaled = [fit(picture, 100 * height, height) for picture in pictures]
    row = Image.new(
        'RGB', (sum(p.width for p in scaled) + gap * (len(scaled) - 1), height), (255, 255, 255)
    )
    x = 0
    for picture in scaled:
        row.paste(picture, (x, 0))
        x += picture.width + gap
    return row
