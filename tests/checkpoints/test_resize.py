"""Resize rules; their numbers against the official code are checked in tests/parity."""

import pytest
import torch
import torch.nn.functional as F

from evamm.checkpoints import (
    CheckpointError,
    resize_patch_kernel,
    resize_pos_embed,
)

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def test_pos_embed_keeps_the_class_row_and_interpolates_the_rest() -> None:
    pos_embed = random(1, 17, 3)
    found = resize_pos_embed(pos_embed, (6, 2))
    assert found.shape == (1, 13, 3)
    assert torch.equal(found[:, :1], pos_embed[:, :1])
    # Height comes first: channel 1 of row 5, column 0.
    image = pos_embed[0, 1:].reshape(4, 4, 3).permute(2, 0, 1)[None]
    expected = F.interpolate(image, size=(6, 2), mode='bicubic', align_corners=False)
    assert found[0, 1 + 5 * 2, 1] == expected[0, 1, 5, 0]


def test_pos_embed_is_not_antialiased() -> None:
    pos_embed = random(1, 65, 2)
    smooth = (
        F.interpolate(
            pos_embed[0, 1:].reshape(1, 8, 8, 2).permute(0, 3, 1, 2),
            size=(4, 4),
            mode='bicubic',
            antialias=True,
        )
        .flatten(2)
        .transpose(1, 2)
    )
    assert not torch.allclose(resize_pos_embed(pos_embed, (4, 4))[:, 1:], smooth, atol=1e-2)


def test_pos_embed_of_half_precision_is_computed_in_fp32() -> None:
    pos_embed = random(1, 17, 3).half()
    found = resize_pos_embed(pos_embed, (5, 5))
    assert found.dtype == torch.float16
    assert torch.equal(found, resize_pos_embed(pos_embed.float(), (5, 5)).half())


def test_pos_embed_from_a_grid_that_is_not_square() -> None:
    pos_embed = random(1, 13, 3)
    assert resize_pos_embed(pos_embed, (3, 4), (3, 4)) is pos_embed
    assert resize_pos_embed(pos_embed, (4, 4), (3, 4)).shape == (1, 17, 3)
    with pytest.raises(CheckpointError, match='12 patch rows'):
        resize_pos_embed(pos_embed, (4, 4))
    with pytest.raises(CheckpointError, match='no 2x4 grid'):
        resize_pos_embed(pos_embed, (4, 4), (2, 4))


def test_patch_kernel_is_plain_bicubic_in_fp32() -> None:
    kernel = random(2, 3, 14, 14).half()
    found = resize_patch_kernel(kernel, 16)
    assert found.dtype == torch.float32
    assert torch.equal(found, F.interpolate(kernel.float(), size=(16, 16), mode='bicubic'))
    # No correction of the amplitude: a constant kernel keeps its values, so its sum grows.
    assert torch.allclose(resize_patch_kernel(torch.ones(1, 1, 14, 14), 16), torch.ones(16, 16))
    assert resize_patch_kernel(kernel, 14) is kernel
