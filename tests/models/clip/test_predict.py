"""What an image-text model predicts, as `test_cfg` says."""

import pytest
import torch
from mmpretrain.structures import DataSample

from evamm.datasets.tokenizer import get_tokenizer
from evamm.engine.errors import ConfigError
from evamm.evaluation import RetrievalRecall
from evamm.registry import MODELS


@pytest.fixture
def captioned():
    """Three images with one, three and two captions."""
    torch.manual_seed(1)
    texts = [['a cat'], ['a dog', 'two dogs and a much longer story', 'x'], ['y', 'z z']]
    samples = [DataSample(text=each, text_tokens=get_tokenizer()(each)) for each in texts]
    return torch.randn(3, 3, 28, 28), samples


def test_features_of_images_and_their_captions(make_clip, captioned):
    model = make_clip(test_cfg=dict(type='retrieval', batch_size=2))
    images, samples = captioned
    with torch.no_grad():
        predicted = model(images, samples, mode='predict')
        expected = model.encode_image(images, normalize=True)
        for sample, image in zip(predicted, expected, strict=True):
            torch.testing.assert_close(sample.image_feature, image)
            own = model.encode_text(sample.text_tokens, normalize=True)
            torch.testing.assert_close(sample.text_features, own, rtol=1e-5, atol=1e-6)
    metric = RetrievalRecall(topk=(1,))
    metric.process(None, [sample.to_dict() for sample in predicted])
    assert set(metric.evaluate(3)) == {
        'retrieval/image_to_text_R@1',
        'retrieval/text_to_image_R@1',
        'retrieval/mean_recall',
    }


def test_one_caption_needs_no_second_axis(make_clip, captioned):
    model = make_clip(test_cfg=dict(type='retrieval'))
    images, samples = captioned
    flat = [DataSample(text_tokens=sample.text_tokens[0]) for sample in samples]
    with torch.no_grad():
        shapes = [each.text_features.shape for each in model(images, flat, mode='predict')]
    assert shapes == [(1, 16)] * 3


def test_missing_pieces_are_named(make_clip, captioned):
    images, _ = captioned
    with pytest.raises(ConfigError, match='has no test_cfg'):
        make_clip()(images, mode='predict')
    with pytest.raises(ConfigError, match='evamm.TokenizeText'):
        make_clip(test_cfg=dict(type='retrieval'))(images, [DataSample()] * 3, mode='predict')


def test_headless_tower_of_a_pair_gives_the_same_features(make_clip):
    """The image tower alone, as the backbone of a classifier."""
    model = make_clip()
    classifier = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='evamm.EVAViT',
                arch=dict(embed_dims=32, depth=2, num_heads=2),
                img_size=28,
                out_type='cls_token',
            ),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=32),
            _scope_='mmpretrain',
        )
    ).eval()
    classifier.backbone.load_state_dict(model.backbone.state_dict())
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        features = classifier.extract_feat(images)[-1]
        torch.testing.assert_close(model.head(features), model.encode_image(images))
