"""Image to patch tokens."""

from torch import Tensor, nn


class PatchEmbed(nn.Module):
    """Non-overlapping patches through one convolution.

    Args:
        embed_dims: Width D of a token.
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
    """

    def __init__(self, embed_dims: int, patch_size: int, in_channels: int = 3) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embeds a batch.

        Args:
            x: Images, [B, in_channels, H, W]; H and W are multiples of ``patch_size``.

        Returns:
            Tokens [B, h * w, D], row-major, and the grid (h, w).

        Raises:
            ValueError: If a side is no multiple of the patch size (pixels would be lost).
        """
        height, width = x.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f'An input of {height}x{width} pixels is no multiple of '
                f'patch_size={self.patch_size}; resize or pad it to a multiple.'
            )
        x = self.proj(x)  # [B, D, h, w]
        grid = (x.shape[-2], x.shape[-1])
        return x.flatten(2).transpose(1, 2), grid  # [B, h * w, D]
