"""What has to work on every supported set of OpenMMLab libraries, in a minute.

`make test` runs this on the OneDL releases, `make test-upstream` on the upstream ones.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import Config
from mmengine.runner import Runner
from PIL import Image

import evamm
from evamm.registry import RUNNERS

REPO = Path(__file__).resolve().parents[2]
CLASSES = ('dark', 'bright')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ImageNet-style folder: two classes, four pictures each to train on, two to test on."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for name, level in zip(CLASSES, (60, 190)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 20, (72, 64, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f'{index}.png')
    return root


def recipe(pictures: Path, work_dir: Path) -> Config:
    """The official EVA-02-Ti recipe, at 56 pixels and for two epochs of two steps."""
    cfg = Config.fromfile(REPO / 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py')
    del cfg.model.backbone.init_cfg
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'model.backbone.img_size': 56,
            'model.head.num_classes': 2,
            'data_preprocessor.num_classes': 2,
            'optim_wrapper.accumulative_counts': 1,
            'train_cfg.max_epochs': 2,
            'param_scheduler.warmup': 0,
            'val_evaluator.topk': 1,
            'test_evaluator.topk': 1,
            'default_hooks.logger.interval': 1,
        }
    )
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=str(pictures), split=split, metainfo=dict(classes=CLASSES))
        for transform in loader.dataset.pipeline:
            if transform.type in ('RandomResizedCrop', 'ResizeEdge'):
                transform.scale = 56
            elif transform.type == 'CenterCrop':
                transform.crop_size = 56
    return cfg


def test_official_recipe_trains_resumes_tests_and_predicts(pictures: Path, tmp_path: Path) -> None:
    cfg = recipe(pictures, tmp_path / 'run')
    cfg.train_cfg.max_epochs = 1
    cfg.experiment_name = 'first'
    RUNNERS.build(cfg).train()
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()

    cfg = recipe(pictures, tmp_path / 'run')
    cfg.resume = True
    cfg.experiment_name = 'second'
    runner = RUNNERS.build(cfg)
    model = runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    assert all(value.isfinite().all() for value in model.state_dict().values())

    cfg = recipe(pictures, tmp_path / 'test')
    cfg.load_from = str(tmp_path / 'run' / 'epoch_2.pth')
    cfg.experiment_name = 'third'
    metrics = RUNNERS.build(cfg).test()
    assert metrics['accuracy/top1'] in (0, 25, 50, 75, 100)

    model = evamm.get_model(cfg, pretrained=cfg.load_from, device='cpu')
    result = evamm.inference_model(model, str(pictures / 'val/dark/0.png'))
    assert result['pred_class'] in CLASSES and 0 < result['pred_score'] <= 1


def test_plain_runner_of_mmengine_resumes_an_evamm_model(pictures: Path, tmp_path: Path) -> None:
    # torch >= 2.6 refuses the checkpoints of an old mmengine unless evamm.compat helps.
    for epochs, name in ((1, 'plain first'), (2, 'plain second')):
        cfg = recipe(pictures, tmp_path)
        cfg.train_cfg.max_epochs = epochs
        cfg.experiment_name = name
        cfg.resume = epochs == 2
        cfg.runner_type = 'Runner'
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
        cfg.custom_hooks = []
        runner = Runner.from_cfg(cfg)
        runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)


def test_configs_of_installed_packages_can_be_inherited(tmp_path: Path) -> None:
    config = tmp_path / 'child.py'
    config.write_text("_base_ = ['mmpretrain::_base_/default_runtime.py']\n")
    assert Config.fromfile(config).default_scope == 'mmpretrain'
    if (REPO / 'evamm/.mim').is_dir():  # made by an install, not there in a bare clone
        config.write_text("_base_ = ['evamm::eva02/eva02_tiny_p14_8xb16_in1k.py']\n")
        assert Config.fromfile(config).model.backbone.type == 'evamm.EVAViT'


def test_retrieval_metric_works_on_numpy_2() -> None:
    from mmpretrain.evaluation import RetrievalRecall

    indices = dict(pred_indices=True, target_indices=True)
    assert RetrievalRecall.calculate([[0, 1], [2, 1]], [[1], [0]], topk=2, **indices)[0] == 50.0


def test_detection_and_segmentation_models_can_be_imported() -> None:
    import mmdet.models
    import mmseg.models
    from mmcv.ops import RoIAlign

    assert mmdet.models.CascadeRCNN and mmseg.models.EncoderDecoder
    output = RoIAlign(output_size=1, aligned=True)(
        torch.full((1, 1, 4, 4), 3.0), torch.tensor([[0.0, 1, 1, 3, 3]])
    )
    torch.testing.assert_close(output, torch.full((1, 1, 1, 1), 3.0))


def test_models_are_known_to_mmpretrain() -> None:
    import mmpretrain

    name = 'eva02-tiny-p14_in21k-pre_3rdparty_in1k'
    assert name in mmpretrain.list_models('eva02-tiny')
    assert name in evamm.list_models('eva02-tiny*')
