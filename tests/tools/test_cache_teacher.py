"""tools/cache_teacher.py as a user runs it, and training from what it wrote."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from evamm.checkpoints import write_checkpoint
from evamm.datasets import feature_cache
from evamm.datasets.feature_cache import FeatureCache, FeatureCacheError, ShardWriter, read_meta
from evamm.engine import EVARunner
from evamm.models.teachers import CLIPTeacher

ROOT = Path(__file__).resolve().parents[2]
ARCH = dict(embed_dims=16, depth=2, num_heads=2, rope=False, ffn='mlp')
CONFIG = """
default_scope = 'mmpretrain'
runner_type = 'evamm.EVARunner'
work_dir = PLACE + '/run'
model = dict(
    type='evamm.EVAPretrainer',
    backbone=dict(
        type='evamm.EVAViT', arch=dict(embed_dims=24, depth=2, num_heads=2), img_size=28,
        patch_size=7),
    head=dict(out_channels=12),
    teacher=dict(
        type='evamm.CLIPTeacher', arch=ARCH, embed_dims=12, img_size=28, patch_size=7,
        init_cfg=dict(type='Pretrained', checkpoint=PLACE + '/teacher.pth')),
    data_preprocessor=dict(
        mean=[122.7709383, 116.7460125, 104.09373615],
        std=[68.5005327, 66.6321579, 70.32316305], to_rgb=True))
pipeline = [
    dict(type='evamm.LoadImageFromFile'),
    dict(type='evamm.SeededCrops', num_views=2, seed=7, root=PLACE, transforms=[
        dict(type='evamm.RandomFlip', prob=0.5),
        dict(type='evamm.RandomResizedCrop', scale=28, crop_ratio_range=(0.2, 1.0))]),
    dict(type='evamm.BlockMasking', input_size=4, num_masking_patches=7, min_num_patches=2),
    dict(type='evamm.LoadTeacherFeatures', root=PLACE),
    dict(type='evamm.PackMIMInputs'),
]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ConcatDataset', datasets=[
        dict(type='CustomDataset', data_root=PLACE + '/' + part, with_label=False,
             pipeline=pipeline) for part in ('a', 'b')]))
train_cfg = dict(by_epoch=False, max_iters=6)
optim_wrapper = dict(type='evamm.AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None)
randomness = dict(seed=3)
log_level = 'WARNING'
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A config, a teacher's file and eleven images in two data sets."""
    rng = np.random.default_rng(0)
    for part, count in (('a', 6), ('b', 5)):
        (tmp_path / part).mkdir()
        for number in range(count):
            pixels = rng.integers(0, 256, (6, 8, 3), np.uint8)
            image = Image.fromarray(pixels).resize((48, 40), Image.Resampling.BICUBIC)
            image.save(tmp_path / part / f'{number}.png')
    torch.manual_seed(0)
    teacher = CLIPTeacher(ARCH, 12, img_size=28, patch_size=7, allow_random=True)
    teacher.load()
    for param in teacher.parameters():
        torch.nn.init.normal_(param, std=0.3)
    write_checkpoint(teacher.state_dict(), tmp_path / 'teacher.pth')
    text = CONFIG.replace('PLACE', repr(str(tmp_path))).replace('ARCH', repr(ARCH))
    (tmp_path / 'config.py').write_text(text)
    return tmp_path


@pytest.fixture
def cache(call: Callable, capsys: pytest.CaptureFixture, place: Path) -> Callable:
    """Runs the tool here; returns its exit status and what it printed."""

    def run(*args: object, config: Path | None = None) -> tuple[int, str]:
        options = ('--workers', 0, '--shard-size', 4, '--batch-size', 3)
        code = call('cache_teacher', config or place / 'config.py', *args, *options)
        return code, ''.join(capsys.readouterr())

    return run


def train(place: Path, name: str, cached: Path | None) -> list[float]:
    """Losses of a run, live or from a cache; lists are settings that replace the pipeline's."""
    cfg = Config.fromfile(place / 'config.py')
    cfg.work_dir, cfg.experiment_name = str(place / name), name
    if cached is not None:
        cfg.model.teacher = None
        for part in cfg.train_dataloader.dataset.datasets:
            part.pipeline[3].cache = str(cached)
    runner = EVARunner.from_cfg(cfg)
    runner.train()
    return runner.message_hub.get_scalar('train/loss').data[0].tolist()


def test_training_from_the_cache_equals_training_with_the_teacher(cache, place):
    assert cache('--out', place / 'f16')[0] == 0
    assert cache('--out', place / 'i8', '--dtype', 'int8')[0] == 0
    live = train(place, 'live', None)
    assert len(live) == 6
    np.testing.assert_allclose(train(place, 'fp16', place / 'f16'), live, atol=1e-3)
    np.testing.assert_allclose(train(place, 'int8', place / 'i8'), live, atol=5e-3)
    # The right crop matters: features of the other view are no targets for this one.
    for shard in range(3):
        path = place / 'f16' / f'features_{shard:06d}.npy'
        features = np.load(path)
        np.save(path, features[:, ::-1])
    assert np.abs(np.subtract(train(place, 'other', place / 'f16'), live)).max() > 0.02


def test_an_interrupted_cache_goes_on_and_damage_is_mended(cache, place):
    out = place / 'features'
    assert cache('--out', out)[0] == 0
    whole = {path.name: path.read_bytes() for path in out.glob('*.npy')}
    assert read_meta(out).num_shards == 3
    (out / 'done_000001.json').unlink()
    (out / 'features_000001.npy').unlink()
    damaged = bytearray(whole['features_000002.npy'])
    damaged[-3] ^= 255
    (out / 'features_000002.npy').write_bytes(damaged)
    untouched = (out / 'features_000000.npy').stat().st_mtime_ns
    code, text = cache('--out', out, '--verify')
    assert code == 0
    assert 'shard 2 is damaged' in text
    assert '14 of 14 crops' in text  # shards 1 and 2: 4 + 3 images, two views each
    assert {path.name: path.read_bytes() for path in out.glob('*.npy')} == whole
    assert (out / 'features_000000.npy').stat().st_mtime_ns == untouched


def test_several_processes_write_the_same_bytes_as_one(cache, place):
    assert cache('--out', place / 'one')[0] == 0
    command = [
        *(sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone'),
        *(str(ROOT / 'tools' / 'cache_teacher.py'), str(place / 'config.py')),
        *('--out', str(place / 'two'), '--launcher', 'pytorch', '--device', 'cpu'),
        *('--workers', '0', '--shard-size', '4', '--batch-size', '3'),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for path in (place / 'one').glob('*.npy'):
        assert path.read_bytes() == (place / 'two' / path.name).read_bytes(), path.name
    assert FeatureCache(place / 'two').meta == FeatureCache(place / 'one').meta


def test_mistakes_are_one_sentence(cache, place):
    text = (place / 'config.py').read_text()
    out = place / 'features'

    def fails(change: tuple[str, str], expected: str) -> None:
        (place / 'wrong.py').write_text(text.replace(*change))
        code, printed = cache('--out', out, config=place / 'wrong.py')
        assert code == 1
        assert expected in printed
        assert 'Traceback' not in printed

    fails(
        ("'evamm.SeededCrops', num_views=2, seed=7, root=", "'Compose', a="), 'no evamm.SeededCrops'
    )
    fails(('teacher=dict(', 'teacher=None, unused=dict('), 'unused')
    fails(('/teacher.pth', '/absent.pth'), 'absent.pth')
    assert not out.exists()
    assert cache('--out', out)[0] == 0
    fails(('seed=7', 'seed=8'), 'was written with seed=7, expected 8')
    flip = "    dict(type='evamm.RandomFlip', prob=0.5),\n"
    load = "    dict(type='evamm.LoadImageFromFile'),\n"
    fails((load, load + flip), 'has a random transform before evamm.SeededCrops')
    fails(('embed_dims=12, img_size=28', 'embed_dims=12, img_size=56'), 'model.backbone has a grid')
    (place / 'a' / '6.png').write_bytes((place / 'a' / '5.png').read_bytes())
    fails(('', ''), 'was written with images=11, expected 12')
    (place / 'a' / '0.png').unlink()
    fails(('', ''), 'was written for 11 images with other paths')
    (out / 'meta.json').unlink()
    fails(('', ''), 'its meta.json, which says of what, is gone')


def test_an_unreadable_image_is_named_and_has_no_features(cache, place):
    sound = (place / 'a' / '3.png').read_bytes()
    (place / 'a' / '3.png').write_bytes(b'no image')
    for dtype in feature_cache.DTYPES:
        code, text = cache('--out', place / dtype, '--dtype', dtype)
        assert code == 0, text
        assert '1 images of this process cannot be read' in text
        features = FeatureCache(place / dtype)
        assert np.isfinite(features.read('a/2.png', 0)).all()
        with pytest.raises(FeatureCacheError, match='a/3.png could not be read when'):
            features.read('a/3.png', 1)
    # Training puts another image in its place.
    assert len(train(place, 'damaged', place / 'float16')) == 6
    # The first image serves to find out how many features there are; two are too many.
    (place / 'a' / '0.png').write_bytes(b'')
    code, text = cache('--out', place / 'worse')
    assert code == 1
    assert 'cannot be used, more than train_cfg.max_damaged' in text
    (place / 'a' / '3.png').write_bytes(sound)


def die(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """SIGKILL for this process when it has written so many crops."""
    write, done = ShardWriter.write, []

    def counting(self, *args: object) -> None:
        write(self, *args)
        done.append(1)
        if len(done) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ShardWriter, 'write', counting)


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(cache, place, monkeypatch):
    assert cache('--out', place / 'whole')[0] == 0
    killed = place / 'killed'
    for after in (3, 9):  # in the first shard, then in the second (views: 8, 8 and 6)
        child = os.fork()
        if child == 0:
            die(monkeypatch, after)
            cache('--out', killed)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        with pytest.raises(FeatureCacheError, match='shards are not written'):
            FeatureCache(killed)
    assert (killed / 'done_000000.json').exists()
    code, text = cache('--out', killed)
    assert code == 0
    assert '14 of 14 crops' in text
    for path in (place / 'whole').glob('*.npy'):
        assert path.read_bytes() == (killed / path.name).read_bytes(), path.name
    assert not list(killed.glob('.*.tmp'))


def test_two_runs_do_not_write_into_one_folder(cache, place):
    with feature_cache.writing(place / 'features'):
        code, text = cache('--out', place / 'features')
    assert code == 1
    assert f'another run (process {os.getpid()} on ' in text
    assert cache('--out', place / 'features')[0] == 0
