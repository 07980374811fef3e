"""Show what a config's data pipeline really feeds the model, as one contact sheet.

The pictures are taken at the last moment: after every transform, Mixup and CutMix, and turned
back from the normalised tensor, so a wrong mean, channel order or crop can be seen. Boxes, masks
and names of objects are drawn over them.

Examples:
    python tools/visualization/browse_dataset.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py
    python tools/visualization/browse_dataset.py CONFIG --split test --count 64 --out sheet.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--count', type=int, default=24, help='number of images (default: 24)')
    parser.add_argument('--out', type=Path, default=Path('outputs/browse_dataset.png'))
    parser.add_argument('--seed', type=int, default=0, help='seed of order and augmentation')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config',
    )
    return parser.parse_args()


def main() -> int:
    from evamm import compat

    compat.require('torch', 'mmengine', 'mmcv', 'mmpretrain')
    args = parse_args()
    if args.out.suffix.lower() not in ('.png', '.jpg', '.jpeg', '.webp'):
        print(f'error: --out {args.out}: the name must end in .png, .jpg or .webp', file=sys.stderr)
        return 2

    from evamm.apis.batches import take_batch
    from evamm.apis.config import load_config
    from evamm.apis.model import is_detector
    from evamm.engine.runner import preflight
    from evamm.visualization.canvas import contact_sheet

    try:
        config, _ = load_config(args.config)
        config.merge_from_dict(args.cfg_options or {})
        preflight.check_datasets(config, (f'{args.split}_dataloader',))
        batch = take_batch(config, args.split, args.count, seed=args.seed)
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    height, width = batch.inputs[0].shape[:2]
    title = f'{Path(args.config).name}: {args.split} input, {height} x {width}'
    cell = 448 if is_detector(config) else 224  # names of objects must be readable
    sheet = contact_sheet(batch.images, batch.captions, title=title, cell=cell)
    sheet.save(args.out)
    pixels = np.stack(batch.inputs)
    print(
        f'{len(batch.images)} images of the {args.split} split, {height} x {width}, mean RGB '
        f'{pixels.mean(axis=(0, 1, 2)).round(1).tolist()}: {args.out}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
