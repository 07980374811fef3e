"""tools/infer.py and the pictures of tools/visualization, run as a user runs them."""

import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import evamm
from evamm.checkpoints import write_checkpoint

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
default_scope = 'mmpretrain'
data_preprocessor = dict(
    num_classes=3, mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305], to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='evamm.EVAViT', arch=dict(embed_dims=32, depth=2, num_heads=2), img_size=56),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=32,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=dict(type='CutMix', alpha=1.0)))
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='ResizeEdge', scale=56, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=56),
    dict(type='PackInputs'),
]
dataset = dict(type='CustomDataset', data_root=DATA, pipeline=test_pipeline, with_label=True,
               metainfo=dict(classes=('blue', 'green', 'red')))
test_dataloader = dict(batch_size=2, num_workers=0, dataset=dataset,
                       sampler=dict(type='DefaultSampler', shuffle=False))
train_dataloader = test_dataloader
"""
COLOURS = {'blue': (20, 20, 220), 'green': (20, 220, 20), 'red': (220, 20, 20)}


@pytest.fixture(scope='module')
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, a checkpoint, two photographs, a torn one, and a data set of plain colours."""
    place = tmp_path_factory.mktemp('infer')
    for name, colour in COLOURS.items():
        (place / 'data' / name).mkdir(parents=True)
        for number in range(4):
            picture = np.full((70, 60, 3), colour, np.uint8)
            Image.fromarray(picture).save(place / 'data' / name / f'{number}.png')
    (place / 'config.py').write_text(CONFIG.replace('DATA', repr(str(place / 'data'))))
    torch.manual_seed(0)
    model = evamm.get_model(
        place / 'config.py', head=dict(init_cfg=dict(type='Normal', layer='Linear', std=1.0))
    )
    write_checkpoint(model.state_dict(), place / 'weights.pth')
    (place / 'photos').mkdir()
    for name in ('bird', 'cat'):
        shutil.copy(ROOT / 'demo' / f'{name}.JPEG', place / 'photos' / f'{name}.jpg')
    whole = (place / 'photos' / 'cat.jpg').read_bytes()
    (place / 'torn.jpg').write_bytes(whole[:8000])
    return place


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Done]:
    """Runs a tool's main() here; importing everything anew for each run would take seconds."""

    def run_tool(tool: str, *args: str | Path) -> Done:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        scope = runpy.run_path(str(ROOT / 'tools' / tool), run_name='tool')
        capsys.readouterr()
        returncode = scope['main']()
        printed = capsys.readouterr()
        return Done(returncode, printed.out, printed.err)

    return run_tool


def test_predictions_and_pictures(place: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    command = [
        sys.executable,
        ROOT / 'tools/infer.py',
        place / 'config.py',
        place / 'photos',
        place / 'torn.jpg',
        place / 'photos/*.jpg',
        '--checkpoint',
        place / 'weights.pth',
        '--out-dir',
        out,
        '--topk',
        2,
        '--batch-size',
        2,
    ]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert 'torn.jpg' in done.stderr
    assert 'Traceback' not in done.stderr
    assert '2 of 3 images' in done.stdout
    content = json.loads((out / 'predictions.json').read_text())
    results = {Path(row['img_path']).stem: row for row in content['predictions']}
    assert set(results) == {'bird', 'cat', 'torn'}  # each path once
    assert set(results['torn']) == {'img_path', 'error'}
    model = evamm.get_model(place / 'config.py', place / 'weights.pth')
    for name in ('bird', 'cat'):
        expected = evamm.inference_model(model, place / 'photos' / f'{name}.jpg')
        row = results[name]
        assert row['pred_class'] == expected['pred_class'] in COLOURS
        assert row['pred_score'] == pytest.approx(expected['pred_score'], rel=1e-4)
        assert [best['class'] for best in row['topk']] == [
            list(COLOURS)[i] for i in np.argsort(-expected['pred_scores'])[:2]
        ]
        with Image.open(row['picture']) as picture:
            assert picture.size[0] == 480 + 340
    assert sorted(path.name for path in out.iterdir()) == [
        'bird.png',
        'cat.png',
        'predictions.json',
    ]


def test_mistakes_get_one_sentence(run: Callable[..., Done], place: Path, tmp_path: Path) -> None:
    done = run('infer.py', place / 'config.py', tmp_path / 'none.jpg')
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        f'error: There is no image or folder at {tmp_path / "none.jpg"}'
    )
    done = run('infer.py', place / 'config.py', place / 'photos')
    assert done.returncode == 1
    assert 'names no weights for pretrained=True' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_head_that_was_never_trained_predicts_nothing(
    run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    state = evamm.get_model(place / 'config.py').state_dict()
    trunk = {name: value for name, value in state.items() if name.startswith('backbone.')}
    write_checkpoint(trunk, tmp_path / 'trunk.pth')
    args = (place / 'config.py', place / 'photos', '--checkpoint', tmp_path / 'trunk.pth')
    with pytest.warns(UserWarning, match='does not hold head.fc.weight'):
        done = run('infer.py', *args, '--out-dir', tmp_path / 'out')
    assert done.returncode == 1
    assert 'does not hold head.fc.weight, head.fc.bias' in done.stderr
    assert 'drawn at random' in done.stderr
    assert list((tmp_path / 'out').iterdir()) == []


def test_feature_pictures_of_what_can_be_read(
    run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    tool = ('visualization/features.py', place / 'config.py')
    options = ('--checkpoint', place / 'weights.pth', '--out-dir', tmp_path / 'out')
    done = run(*tool, place / 'torn.jpg', place / 'photos', *options)
    assert done.returncode == 1
    assert 'torn.jpg' in done.stderr
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['bird.png', 'cat.png']
    whole = (tmp_path / 'out' / 'cat.png').read_bytes()
    assert run(*tool, place / 'photos', *options).returncode == 0
    assert (tmp_path / 'out' / 'cat.png').read_bytes() == whole  # each picture of its own image
    done = run(*tool, place / 'torn.jpg', *options)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr


def test_the_sheet_shows_what_the_model_gets(place: Path, tmp_path: Path) -> None:
    from mmengine.config import Config

    from evamm.apis.batches import take_batch

    config = Config.fromfile(place / 'config.py')
    batch = take_batch(config, 'test', 12)
    assert len(batch.images) == 12
    for image, caption in zip(batch.images, batch.captions, strict=True):
        assert image.shape == (56, 56, 3)
        # Neither the channel order nor the mean is lost on the way there and back.
        assert np.abs(image.astype(int) - COLOURS[caption]).max() <= 1
    assert take_batch(config, 'test', 12).captions == batch.captions  # one seed, one order
    assert take_batch(config, 'test', 12, seed=5).captions != batch.captions
    mixed = take_batch(config, 'train', 12)
    lines = [caption for caption in mixed.captions if '\n' in caption]
    assert lines  # CutMix of two colours: both names and their shares
    shares = [float(line.split()[0]) for line in lines[0].splitlines()]
    assert sum(shares) == pytest.approx(1, abs=0.011)
    with pytest.raises(ValueError, match='has no val_dataloader'):
        take_batch(config, 'val')


def test_browse_and_feature_tools_write_pictures(
    run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / 'sheet.png'
    done = run(
        'visualization/browse_dataset.py',
        place / 'config.py',
        '--out',
        sheet,
        '--count',
        6,
        '--split',
        'test',
    )
    assert done.returncode == 0, done.stderr
    pixels = np.asarray(Image.open(sheet).convert('RGB')).reshape(-1, 3)
    for colour in COLOURS.values():
        assert (np.abs(pixels.astype(int) - colour).max(axis=1) <= 1).mean() > 0.05
    done = run(
        'visualization/browse_dataset.py',
        place / 'config.py',
        '--cfg-options',
        'train_dataloader.dataset.data_root=/nowhere',
    )
    assert done.returncode == 1
    assert '/nowhere' in done.stderr
    assert 'Traceback' not in done.stderr

    done = run(
        'visualization/features.py',
        place / 'config.py',
        place / 'photos',
        '--checkpoint',
        place / 'weights.pth',
        '--out-dir',
        tmp_path / 'features',
        '--img-size',
        112,
        '--block',
        0,
        '--attention',
    )
    assert done.returncode == 0, done.stderr
    for name in ('bird', 'cat'):
        with Image.open(tmp_path / 'features' / f'{name}.png') as picture:
            assert picture.size == (3 * 224 + 2 * 8, 224)


def test_mistakes_that_show_before_any_work(
    run: Callable[..., Done], place: Path, tmp_path: Path
) -> None:
    config, photo = place / 'config.py', place / 'data' / 'red' / '0.png'
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    taken = tmp_path / 'taken'
    taken.write_text('precious')
    before = photo.read_bytes()
    known = (config, photo, '--checkpoint', 'unused.pth')
    for args, message in [
        (('infer.py', broken, photo), 'broken.py cannot be read: SyntaxError'),
        (('infer.py', *known, '--out-dir', taken), 'File exists'),
        (('infer.py', *known, '--device', 'gpu'), "device='gpu' is unknown"),
        (('infer.py', *known, '--device', 'cuda:99'), "device='cuda:99' is not there"),
        (('infer.py', *known, '--img-size', '0'), 'img_size=0 must be'),
        (('visualization/features.py', *known, '--out-dir', photo.parent), 'one of the images'),
        (('visualization/features.py', *known, '--batch-size', '0'), '--batch-size'),
        (('visualization/browse_dataset.py', broken), 'broken.py cannot be read: SyntaxError'),
        (('visualization/browse_dataset.py', config, '--out', taken), '.png'),
    ]:
        if args[0] == 'infer.py' and '--out-dir' not in args:
            args = (*args, '--out-dir', tmp_path / 'out')
        done = run(*args)
        assert done.returncode in (1, 2)
        assert message in done.stderr, args
    assert taken.read_text() == 'precious'
    assert photo.read_bytes() == before
