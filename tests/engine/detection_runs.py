"""A tiny detector in two processes, with DDP and with FSDP, for test_detection_strategies.py."""

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, get_rank

import evamm.registry  # noqa: F401
from evamm.engine import FSDP2, EVARunner

ROOT = Path(__file__).resolve().parents[2]
ACCUMULATED = 2  # of one step


def config(data: Path, work_dir: Path, **keys: object) -> Config:
    """The digits' config, smaller still, with the average of the recipes after Objects365."""
    cfg = Config.fromfile(ROOT / 'configs' / 'digits' / 'cascade_mask_rcnn_eva02_tiny_digits.py')
    backbone = cfg.model.backbone
    backbone.pop('init_cfg')
    backbone.update(
        arch=dict(embed_dims=32, depth=2, num_heads=2),
        img_size=96,
        window_blocks=[0],
        drop_path_rate=0.2,
    )
    cfg.model.data_preprocessor.pad_size = 96
    cfg.model.neck.in_channels = 32
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False)
    loader.dataset.data_root = str(data / 'detection')
    loader.dataset.pipeline[2].size = 96
    for part in ('val', 'test'):
        for key in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{part}_{key}'] = None
    cfg.train_cfg = dict(by_epoch=False, max_iters=ACCUMULATED)
    cfg.param_scheduler.update(warmup_steps=0, milestones=[])
    cfg.optim_wrapper.accumulative_counts = ACCUMULATED
    cfg.custom_hooks = [dict(type='evamm.EMAHook', momentum=1e-2)]
    cfg.default_hooks.checkpoint = dict(
        type='evamm.CheckpointHook', by_epoch=False, interval=ACCUMULATED
    )
    cfg.update(work_dir=str(work_dir), launcher='pytorch', log_level='WARNING')
    cfg.merge_from_dict(keys)
    return cfg


def main() -> None:
    root = Path(sys.argv[1])
    ddp = EVARunner.from_cfg(config(root, root / 'ddp', experiment_name='ddp'))
    ddp.train()
    keys = {'model_wrapper_cfg': {'type': 'evamm.FSDP2'}, 'model.backbone.with_cp': True}
    fsdp = EVARunner.from_cfg(config(root, root / 'fsdp', experiment_name='fsdp', **keys))
    assert isinstance(fsdp.model, FSDP2)
    fsdp.train()
    barrier()
    if get_rank():
        return
    found, expected = (
        torch.load(root / name / f'iter_{ACCUMULATED}.pth', weights_only=True)
        for name in ('fsdp', 'ddp')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            torch.testing.assert_close(
                found[part][name], tensor, atol=1e-5, rtol=1e-4, msg=f'{part} {name}'
            )
    moved = expected['ema_state_dict']['module.roi_head.bbox_head.0.fc_cls.weight']
    assert (moved - expected['state_dict']['roi_head.bbox_head.0.fc_cls.weight']).abs().max() > 1e-4
    (root / 'done').touch()


if __name__ == '__main__':
    main()
