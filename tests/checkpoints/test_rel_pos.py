"""Tables of relative positions at another grid: both official rules, when loading and beyond."""

import pytest
import torch
import torch.nn.functional as F

from evamm.checkpoints import fit_state_dict, rel_pos_map, resize_rel_pos


def test_linear_stretches_the_table() -> None:
    table = torch.randn(5, 2)
    found = resize_rel_pos(table, 9)
    expected = F.interpolate(table.t()[None], size=9, mode='linear')[0].t()
    torch.testing.assert_close(found, expected)
    assert resize_rel_pos(table, 5) is table


@pytest.mark.parametrize('source, target', [(159, 191), (31, 31), (31, 63), (7, 11), (9, 5)])
def test_geometric_is_the_spline_of_scipy(source: int, target: int) -> None:
    interpolate = pytest.importorskip('scipy.interpolate')
    reached, distances = 0.0, []
    for power in range(source // 2):
        reached += 1.0903078**power
        distances.append(reached)
    points = [-distance for distance in reversed(distances)] + [0.0] + distances
    values = torch.randn(source, 3, dtype=torch.float64)
    spline = interpolate.interp1d(points, values.numpy(), 'cubic', axis=0, fill_value='extrapolate')
    half = target // 2
    expected = torch.tensor(spline(range(-half, half + 1)))
    found = rel_pos_map(source, target, 'geometric') @ values
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_geometric_keeps_the_nearest_distances() -> None:
    """0, 1 and -1 are stored as they are, whatever the sizes."""
    table = torch.randn(31, 4)
    found = resize_rel_pos(table, 47, 'geometric')
    torch.testing.assert_close(found[22:25], table[14:17])
    assert not torch.allclose(resize_rel_pos(table, 47)[22:25], table[14:17], atol=1e-3)


def test_the_rule_of_the_model_is_used_when_loading() -> None:
    kernel = {'patch_embed.proj.weight': torch.zeros(8, 3, 4, 4)}
    table = torch.randn(7, 4)
    name = 'blocks.0.attn.rel_pos_h'
    shapes = {'patch_embed.proj.weight': (8, 3, 4, 4), name: (11, 4)}
    for rule in ('linear', 'geometric'):
        fitted, report = fit_state_dict({**kernel, name: table}, shapes, rel_pos_rule=rule)
        assert torch.equal(fitted[name], resize_rel_pos(table, 11, rule))
        assert report.resized == [(name, (7, 4), (11, 4), f'{rule} relative positions')]


def test_names_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="rule='cubic'"):
        rel_pos_map(7, 9, 'cubic')
    with pytest.raises(ValueError, match='one of 3 rows'):
        rel_pos_map(3, 9, 'geometric')
