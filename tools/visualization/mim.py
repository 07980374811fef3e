"""Show what masked image modelling does: crop, mask, target, prediction and their cosine.

One row per image. The crop is what the config's pipeline really feeds the model, turned back from
the normalised tensor. Features become colours by the three principal components of the targets of
all shown images; the predictions are seen through the same three. Dark grey patches are visible
ones, for which nothing is predicted.

Examples:
    python tools/visualization/mim.py configs/digits/eva02_mim_tiny_digits.py CHECKPOINT
    python tools/visualization/mim.py CONFIG CHECKPOINT --split val --count 4 --out sheet.png
"""

import argparse
import sys
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='pre-training config')
    parser.add_argument('checkpoint', nargs='?', help='default: random weights')
    parser.add_argument('--split', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--count', type=int, default=6, help='number of images (default: 6)')
    parser.add_argument('--out', type=Path, default=Path('outputs/mim.png'))
    parser.add_argument('--cell', type=int, default=224, help='side of a picture (default: 224)')
    parser.add_argument('--seed', type=int, default=0, help='seed of order, crops and masks')
    parser.add_argument('--device', help='default: the GPU where there is one')
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

    from evamm.apis.config import load_config
    from evamm.apis.pretraining import predict_masked
    from evamm.checkpoints import CheckpointError
    from evamm.datasets.feature_cache import FeatureCacheError
    from evamm.engine.errors import ConfigError
    from evamm.engine.runner import preflight
    from evamm.visualization.masked import draw_masked_images

    try:
        config, _ = load_config(args.config)
        config.merge_from_dict(args.cfg_options or {})
        loader = f'{args.split}_dataloader'
        preflight.check_datasets(config, (loader,))
        preflight.check_feature_caches(config, (loader,))
        preflight.check_weights(config)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows = predict_masked(
            config,
            args.checkpoint,
            split=args.split,
            count=args.count,
            seed=args.seed,
            device=args.device,
        )
    except (OSError, ValueError, CheckpointError, ConfigError, FeatureCacheError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    weights = Path(args.checkpoint).name if args.checkpoint else 'random weights'
    title = f'{Path(args.config).stem}, {weights}: {args.split} images'
    draw_masked_images(rows, title=title, cell=args.cell).save(args.out)
    cosines = [float(value) for row in rows for value in row.cosines[row.mask]]
    mean = sum(cosines) / max(len(cosines), 1)
    print(
        f'{len(rows)} images, mean cosine of {len(cosines)} masked patches {mean:.3f}: {args.out}'
    )
    return 0


if __name__ == '__main__':
    sys.exit(main())
