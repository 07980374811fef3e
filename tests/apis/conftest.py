"""A tiny model with the structure of the released ones, and a model index around it."""

import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

DEMO = Path(__file__).resolve().parents[2] / 'demo'

# The structure of EVA-02-Ti (packed SwiGLU, RoPE, bias on q and v) at a fraction of its size.
CONFIG = '''
"""A tiny classifier with every part of a released one."""
default_scope = 'mmpretrain'
data_preprocessor = dict(
    num_classes=10,
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='evamm.EVAViT',
        arch=dict(embed_dims=32, depth=4, num_heads=2),
        img_size=56,
        out_type='avg_featmap',
        init_cfg=dict(type='Pretrained', checkpoint='/nowhere/pretrained.pt'),
    ),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=32,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=1.0),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='ResizeEdge', scale=56, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=56),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_prefix='data/none',
        metainfo=dict(classes=tuple(f'digit {i}' for i in range(10))),
        pipeline=test_pipeline,
    ),
)
'''

METAFILE = """
Collections:
  - Name: EVA-02
Models:
  - Name: eva02-test_3rdparty_in1k
    Alias: [eva02_test, eva02_test.in1k]
    In Collection: EVA-02
    Metadata: {Parameters: 12345, SHA256: abc}
    Results:
      - Task: Image Classification
        Dataset: ImageNet-1k
        Metrics: {Top 1 Accuracy: 80.0}
    Weights: WEIGHTS
    Config: configs/tiny.py
  - Name: eva02-test-headless
    In Collection: EVA-02
    Config: configs/headless.py
"""


@pytest.fixture
def config_text() -> str:
    return CONFIG


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG)
    return Config.fromfile(path)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder laid out like the repository: model-index.yml, configs/ and a metafile."""
    root = tmp_path / 'index'
    (root / 'configs').mkdir(parents=True)
    (root / 'configs' / 'tiny.py').write_text(CONFIG)
    (root / 'configs' / 'headless.py').write_text("_base_ = './tiny.py'\nmodel = dict(head=None)\n")
    (root / 'configs' / 'metafile.yml').write_text(
        METAFILE.replace('WEIGHTS', str(tmp_path / 'weights.pt'))
    )
    (root / 'model-index.yml').write_text('Import:\n  - configs/metafile.yml\n')
    return root


@pytest.fixture(scope='session')
def cat() -> Image.Image:
    """A colour photograph, 451 pixels wide and 300 high."""
    return Image.open(DEMO / 'cat.JPEG').convert('RGB')


@pytest.fixture(scope='session')
def photos(tmp_path_factory: pytest.TempPathFactory, cat: Image.Image) -> Path:
    """Real photographs: a JPEG, a grey JPEG, a PNG with alpha, and one in a sub-folder."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'more').mkdir()
    shutil.copy(DEMO / 'bird.JPEG', folder / 'bird.jpg')
    shutil.copy(DEMO / 'cat.JPEG', folder / 'more' / 'cat.jpg')
    cat.convert('L').save(folder / 'grey.jpg')
    rgba = cat.copy()
    rgba.putalpha(255)
    rgba.save(folder / 'cat.png')
    (folder / 'notes.txt').write_text('no image')
    return folder
