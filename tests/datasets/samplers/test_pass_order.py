"""Orders that can be entered anywhere."""

from collections import Counter

import pytest

from evamm.datasets.samplers import ShardSampler, shard_sampler
from evamm.datasets.samplers.pass_order import MixtureOrder, ShardOrder, take
from evamm.registry import DATA_SAMPLERS

SIZES = [7, 0, 5, 9, 1, 8]  # 30 samples


def shard_of(index):
    bounds = [7, 7, 12, 21, 22, 30]
    return next(i for i, bound in enumerate(bounds) if index < bound)


@pytest.mark.parametrize('replacement', [False, True])
def test_entered_anywhere_it_is_the_rest(replacement):
    order = ShardOrder(SIZES, seed=3, window=2, replacement=replacement)
    whole = list(take(order, 0, 100))
    assert all(0 <= index < 30 for index in whole)
    for start in (1, 7, 29, 30, 31, 61, 99):
        again = ShardOrder(SIZES, seed=3, window=2, replacement=replacement)
        assert list(take(again, start, 100)) == whole[start:]


def test_a_pass_has_every_sample_once_and_passes_differ():
    order = ShardOrder(SIZES, seed=3, window=2)
    first, second = list(take(order, 0, 30)), list(take(order, 30, 60))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second and first != list(range(30))
    assert list(take(ShardOrder(SIZES, seed=4, window=2), 0, 30)) != first
    plain = list(take(ShardOrder(SIZES, seed=3, shuffle=False), 0, 60))
    assert plain == [*range(30), *range(30)]


def test_few_shards_are_in_use_at_a_time_and_are_mixed():
    sizes = [50] * 12
    order = list(take(ShardOrder(sizes, seed=1, window=3), 0, 600))
    windows = [{index // 50 for index in order[i : i + 150]} for i in range(0, 600, 150)]
    assert all(len(window) == 3 for window in windows)
    # Neighbours in the order are rarely from the same shard, never ordered as in the file.
    same = sum(a // 50 == b // 50 for a, b in zip(order, order[1:], strict=False))
    assert same / 600 < 0.45
    assert sum(b == a + 1 for a, b in zip(order, order[1:], strict=False)) < 20


def test_with_replacement_shards_come_several_times_or_not_at_all():
    sizes = [10] * 50
    drawn = Counter(take(ShardOrder(sizes, seed=1, replacement=True), 0, 500))
    assert 150 < len(drawn) < 420 and max(drawn.values()) >= 2
    # Whole shards are drawn.
    assert all(len({drawn[s * 10 + i] for i in range(10)}) == 1 for s in range(50))
    assert 1 not in {shard_of(i) for i in take(ShardOrder(SIZES, 1, replacement=True), 0, 500)}


def test_an_order_without_samples_is_refused():
    with pytest.raises(ValueError, match='no samples'):
        ShardOrder([0, 0], seed=0)
    with pytest.raises(ValueError, match='window'):
        ShardOrder([1], seed=0, window=0)


def mixture(weights, shuffle=True, seed=2):
    orders = [ShardOrder([20] * 5, seed=i, window=2) for i in range(len(weights))]
    return MixtureOrder(orders, [1000 * i for i in range(len(weights))], weights, seed)


@pytest.mark.parametrize('weights', [(1.6, 0.4), (1, 1, 1), (0.003, 0.7, 0.4)])
def test_a_mixture_keeps_its_weights_and_can_be_entered_anywhere(weights):
    whole = list(take(mixture(weights), 0, 5000))
    counts = Counter(index // 1000 for index in whole)
    for source, weight in enumerate(weights):
        assert counts[source] == pytest.approx(5000 * weight / sum(weights), abs=20)
    for start in (1, 1023, 1024, 1025, 4000):
        assert list(take(mixture(weights), start, 5000)) == whole[start:]


def test_each_source_of_a_mixture_is_read_in_its_own_order():
    drawn = list(take(mixture((3, 1)), 0, 3000))
    for source in range(2):
        own = [index - 1000 * source for index in drawn if index // 1000 == source]
        assert own == list(take(ShardOrder([20] * 5, seed=source, window=2), 0, len(own)))
    # Mixed, not one after the other.
    sources = [index // 1000 for index in drawn[:1024]]
    assert 250 < sum(a != b for a, b in zip(sources, sources[1:], strict=False)) < 500


def test_processes_share_an_epoch_and_epochs_go_on(monkeypatch):
    class Sized:
        def __len__(self):
            return 30

        def draw_order(self, seed, **options):
            return ShardOrder(SIZES, seed, **options)

    def sampler(rank, world_size, **kwargs):
        monkeypatch.setattr(shard_sampler, 'get_dist_info', lambda: (rank, world_size))
        cfg = dict(type='evamm.ShardSampler', dataset=Sized(), seed=5, window=2)
        return DATA_SAMPLERS.build({**cfg, **kwargs})

    one = list(sampler(0, 1))
    assert sorted(one) == list(range(30)) and len(sampler(0, 1)) == 30
    parts = [list(sampler(rank, 4)) for rank in range(4)]
    assert [len(part) for part in parts] == [7] * 4 == [len(sampler(0, 4))] * 4
    assert sum(parts, []) == one[:28]
    # An epoch that is a part of the data goes on where the last one ended.
    epochs = []
    for epoch in range(3):
        each = sampler(0, 1, epoch_samples=10)
        each.set_epoch(epoch)
        epochs += list(each)
    assert epochs == one
    with pytest.raises(ValueError, match='epoch_samples'):
        sampler(0, 4, epoch_samples=3)


def test_other_data_sets_are_shuffled_as_a_whole():
    sampler = ShardSampler(list(range(20)), seed=1)
    assert sorted(sampler) == list(range(20)) != list(sampler)
