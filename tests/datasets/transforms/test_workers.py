"""What the workers of a configured loader do, seen from inside them."""

import os
from copy import deepcopy
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from PIL import Image

from evamm.engine.runner.launch import set_loader_defaults

BASE = Path(__file__).resolve().parents[3] / 'configs' / '_base_'


class Spy:
    """A transform that adds what its process looks like."""

    def __call__(self, results: dict) -> dict:
        return dict(
            results, threads=cv2.getNumThreads(), torch=torch.get_num_threads(), process=os.getpid()
        )


@pytest.fixture
def loader(tmp_path: Path, photo: Image.Image):
    """The training loader of imagenet_224.py on twelve files, with two workers."""
    folder = tmp_path / 'train' / 'n01440764'
    folder.mkdir(parents=True)
    for i in range(12):
        photo.save(folder / f'{i}.JPEG')
    cfg = Config.fromfile(BASE / 'datasets' / 'imagenet_224.py')
    runtime = Config.fromfile(BASE / 'default_runtime_cls.py')
    settings = cfg.train_dataloader
    settings.update(batch_size=2, num_workers=2)
    settings.dataset.update(data_root=str(tmp_path), metainfo=dict(classes=['tench']))
    set_loader_defaults(cfg, ('train_dataloader',))
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    set_multi_processing(**runtime.env_cfg.mp_cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = Runner.build_dataloader(deepcopy(cfg.train_dataloader), seed=0)
    yield loader
    cv2.setNumThreads(before)


def test_workers_have_one_thread_and_stay(loader):
    loader.collate_fn = list
    loader.dataset.pipeline.transforms[-1] = Spy()
    epochs = [[sample for batch in loader for sample in batch] for _ in range(2)]
    for samples in epochs:
        assert len(samples) == 12
        # OpenCV counts the calling thread: 1 means that it starts none.
        assert {sample['threads'] for sample in samples} == {1}
        assert {sample['torch'] for sample in samples} == {1}
    processes = [{sample['process'] for sample in samples} for samples in epochs]
    assert processes[0] == processes[1] and len(processes[0]) == 2
    assert os.getpid() not in processes[0]


def test_batches_stay_8_bit_and_are_pinned_for_cuda_only(loader):
    batch = next(iter(loader))
    assert batch['inputs'].dtype == torch.uint8
    assert batch['inputs'].shape == (2, 3, 224, 224)
    assert loader.pin_memory == torch.cuda.is_available()
    assert loader.prefetch_factor == 2


def test_normalised_by_the_data_preprocessor(loader):
    """The float image exists on the model's device only."""
    from mmpretrain.registry import MODELS

    cfg = Config.fromfile(BASE.parent / 'eva02' / 'eva02_tiny_p14_8xb16_in1k.py')
    settings = dict(cfg.data_preprocessor, type='ClsDataPreprocessor')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        preprocessor = MODELS.build(settings)
    images = next(iter(loader))['inputs']
    out = preprocessor(dict(inputs=images))['inputs']
    mean, std = (torch.tensor(settings[key])[:, None, None] for key in ('mean', 'std'))
    torch.testing.assert_close(out, (images.flip(1).float() - mean) / std, rtol=0, atol=1e-5)
