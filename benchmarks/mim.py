"""Steps of masked image modelling: evamm against the algorithm written out in plain PyTorch.

    python -m benchmarks.mim --models tiny small

The peer is EVA-02's pre-training in the plainest correct PyTorch: timm's student with the mask
token put in by hand, timm's EVA-CLIP teacher in the loop, a linear head on the masked tokens, the
negative cosine. Loss and gradients are compared first; if they differ nothing is timed. Timed are

- live: teacher, student, loss, backward, clipping and a step of fused AdamW;
- cached: the same with the targets of the masked patches in the samples, as
  evamm.LoadTeacherFeatures leaves them. The peer has no such thing: its time is the live one.

The teacher has the shape of EVA-01-CLIP-g, made smaller by --teacher (WIDTHxDEPTH, 1408x40 is the
released one); so the arithmetic of both steps and their ratio stand beside the times. Images are
ready in memory. Prints markdown tables: median milliseconds, and for each comparison the median
(and quartiles) over the rounds. Below them, the time of drawing a mask and of reading the features
of one crop from a cache, which loader workers do while the model trains.
"""

import argparse
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version as installed
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import evamm
from evamm import compat
from evamm.checkpoints import from_evamm
from evamm.datasets.feature_cache import CacheMeta, FeatureCache, ShardWriter, create_cache
from evamm.models.flops import count_macs

from .classification import CPU_BATCH, DTYPES, optimizer_of, processor
from .peers import mmpretrain_peer
from .timing import Ratio, interleave

TARGET = 1024
PATCH_GRAD = 0.1  # share of the gradient that official runs let through to the patch projection
CUDA_BATCH = {'tiny': 256, 'small': 256, 'base': 128, 'large': 64}


def teacher_arch(width: int, depth: int) -> dict:
    """EVA-01-CLIP-g with fewer channels and blocks; heads keep their 88 channels."""
    return dict(
        embed_dims=width,
        depth=depth,
        num_heads=width // 88,
        ffn='mlp',
        ffn_hidden_dims=width * 6144 // 1408,
        qkv_bias='qv',
        rope=False,
    )


def samples_of(masks: np.ndarray, targets: Tensor | None = None) -> list:
    """What the loader gives: masks [B, h, w], and targets [M, T] of a cache."""
    from mmpretrain.structures import DataSample

    samples, start = [], 0
    for mask in masks:
        sample = DataSample()
        sample.set_field(mask, 'mask')
        if targets is not None:
            rows = targets[start : start + mask.sum()]
            sample.set_field(rows.half().numpy(), 'target')
            start += len(rows)
        samples.append(sample)
    return samples


class Evamm:
    """The algorithm as configs build it."""

    def __init__(self, size: str, img_size: int, teacher: dict) -> None:
        from evamm.registry import MODELS

        self.model = MODELS.build(
            dict(
                type='evamm.EVAPretrainer',
                backbone=dict(type='evamm.EVAViT', arch=f'eva02-{size}', img_size=img_size),
                patch_grad_scale=PATCH_GRAD,
                teacher=dict(
                    type='evamm.CLIPTeacher',
                    arch=teacher,
                    embed_dims=TARGET,
                    img_size=img_size,
                    patch_size=14,
                    allow_random=True,
                ),
            )
        )
        self.model.init_weights()
        with torch.no_grad():  # weights of the size training leaves
            for module in (self.model, self.model.teacher):
                for param in module.parameters():
                    if param.ndim < 2:
                        param.add_(0.02 * torch.randn_like(param))
                    elif param.ndim < 4:
                        param.copy_(torch.randn_like(param) / param.shape[-1] ** 0.5)

    def loss(self, images: Tensor, samples: list) -> Tensor:
        return self.model(images, samples, mode='loss')['loss']

    def cached_loss(self, images: Tensor, samples: list) -> Tensor:
        """The loss by the targets of the samples; the teacher does not run."""
        holder = self.model._teacher
        teacher, holder.module = holder.module, None
        try:
            return self.loss(images, samples)
        finally:
            holder.module = teacher

    @property
    def checked(self) -> dict[str, nn.Parameter]:
        """Parameters whose gradients are compared."""
        trunk, head = self.model.backbone, self.model.lm_head
        return _checked(trunk, trunk.mask_token, head)


class Plain(nn.Module):
    """The algorithm in plain PyTorch on timm's models."""

    def __init__(self, size: str, img_size: int, teacher: dict, ours: Evamm) -> None:
        super().__init__()
        import timm
        from timm.models.eva import Eva

        self.student = timm.create_model(
            f'eva02_{size}_patch14_224', num_classes=0, global_pool='token', img_size=img_size
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.student.embed_dim))
        self.lm_head = nn.Linear(self.student.embed_dim, TARGET)
        self.teacher = Eva(
            img_size=img_size,
            patch_size=14,
            num_classes=0,
            global_pool='token',
            embed_dim=teacher['embed_dims'],
            depth=teacher['depth'],
            num_heads=teacher['num_heads'],
            mlp_ratio=teacher['ffn_hidden_dims'] / teacher['embed_dims'],
        )
        self.teacher_head = nn.Linear(teacher['embed_dims'], TARGET)
        self.teacher.requires_grad_(False).eval()
        self.teacher_head.requires_grad_(False)
        state = ours.model.backbone.state_dict()
        self.mask_token.data.copy_(state.pop('mask_token'))
        self.student.load_state_dict(from_evamm(state, 'timm'))
        self.lm_head.load_state_dict(ours.model.lm_head.state_dict())
        weights = ours.model.teacher.backbone.state_dict()
        self.teacher.load_state_dict(from_evamm(weights, 'timm'))
        self.teacher_head.load_state_dict(ours.model.teacher.head.state_dict())

    @torch.no_grad()
    def targets(self, images: Tensor) -> Tensor:
        """Features of all patches, [B, N, T]."""
        return self.teacher_head(self.teacher.forward_features(images)[:, 1:])

    def loss(self, images: Tensor, mask: Tensor) -> Tensor:
        """Mean negative cosine over the masked patches; mask is bool [B, N]."""
        student = self.student
        x = student.patch_embed(images)
        x = PATCH_GRAD * x + (1 - PATCH_GRAD) * x.detach()
        x = torch.where(mask.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x, rope = student._pos_embed(x)
        for block in student.blocks:
            x = block(x, rope=rope)
        x = student.norm(x)[:, 1:]
        predictions = self.lm_head(x[mask])
        targets = self.targets(images)[mask]
        return -F.cosine_similarity(predictions.float(), targets.float(), dim=-1).mean()

    @property
    def checked(self) -> dict[str, nn.Parameter]:
        return _checked(self.student, self.mask_token, self.lm_head)


def _checked(trunk: nn.Module, mask_token: nn.Parameter, head: nn.Module) -> dict:
    return {
        'mask_token': mask_token,
        'pos_embed': trunk.pos_embed,
        'patch_embed': trunk.patch_embed.proj.weight,
        'first block': trunk.blocks[0].attn.proj.weight,
        'last norm': trunk.norm.weight,
        'head': head.weight,
    }


def check_equal(ours: Evamm, plain: Plain, images: Tensor, masks: np.ndarray) -> float:
    """Largest relative difference of loss and gradients, in fp32; leaves no gradients.

    Raises:
        RuntimeError: the two do not compute the same; timing them would mean nothing.
    """
    mask = torch.from_numpy(masks.reshape(len(masks), -1)).to(images.device)
    losses = [ours.loss(images, samples_of(masks)), plain.loss(images, mask)]
    errors = {'loss': abs(float((losses[1] - losses[0]).detach() / losses[0].detach()))}
    for loss in losses:
        loss.backward()
    for (name, a), b in zip(ours.checked.items(), plain.checked.values(), strict=True):
        errors[name] = float((b.grad - a.grad).norm() / a.grad.norm())
    ours.model.zero_grad(set_to_none=True)
    plain.zero_grad(set_to_none=True)
    if not max(errors.values()) < 1e-3:
        raise RuntimeError(f'evamm and the plain algorithm do not compute the same: {errors}.')
    return max(errors.values())


def step(
    model: nn.Module, loss_of: Callable[[], Tensor], device: str, dtype: torch.dtype
) -> Callable[[], None]:
    """A training step as a job."""
    params = nn.Module()
    params.held = nn.ParameterList(p for p in model.parameters() if p.requires_grad)
    optimizer = optimizer_of(params)

    def job() -> None:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype):
            loss = loss_of()
        loss.backward()
        nn.utils.clip_grad_norm_(params.parameters(), 3.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model.train()
    return job


def measure(size: str, args: argparse.Namespace) -> str:
    """Table row of one student."""
    from evamm.datasets.transforms import BlockMasking

    width, depth = args.teacher
    arch = teacher_arch(width, depth)
    torch.manual_seed(0)
    ours = Evamm(size, args.img_size, arch)
    plain = Plain(size, args.img_size, arch, ours).to(args.device)
    ours.model.to(args.device)
    plain.train()
    plain.teacher.eval()
    defaults = CUDA_BATCH if args.device == 'cuda' else CPU_BATCH
    batch = args.batch or defaults[size]
    side = args.img_size // 14
    masking = BlockMasking(side, round(0.41 * side**2), min_num_patches=max(2, side))
    masks = np.stack([masking.draw() for _ in range(batch)])
    images = torch.randn(batch, 3, args.img_size, args.img_size).to(args.device)
    error = check_equal(ours, plain, images[:2], masks[:2])

    mask = torch.from_numpy(masks.reshape(batch, -1)).to(args.device)
    targets = ours.model.teacher(images)[mask].cpu()
    live, cached = samples_of(masks), samples_of(masks, targets)
    dtype = DTYPES[args.dtype]
    jobs = {
        'live': step(ours.model, lambda: ours.loss(images, live), args.device, dtype),
        'cached': step(ours.model, lambda: ours.cached_loss(images, cached), args.device, dtype),
        'plain': step(plain, lambda: plain.loss(images, mask), args.device, dtype),
    }
    plain.teacher.eval()
    seconds = interleave(jobs, args.repeats, args.device)

    teacher = count_macs(arch, args.img_size, 14) + side**2 * width * TARGET
    trunk = ours.model.backbone
    head = masks.sum() / batch * trunk.embed_dims * TARGET
    student = 3 * (count_macs(trunk.arch, args.img_size) + head)
    flops = (teacher + student) / student
    against_plain = Ratio.of(seconds['plain'], seconds['cached'])
    cells = [
        f'{size}@{args.img_size}',
        str(batch),
        f'{2 * teacher / 1e9:.1f} + {2 * student / 1e9:.1f}',
        f'{1000 * statistics.median(seconds["live"]):.0f}',
        str(Ratio.of(seconds['plain'], seconds['live'])),
        f'{1000 * statistics.median(seconds["cached"]):.0f}',
        str(against_plain),
        str(Ratio.of(seconds['live'], seconds['cached'])),
        f'{flops:.2f}',
        f'{error:.0e}',
    ]
    return '| ' + ' | '.join(cells) + ' |'


def per_call(job: Callable[[], object], number: int) -> float:
    """CPU milliseconds of one call, the median of nine series."""
    times = timeit.repeat(job, timer=time.process_time, number=number, repeat=9)
    return 1000 * statistics.median(times) / number


def mask_times() -> dict[str, float]:
    """Milliseconds of drawing a mask of 105 of 16 x 16 patches."""
    from mmpretrain.datasets.transforms import BEiTMaskGenerator

    from evamm.datasets.transforms import BlockMasking

    ours, theirs = BlockMasking(), BEiTMaskGenerator((16, 16), 105, min_num_patches=16)
    return {
        'evamm': per_call(ours.draw, 1000),
        'mmpretrain': per_call(lambda: theirs.transform({}), 100),
    }


def read_time(dtype: str, images: int = 64) -> float:
    """Milliseconds of reading the 105 masked patches of one crop (256 x 1024) from a cache."""
    from evamm.datasets.transforms import BlockMasking

    paths = [f'{index}.jpg' for index in range(images)]
    with tempfile.TemporaryDirectory() as place:
        meta = CacheMeta(images, 256, TARGET, 1, 0, '', '', '', dtype, images, '')
        create_cache(place, meta, paths)
        writer = ShardWriter(place, 0)
        features = np.random.default_rng(0).normal(size=(256, TARGET)).astype(np.float32)
        for row in range(images):
            writer.write(row, 0, features)
        writer.finish()
        cache, draw, turn = FeatureCache(Path(place)), BlockMasking().draw, iter(range(10**9))
        mask = draw().ravel()
        return per_call(lambda: cache.read(paths[next(turn) % images], 0, mask), 200)


def _teacher(text: str) -> tuple[int, int]:
    width, _, depth = text.partition('x')
    if not (width.isdecimal() and depth.isdecimal()) or int(width) % 88 or not int(width):
        raise argparse.ArgumentTypeError(f'{text}: expected WIDTHxDEPTH, WIDTH a multiple of 88')
    return int(width), int(depth)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = ('tiny', 'small', 'base', 'large')
    parser.add_argument('--models', nargs='+', choices=sizes, default=['tiny', 'small'])
    parser.add_argument(
        '--teacher',
        type=_teacher,
        metavar='WIDTHxDEPTH',
        help='default: 704x20, an eighth of the released one; 1408x40 on CUDA',
    )
    parser.add_argument('--img-size', type=int, default=224, help='pixels (default: 224)')
    parser.add_argument('--batch', type=int, help='images per step (default: by model and device)')
    parser.add_argument('--repeats', type=int, default=9, help='rounds (default: 9)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='autocast on CUDA (default: bf16)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    args = parser.parse_args(argv)
    args.dtype = args.dtype or ('bf16' if args.device == 'cuda' else 'fp32')
    args.teacher = args.teacher or ((1408, 40) if args.device == 'cuda' else (704, 20))
    if args.device == 'cpu' and args.dtype != 'fp32':
        parser.error('--dtype: the CPU is measured in fp32 only')
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    compat.install()
    place = processor(args.device)
    if args.device == 'cpu':
        place += f', {args.threads} thread(s)'
    print(
        f'{place}, {args.dtype}, {args.repeats} rounds, torch {torch.__version__}, '
        f'evamm {evamm.__version__}, timm {installed("timm")}; teacher of width '
        f'{args.teacher[0]} and {args.teacher[1]} blocks\n'
    )
    heads = ['student', 'batch', 'GFLOP of an image: teacher + student', 'live ms']
    heads += ['plain / live', 'cached ms', 'plain / cached', 'live / cached']
    heads += ['ratio of FLOPs', 'results differ by']
    print('| ' + ' | '.join(heads) + ' |')
    print('|' + '---|' * len(heads), flush=True)
    for size in args.models:
        print(measure(size, args), flush=True)
    drawn = mask_times()
    print(
        f'\nA mask: {1000 * drawn["evamm"]:.0f} us; {mmpretrain_peer.version()}: '
        f'{1000 * drawn["mmpretrain"]:.0f} us. The features of a crop: '
        + ', '.join(f'{1000 * read_time(dtype):.0f} us ({dtype})' for dtype in ('float16', 'int8'))
        + '.'
    )


if __name__ == '__main__':
    main()
