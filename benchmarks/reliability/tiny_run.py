"""A small but complete training run: PNG files, augmentation, mixup, drop path, EMA, AMP."""

from pathlib import Path

import cv2
import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

CLASSES = 4
CONFIG = """
custom_imports = dict(imports=['benchmarks.reliability.tiny_run'])
default_scope = 'mmpretrain'
runner_type = 'evamm.EVARunner'
work_dir = {work_dir!r}
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='evamm.EVAViT', arch=dict(embed_dims=16, depth=2, num_heads=2, rope=True),
        img_size=32, patch_size=8, drop_path_rate=0.1),
    head=dict(type='LinearClsHead', num_classes={classes}, in_channels=16),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes={classes}),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.8)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
_data = dict(type='CustomDataset', data_root={images!r})
train_dataloader = dict(
    batch_size=8, num_workers={workers}, persistent_workers={workers} > 0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(pipeline=train_pipeline, **_data))
val_dataloader = dict(
    batch_size=16, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(pipeline=test_pipeline, **_data))
val_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs={epochs}, val_interval=3)
optim_wrapper = dict(
    type='evamm.AmpOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    accumulative_counts=2, clip_grad=dict(max_norm=3.0))
param_scheduler = dict(
    type='evamm.WarmupCosineLR', warmup=1, end={epochs}, by_epoch=True,
    convert_to_iter_based=True)
default_hooks = dict(
    checkpoint=dict(
        type='evamm.CheckpointHook', by_epoch=False, interval={interval}, max_keep_ckpts=3,
        async_save={async_save}),
    logger=dict(type='LoggerHook', interval=5))
custom_hooks = [
    dict(type='evamm.EMAHook', momentum=0.01),
    dict(type='ProgressHook', path={progress!r})]
randomness = dict(seed=7)
visualizer = None
log_level = 'WARNING'
"""


@HOOKS.register_module(force=True)
class ProgressHook(Hook):
    """Writes the number of the last iteration to a file that outlives the process."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _mark(self, iteration: int) -> None:
        Path(self.path).write_bytes(iteration.to_bytes(8, 'little'))

    def before_train_epoch(self, runner: object) -> None:
        self._mark(runner.iter)

    def after_train_iter(
        self, runner: object, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        self._mark(runner.iter + 1)


def write_images(folder: Path, number: int = 48) -> None:
    """Draw a digit per image, shifted and noisy, one folder per class."""
    generator = np.random.default_rng(0)
    for i in range(number):
        image = generator.integers(0, 60, (32, 32, 3)).astype(np.uint8)
        place = tuple(int(v) for v in generator.integers([2, 20], [12, 30]))
        cv2.putText(image, str(i % CLASSES), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255,) * 3, 2)
        path = folder / str(i % CLASSES) / f'{i:03}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)


def write_config(
    folder: Path,
    name: str,
    *,
    epochs: int = 10,
    interval: int = 2,
    workers: int = 0,
    async_save: bool = False,
) -> Path:
    """Write the config of a run whose work folder is ``folder/name``."""
    images = folder / 'images'
    if not images.exists():
        write_images(images)
    path = folder / f'{name}.py'
    path.write_text(
        CONFIG.format(
            work_dir=str(folder / name),
            images=str(images),
            progress=str(folder / f'{name}.progress'),
            classes=CLASSES,
            epochs=epochs,
            interval=interval,
            workers=workers,
            async_save=async_save,
        )
    )
    return path


def progress(folder: Path, name: str) -> int:
    """Last iteration of a run; 0 before the first."""
    path = folder / f'{name}.progress'
    return int.from_bytes(path.read_bytes(), 'little') if path.exists() else 0
