"""ViTDet in evamm and in mmdet: EVA trunks beside the ViT of mmdet's projects, interleaved runs.

    python -m benchmarks.detection --mmdet-projects /path/to/mmdetection

mmdet's ViTDet is not in its package: --mmdet-projects is a clone of its repository,
github.com/open-mmlab/mmdetection, of which only the folder projects/ViTDet is used. All trunks have
the same image size, width, depth, heads, windows and global blocks. Rows are

- vit: evamm's trunk as a plain ViT-B with decomposed relative positions, which computes exactly
  what mmdet's does. Weights are the same; maps, losses and (without heads) a gradient are compared
  first, and if they differ nothing is timed.
- eva02: EVA-02-B (SwiGLU, RoPE) beside the same peer. Not the same function, the same task.

and parts are

- maps: trunk and feature pyramid;
- detector: Mask R-CNN as in mmdet's project, with mmdet's own heads in both;
- cascade: evamm's detector beside mmdet's Cascade Mask R-CNN (its heads, on its ViT): what one has
  in either library. mmdet's has three mask heads where the official one has one.

Timed are forward (maps, or the objects of an image), train (forward, losses, backward and a step of
fused AdamW) and memory (the most that a training step holds besides weights and optimizer state;
megabytes instead of milliseconds). Images are ready in memory. Prints a markdown table: the median,
and the ratio of the times round by round with its quartiles.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, nn

import evamm
from evamm import compat

from .classification import DTYPES, MODES, optimizer_of, processor
from .detectors import Maps, batch_of, build
from .timing import Ratio, interleave, peak_memory

TRUNKS = ('vit', 'eva02')
PARTS = ('maps', 'detector', 'cascade')


def total_loss(losses: dict) -> Tensor:
    values = [
        value if isinstance(value, Tensor) else sum(value)
        for name, value in losses.items()
        if 'loss' in name
    ]
    return sum(value.mean() for value in values)


def check_equal(models: dict[str, nn.Module], images: Tensor, samples: list) -> float:
    """Largest relative difference of maps, losses and, without heads, a gradient, in fp32.

    Heads choose boxes, so that a difference of the last digit can turn a part of their gradient.

    Raises:
        RuntimeError: They do not compute the same; timing them would mean nothing.
    """
    results = {}
    for name, model in models.items():
        model.eval()
        with torch.no_grad():
            maps = model.neck(model.backbone(images))
        torch.manual_seed(0)  # heads draw samples
        losses = model.loss(images, samples)
        values = [total_loss({key: value}) for key, value in losses.items() if 'loss' in key]
        results[name] = [*maps, *(value.detach() for value in values)]
        if isinstance(model, Maps):
            sum(values).backward()
            results[name].append(model.backbone.blocks[0].attn.qkv.weight.grad)
        model.zero_grad(set_to_none=True)
    errors = [
        float((a - b).norm() / b.norm().clamp(min=1e-6))
        for a, b in zip(results['mmdet'], results['evamm'], strict=True)
    ]
    if not max(errors) < 1e-3:
        raise RuntimeError(f"mmdet's ViTDet does not compute what evamm computes: {errors}.")
    return max(errors)


def job_of(
    mode: str, model: nn.Module, images: Tensor, samples: list, dtype: torch.dtype
) -> Callable[[], None]:
    """The timed work of one library."""
    device = images.device.type

    def autocast():
        return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)

    if mode == 'forward':

        def job() -> None:
            model.eval()
            with torch.inference_mode(), autocast():
                model.predict(images, samples)

        return job
    optimizer = optimizer_of(model)

    def job() -> None:
        model.train()
        torch.manual_seed(0)
        with autocast():
            loss = total_loss(model.loss(images, samples))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return job


def measure(trunk: str, part: str, args: argparse.Namespace) -> list[str]:
    """Table rows of one trunk and one part."""
    models = {name: model.to(args.device) for name, model in build(trunk, part, args).items()}
    images, samples = batch_of(args)
    error = ''
    if trunk == 'vit' and part != 'cascade':
        error = f'{check_equal(models, images, samples):.0e}'
    rows = []
    for mode in args.modes:
        jobs = {
            name: job_of(mode, model, images, samples, DTYPES[args.dtype])
            for name, model in models.items()
        }
        if mode == 'memory':
            held = {name: peak_memory(job, args.device) for name, job in jobs.items()}
            result = f'{held["evamm"] / 1e6:.0f} MB'
            ratio = f'{held["mmdet"] / held["evamm"]:.2f}'
        else:
            seconds = interleave(jobs, args.repeats, args.device)
            result = f'{1000 * statistics.median(seconds["evamm"]):.0f}'
            ratio = str(Ratio.of(seconds['mmdet'], seconds['evamm']))
        cells = [trunk, part, mode, str(args.batch), result, ratio, error]
        rows.append('| ' + ' | '.join(cells) + ' |')
    return rows


def import_projects(path: Path) -> None:
    """Registers mmdet's ViTDet.

    Raises:
        SystemExit: It is not there.
    """
    if not (path / 'projects/ViTDet/vitdet/simple_fpn.py').is_file():
        raise SystemExit(
            f'error: --mmdet-projects {path}: no projects/ViTDet/vitdet there; give a clone of '
            'github.com/open-mmlab/mmdetection'
        )
    import mmdet.models  # noqa: F401

    sys.path.insert(0, str(path))
    import projects.ViTDet.vitdet  # noqa: F401


def mmdet_version() -> str:
    for name in ('onedl-mmdetection', 'mmdet'):
        try:
            return f'{name} {version(name)}'
        except PackageNotFoundError:
            continue
    return 'mmdet'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--mmdet-projects', type=Path, required=True, help='clone of mmdetection')
    parser.add_argument('--trunks', nargs='+', choices=TRUNKS, default=list(TRUNKS))
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--img-size', type=int, help='pixels (default: 512, on CUDA 1024)')
    parser.add_argument('--window', type=int, default=16, help='side of a window (default: 16)')
    parser.add_argument('--width', type=int, default=768, help='channels (default: 768)')
    parser.add_argument('--depth', type=int, default=12, help='blocks (default: 12)')
    parser.add_argument('--batch', type=int, help='images (default: 1, on CUDA 4)')
    parser.add_argument('--objects', type=int, default=8, help='objects per image (default: 8)')
    parser.add_argument('--proposals', type=int, help='per image (default: 200, on CUDA 1000)')
    parser.add_argument(
        '--samples', type=int, help='proposals that heads train on (default: 128, on CUDA 512)'
    )
    parser.add_argument('--repeats', type=int, default=7, help='rounds (default: 7)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='autocast on CUDA (default: bf16)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    args = parser.parse_args(argv)
    cuda = args.device == 'cuda'
    for name, (on_cpu, on_cuda) in dict(
        img_size=(512, 1024),
        batch=(1, 4),
        proposals=(200, 1000),
        samples=(128, 512),
        dtype=('fp32', 'bf16'),
    ).items():
        if getattr(args, name) is None:
            setattr(args, name, on_cuda if cuda else on_cpu)
    if not cuda and args.dtype != 'fp32':
        parser.error('--dtype: the CPU is measured in fp32 only')
    if args.width % 64:
        parser.error('--width: a multiple of 64, the channels of a head')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    compat.install()
    import_projects(args.mmdet_projects)
    place = processor(args.device)
    if args.device == 'cpu':
        place += f', {args.threads} thread(s)'
    print(
        f'{place}, {args.dtype}, {args.repeats} rounds, torch {torch.__version__}, '
        f'evamm {evamm.__version__}, {mmdet_version()}\n\n'
        f'{args.img_size} pixels, windows of {args.window}, {args.depth} blocks of {args.width}, '
        f'{args.proposals} proposals, {args.samples} of them to train on.\n'
    )
    heads = ['trunk', 'part', 'work', 'batch', 'evamm ms', 'mmdet / evamm', 'results differ by']
    print('| ' + ' | '.join(heads) + ' |')
    print('|' + '---|' * len(heads), flush=True)
    for part in args.parts:
        for trunk in args.trunks:
            for row in measure(trunk, part, args):
                print(row, flush=True)


if __name__ == '__main__':
    main()
