"""evamm.DetInferencer: the same objects as mmdet's own inference, as plain data and files."""

import copy
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import evamm
from evamm.apis import detection
from evamm.apis.images import ImageReadError, collect_images
from evamm.checkpoints import write_checkpoint

from .detectors import CATEGORIES, MASK_RCNN, make_scenes, small_recipe


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp('detection')
    make_scenes(place / 'scenes')
    (place / 'detector.py').write_text(MASK_RCNN)
    return place


@pytest.fixture(scope='module')
def detect(place: Path) -> evamm.DetInferencer:
    """With weights large enough that boxes differ from image to image."""
    torch.manual_seed(0)
    detect = evamm.DetInferencer(place / 'detector.py', weights=False)
    with torch.no_grad():
        for name, param in detect.model.named_parameters():
            if param.ndim > 1 and not name.startswith('backbone.'):
                param.copy_(0.7 * torch.randn_like(param) / param[0].numel() ** 0.5)
    return detect


def images_of(place: Path) -> list[str]:
    return sorted(str(path) for path in (place / 'scenes/images').iterdir())


def test_the_same_as_mmdet_itself(detect: evamm.DetInferencer, place: Path) -> None:
    from mmdet.apis import inference_detector

    cat = str(Path(__file__).resolve().parents[2] / 'demo/cat.JPEG')
    bgr = np.asarray(Image.open(cat))[:, :, ::-1]
    for image in (images_of(place)[0], cat, bgr):
        with DefaultScope.overwrite_default_scope('mmdet'):  # as its init_detector leaves it
            expected = inference_detector(detect.model, image).pred_instances
        (result,) = detect(image)['predictions']
        assert len(result['scores']) == len(expected) > 2
        assert result['scores'] == sorted(result['scores'], reverse=True)
        np.testing.assert_allclose(result['bboxes'], expected.bboxes, atol=1e-3)
        np.testing.assert_allclose(result['scores'], expected.scores, atol=1e-5)
        assert result['labels'] == expected.labels.tolist()
        assert result['names'] == [('square', 'bar')[label] for label in result['labels']]
        decoded = np.stack([rle.decode(mask) for mask in result['masks']]).astype(bool)
        np.testing.assert_array_equal(decoded, expected.masks.numpy())
        assert decoded.shape[1:] == (result['height'], result['width'])
        assert ('img_path' in result) == isinstance(image, str)
        json.dumps(result)  # plain data
    rgb = detect(bgr[:, :, ::-1], channel_order='rgb')['predictions']
    assert rgb[0]['scores'] == result['scores']


def test_batches_folders_and_unreadable_images(
    detect: evamm.DetInferencer, place: Path, tmp_path: Path
) -> None:
    single = [detect(path)['predictions'][0] for path in images_of(place)]
    assert len({tuple(result['scores']) for result in single}) == len(single)
    batched = detect(place / 'scenes/images', batch_size=3, progress=False)['predictions']
    assert [result['img_path'] for result in batched] == images_of(place)
    for one, other in zip(single, batched, strict=True):
        np.testing.assert_allclose(one['bboxes'], other['bboxes'], atol=1e-3)
    (tmp_path / 'torn.png').write_bytes(Path(images_of(place)[0]).read_bytes()[:60])
    mixed = [images_of(place)[0], tmp_path / 'torn.png', images_of(place)[1]]
    with pytest.raises(ImageReadError, match='torn.png'):
        detect(mixed)
    results = detect(mixed, 3, on_error='report', out_dir=tmp_path / 'out')['predictions']
    assert set(results[1]) == {'img_path', 'error'}
    assert results[2]['scores'] == pytest.approx(single[1]['scores'])
    assert sorted(path.name for path in (tmp_path / 'out/vis').iterdir()) == [
        'scene_0.png',
        'scene_1.png',
    ]
    content = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(content['images']) == 2 and len(content['errors']) == 1


def test_thresholds_and_data_samples(detect: evamm.DetInferencer, place: Path) -> None:
    image = images_of(place)[0]
    (everything,) = detect(image)['predictions']
    thr = everything['scores'][2]
    (best,) = detect(image, score_thr=thr)['predictions']
    assert best['scores'] == everything['scores'][:3]
    assert best['masks'] == everything['masks'][:3]
    (nothing,) = detect(image, score_thr=1.1)['predictions']
    assert nothing['bboxes'] == nothing['masks'] == []
    (sample,) = detect(image, return_datasamples=True)['predictions']
    assert sample.pred_instances.scores.tolist() == everything['scores']


def test_masks_of_earlier_images_are_let_go(
    detect: evamm.DetInferencer, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As arrays of pixels those of a folder would fill the memory."""
    alive, seen = [], []
    cut = detection._cut

    def watched(sample: object, score_thr: float) -> object:
        alive.append(sum(masks() is not None for masks in seen[:-1]))
        sample = cut(sample, score_thr)
        seen.append(weakref.ref(sample.pred_instances.masks))
        return sample

    monkeypatch.setattr(detection, '_cut', watched)
    detect(images_of(place), score_thr=0.0)
    assert len(alive) > 2 and not any(alive)


def test_files_for_coco_tools(detect: evamm.DetInferencer, place: Path, tmp_path: Path) -> None:
    """With an annotation file its own numbers, so that the official evaluation takes them."""
    ann_file = place / 'scenes/annotations.json'
    detect(images_of(place), out_dir=tmp_path, ann_file=ann_file, no_save_vis=True, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'predictions.bbox.json',
        'predictions.json',
        'predictions.segm.json',
    ]
    truth = COCO(ann_file)
    for kind in ('bbox', 'segm'):
        rows = json.loads((tmp_path / f'predictions.{kind}.json').read_text())
        assert {row['category_id'] for row in rows} <= set(CATEGORIES.values())
        assert {row['image_id'] for row in rows} == set(truth.imgs)
        COCOeval(truth, truth.loadRes(rows), kind).evaluate()
    # As a data set: what was predicted is its truth, so the predictions are perfect.
    made = COCO(tmp_path / 'predictions.json')
    assert {row['name']: row['id'] for row in made.dataset['categories']}.items() <= (
        CATEGORIES.items()
    )
    scores = COCOeval(made, made.loadRes(str(tmp_path / 'predictions.segm.json')), 'segm')
    scores.evaluate()
    scores.accumulate()
    assert scores.eval['precision'][:, :, :, 0, 2].max() == pytest.approx(1)
    first = made.dataset['annotations'][0]
    left, top, width, height = first['bbox']
    (result,) = detect(images_of(place)[0])['predictions']
    assert result['bboxes'][0] == pytest.approx([left, top, left + width, top + height], abs=2e-3)
    assert first['area'] == made.annToMask(first).sum()


def test_pictures_show_what_was_found(detect: evamm.DetInferencer, place: Path) -> None:
    from evamm.visualization.detections import label_colour

    path = images_of(place)[0]
    (result,) = detect(path, return_vis=True, pred_score_thr=0.0)['predictions']
    done = detect(path, return_vis=True, pred_score_thr=result['scores'][0])
    (picture,) = done['visualization']
    assert picture.shape == (320, 320, 3)  # a small image is enlarged, so that names can be read
    left, _, right, bottom = (5 * value for value in result['bboxes'][0])
    x, y = round((left + right) / 2), min(319, round(bottom))
    assert picture[y, x].tolist() == list(label_colour(result['labels'][0]))
    (plain,) = detect(path, return_vis=True, pred_score_thr=1.1)['visualization']
    np.testing.assert_array_equal(plain[::5, ::5], np.asarray(Image.open(path)))
    with pytest.raises(RuntimeError, match='out_dir= writes the pictures'):
        detect(path, show=True)


def test_weights_and_class_names_of_a_file(
    detect: evamm.DetInferencer, place: Path, tmp_path: Path
) -> None:
    image = images_of(place)[1]
    file = tmp_path / 'detector.pth'
    meta = {'dataset_meta': {'classes': ('one', 'two')}}
    write_checkpoint({'state_dict': detect.model.state_dict(), 'meta': meta}, file)
    again = evamm.DetInferencer(place / 'detector.py', file)
    assert again.classes == ('one', 'two')
    (result,) = again(image)['predictions']
    assert result['bboxes'] == detect(image)['predictions'][0]['bboxes']
    assert set(result['names']) <= {'one', 'two'}
    model = evamm.get_model(place / 'detector.py', file)
    other = evamm.DetInferencer(model, classes=('left', 'right'))
    assert other.model is model
    assert other.classes == ('left', 'right')


def test_another_number_of_classes(place: Path) -> None:
    model = evamm.get_model(place / 'detector.py', num_classes=5)
    assert model.roi_head.bbox_head.fc_cls.out_features == 6
    assert model.roi_head.mask_head.conv_logits.out_channels == 5
    (result,) = evamm.DetInferencer(model)(images_of(place)[0])['predictions']
    assert 'names' not in result  # the two names of the data set are not those of five classes
    with pytest.raises(ValueError, match='at least one class'):
        evamm.get_model(place / 'detector.py', num_classes=0)


def test_mistakes_get_one_sentence(
    detect: evamm.DetInferencer, place: Path, tmp_path: Path
) -> None:
    image = images_of(place)[0]
    with pytest.raises(NotImplementedError, match='is no detector, so it finds no boxes'):
        evamm.DetInferencer('eva02-tiny-p14_in21k-pre_3rdparty_in1k')
    with pytest.raises(NotImplementedError, match='evamm.DetInferencer'):
        evamm.ImageClassificationInferencer(detect.model)
    with pytest.raises(ValueError, match='names no weights'):
        evamm.DetInferencer(place / 'detector.py')
    for option in ('soft_nms', 'maskness_thr'):
        with pytest.raises(ValueError, match=f'{option} is for the heads of evamm'):
            detect(image, **{option: True})
    with pytest.raises(ValueError, match='ann_file is for the results in out_dir'):
        detect(image, ann_file=place / 'scenes/annotations.json')
    with pytest.raises(ValueError, match='is no annotation file in COCO format'):
        (tmp_path / 'list.json').write_text('[]')
        detect(image, ann_file=tmp_path / 'list.json', out_dir=tmp_path)
    ann_file = place / 'scenes/annotations.json'
    Image.new('RGB', (9, 9)).save(tmp_path / 'other.png')
    with pytest.raises(ValueError, match='other.png is not in .*annotations.json'):
        detect(tmp_path / 'other.png', ann_file=ann_file, out_dir=tmp_path)
    content = json.loads(ann_file.read_text())
    content['categories'] = [row for row in content['categories'] if row['name'] != 'bar']
    (tmp_path / 'few.json').write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a class 'bar', which is no category of .*few.json"):
        detect(image, ann_file=tmp_path / 'few.json', out_dir=tmp_path)
    assert not (tmp_path / 'predictions.json').exists()


def test_a_config_object_and_its_load_from(
    detect: evamm.DetInferencer, place: Path, tmp_path: Path
) -> None:
    write_checkpoint(detect.model.state_dict(), tmp_path / 'weights.pth')
    config = Config.fromfile(place / 'detector.py')
    config.load_from = str(tmp_path / 'weights.pth')
    (result,) = evamm.DetInferencer(config)(images_of(place)[2])['predictions']
    assert result['scores'] == detect(images_of(place)[2])['predictions'][0]['scores']


@pytest.fixture(scope='module')
def vitdet() -> evamm.DetInferencer:
    return small_recipe(VITDET, ['one', 'two', 'three'])


VITDET = 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco.py'


def test_input_size_of_a_recipe(vitdet: evamm.DetInferencer) -> None:
    assert vitdet.model.data_preprocessor.pad_size == 128
    assert vitdet.model.backbone.img_size == (128, 128)
    packed = vitdet._prepare(collect_images(np.zeros((300, 451, 3), np.uint8))[0], 'bgr')
    assert tuple(packed['inputs'].shape) == (3, 85, 128)


def test_what_a_detector_gets_to_see(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objects of the sheet lie where the image, resized and turned back, has them."""
    from evamm.apis.batches import take_batch
    from evamm.visualization.detections import label_colour

    monkeypatch.chdir(place)
    config = Config.fromfile(place / 'detector.py')
    config.train_dataloader.dataset.pipeline[2].scale = (640, 640)
    batch = take_batch(config, 'train', 4)
    assert [image.shape for image in batch.inputs] == [(640, 640, 3)] * 4
    assert batch.captions == ['2 objects'] * 4
    for image, shown in zip(batch.inputs, batch.images, strict=True):
        assert shown.shape == (320, 320, 3)
        bright = image[::2, ::2].min(axis=2) > 200  # the objects
        for label in (0, 1):
            drawn = np.all(shown == np.array(label_colour(label)), axis=2)
            rows, columns = np.nonzero(drawn)
            lowest = columns[rows == rows.max()]
            assert bright[rows.max() - 3, lowest].mean() > 0.8


def test_a_file_of_the_authors(vitdet: evamm.DetInferencer, tmp_path: Path) -> None:
    """In detectron2's names, and with averaged weights beside others, which are taken."""
    from evamm.checkpoints import convert_checkpoint, read_checkpoint

    write_checkpoint({'state_dict': vitdet.model.state_dict()}, tmp_path / 'ours.pth')
    convert_checkpoint(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', to='detectron2')
    theirs = read_checkpoint(tmp_path / 'theirs.pth').state_dict
    assert any(name.startswith('roi_heads.box_predictor.2.') for name in theirs)
    config = vitdet.config
    cat = Path(__file__).resolve().parents[2] / 'demo/cat.JPEG'
    again = evamm.DetInferencer(config, tmp_path / 'theirs.pth', classes=vitdet.classes)
    assert again(cat)['predictions'] == vitdet(cat)['predictions']


def test_choices_that_cannot_be_used(vitdet: evamm.DetInferencer, tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    before = vitdet.model.roi_head.test_cfg
    for options, words in (
        ({'maskness_thr': 2}, 'maskness_thr: expected None or a number between 0 and 1, found 2'),
        ({'soft_nms': 'linear'}, "must be True, False, None or a dict, found 'linear'"),
        ({'soft_nms': {'metod': 'linear'}}, 'soft_nms: expected None or a dict with method'),
        ({'score_thr': 'low'}, "score_thr must be a number from 0 to 1, found 'low'"),
    ):
        with pytest.raises(ValueError, match=words):
            vitdet(image, **options)
    assert vitdet.model.roi_head.test_cfg is before
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError, match='is a file, not a folder'):
        vitdet(image, out_dir=tmp_path / 'file')
    with pytest.raises(ValueError, match='names of classes are given'):
        evamm.DetInferencer(vitdet.model, classes=['one'])


@pytest.mark.parametrize('tool', [evamm.get_model, evamm.DetInferencer])
def test_parts_that_do_not_fit(vitdet: evamm.DetInferencer, tool: Callable) -> None:
    config = copy.deepcopy(vitdet.config)
    config.model.neck.in_channels = 768
    with pytest.raises(ValueError, match=r'model\.neck\.in_channels is 768.* of 32 channels'):
        tool(config, False)
