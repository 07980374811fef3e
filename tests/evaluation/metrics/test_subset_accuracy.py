import pytest
import torch

from evamm.evaluation import SubsetAccuracy


def sample(label, scores):
    return dict(gt_label=torch.tensor([label]), pred_score=torch.tensor(scores))


def run(metric, samples):
    metric.process(None, samples)
    return metric.evaluate(len(samples))


# Class 0 always has the highest score and class 2 comes second in half of the samples.
SAMPLES = [
    sample(3, [0.9, 0.0, 0.1, 0.2, 0.05]),
    sample(3, [0.9, 0.0, 0.3, 0.2, 0.05]),
    sample(1, [0.9, 0.4, 0.1, 0.2, 0.05]),
    sample(4, [0.9, 0.0, 0.8, 0.2, 0.05]),
]


def test_only_the_subset_competes():
    metric = SubsetAccuracy(classes=[1, 3, 4], topk=(1, 2))
    assert run(metric, SAMPLES) == {'accuracy/top1': 75.0, 'accuracy/top2': 100.0}


def test_equals_dropping_head_rows():
    torch.manual_seed(0)
    classes = sorted(torch.randperm(1000)[:200].tolist())
    logits = torch.randn(300, 1000)
    labels = torch.tensor(classes)[torch.randint(200, (300,))]
    logits[torch.arange(300), labels] += 2
    restricted = logits[:, classes].argsort(dim=1, descending=True)
    position = torch.tensor([classes.index(label) for label in labels.tolist()])
    expected = {
        f'accuracy/top{k}': (restricted[:, :k] == position[:, None]).any(1).double().mean().item()
        * 100
        for k in (1, 5)
    }
    samples = [
        dict(gt_label=label[None], pred_score=row.softmax(0))
        for label, row in zip(labels, logits, strict=True)
    ]
    assert run(SubsetAccuracy(classes=classes), samples) == pytest.approx(expected)
    assert 10 < expected['accuracy/top1'] < 90


def test_subset_comes_from_the_dataset():
    metric = SubsetAccuracy(topk=(1,))
    metric.dataset_meta = dict(label_subset=(1, 3, 4))
    assert run(metric, SAMPLES) == {'accuracy/top1': 75.0}


def test_clear_errors():
    with pytest.raises(ValueError, match='no meta information `label_subset`'):
        SubsetAccuracy().process(None, SAMPLES)
    with pytest.raises(ValueError, match='label 1, which is not among the 2 classes'):
        SubsetAccuracy(classes=[3, 4]).process(None, SAMPLES[2:3])
    with pytest.raises(ValueError, match='only 5 classes'):
        SubsetAccuracy(classes=[3, 999]).process(None, SAMPLES[:1])
    with pytest.raises(ValueError, match='asks for more classes than the 3'):
        SubsetAccuracy(classes=[1, 3, 4], topk=(1, 5)).process(None, SAMPLES)
