"""Predictions for every kind of input, equal whatever the batch, and errors that name the image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import evamm
from evamm.apis import ImageClassificationInferencer, model_index
from evamm.apis.images import ImageReadError
from evamm.apis.transforms import ImageTransform
from evamm.checkpoints import write_checkpoint


@pytest.fixture
def model(config: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    return evamm.get_model(config)


def test_one_image_gives_the_softmax_of_the_logits(model: torch.nn.Module, photos: Path) -> None:
    path = photos / 'cat.png'
    result = evamm.inference_model(model, path)
    logits = model(ImageTransform(model._config)(path)[None])[0]
    np.testing.assert_allclose(
        result['pred_scores'], logits.softmax(0).detach().numpy(), rtol=1e-5, atol=1e-7
    )
    label = int(logits.argmax())
    assert result['pred_label'] == label
    assert result['pred_score'] == result['pred_scores'][label]
    assert result['pred_class'] == f'digit {label}'
    assert result['img_path'] == str(path)


def test_every_kind_of_input_agrees(model: torch.nn.Module, photos: Path) -> None:
    path = photos / 'cat.png'
    image = Image.open(path).convert('RGB')
    bgr = np.asarray(image)[..., ::-1]
    expected = evamm.inference_model(model, str(path))['pred_scores']
    for result in (
        evamm.inference_model(model, path),
        evamm.inference_model(model, image),
        evamm.inference_model(model, bgr),
        evamm.inference_model(model, np.asarray(image), channel_order='rgb'),
        *evamm.inference_model(model, [bgr, path]),
        *evamm.inference_model(model, np.stack([bgr, bgr]), batch_size=2),
        *evamm.inference_model(model, str(photos / 'ca*.png')),
    ):
        np.testing.assert_allclose(result['pred_scores'], expected, rtol=1e-5, atol=1e-7)


def test_batches_change_nothing_and_keep_the_order(
    model: torch.nn.Module, photos: Path, capsys: pytest.CaptureFixture
) -> None:
    one = evamm.inference_model(model, photos)
    printed = capsys.readouterr()
    assert '100%' in printed.err  # progress of four batches
    assert printed.out == ''
    three = evamm.inference_model(model, photos, batch_size=3)
    assert [Path(result['img_path']).name for result in one] == [
        'bird.jpg',
        'cat.png',
        'grey.jpg',
        'cat.jpg',
    ]
    for a, b in zip(one, three, strict=True):
        assert a['img_path'] == b['img_path']
        np.testing.assert_allclose(a['pred_scores'], b['pred_scores'], rtol=1e-5, atol=1e-7)
    bird, png, grey, jpeg = (result['pred_scores'] for result in one)
    np.testing.assert_array_equal(png, jpeg)  # the same picture
    assert len({scores.tobytes() for scores in (bird, png, grey)}) == 3


def test_unreadable_image_is_named_or_reported(
    model: torch.nn.Module, photos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / 'torn.jpg'
    bad.write_bytes((photos / 'bird.jpg').read_bytes()[:9000])
    inputs = [photos / 'cat.png', bad, photos / 'grey.jpg']
    with pytest.raises(ImageReadError, match='torn.jpg'):
        evamm.inference_model(model, inputs)
    good, torn, other = evamm.inference_model(model, inputs, batch_size=2, on_error='report')
    assert set(torn) == {'img_path', 'error'}
    assert 'torn.jpg' in torn['error']
    alone = evamm.inference_model(model, inputs[0])
    np.testing.assert_allclose(good['pred_scores'], alone['pred_scores'], rtol=1e-5, atol=1e-7)
    assert other['img_path'].endswith('grey.jpg')
    only_bad = evamm.inference_model(model, [bad], on_error='report')
    assert 'error' in only_bad[0]


def test_wrong_options_are_explained(model: torch.nn.Module, photos: Path) -> None:
    with pytest.raises(ValueError, match='batch_size must be at least 1, found 0'):
        evamm.inference_model(model, photos, batch_size=0)
    with pytest.raises(ValueError, match="on_error must be one of .* found 'skip'"):
        evamm.inference_model(model, photos, on_error='skip')
    with pytest.raises(ValueError, match='topk must be at least 1, found 0'):
        ImageClassificationInferencer(model)(photos, topk=0)
    with pytest.raises(ValueError, match='img_size is for a model built here'):
        evamm.inference_model(model, photos, img_size=112)


def test_datasamples_and_own_classes(model: torch.nn.Module, photos: Path) -> None:
    inferencer = ImageClassificationInferencer(model, classes=[f'own {i}' for i in range(10)])
    samples = inferencer(photos, return_datasamples=True, batch_size=4)
    results = inferencer(photos, batch_size=4)
    assert [int(sample.pred_label) for sample in samples] == [r['pred_label'] for r in results]
    assert results[0]['pred_class'] == f'own {results[0]["pred_label"]}'


def test_pictures_are_written(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    evamm.inference_model(model, photos, batch_size=4, show_dir=tmp_path / 'out')
    written = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert written == ['bird.png', 'cat.png', 'cat_2.png', 'grey.png']


def test_no_image_gives_no_result(model: torch.nn.Module) -> None:
    assert evamm.inference_model(model, []) == []


def test_more_classes_on_a_picture_than_there_are(
    model: torch.nn.Module, photos: Path, tmp_path: Path
) -> None:
    inferencer = ImageClassificationInferencer(model)
    inferencer(photos / 'cat.png', show_dir=tmp_path / 'all', topk=10)
    inferencer(photos / 'cat.png', show_dir=tmp_path / 'more', topk=99)
    pictures = [(tmp_path / folder / 'cat.png').read_bytes() for folder in ('all', 'more')]
    assert pictures[0] == pictures[1]


def test_headless_entry_names_the_way_out(
    index: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setattr(model_index, 'index_root', lambda: index)
    with pytest.raises(
        NotImplementedError, match='eva02-test-headless has no classifier.*extract_features'
    ):
        evamm.inference_model('eva02-test-headless', photos)
    model = evamm.get_model('eva02-test-headless')
    with pytest.raises(NotImplementedError, match='extract_features'):
        evamm.inference_model(model, photos)


def test_name_and_checkpoint_in_one_call(
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: torch.nn.Module,
    photos: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(model_index, 'index_root', lambda: index)
    write_checkpoint(model.state_dict(), tmp_path / 'a.pth')
    expected = evamm.inference_model(model, photos / 'cat.png')
    result = evamm.inference_model(
        'eva02_test', photos / 'cat.png', pretrained=tmp_path / 'a.pth', device='cpu'
    )
    np.testing.assert_array_equal(result['pred_scores'], expected['pred_scores'])


def test_model_without_its_config_is_explained(model: torch.nn.Module, photos: Path) -> None:
    del model._config
    with pytest.raises(ValueError, match='carries no config.*evamm.get_model'):
        evamm.inference_model(model, photos)
