"""A detector of mmdet trained by our runner on our data: stopped anywhere, the same bits."""

import json

import numpy as np
import pytest
from exact_runs import Crash, assert_same_end, scramble
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from PIL import Image
from torch import nn

from evamm.datasets.checks import DataError
from evamm.engine.errors import ConfigError
from evamm.engine.runner.fit import check_fit
from evamm.engine.runner.parts import check_parts, class_count

SIDE = 64


@pytest.fixture
def coco(tmp_path):
    """Twelve images with rectangles of two classes, in COCO's format."""
    rng = np.random.default_rng(0)
    rows, images = [], []
    for number in range(12):
        image = rng.integers(0, 60, (48, SIDE, 3), np.uint8)
        for label in range(1, 3):
            x, y, width, height = (int(v) for v in rng.integers(4, 20, 4))
            image[y : y + height, x : x + width, label] = 250
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            rows.append(
                {
                    'id': len(rows) + 1,
                    'image_id': number,
                    # The second class is rare.
                    'category_id': label if number < 3 else 1,
                    'bbox': [x, y, width, height],
                    'area': width * height,
                    'iscrowd': 0,
                    'segmentation': [corners],
                }
            )
        Image.fromarray(image).save(tmp_path / f'{number}.png')
        images.append({'id': number, 'file_name': f'{number}.png', 'height': 48, 'width': SIDE})
    categories = [{'id': 1, 'name': 'green'}, {'id': 2, 'name': 'blue'}]
    content = {'images': images, 'annotations': rows, 'categories': categories}
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def cfg(toy_cfg, coco):
    """RetinaNet on a narrow ResNet, six iterations of two images, an epoch of three."""
    dataset = {
        'type': 'evamm.CocoDataset',
        'data_root': str(coco),
        'ann_file': 'a.json',
        'data_prefix': {'img': ''},
        'metainfo': {'classes': ['green', 'blue']},
    }
    train = [
        {'type': 'evamm.LoadImageFromFile'},
        {'type': 'evamm.LoadDetAnnotations', 'with_mask': True},
        {'type': 'evamm.RandomDetFlip'},
        {'type': 'evamm.LargeScaleJitter', 'size': SIDE, 'scale_range': (0.5, 2.0)},
        {'type': 'PackDetInputs'},
    ]
    test = [
        {'type': 'evamm.LoadImageFromFile'},
        {'type': 'evamm.ResizeLongestEdge', 'size': SIDE},
        {
            'type': 'PackDetInputs',
            'meta_keys': ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
        },
    ]
    toy_cfg['default_scope'] = 'mmdet'
    toy_cfg['model'] = {
        'type': 'RetinaNet',
        'data_preprocessor': {
            'type': 'DetDataPreprocessor',
            'mean': [100.0] * 3,
            'std': [60.0] * 3,
            'pad_size_divisor': 32,
            'pad_mask': True,
        },
        'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'stem_channels': 8},
        'neck': {
            'type': 'FPN',
            'in_channels': [8, 16, 32, 64],
            'out_channels': 8,
            'start_level': 1,
            'num_outs': 3,
        },
        'bbox_head': {
            'type': 'RetinaHead',
            'num_classes': 2,
            'in_channels': 8,
            'feat_channels': 8,
            'stacked_convs': 1,
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'octave_base_scale': 2,
                'scales_per_octave': 1,
                'ratios': [1.0],
                'strides': [8, 16, 32],
            },
            'bbox_coder': {'type': 'DeltaXYWHBBoxCoder'},
            'loss_cls': {'type': 'FocalLoss'},
            'loss_bbox': {'type': 'L1Loss'},
        },
        'train_cfg': {
            'assigner': {
                'type': 'MaxIoUAssigner',
                'pos_iou_thr': 0.5,
                'neg_iou_thr': 0.4,
                'min_pos_iou': 0,
                'ignore_iof_thr': -1,
            },
            'sampler': {'type': 'PseudoSampler'},
            'allowed_border': -1,
            'pos_weight': -1,
        },
        'test_cfg': {
            'nms_pre': 100,
            'min_bbox_size': 0,
            'score_thr': 0.0,
            'nms': {'type': 'nms', 'iou_threshold': 0.5},
            'max_per_img': 20,
        },
    }
    toy_cfg['model'] = ConfigDict(toy_cfg['model'])
    for name, pipeline, shuffle in (('train', train, True), ('val', test, False)):
        loader = toy_cfg[f'{name}_dataloader']
        loader.update(
            batch_size=2,
            dataset={**dataset, 'pipeline': pipeline, 'test_mode': not shuffle},
            collate_fn={'type': 'pseudo_collate'},
        )
    toy_cfg['train_dataloader']['dataset']['filter_cfg'] = {'filter_empty_gt': True}
    toy_cfg['train_dataloader']['sampler'] = {
        'type': 'evamm.RepeatFactorSampler',
        'threshold': 0.8,
    }
    toy_cfg['val_evaluator'] = {'type': 'evamm.CocoMetric', 'ann_file': str(coco / 'a.json')}
    toy_cfg['train_cfg'] = {'by_epoch': False, 'max_iters': 8, 'val_interval': 6}
    toy_cfg['param_scheduler'] = {
        'type': 'evamm.WarmupCosineLR',
        'warmup': 2,
        'by_epoch': False,
        'end': 8,
    }
    toy_cfg['default_hooks']['checkpoint'].update(by_epoch=False, interval=1, max_keep_ckpts=2)
    yield toy_cfg
    DefaultScope._instance_dict.clear()


@pytest.mark.parametrize(
    ('sampler', 'stops', 'workers'),
    [('evamm.RepeatFactorSampler', (1, 5), 0), ('InfiniteSampler', (4,), 1)],
)
def test_a_detector_stopped_anywhere_ends_with_the_same_bits(
    cfg, make_runner, tmp_path, sampler, stops, workers
):
    """Inside a pass and in the next one; also in a run with workers that read ahead."""
    if sampler == 'InfiniteSampler':
        cfg['train_dataloader']['sampler'] = {'type': sampler, 'shuffle': True}
    make_runner(cfg, work_dir=str(tmp_path / 'whole')).train()
    hooks = cfg['custom_hooks']
    for stop in stops:
        cfg['custom_hooks'] = [*hooks, {'type': 'CrashHook', 'iteration': stop}]
        scramble()
        with pytest.raises(Crash):
            make_runner(cfg, resume=True).train()
    cfg['custom_hooks'] = hooks
    cfg['train_dataloader'].update(num_workers=workers, persistent_workers=workers > 0)
    scramble()
    make_runner(cfg, resume=True).train()
    assert_same_end(tmp_path / 'whole' / 'iter_8.pth', tmp_path / 'run' / 'iter_8.pth')


def test_a_damaged_image_and_one_of_another_size_are_replaced(cfg, make_runner, coco):
    """Both are found when they are drawn; the run goes on and says which they are."""
    (coco / '4.png').write_bytes(b'no image')
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(coco / '5.png')
    cfg['train_cfg'].update(max_damaged=0.5, max_iters=14, val_interval=100)
    runner = make_runner(cfg, val_dataloader=None, val_evaluator=None, val_cfg=None)
    runner.train()
    found = {path.rpartition('/')[2] for path in runner.train_loop.data.damage.paths.values()}
    assert found == {'4.png', '5.png'}


def test_a_head_with_another_number_of_classes_is_named_before_the_first_batch(cfg, make_runner):
    cfg['model']['bbox_head']['num_classes'] = 5
    with pytest.raises(DataError) as error:
        check_fit(make_runner(cfg), ('train', 'val'))
    assert str(error.value) == (
        'train_dataloader.dataset has 2 classes (green, blue), but model.bbox_head.num_classes is '
        '5: set model.bbox_head.num_classes=2, or correct metainfo.classes of the data set.'
    )
    cfg['model']['bbox_head']['num_classes'] = 2
    check_fit(make_runner(cfg), ('train', 'val'))


def test_what_cannot_be_evaluated_is_named_before_the_first_batch(cfg, make_runner, coco):
    """The validation loads no masks, so that its data set does not miss one."""
    content = json.loads((coco / 'a.json').read_text())
    content['annotations'][5]['segmentation'] = []
    (coco / 'a.json').write_text(json.dumps(content))
    cfg['train_dataloader']['dataset']['max_bad'] = 0.1
    cfg['val_evaluator'].update(metric=['bbox', 'segm'], bad_data='stop')
    words = 'CocoMetric: .*a.json: 1 of 24 annotations cannot be used: 1 annotations without a mask'
    with pytest.raises(DataError, match=words):
        check_fit(make_runner(cfg), ('train', 'val'))
    cfg['val_evaluator']['bad_data'] = 'skip'
    check_fit(make_runner(cfg), ('train', 'val'))


@pytest.mark.parametrize('key', ['roi_head.bbox_head', 'bbox_head', 'head'])
def test_the_head_that_knows_classes_is_found_in_cascades_too(key):
    model, *names = nn.Module(), *key.split('.')
    place = model
    for name in names[:-1]:
        place.add_module(name, nn.Module())
        place = getattr(place, name)
    stage = nn.Module()
    stage.num_classes = 7
    place.add_module(names[-1], nn.ModuleList([stage, nn.Module()]) if '.' in key else stage)
    assert class_count(model) == (f'model.{key}', 7)
    assert class_count(nn.Module()) == ('model.head', None)


@pytest.mark.parametrize(
    ('masks', 'agnostic', 'fits'), [(7, False, True), (6, True, True), (6, False, False)]
)
def test_masks_have_the_classes_of_the_boxes(masks, agnostic, fits):
    model, roi_head = nn.Module(), nn.Module()
    roi_head.bbox_head, roi_head.mask_head = nn.Module(), nn.Module()
    roi_head.bbox_head.num_classes = 7
    roi_head.mask_head.num_classes, roi_head.mask_head.class_agnostic = masks, agnostic
    model.roi_head = roi_head
    if fits:
        check_parts(model)
    else:
        with pytest.raises(ConfigError, match='mask_head.num_classes is 6, but .* is 7'):
            check_parts(model)
