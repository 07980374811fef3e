"""Matching and sampling of candidates."""

import pytest
import torch

pytest.importorskip('mmdet')

from evamm.models.detection import BalancedSampler, IoUMatcher, matching


def test_positive_negative_and_neither() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 7], [0, 0, 10, 5], [0, 0, 10, 3], [0, 0, 10, 2]])  # IoU / 10
    match = IoUMatcher(pos_iou_thr=0.7, neg_iou_thr=0.3).match(boxes, truth)
    assert match.positive.tolist() == [True, False, False, False]
    assert match.negative.tolist() == [False, False, False, True]


def test_a_low_quality_match_keeps_the_object_it_overlaps_most() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 9, 10, 12]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]])
    match = IoUMatcher(0.95, 0.9, match_low_quality=True).match(boxes, truth)
    # The second box is the best of the second object, but overlaps the first one more.
    assert match.positive.tolist() == [True, True, False]
    assert match.index[:2].tolist() == [0, 0]
    assert match.negative.tolist() == [False, False, True]


def test_an_object_without_area_makes_nothing_positive() -> None:
    truth = torch.tensor([[5.0, 5, 5, 5]])
    match = IoUMatcher(0.7, 0.3, match_low_quality=True).match(torch.rand(6, 4).cumsum(1), truth)
    assert not match.positive.any() and match.negative.all()


def test_objects_of_other_images_do_not_count() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    found = IoUMatcher(0.5, 0.5).match(
        boxes, truth, images=torch.tensor([1.0, 0, 2]), gt_images=torch.tensor([0, 1])
    )
    assert found.index[:2].tolist() == [1, 0]
    assert found.positive.tolist() == [True, True, False] and found.negative[2]


def test_without_objects_all_are_negative() -> None:
    match = IoUMatcher(0.7, 0.3, match_low_quality=True).match(torch.rand(4, 4), torch.rand(0, 4))
    assert match.negative.all() and not match.positive.any() and match.index.tolist() == [0] * 4


def test_objects_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, truth = torch.rand(60, 4), torch.rand(11, 4)
    boxes[:, 2:] += boxes[:, :2]
    truth[:, 2:] += truth[:, :2]
    matcher = IoUMatcher(0.5, 0.3, match_low_quality=True)
    whole = matcher.match(boxes, truth)
    monkeypatch.setattr(matching, '_PAIRS', 2 * 60)
    for found, expected in zip(matcher.match(boxes, truth), whole):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ('positives', 'negatives', 'expected'),
    [(50, 50, (5, 15)), (3, 50, (3, 17)), (50, 4, (5, 4)), (0, 7, (0, 7)), (0, 0, (0, 0))],
)
def test_counts(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    mask = torch.zeros(2, 120, dtype=torch.bool)
    positive, negative = mask.clone(), mask.clone()
    positive[1, :positives] = True
    negative[1, 60 : 60 + negatives] = True
    sample = BalancedSampler(num=20, pos_fraction=0.25).sample(positive, negative)
    assert not sample.used[0].any()
    index, chosen = sample.index[1][sample.used[1]], sample.positive[1][sample.used[1]]
    assert (int(chosen.sum()), int((~chosen).sum())) == expected
    assert len(index.unique()) == len(index)
    assert positive[1][index[chosen]].all() and negative[1][index[~chosen]].all()


def test_every_candidate_is_as_likely() -> None:
    positive, negative = torch.zeros(2, 4000, 12, dtype=torch.bool)
    positive[:, :4], negative[:, 4:] = True, True
    sample = BalancedSampler(num=6, pos_fraction=0.5).sample(positive, negative)
    drawn = torch.bincount(sample.index[sample.used], minlength=12) / 4000
    expected = torch.tensor([3 / 4] * 4 + [3 / 8] * 8)
    assert (drawn - expected).abs().max() < 0.04  # five standard deviations


def test_fewer_candidates_than_places() -> None:
    positive = torch.tensor([[True, False, False]])
    sample = BalancedSampler(num=512, pos_fraction=0.25).sample(positive, ~positive)
    assert sorted(sample.index[sample.used].tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ('build', 'name'),
    [
        (lambda: IoUMatcher(0.3, 0.7), 'neg_iou_thr'),
        (lambda: BalancedSampler(0, 0.5), 'num=0'),
        (lambda: BalancedSampler(5, 1.5), 'pos_fraction'),
    ],
)
def test_wrong_numbers_are_named(build: object, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        build()
