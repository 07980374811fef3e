"""Zero-shot classifiers: the formula, the cut padding, the cache and the predictions."""

import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from evamm.datasets.tokenizer import get_tokenizer
from evamm.engine.errors import ConfigError
from evamm.models.clip import classifier_cache
from evamm.models.clip.predictors import build_predictor
from evamm.models.clip.text_features import encode_tokens
from evamm.models.clip.zero_shot import build_classifier

CLASSES = ['cat', 'a very long name of a dog that nobody would give', 'bird', 'sloth bear', 'x']
TEMPLATES = ['a photo of a {}.', '{}', 'itap of my {} in the evening at the sea']
TEST_CFG = dict(type='zero_shot', classes=CLASSES, templates=TEMPLATES)


def by_the_formula(model, classes, templates):
    """[C, E], one class after the other, with all padding."""
    tokenizer = get_tokenizer()
    rows = []
    with torch.no_grad():
        for name in classes:
            tokens = tokenizer([template.replace('{}', name) for template in templates])
            features = model.encode_text(tokens)
            mean = (features / features.norm(dim=-1, keepdim=True)).mean(dim=0)
            rows.append(mean / mean.norm())
    return torch.stack(rows)


@pytest.mark.parametrize('batch_size', [1, 4, 256])
def test_weights_equal_the_formula(clip, batch_size):
    weights = build_classifier(clip, CLASSES, TEMPLATES, batch_size=batch_size, cache=False)
    expected = by_the_formula(clip, CLASSES, TEMPLATES)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    assert not weights.requires_grad
    assert (expected[0] - expected[1]).abs().max() > 0.01  # the model tells them apart


def test_weights_equal_open_clips(clip):
    from open_clip import build_zero_shot_classifier

    templates = ['a {}.', 'the {}']
    theirs = build_zero_shot_classifier(clip, get_tokenizer(), CLASSES, templates)  # [E, C]
    ours = build_classifier(clip, CLASSES, templates, cache=False)
    torch.testing.assert_close(ours, theirs.T, rtol=1e-5, atol=1e-6)


def test_many_classes_in_pieces(clip, monkeypatch):
    monkeypatch.setattr('evamm.models.clip.zero_shot._CLASSES_AT_ONCE', 2)
    weights = build_classifier(clip, CLASSES, TEMPLATES, cache=False)
    torch.testing.assert_close(weights, by_the_formula(clip, CLASSES, TEMPLATES))


def test_padding_is_cut_and_the_order_kept(clip):
    tokens = get_tokenizer()(['one', 'a sentence of some more words', 'two words', 'word ' * 100])
    lengths = []
    clip.text.register_forward_pre_hook(lambda module, args: lengths.append(args[0].shape[1]))
    with torch.no_grad():
        features = encode_tokens(clip, tokens, batch_size=2)
        seen = list(lengths)
        expected = F.normalize(clip.text(tokens), dim=-1)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert seen == [4, 77]  # of two texts each
    assert encode_tokens(clip, tokens[:0]).shape == (0, clip.embed_dims)


@pytest.fixture
def count(monkeypatch):
    """Number of texts that were encoded."""
    calls = []
    real = encode_tokens

    def counted(model, tokens, *args, **kwargs):
        calls.append(len(tokens))
        return real(model, tokens, *args, **kwargs)

    monkeypatch.setattr('evamm.models.clip.zero_shot.encode_tokens', counted)
    return calls


def test_second_time_comes_from_disk(make_clip, cache_home, count):
    first = build_classifier(make_clip(), CLASSES, TEMPLATES)
    again = build_classifier(make_clip(), CLASSES, TEMPLATES)
    assert torch.equal(first, again)
    assert sum(count) == len(CLASSES) * len(TEMPLATES)
    assert len(list(cache_home.iterdir())) == 1


@pytest.mark.parametrize(
    'change', ['weight', 'class', 'template', 'grouping', 'heads', 'image tower']
)
def test_another_question_is_answered_anew(make_clip, count, change):
    classes, templates = ['a', 'b'], ['{}', 'the {}']
    build_classifier(make_clip(), classes, templates)
    arch = dict(width=32, depth=2, num_heads=4 if change == 'heads' else 2)
    model = make_clip(text=dict(type='evamm.CLIPTextTransformer', arch=arch))
    with torch.no_grad():
        if change == 'weight':
            model.text.text_projection[3, 3] += 1e-4
        elif change == 'image tower':
            model.backbone.cls_token += 1
    if change == 'class':
        classes = ['a', 'c']
    elif change == 'template':
        templates = ['{}', 'a {}']
    elif change == 'grouping':  # the same four prompts in the same order
        classes, templates = ['a', 'the a', 'b', 'the b'], ['{}']
    weights = build_classifier(model, classes, templates)
    assert len(count) == (1 if change == 'image tower' else 2)
    torch.testing.assert_close(weights, by_the_formula(model, classes, templates))


@pytest.mark.parametrize('damage', ['cut', 'text', 'other'])
def test_damaged_file_is_built_anew(clip, cache_home, tmp_path, damage):
    weights = build_classifier(clip, CLASSES, TEMPLATES)
    (path,) = cache_home.iterdir()
    if damage == 'cut':
        path.write_bytes(path.read_bytes()[:-5])
    elif damage == 'text':
        path.write_text('hello')
    else:
        build_classifier(clip, CLASSES[:2], TEMPLATES, cache=tmp_path / 'other')
        (other,) = (tmp_path / 'other').iterdir()
        shutil.copy(other, path)
    assert torch.equal(build_classifier(clip, CLASSES, TEMPLATES), weights)
    assert torch.equal(classifier_cache.read_object(path)['state_dict']['weights'], weights)


def test_place_of_the_cache_can_be_chosen_and_need_not_work(clip, cache_home, tmp_path):
    build_classifier(clip, CLASSES, TEMPLATES, cache=tmp_path / 'here')
    assert len(list((tmp_path / 'here').iterdir())) == 1
    (tmp_path / 'file').write_text('')
    build_classifier(clip, CLASSES, TEMPLATES, cache=tmp_path / 'file' / 'sub')
    build_classifier(clip, CLASSES, TEMPLATES, cache=False)
    assert not cache_home.exists()


def test_oldest_files_go(clip, cache_home, monkeypatch):
    monkeypatch.setattr(classifier_cache, 'MAX_FILES', 2)
    build_classifier(clip, ['a'], ['{}'])
    (oldest,) = cache_home.iterdir()
    os.utime(oldest, (1, 1))
    build_classifier(clip, ['b'], ['{}'])
    (second,) = set(cache_home.iterdir()) - {oldest}
    os.utime(second, (2, 2))
    build_classifier(clip, ['a'], ['{}'])  # asked for again
    build_classifier(clip, ['c'], ['{}'])
    assert oldest.exists() and not second.exists()
    assert len(list(cache_home.iterdir())) == 2


def predict(model, count=3):
    torch.manual_seed(1)
    images = torch.randn(count, 3, 28, 28)
    with torch.no_grad():
        return images, model(images, [DataSample() for _ in range(count)], mode='predict')


def test_predictions(make_clip):
    model = make_clip(test_cfg=TEST_CFG)
    images, samples = predict(model)
    with torch.no_grad():
        features = model.encode_image(images)
        cosines = F.cosine_similarity(
            features[:, None], by_the_formula(model, CLASSES, TEMPLATES)[None], dim=-1
        )
    expected = (100 * cosines).softmax(dim=1)
    scores = torch.stack([sample.pred_score for sample in samples])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    assert [sample.pred_label.item() for sample in samples] == expected.argmax(1).tolist()
    model.predictor.logit_scale = None
    scores = torch.stack([sample.pred_score for sample in predict(model)[1]])
    expected = (model.logit_scale.exp() * cosines).softmax(dim=1)
    torch.testing.assert_close(scores, expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('event', ['trained', 'loaded', 'nothing'])
def test_classifier_follows_the_weights(make_clip, count, event):
    model = make_clip(test_cfg={**TEST_CFG, 'cache': False})
    before = predict(model)[1][0].pred_score
    predict(model)
    assert len(count) == 1  # one classifier for all batches
    if event == 'trained':
        model.train()
        with torch.no_grad():
            model.text.text_projection.mul_(-1)
        model.eval()
    elif event == 'loaded':
        model.load_state_dict(make_clip(seed=1, test_cfg=TEST_CFG).state_dict())
    after = predict(model)[1][0].pred_score
    assert len(count) == (1 if event == 'nothing' else 2)
    assert torch.equal(before, after) is (event == 'nothing')


def test_a_run_that_trains_leaves_no_files(make_clip, cache_home):
    model = make_clip(test_cfg=TEST_CFG)
    model.train()
    predict(model.eval())
    assert not cache_home.exists()


def test_nothing_of_it_is_in_the_state_dict(make_clip):
    model = make_clip(test_cfg=TEST_CFG)
    predict(model)
    assert set(model.state_dict()) == set(make_clip().state_dict())


def test_names_of_the_data_set(make_clip):
    model = make_clip(test_cfg={**TEST_CFG, 'classes': 'dataset'})
    with pytest.raises(ConfigError, match='the data set names no classes'):
        predict(model)
    model.dataset_meta = {'classes': ('sloth_bear', 'cat')}
    assert predict(model)[1][0].pred_score.shape == (2,)
    assert model.predictor.class_names(model) == ['sloth bear', 'cat']
    model = make_clip(test_cfg=TEST_CFG)
    model.dataset_meta = {'classes': ('a', 'b')}
    with pytest.raises(ConfigError, match='names 5 classes, but the data set has 2'):
        predict(model)


@pytest.mark.parametrize(
    ('test_cfg', 'words'),
    [
        (dict(type='zeroshot'), "one of 'zero_shot', 'retrieval', found 'zeroshot'"),
        (dict(type='zero_shot', template='openai'), "'zero_shot' takes classes.* found template"),
        (dict(type='zero_shot', templates='a photo'), 'is neither'),
    ],
)
def test_wrong_settings_are_named(test_cfg, words):
    with pytest.raises(ConfigError, match=words):
        build_predictor(test_cfg)


def test_no_settings_no_predictor():
    assert build_predictor(None) is None
    assert build_predictor({}) is None
