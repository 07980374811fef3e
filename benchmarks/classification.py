"""EVA-02 classifiers in evamm, timm and mmpretrain: same weights, same inputs, interleaved runs.

    python -m benchmarks.classification --models tiny@224 tiny@336 small@224 base@224

Outputs and input gradients are compared first; if they differ nothing is timed. Timed are

- forward: logits of a batch, in evaluation mode, without autograd;
- train: forward, cross entropy, backward and a step of fused AdamW (two parameter groups, weight
  decay on matrices only; the same for every peer), gradients freed;
- memory: the most that a training step holds besides weights and optimizer state (the table has
  megabytes instead of milliseconds).

Data loading and normalisation are not part of it. Prints a markdown table: median milliseconds of
evamm, and for each peer the median (and quartiles) over the rounds of its time divided by evamm's.
On a CPU it also prints the rate of evamm's arithmetic as a share of the rate of the trunk's matrix
products alone, measured in the same rounds.
"""

import argparse
import platform
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evamm.models.layers import linear

from .peers import PEERS, VERSIONS, Work
from .timing import Ratio, interleave, peak_memory

MODELS = ('tiny@224', 'tiny@336', 'small@224', 'base@224')
MODES = ('forward', 'train', 'memory')
# Images per step where --batch does not say: one CPU thread, or a data-centre GPU.
CPU_BATCH = {'tiny': 4, 'small': 2, 'base': 1, 'large': 1}
CUDA_BATCH = {'tiny': 256, 'small': 256, 'base': 128, 'large': 64}
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def random_weights(work: Work) -> dict[str, Tensor]:
    """Weights of the size training leaves: no zero bias, no tiny head."""
    from evamm.models.backbones import EVAViT

    trunk = EVAViT(f'eva02-{work.size}', img_size=work.img_size)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    shapes = {name: value.shape for name, value in trunk.state_dict().items()}
    shapes['head.weight'] = torch.Size((work.num_classes, trunk.embed_dims))
    shapes['head.bias'] = torch.Size((work.num_classes,))
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if 'norm' in name and name.endswith('weight'):
            weights[name] = 1 + 0.1 * noise
        elif len(shape) == 1 or 'token' in name or 'embed' in name.split('.')[0]:
            weights[name] = 0.02 * noise
        else:
            weights[name] = noise / shape[1:].numel() ** 0.5
    return weights


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    params = list(model.parameters())
    groups = [
        dict(params=[p for p in params if p.ndim > 1], weight_decay=0.05),
        dict(params=[p for p in params if p.ndim <= 1], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=1e-6, fused=True)


def check_equal(models: dict[str, nn.Module], image: Tensor, target: Tensor) -> dict[str, float]:
    """Largest relative error of logits and of the gradient with respect to the image, in fp32.

    Raises:
        RuntimeError: if a peer does not compute the same; timing it would mean nothing.
    """
    results = {}
    for name, model in models.items():
        pixels = image.clone().requires_grad_()
        logits = model(pixels)
        F.cross_entropy(logits, target).backward()
        model.zero_grad(set_to_none=True)
        results[name] = (logits.detach(), pixels.grad)
    ours = results['evamm']
    errors = {}
    for name, theirs in results.items():
        errors[name] = max(
            float((a - b).norm() / b.norm()) for a, b in zip(theirs, ours, strict=True)
        )
        if not errors[name] < 1e-4:
            raise RuntimeError(
                f'{name} does not compute what evamm computes: relative error {errors[name]:.1e}.'
            )
    return errors


def jobs_for(
    mode: str, models: dict[str, nn.Module], image: Tensor, target: Tensor, dtype: torch.dtype
) -> dict[str, Callable[[], None]]:
    """One callable per peer that does the timed work once."""
    device = image.device.type

    def autocast():
        return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)

    def forward(model: nn.Module) -> Callable[[], None]:
        def job() -> None:
            with torch.inference_mode(), autocast():
                model(image)

        model.eval()
        return job

    def train(model: nn.Module) -> Callable[[], None]:
        optimizer = optimizer_of(model)

        def job() -> None:
            with autocast():
                loss = F.cross_entropy(model(image), target)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        model.train()
        return job

    return {name: (forward if mode == 'forward' else train)(m) for name, m in models.items()}


@dataclass(frozen=True)
class Products:
    """The matrix products of one block's linear layers, alone, by evamm's kernel."""

    job: Callable[[], None]
    flops: int
    flops_of_forward: int


def products_of(model: nn.Module, work: Work, batch: int, dtype: torch.dtype) -> Products:
    """What the machine can do for shapes of this model; see the column of the table."""
    backbone = model.backbone
    linears = [m for m in backbone.blocks[0].modules() if isinstance(m, nn.Linear)]
    weights = [module.weight.detach().to(dtype) for module in linears]
    tokens = batch * (1 + backbone.grid_size[0] * backbone.grid_size[1])
    pairs = [
        (torch.randn(tokens, weight.shape[1], device=weight.device, dtype=dtype), weight)
        for weight in weights
    ]

    def job() -> None:
        with torch.inference_mode():
            for x, weight in pairs:
                linear.linear(x, weight)  # the products, in one block's order

    flops = 2 * tokens * sum(weight.numel() for weight in weights)
    shape = (batch, 3, work.img_size, work.img_size)
    return Products(job, flops, 2 * backbone.count_macs(shape))


def measure(work: Work, args: argparse.Namespace) -> list[str]:
    """Table rows of one model."""
    weights = random_weights(work)
    models = {name: PEERS[name](work, weights).to(args.device) for name in args.peers}
    defaults = CUDA_BATCH if args.device == 'cuda' else CPU_BATCH
    batch = args.batch or defaults[work.size]
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, work.img_size, work.img_size, generator=generator)
    target = torch.randint(work.num_classes, (batch,), generator=generator)
    image, target = image.to(args.device), target.to(args.device)
    errors = check_equal(models, image[:2], target[:2])
    rows = []
    others = [name for name in args.peers if name != 'evamm']
    for mode in args.modes:
        jobs = jobs_for(mode, models, image, target, DTYPES[args.dtype])
        cells = [str(work), mode, str(batch)]
        if mode == 'memory':
            held = {name: peak_memory(job, args.device) for name, job in jobs.items()}
            cells.append(f'{held["evamm"] / 1e6:.0f} MB')
            cells += [f'{held[name] / held["evamm"]:.2f}' for name in others]
            cells.append('')
        else:
            rate = products_of(models['evamm'], work, batch, DTYPES[args.dtype])
            jobs = {**jobs, 'products': rate.job}
            seconds = interleave(jobs, args.repeats, args.device)
            cells.append(f'{1000 * statistics.median(seconds["evamm"]):.0f}')
            cells += [str(Ratio.of(seconds[name], seconds['evamm'])) for name in others]
            # Of the same rounds: FLOPs per second of the whole work over those of the products.
            work_flops = rate.flops_of_forward * (1 if mode == 'forward' else 3)
            share = Ratio.of(seconds['products'], seconds['evamm']).scaled(work_flops / rate.flops)
            cells.append(f'{100 * share.median:.0f} %')
        cells.append(f'{max(errors.values()):.0e}')
        rows.append('| ' + ' | '.join(cells) + ' |')
    return rows


def processor(device: str) -> str:
    """What the work ran on, in words."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--models',
        nargs='+',
        type=Work.parse,
        metavar='SIZE@PIXELS',
        default=[Work.parse(text) for text in MODELS],
    )
    parser.add_argument('--peers', nargs='+', choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument('--modes', nargs='+', choices=MODES, default=['forward', 'train'])
    parser.add_argument('--batch', type=int, help='images per step (default: by model and device)')
    parser.add_argument('--repeats', type=int, default=15, help='rounds (default: 15)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='autocast on CUDA (default: bf16)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    parser.add_argument(
        '--default-kernels',
        action='store_true',
        help="evamm with PyTorch's default matrix products, as on processors where they are best",
    )
    args = parser.parse_args(argv)
    if args.dtype is None:
        args.dtype = 'bf16' if args.device == 'cuda' else 'fp32'
    if args.device == 'cpu' and args.dtype != 'fp32':
        parser.error('--dtype: the CPU is measured in fp32 only')
    if 'evamm' not in args.peers:
        args.peers = ['evamm', *args.peers]
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.default_kernels:
        linear._USE_ONEDNN = False
    others = [name for name in args.peers if name != 'evamm']
    place = processor(args.device)
    if args.device == 'cpu':
        place += f', {args.threads} thread(s)'
    versions = ', '.join(f'{name} {VERSIONS[name]()}' for name in args.peers)
    print(f'{place}, {args.dtype}, {args.repeats} rounds, torch {torch.__version__}, {versions}\n')
    heads = [
        'model',
        'work',
        'batch',
        'evamm ms',
        *(f'{name} / evamm' for name in others),
        'of the products',
        'outputs differ by',
    ]
    print('| ' + ' | '.join(heads) + ' |')
    print('|' + '---|' * len(heads), flush=True)
    for work in args.models:
        for row in measure(work, args):
            print(row, flush=True)


if __name__ == '__main__':
    main()
