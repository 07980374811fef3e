"""Principal components and class attention, against their formulas."""

import numpy as np
import pytest
import torch

from evamm.models.backbones import EVAViT
from evamm.visualization.features import (
    class_attention,
    enlarge,
    overlay_heat,
    pca_colours,
    side_by_side,
)


def test_regions_of_one_feature_share_a_colour_in_all_images() -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, 16, generator=generator)
    labels = torch.randint(0, 3, (2, 6, 8), generator=generator)
    features = directions[labels].permute(0, 3, 1, 2)  # [B, D, h, w]
    features = features + 0.001 * torch.randn(features.shape, generator=generator)
    colours = pca_colours(features)
    assert colours.shape == (2, 6, 8, 3)
    assert colours.dtype == np.uint8
    means = [colours[(labels == i).numpy()].mean(0) for i in range(3)]
    spread = max(colours[(labels == i).numpy()][:, :2].std(0).max() for i in range(3))
    apart = min(np.abs(means[i] - means[j]).max() for i in range(3) for j in range(i))
    assert apart > 100 > 10 > spread
    np.testing.assert_array_equal(colours, pca_colours(features))


def test_first_colour_is_the_strongest_direction() -> None:
    ramp = torch.linspace(-1, 1, 100).view(1, 1, 10, 10)
    features = torch.cat([ramp.flip(-1) * 0.1, ramp * 5, torch.randn(1, 1, 10, 10) * 0.01], dim=1)
    red = pca_colours(features)[0, :, :, 0].astype(int).ravel()
    assert (np.diff(red) >= 0).all()
    assert red[0] == 0
    assert red[-1] == 255


def test_two_channels_cannot_make_three_colours() -> None:
    with pytest.raises(ValueError, match='at least 3 channels, found 2'):
        pca_colours(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize(
    'arch',
    [
        dict(embed_dims=32, depth=2, num_heads=2),
        dict(embed_dims=32, depth=2, num_heads=2, ffn='mlp', qkv_bias='qkv', rope=False),
    ],
)
@pytest.mark.parametrize('block', [0, -1])
def test_class_attention_rebuilds_the_modules_own_output(arch: dict, block: int) -> None:
    """The weights, applied to the values, must give what the block's attention computed."""
    torch.manual_seed(0)
    trunk = EVAViT(arch, img_size=56, drop_path_rate=0.5).train()
    trunk.init_weights()
    for name, parameter in trunk.named_parameters():
        if name.endswith('bias') or 'qkv.weight' in name:
            torch.nn.init.normal_(parameter, std=0.3)  # zero biases would hide a mistake
    attention = trunk.blocks[block].attn
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        attention.register_forward_hook(lambda m, args, out: seen.update(x=args[0], out=out)),
        attention.norm.register_forward_hook(lambda m, args, out: seen.update(mixed=args[0])),
    ]
    images = torch.randn(2, 3, 56, 84)
    weights = class_attention(trunk, images, block)
    for hook in hooks:
        hook.remove()
    assert weights.shape == (2, 2, 4, 6)
    assert trunk.training
    assert trunk.out_indices == (1,)
    bias = attention.packed_bias()
    value = torch.nn.functional.linear(seen['x'], attention.qkv.weight, bias)[..., 64:]
    value = value.unflatten(-1, (2, 16)).transpose(1, 2)  # [B, heads, N, d]
    rest = 1 - weights.flatten(2).sum(-1, keepdim=True)
    full = torch.cat([rest, weights.flatten(2)], dim=-1)  # [B, heads, N]
    expected = torch.einsum('bhn,bhnd->bhd', full, value).flatten(1)
    torch.testing.assert_close(seen['mixed'][:, 0], expected, atol=1e-5, rtol=1e-4)


def test_class_attention_needs_a_class_token_and_a_block() -> None:
    arch = dict(embed_dims=32, depth=2, num_heads=2)
    with pytest.raises(ValueError, match='needs a trunk with a class token'):
        class_attention(EVAViT(arch, with_cls_token=False, out_type='featmap'), torch.zeros(1))
    with pytest.raises(ValueError, match='block=2 does not exist: the trunk has blocks 0 to 1'):
        class_attention(EVAViT(arch), torch.zeros(1), 2)


def test_heat_lies_where_the_weight_is() -> None:
    heat = np.zeros((4, 4))
    heat[0, 3] = 5
    picture = overlay_heat(np.full((64, 64, 3), 100, np.uint8), heat)
    assert picture.shape == (64, 64, 3)
    brightness = picture.astype(int).sum(-1)
    assert np.unravel_index(brightness.argmax(), brightness.shape)[0] < 16
    assert brightness.argmax() % 64 > 48
    assert overlay_heat(np.zeros((8, 8, 3), np.uint8), np.ones((2, 2))).max() < 10  # flat heat


def test_row_of_pictures() -> None:
    row = side_by_side(
        [np.zeros((50, 100, 3), np.uint8), enlarge(np.full((2, 2, 3), 200, np.uint8), 80, 80)],
        height=100,
    )
    assert row.size == (200 + 8 + 100, 100)
    assert np.asarray(row)[50, 250].tolist() == [200, 200, 200]
