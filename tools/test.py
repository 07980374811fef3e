"""Test a model: a config and a checkpoint of any dialect.

Example:
    python tools/test.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py eva02_Ti_pt_in21k_ft_in1k_p14.pt
"""

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm import compat

compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process

from evamm.apis.model_index import prefers_averaged
from evamm.engine.runner import launch, predictions, preflight
from evamm.engine.runner.fit import check_fit


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='file of any dialect: evamm, official, timm, open_clip, mmpretrain'
    )
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='test the raw weights of a file that has their moving average too',
    )
    parser.add_argument('--out', type=Path, help='write the result to this .json or .npz file')
    parser.add_argument(
        '--out-item',
        choices=['pred', 'metrics'],
        default='pred',
        help='what --out gets: the predictions (default) or the metrics',
    )
    parser.add_argument('--amp', action='store_true', help='test in half precision (CUDA only)')
    parser.add_argument(
        '--tta', action='store_true', help='average over augmented copies (default: mirrored)'
    )
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--show', action='store_true', help='show the pictures in a window')
    parser.add_argument('--interval', type=int, default=1, help='draw every n-th image only')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds to show each picture')
    launch.add_common_arguments(parser)
    return parser.parse_args()


def apply_arguments(cfg: Config, args: argparse.Namespace) -> None:
    """Turn the options into settings of the config."""
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise launch.UsageError(f'{args.config} has no {key}: there is nothing to test.')
    cfg.load_from = args.checkpoint
    cfg.resume = False
    # Testing with a layer that is not in the file would measure its random initialisation.
    prefer_ema = not args.no_ema and prefers_averaged(args.checkpoint)
    cfg.load_options = {'prefer_ema': prefer_ema, 'complete': True}
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir is not None:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise launch.UsageError(
                '--show and --show-dir need visualization=dict(type="VisualizationHook") in '
                'default_hooks of the config.'
            )
        hook = cfg.default_hooks.visualization
        # mmdet's hook has names of its own, and takes a relative folder anew for every batch.
        detecting = str(hook.get('type')).endswith('DetVisualizationHook')
        hook.update(
            {('draw' if detecting else 'enable'): True},
            show=args.show,
            wait_time=args.wait_time,
            interval=args.interval,
        )
        if detecting and args.show_dir is not None:
            hook.test_out_dir = str(Path(args.show_dir).resolve())
        elif not detecting:
            hook.out_dir = args.show_dir
    if args.tta:
        apply_tta(cfg)
    launch.set_loader_defaults(
        cfg, ('test_dataloader',), **({'pin_memory': False} if args.no_pin_memory else {})
    )


def apply_tta(cfg: Config) -> None:
    """Put the model and the test pipeline into their test-time-augmentation form."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    if 'tta_pipeline' not in cfg:
        if cfg.get('default_scope') != 'mmpretrain':
            raise launch.UsageError('--tta needs tta_model and tta_pipeline in the config.')
        flips = [{'type': 'RandomFlip', 'prob': prob} for prob in (1.0, 0.0)]
        cfg.tta_pipeline = deepcopy(pipeline)
        cfg.tta_pipeline[-1] = {'type': 'TestTimeAug', 'transforms': [flips, [pipeline[-1]]]}
    cfg.setdefault('tta_model', {'type': 'mmpretrain.AverageClsScoreTTA'})
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline


def main() -> None:
    args = parse_args()
    if args.out is not None and args.out.suffix not in predictions.SUFFIXES:
        raise launch.UsageError(
            f'--out {args.out}: the name must end in .json or .npz. Pickle files are not written: '
            'reading one can run any code.'
        )
    if args.out is not None and args.out_item == 'metrics' and args.out.suffix != '.json':
        raise launch.UsageError(f'--out {args.out}: metrics are written as .json only.')
    cfg = launch.load_config(args.config, args)
    compat.require_scope(cfg.get('default_scope'))
    apply_arguments(cfg, args)
    preflight.check_datasets(cfg, ('test_dataloader',))
    preflight.check_weights(cfg, start=False)
    runner = launch.build_runner(cfg)
    check_fit(runner, ('test',))
    predictions.ask_for_coded_masks(runner, ('test',))
    if args.out is not None and args.out_item == 'pred':
        runner.test_evaluator.metrics.append(predictions.PredictionWriter(args.out))
    metrics = runner.test()
    if is_main_process():
        if args.out is not None and args.out_item == 'metrics':
            content = json.dumps(predictions.to_json(metrics), indent=2)
            predictions.write_file(args.out, content.encode())
        for name, value in metrics.items():
            print(f'{name}: {value:.4f}' if isinstance(value, float) else f'{name}: {value}')
        if args.out is not None:
            print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
