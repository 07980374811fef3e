"""Train a model from a config.

Example:
    python tools/train.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py --resume
"""

import argparse
import sys
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm import compat

compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

from mmengine.config import Config

from evamm.engine.runner import launch, predictions, preflight
from evamm.engine.runner.find_checkpoint import checkpoint_to_resume
from evamm.engine.runner.fit import check_fit


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on with this checkpoint, or with the newest one of this folder that can be read; '
        'without a value, with that of the work folder (a new run begins if there is none)',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: bfloat16 on CUDA, nothing on a CPU'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not validate while training')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by total batch size / auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--no-persistent-workers',
        action='store_true',
        help='start the workers of the data loaders anew for every epoch',
    )
    launch.add_common_arguments(parser)
    return parser.parse_args()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Turn the options into settings of the config."""
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else checkpoint_to_resume(args.resume)
    if args.amp and 'Amp' not in cfg.optim_wrapper.get('type', 'OptimWrapper'):
        cfg.optim_wrapper.type = 'evamm.AmpOptimWrapper'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise launch.UsageError(
                '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config: the '
                'total batch size that its learning rate is meant for.'
            )
        cfg.auto_scale_lr.enable = True
    forced = {}
    if args.no_pin_memory:
        forced['pin_memory'] = False
    if args.no_persistent_workers:
        forced['persistent_workers'] = False
    launch.set_loader_defaults(
        cfg, ('train_dataloader', 'val_dataloader', 'test_dataloader'), **forced
    )


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args.config, args)
    compat.require_scope(cfg.get('default_scope'))
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
        if cfg.get(key) is None:
            raise launch.UsageError(
                f'{args.config} has no {key}: it describes a model to use or to test, not a '
                'training run. Take a config of a recipe, or add what is missing.'
            )
    apply_arguments(cfg, args)
    preflight.check_datasets(cfg, ('train_dataloader', 'val_dataloader'))
    preflight.check_feature_caches(cfg, ('train_dataloader', 'val_dataloader'))
    preflight.check_weights(cfg)
    runner = launch.build_runner(cfg)
    check_fit(runner, ('train', 'val'))
    predictions.ask_for_coded_masks(runner, ('val',))
    runner.train()


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
