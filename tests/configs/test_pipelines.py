"""The official pipelines: as written in the configs, and as they treat a real photograph."""

import random
import re

import numpy as np
import pytest
import skimage.data
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from .common import CONFIGS, FINAL, load, name_of

DATASETS = CONFIGS / '_base_' / 'datasets'
MIN_CROP = {
    'imagenet_196': 0.08,
    'imagenet_224': 0.08,
    'imagenet_336': 0.08,
    'imagenet_448': 0.08,
    'imagenet_560': 0.08,
    'imagenet21k_224': 0.5,
    'imagenet21k_448': 0.2,
}
TEST_ONLY = (
    'imagenet_224_test',
    'imagenet_336_test',
    'imagenet_zero_shot_224',
    'imagenet_zero_shot_336',
)
LOAD = dict(type='evamm.LoadImageFromFile')  # EXIF rotation is ignored
PRETRAINING = re.compile('_(mim|mae)_')  # tests/configs/test_mim_recipes.py
PILLOW = dict(backend='pillow', interpolation='bicubic')


def test_every_size_is_tested():
    found = {p.stem for p in DATASETS.glob('imagenet*_*.py')}
    assert found == {*MIN_CROP, *TEST_ONLY}


@pytest.mark.parametrize('name', MIN_CROP)
def test_training_pipeline_is_the_official_one(name):
    size = int(name.rpartition('_')[2])
    assert load(DATASETS / f'{name}.py').train_dataloader.dataset.pipeline == [
        LOAD,
        dict(
            type='evamm.RandomResizedCrop',
            scale=size,
            crop_ratio_range=(MIN_CROP[name], 1.0),
            interpolation='bicubic',
        ),
        dict(type='evamm.RandomFlip', prob=0.5, direction='horizontal'),
        dict(  # rand-m9-mstd0.5-inc1, filled with the mean colour (images are BGR here)
            type='evamm.RandAugment',
            policies='timm_increasing',
            num_policies=2,
            total_level=10,
            magnitude_level=9,
            magnitude_std=0.5,
            hparams=dict(
                pad_val=[round(255 * mean) for mean in (0.40821073, 0.4578275, 0.48145466)],
                interpolation='bicubic',
            ),
        ),
        dict(type='evamm.PackInputs'),
    ]


@pytest.mark.parametrize('name', [*MIN_CROP, *TEST_ONLY])
def test_test_pipeline_is_the_official_one(name):
    size = int(re.findall(r'_(\d+)', name)[0])
    cfg = load(DATASETS / f'{name}.py')
    loaders = list(filter(None, [cfg.test_dataloader, cfg.val_dataloader]))
    assert loaders
    for loader in loaders:
        assert loader.dataset.pipeline == [
            LOAD,
            dict(type='evamm.ResizeEdge', scale=size, **PILLOW),
            dict(type='CenterCrop', crop_size=size),
            dict(type='evamm.PackInputs'),
        ]


def build(transforms):
    from mmpretrain.registry import TRANSFORMS

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return TRANSFORMS.build(dict(type='mmcv.Compose', transforms=transforms))


@pytest.mark.parametrize('shape', [(400, 600), (513, 389), (448, 448), (100, 90)])
def test_a_photograph_becomes_what_timm_makes_of_it(tmp_path, shape):
    """timm's transforms are the official ones (run_class_finetuning.py builds them with timm)."""
    from timm.data import create_transform

    from .common import build_on_meta

    path = tmp_path / 'photo.jpg'
    photo = Image.fromarray(skimage.data.astronaut()[: shape[0], : shape[1]])
    photo = photo.resize(shape[::-1], Image.Resampling.BILINEAR)
    exif = photo.getexif()
    exif[0x0112] = 6  # "rotate me": the official code does not
    photo.save(path, quality=92, exif=exif)

    cfg = load(CONFIGS / 'eva02' / 'eva02_tiny_p14_8xb16_in1k.py')
    packed = build(cfg.test_dataloader.dataset.pipeline)(dict(img_path=str(path)))
    preprocessor = build_on_meta(cfg).data_preprocessor
    mean, std = cfg.data_preprocessor.mean, cfg.data_preprocessor.std
    ours = packed['inputs'].flip(0).float()  # BGR -> RGB
    assert preprocessor.to_rgb
    ours = (ours - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    transform = create_transform(
        (3, 336, 336),
        interpolation='bicubic',
        crop_pct=1.0,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    theirs = transform(Image.open(path).convert('RGB'))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_training_images_have_the_size_and_keep_their_pixels_plausible(tmp_path):
    path = tmp_path / 'photo.jpg'
    Image.fromarray(skimage.data.astronaut()).save(path)
    pipeline = build(load(DATASETS / 'imagenet_196.py').train_dataloader.dataset.pipeline)
    np.random.seed(0)
    crops = [pipeline(dict(img_path=str(path), gt_label=3)) for _ in range(16)]
    assert {crop['inputs'].shape for crop in crops} == {(3, 196, 196)}
    assert {crop['inputs'].dtype for crop in crops} == {torch.uint8}
    assert len({crop['inputs'].float().mean().item() for crop in crops}) == 16
    assert all(crop['data_samples'].gt_label.item() == 3 for crop in crops)


@pytest.mark.parametrize(
    'path',
    [p for p in FINAL if p.parent.name in ('eva', 'eva02') and not PRETRAINING.search(p.stem)],
    ids=name_of,
)
def test_pipelines_fit_the_model(path):
    cfg = load(path)
    size = cfg.model.backbone.img_size
    crops = [
        step.get('crop_size', step.get('scale'))
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
        if loader
        for step in loader.dataset.pipeline
        if step.type in ('CenterCrop', 'evamm.RandomResizedCrop', 'evamm.ResizeEdge')
    ]
    assert set(crops) == {size} and len(crops) >= 2


# timm's name: largest mean difference to timm's result, of 255 levels. Rotation and shear sample
# between pixels by different bicubic kernels; colour and sharpness round differently.
OPERATIONS = {
    'AutoContrast': 0.0,
    'Equalize': 0.0,
    'Invert': 0.0,
    'Rotate': 1.5,
    'PosterizeIncreasing': 0.0,
    'SolarizeIncreasing': 0.0,
    'SolarizeAdd': 0.0,
    'ColorIncreasing': 0.6,
    'ContrastIncreasing': 0.0,
    'BrightnessIncreasing': 0.0,
    'SharpnessIncreasing': 0.1,
    'ShearX': 1.5,
    'ShearY': 1.5,
    'TranslateXRel': 0.5,
    'TranslateYRel': 0.5,
}


@pytest.mark.parametrize('name', OPERATIONS)
def test_augmentation_at_full_strength_is_timms(name):
    """Operation by operation, mean colour of the fill and its order of channels included."""
    from timm.data import auto_augment

    photo = skimage.data.astronaut()[40:400, 100:436] // 2 + 30
    settings = dict(load(DATASETS / 'imagenet_336.py').rand_augment, magnitude_std=0)
    operations = build([settings]).transforms[0].transforms
    ours = operations[list(OPERATIONS).index(name)]
    assert ours.prob == 0.5
    ours.prob = 1.0
    np.random.seed(0)
    random.seed(0)
    bgr = np.ascontiguousarray(photo[..., ::-1])
    results = [ours(dict(img=bgr.copy()))['img'][..., ::-1] for _ in range(12)]

    hparams = dict(img_mean=(123, 117, 104), interpolation=Image.Resampling.BICUBIC)
    theirs = auto_augment.AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)
    # Both choose the sign at random: twelve draws hold each.
    wanted = [np.asarray(theirs(Image.fromarray(photo))) for _ in range(12)]
    for ones, others in ((results, wanted), (wanted, results)):
        for one in ones:
            distances = [np.abs(one.astype(int) - other).mean() for other in others]
            assert min(distances) <= OPERATIONS[name]
    assert all(np.abs(one.astype(int) - photo).mean() > 1 for one in results)
