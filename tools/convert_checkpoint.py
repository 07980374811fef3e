"""Converts an EVA checkpoint between code bases, patch sizes, image sizes and precisions.

python tools/convert_checkpoint.py SRC DST --to timm
python tools/convert_checkpoint.py eva02_B_p14.pt eva02_B_p14to16.pt --to official --patch-size 16
python tools/convert_checkpoint.py work_dirs/coco/iter_60000.pth model_final.pth --to detectron2

SRC is a file in any dialect (found automatically), or an http(s) address. Reading never runs code
of the file. DST ends in .safetensors, .pth or .pt and is written atomically.
"""

import argparse
import sys
import warnings
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm.checkpoints import DIALECTS, CheckpointError, convert_checkpoint


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', metavar='SRC')
    parser.add_argument('target', metavar='DST')
    parser.add_argument('--to', required=True, choices=DIALECTS)
    parser.add_argument('--patch-size', type=int, help='resize the patch kernel, e.g. to 16')
    parser.add_argument(
        '--img-size', type=int, help='resize the position embedding for images of this many pixels'
    )
    parser.add_argument(
        '--trunk-only',
        action='store_true',
        help='leave out what stands around the trunk, such as the heads of a detector',
    )
    parser.add_argument('--dtype', choices=['fp32', 'fp16', 'bf16'], help='default: as in SRC')
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        '--ema',
        dest='ema',
        action='store_true',
        default=True,
        help='averaged weights, where SRC has them (default)',
    )
    weights.add_argument(
        '--raw',
        dest='ema',
        action='store_false',
        help='weights as trained, even where SRC has averaged ones',
    )
    parser.add_argument(
        '--head-dims',
        type=int,
        help='channels of an attention head, if not 64 (for RoPE tables in DST)',
    )
    parser.add_argument('--sha256', help='expected hash of SRC')
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    options = parse_args(args)
    warnings.simplefilter('default')
    try:
        report = convert_checkpoint(
            options.source,
            options.target,
            options.to,
            patch_size=options.patch_size,
            img_size=options.img_size,
            dtype=options.dtype,
            prefer_ema=options.ema,
            force=options.force,
            head_dims=options.head_dims,
            trunk_only=options.trunk_only,
            sha256=options.sha256,
        )
    except CheckpointError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(report)
    print(f'wrote {options.target} ({options.to}, {len(report.loaded)} tensors)')
    return 0


if __name__ == '__main__':
    sys.exit(main())
