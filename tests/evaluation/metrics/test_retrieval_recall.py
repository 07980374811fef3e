"""Recalls against a ranking by brute force, with ties, duplicates and several processes."""

import pytest
import torch
import torch.nn.functional as F

from evamm.engine.errors import ConfigError
from evamm.evaluation import RetrievalRecall


def make(num=40, dims=8, noise=0.9, seed=0, max_captions=6):
    """Images with 1 to `max_captions` captions each, near to their image."""
    generator = torch.Generator().manual_seed(seed)
    images = F.normalize(torch.randn(num, dims, generator=generator), dim=-1)
    samples = []
    for image in images:
        count = int(torch.randint(1, max_captions + 1, (), generator=generator))
        texts = image + noise * torch.randn(count, dims, generator=generator)
        samples.append(dict(image_feature=image, text_features=F.normalize(texts, dim=-1)))
    return samples


def brute_force(samples, topk=(1, 5, 10)):
    """Sorts every candidate list in plain Python; of equal scores the wrong one comes first."""
    texts = [(i, text) for i, sample in enumerate(samples) for text in sample['text_features']]
    found = {
        f'retrieval/{way}_R@{k}': [] for way in ('image_to_text', 'text_to_image') for k in topk
    }
    for i, sample in enumerate(samples):
        ranked = sorted(
            (-float(sample['image_feature'] @ text), owner == i) for owner, text in texts
        )
        for k in topk:
            found[f'retrieval/image_to_text_R@{k}'].append(any(own for _, own in ranked[:k]))
    for owner, text in texts:
        ranked = sorted(
            (-float(sample['image_feature'] @ text), i == owner) for i, sample in enumerate(samples)
        )
        for k in topk:
            found[f'retrieval/text_to_image_R@{k}'].append(any(own for _, own in ranked[:k]))
    metrics = {name: 100 * sum(hits) / len(hits) for name, hits in found.items()}
    return {**metrics, 'retrieval/mean_recall': sum(metrics.values()) / len(metrics)}


def run(samples, **options):
    metric = RetrievalRecall(**options)
    for start in range(0, len(samples), 7):
        metric.process(None, samples[start : start + 7])
    return metric.evaluate(len(samples))


@pytest.mark.parametrize('chunk', [1, 9, 1024])
def test_equals_brute_force(chunk):
    samples = make()
    found = run(samples, chunk=chunk)
    assert found == pytest.approx(brute_force(samples))
    # Neither way is trivial, and they differ.
    assert 10 < found['retrieval/image_to_text_R@1'] < 90
    assert 10 < found['retrieval/text_to_image_R@1'] < 90
    assert found['retrieval/image_to_text_R@1'] != found['retrieval/text_to_image_R@1']
    assert found['retrieval/text_to_image_R@1'] < found['retrieval/text_to_image_R@10']


def test_other_k():
    samples = make()
    assert run(samples, topk=(2,)) == pytest.approx(brute_force(samples, topk=(2,)))


def test_ties_count_against_the_model():
    same = torch.ones(4) / 2
    samples = [dict(image_feature=same, text_features=same.repeat(2, 1)) for _ in range(20)]
    found = run(samples)
    assert set(found.values()) == {0.0}
    # Two equal images: each comes behind the other for both of their captions.
    eye = torch.eye(4)
    samples = [dict(image_feature=eye[i], text_features=eye[i][None]) for i in (0, 0, 1, 2)]
    found = run(samples, topk=(1, 2))
    assert found['retrieval/image_to_text_R@1'] == found['retrieval/text_to_image_R@1'] == 50
    assert found['retrieval/image_to_text_R@2'] == found['retrieval/text_to_image_R@2'] == 100


def test_own_captions_do_not_stand_in_each_others_way():
    eye = torch.eye(4)
    samples = [dict(image_feature=eye[i], text_features=eye[i].repeat(5, 1)) for i in range(4)]
    assert run(samples, topk=(1,))['retrieval/image_to_text_R@1'] == 100


@pytest.mark.parametrize('where', ['image_feature', 'text_features'])
def test_broken_features_find_nothing(where):
    samples = make(noise=0.01)
    assert run(samples)['retrieval/mean_recall'] == 100
    for sample in samples:
        sample[where] = sample[where] * float('nan')
    assert run(samples)['retrieval/mean_recall'] == 0


def test_clear_errors():
    with pytest.raises(ConfigError, match="no image_feature, text_features.*type='retrieval'"):
        RetrievalRecall().process(None, [dict(pred_score=torch.zeros(3))])
    samples = make(3)
    samples[1]['text_features'] = torch.zeros(0, 8)
    with pytest.raises(ConfigError, match='1 images have no caption'):
        run(samples)


def test_half_precision_features_are_compared_in_full():
    samples = make()
    halves = [{key: value.bfloat16() for key, value in sample.items()} for sample in samples]
    full = [{key: value.float() for key, value in sample.items()} for sample in halves]
    assert run(halves) == run(full)


@pytest.mark.parametrize('topk', [(), (0,), 1])
def test_impossible_k(topk):
    with pytest.raises(ConfigError, match='topk must be one or more positive numbers'):
        RetrievalRecall(topk=topk)
