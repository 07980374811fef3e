"""Test an ImageNet-1K model on the robustness sets and print the official summary row.

Example:
    python tools/test_robustness.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py CKPT --data-root data

Folders below --data-root: imagenet (with real.json), imagenetv2-matched-frequency-format-val,
imagenet-a, imagenet-r, sketch, objectnet-1.0. See docs/en/robustness.md.
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

from mmengine.config import Config
from mmengine.dist import is_main_process

from evamm.apis.model_index import prefers_averaged
from evamm.engine.runner import launch, predictions, test_sets
from evamm.evaluation import ROBUSTNESS_SETS, format_robustness_table

BASES = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'datasets'
NUM_CLASSES = 1000


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', help='config of an ImageNet-1K classifier, or an image-text model'
    )
    parser.add_argument('checkpoint', help='its checkpoint, of any dialect')
    parser.add_argument(
        '--sets',
        nargs='+',
        choices=list(ROBUSTNESS_SETS),
        metavar='SET',
        help=f'sets to test on: {", ".join(ROBUSTNESS_SETS)} (default: those that are there)',
    )
    parser.add_argument(
        '--data-root', type=Path, default=Path('data'), help='folder of all sets (default: data)'
    )
    parser.add_argument(
        '--path',
        nargs='+',
        default=[],
        metavar='SET=FOLDER',
        help='folders of sets that lie elsewhere or have another name',
    )
    parser.add_argument(
        '--real-json', type=Path, help='labels of ReaL (default: real.json in the ImageNet folder)'
    )
    parser.add_argument(
        '--partial', action='store_true', help='accept copies in which classes are missing'
    )
    parser.add_argument(
        '--crop-border',
        type=int,
        default=0,
        metavar='PIXELS',
        help='cut the red border of the ObjectNet images (official evaluation: 0)',
    )
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='test the raw weights of a file that has their moving average too',
    )
    parser.add_argument('--amp', action='store_true', help='test in half precision (CUDA only)')
    parser.add_argument('--name', help='name in the summary row (default: that of the config)')
    parser.add_argument(
        '--out', type=Path, help='result file (default: robustness.json in the work folder)'
    )
    launch.add_common_arguments(parser)
    return parser.parse_args()


def set_config(cfg: Config, name: str, args: argparse.Namespace) -> Config:
    """Return the model's config with the images and the metric of one set."""
    merged = deepcopy(cfg)
    if name != 'imagenet':
        merged = test_sets.merge_test_set(cfg, Config.fromfile(BASES / f'robustness_{name}.py'))
    dataset = merged.test_dataloader.dataset
    with_folder = [key for key in ROBUSTNESS_SETS if key != 'imagenet_real']
    folders = test_sets.parse_folders(args.path, with_folder)
    folder = folders.get(name if name != 'imagenet_real' else 'imagenet')
    dataset.data_root = str(folder or args.data_root / Path(dataset.data_root).name)
    if name == 'imagenet_real':
        real_json = args.real_json or Path(dataset.data_root, 'real.json')
        merged.test_evaluator.real_json = str(real_json)
    elif name != 'imagenet' and args.partial:
        dataset.partial = True
    if name == 'objectnet' and args.crop_border:
        dataset.pipeline.insert(1, {'type': 'evamm.CropBorder', 'pixels': args.crop_border})
    return merged


def is_there(cfg: Config) -> bool:
    """Whether the files of a set exist."""
    real_json = cfg.test_evaluator.get('real_json')
    return Path(cfg.test_dataloader.dataset.data_root).is_dir() and (
        real_json is None or Path(real_json).is_file()
    )


def plan(cfg: Config, args: argparse.Namespace) -> dict[str, Config]:
    """Return the config of every set to test on.

    The ImageNet validation images serve two figures, so both metrics are taken in one pass.
    """
    configs = {name: set_config(cfg, name, args) for name in args.sets or ROBUSTNESS_SETS}
    if args.sets is None:
        configs = {name: config for name, config in configs.items() if is_there(config)}
        if not configs:
            raise launch.UsageError(
                f'none of the robustness sets is in {args.data_root}; docs/en/robustness.md says '
                'how they must lie. Set --data-root, or --path for single sets.'
            )
    if 'imagenet' in configs and 'imagenet_real' in configs:
        real = configs.pop('imagenet_real')
        configs['imagenet'].test_evaluator = [
            configs['imagenet'].test_evaluator,
            real.test_evaluator,
        ]
    return configs


def run(cfg: Config, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Test on every set; gives top-1 and top-5 of each."""
    metrics = test_sets.run_test_sets(plan(cfg, args), ROBUSTNESS_SETS, amp=args.amp)
    results = {}
    for name, found in metrics.items():
        for key, prefix in ((name, 'accuracy'), ('imagenet_real', 'real')):
            topk = {k: found[f'{prefix}/{k}'] for k in ('top1', 'top5') if f'{prefix}/{k}' in found}
            if topk:
                results[key] = topk
    return {name: results[name] for name in ROBUSTNESS_SETS if name in results}


def check_classes(cfg: Config, path: str) -> None:
    """Make sure that the model chooses among the classes of ImageNet-1K.

    Raises:
        UsageError: It has another head, or other names.
    """
    test_cfg = cfg.model.get('test_cfg') or {}
    if test_cfg.get('type') == 'zero_shot':
        if test_cfg.get('classes', 'imagenet') != 'imagenet':
            raise launch.UsageError(
                f'{path} has model.test_cfg.classes={test_cfg.classes!r}; the robustness sets need '
                "classes='imagenet'."
            )
        return
    num_classes = (cfg.model.get('head') or {}).get('num_classes')
    if num_classes != NUM_CLASSES:
        raise launch.UsageError(
            f'{path} has model.head.num_classes={num_classes}; the robustness sets need a '
            f'classifier of the {NUM_CLASSES} ImageNet-1K classes.'
        )


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args.config, args)
    if cfg.get('test_dataloader') is None:
        raise launch.UsageError(f'{args.config} has no test_dataloader: there is nothing to test.')
    check_classes(cfg, args.config)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    prefer_ema = not args.no_ema and prefers_averaged(args.checkpoint)
    cfg.load_options = {'prefer_ema': prefer_ema, 'complete': True}
    results = run(cfg, args)
    if is_main_process():
        name = args.name or Path(args.config).stem
        out = args.out or Path(cfg.work_dir, 'robustness.json')
        content = {
            'name': name,
            'config': args.config,
            'checkpoint': args.checkpoint,
            'partial': args.partial,
            'results': results,
        }
        predictions.write_file(out, json.dumps(content, indent=2).encode() + b'\n')
        print(f'Top-1 accuracy in %{" (partial copies)" if args.partial else ""}:')
        print(format_robustness_table([(name, {k: v['top1'] for k, v in results.items()})]))
        print(f'written: {out}')


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
