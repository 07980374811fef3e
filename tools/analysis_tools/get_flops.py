"""Print the size and the arithmetic of a model.

Usage: python tools/analysis_tools/get_flops.py CONFIG [--shape 448 | --shape 336 448] [--count]

The figures come from a formula (evamm/models/flops.py); --count also runs the model without
memory (meta device) under torch's counter and fails if the two differ.
"""

import argparse
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.registry import MODELS  # isort: skip  (first: it makes the libraries importable)
from mmengine.registry import DefaultScope

from evamm.apis.config import load_config
from evamm.models.detector_flops import DETECTIONS, PROPOSALS, count_detector_macs
from evamm.models.flops import count_macs, count_table_macs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file whose model has the backbone evamm.EVAViT')
    parser.add_argument(
        '--shape', type=int, nargs='+', metavar='PIXELS', help='side, or height and width'
    )
    parser.add_argument('--count', action='store_true', help="check with torch's counter")
    return parser.parse_args()


def count_with_torch(model: torch.nn.Module, shape: tuple[int, int]) -> int:
    """FLOPs of one forward pass of one image, as torch counts them."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 3, *shape, device='meta'))
    return counter.get_total_flops()


def print_detector(model: torch.nn.Module, size: int, *, count: bool) -> int:
    """The parts of a detector; with `count` the trunk's and pyramid's as torch counts them."""
    parts = count_detector_macs(model, size)
    for part, macs in parts.items():
        note = {'boxes': f'{PROPOSALS} proposals', 'masks': f'{DETECTIONS} detections'}.get(part)
        print(f'  {part:28}{macs / 1e9:.2f} G ({macs})' + (f' for {note}' if note else ''))
    if count:
        dense = torch.nn.Sequential(model.backbone, model.neck)
        counted, expected = count_with_torch(dense, (size, size)), parts['trunk'] + parts['pyramid']
        print(f"Trunk and pyramid, torch's counter {counted / 1e9:.2f} G FLOPs ({counted})")
        if model.backbone.relative_position:
            print('  It counts the longer keys that stand for a matrix of relative positions, too.')
        elif counted != 2 * expected:
            print('The counter and the formula differ.', file=sys.stderr)
            return 1
    return 0


def main() -> int:
    args = parse_args()
    try:
        cfg, _ = load_config(args.config)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    backbone = cfg.model.get('backbone', {})
    if backbone.get('type') != 'evamm.EVAViT':
        print(f'{args.config}: model.backbone is no evamm.EVAViT.', file=sys.stderr)
        return 1
    sides = args.shape or [backbone.get('img_size', 224)]
    if len(sides) > 2:
        print('--shape takes a side, or a height and a width.', file=sys.stderr)
        return 1
    shape = (sides[0], sides[-1])
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        try:
            model = MODELS.build(cfg.model)
        except (KeyError, TypeError, ValueError) as error:
            print(f'error: the model of {args.config} cannot be built: {error}', file=sys.stderr)
            return 1
    params = sum(parameter.numel() for parameter in model.parameters())
    detector = 'roi_head' in cfg.model
    if detector:
        size = args.shape[0] if args.shape else cfg.model.data_preprocessor['pad_size']
        if shape[0] != shape[1]:
            print('A detector pads to a square: --shape takes one side.', file=sys.stderr)
            return 1
        shape, macs = (size, size), sum(count_detector_macs(model, size).values())
    else:
        head = cfg.model.get('head') or {}
        arch, patch_size = backbone['arch'], backbone.get('patch_size')
        macs = count_macs(arch, shape, patch_size, num_classes=head.get('num_classes', 0))
    print(f'Input                         {shape[0]} x {shape[1]}')
    print(f'Parameters                    {params / 1e6:.2f} M ({params})')
    print(f'Forward, multiply-adds        {macs / 1e9:.2f} G ({macs})')
    print(f'Forward, FLOPs                {2 * macs / 1e9:.2f} G (2 per multiply-add)')
    if detector:
        return print_detector(model, size, count=args.count)
    print(f'Training step, FLOPs          {6 * macs / 1e9:.2f} G (3 forward passes)')
    table = count_table_macs(arch, shape, patch_size)
    print(f'As in model tables ("Flops")  {table / 1e9:.2f} G (no classifier, 5 per normalised)')
    if args.count:
        counted = count_with_torch(model, shape)
        print(f"Forward, torch's counter      {counted / 1e9:.2f} G FLOPs ({counted})")
        if counted != 2 * macs:
            print('The counter and the formula differ.', file=sys.stderr)
            return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
