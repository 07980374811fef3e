"""EVA-CLIP pairs in evamm and open_clip: same weights, same pairs, interleaved runs.

    python -m benchmarks.clip --models eva02-clip-b-16

Features, the loss and its gradients are compared first; if they differ nothing is timed. Timed are

- forward: normalised features of a batch of images and texts, in evaluation mode, without autograd;
- train: forward, contrastive loss of the batch, backward and a step of fused AdamW (two parameter
  groups), gradients freed;
- memory: the most that a training step holds besides weights and optimizer state (the table has
  megabytes instead of milliseconds).

Texts have the tokens of --text-tokens and are padded to 77, as both libraries get them. Data
loading is not part of it. Prints a markdown table as benchmarks.classification does.
"""

import argparse
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version as installed

import torch
from torch import Tensor, nn

import evamm
from evamm import compat
from evamm.checkpoints import canonicalize, from_evamm
from evamm.models.clip_variants import CLIP_ARCHS, CONTEXT_LENGTH, VOCAB_SIZE

from .classification import DTYPES, MODES, optimizer_of, processor
from .timing import Ratio, interleave, peak_memory

OPEN_CLIP = {
    'eva01-clip-g-14': 'EVA01-g-14',
    'eva01-clip-g-14-plus': 'EVA01-g-14-plus',
    'eva02-clip-b-16': 'EVA02-B-16',
    'eva02-clip-l-14': 'EVA02-L-14',
    'eva02-clip-l-14-336': 'EVA02-L-14-336',
    'eva02-clip-bige-14': 'EVA02-E-14',
    'eva02-clip-bige-14-plus': 'EVA02-E-14-plus',
}
Features = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


class Evamm:
    """The model as configs build it."""

    def __init__(self, name: str) -> None:
        from mmpretrain.structures import DataSample

        from evamm.registry import MODELS

        arch = CLIP_ARCHS[name]
        self.model = MODELS.build(
            dict(
                type='evamm.EVACLIP',
                embed_dims=arch.embed_dims,
                backbone=dict(
                    type='evamm.EVAViT',
                    arch=arch.vision,
                    img_size=arch.img_size,
                    out_type='cls_token',
                ),
                text=dict(type='evamm.CLIPTextTransformer', arch=arch.text),
            )
        )
        self.sample = DataSample

    def _samples(self, tokens: Tensor) -> list:
        samples = []
        for row in tokens:
            sample = self.sample()
            sample.text_tokens = row
            samples.append(sample)
        return samples

    def features(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model(images, self._samples(tokens), mode='tensor')

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        return self.model(images, self._samples(tokens), mode='loss')['loss']

    def towers(self) -> tuple[Tensor, Tensor]:
        return self.model.head.weight, self.model.text.text_projection


class OpenCLIP:
    """The model and the loss as open_clip's training uses them."""

    def __init__(self, name: str, weights: dict[str, Tensor]) -> None:
        import open_clip

        self.model = open_clip.create_model(OPEN_CLIP[name], pretrained=None)
        self.model.load_state_dict(weights)
        self.criterion = open_clip.ClipLoss()

    def features(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.model(images, tokens)

    def loss(self, images: Tensor, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            self.model.logit_scale.clamp_(0, 4.6052)
        return self.criterion(*self.model(images, tokens))

    def towers(self) -> tuple[Tensor, Tensor]:
        return self.model.visual.trunk.head.weight, self.model.text.text_projection


Peer = Evamm | OpenCLIP


def build(name: str) -> dict[str, Peer]:
    """Both models with the same random weights, of the size training leaves."""
    torch.manual_seed(0)
    ours = Evamm(name)
    ours.model.init_weights()
    with torch.no_grad():
        for param_name, param in ours.model.named_parameters():
            if param.ndim == 1 and 'norm' not in param_name and 'ln_' not in param_name:
                param.add_(0.02 * torch.randn_like(param))
        head = ours.model.head.weight
        head.copy_(torch.randn_like(head) / head.shape[1] ** 0.5)
    weights = from_evamm(canonicalize(ours.model.state_dict()).state_dict, 'open_clip')
    return {'evamm': ours, 'open_clip': OpenCLIP(name, weights)}


def batch_of(name: str, size: int, text_tokens: int) -> tuple[Tensor, Tensor]:
    """Images [B, 3, S, S] and padded token ids [B, 77]."""
    generator = torch.Generator().manual_seed(1)
    side = CLIP_ARCHS[name].img_size
    images = torch.randn(size, 3, side, side, generator=generator)
    tokens = torch.zeros(size, CONTEXT_LENGTH, dtype=torch.long)
    words = torch.randint(1, VOCAB_SIZE - 2, (size, text_tokens - 2), generator=generator)
    tokens[:, 0], tokens[:, 1 : text_tokens - 1] = VOCAB_SIZE - 2, words
    tokens[:, text_tokens - 1] = VOCAB_SIZE - 1
    return images, tokens


def check_equal(peers: dict[str, Peer], images: Tensor, tokens: Tensor) -> float:
    """Largest relative difference of features, loss and gradients, in fp32.

    Raises:
        RuntimeError: if open_clip does not compute the same; timing it would mean nothing.
    """
    results = {}
    for name, peer in peers.items():
        pixels = images.clone().requires_grad_()
        with torch.no_grad():
            features = peer.features(images, tokens)[:2]
        loss = peer.loss(pixels, tokens)
        loss.backward()
        weights = [param.grad.clone() for param in peer.towers()]
        results[name] = (*features, loss.detach(), pixels.grad, *weights)
        peer.model.zero_grad(set_to_none=True)
    errors = [
        float((a - b).norm() / b.norm())
        for a, b in zip(results['open_clip'], results['evamm'], strict=True)
    ]
    if not max(errors) < 1e-4:
        raise RuntimeError(f'open_clip does not compute what evamm computes: {errors}.')
    return max(errors)


def job_of(
    mode: str, peer: Peer, images: Tensor, tokens: Tensor, dtype: torch.dtype
) -> Callable[[], None]:
    """The timed work of one library."""
    model: nn.Module = peer.model
    device = images.device.type

    def autocast():
        return nullcontext() if dtype == torch.float32 else torch.autocast(device, dtype)

    if mode == 'forward':

        def job() -> None:
            with torch.inference_mode(), autocast():
                peer.features(images, tokens)

        model.eval()
        return job

    optimizer = optimizer_of(model)

    def job() -> None:
        with autocast():
            loss = peer.loss(images, tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model.train()
    return job


def measure(name: str, text_tokens: int, args: argparse.Namespace) -> list[str]:
    """Table rows of one pair and one length of texts."""
    peers = build(name)
    images, tokens = batch_of(name, args.batch, text_tokens)
    images, tokens = images.to(args.device), tokens.to(args.device)
    for peer in peers.values():
        peer.model.to(args.device)
    error = check_equal(peers, images[:4], tokens[:4])
    rows = []
    for mode in args.modes:
        jobs = {
            key: job_of(mode, peer, images, tokens, DTYPES[args.dtype])
            for key, peer in peers.items()
        }
        if mode == 'memory':
            held = {key: peak_memory(job, args.device) for key, job in jobs.items()}
            result = f'{held["evamm"] / 1e6:.0f} MB'
            ratio = f'{held["open_clip"] / held["evamm"]:.2f}'
        else:
            seconds = interleave(jobs, args.repeats, args.device)
            result = f'{1000 * statistics.median(seconds["evamm"]):.0f}'
            ratio = str(Ratio.of(seconds['open_clip'], seconds['evamm']))
        cells = [name, mode, str(args.batch), str(text_tokens), result, ratio, f'{error:.0e}']
        rows.append('| ' + ' | '.join(cells) + ' |')
    return rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(OPEN_CLIP)
    parser.add_argument('--models', nargs='+', choices=names, default=['eva02-clip-b-16'])
    parser.add_argument('--modes', nargs='+', choices=MODES, default=list(MODES))
    parser.add_argument('--batch', type=int, help='pairs per step (default: 4, on CUDA 256)')
    parser.add_argument(
        '--text-tokens',
        nargs='+',
        type=int,
        default=[CONTEXT_LENGTH, 16],
        help='lengths of the texts, up to 77 (default: 77 and 16)',
    )
    parser.add_argument('--repeats', type=int, default=15, help='rounds (default: 15)')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--dtype', choices=tuple(DTYPES), help='autocast on CUDA (default: bf16)')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads (default: 1)')
    args = parser.parse_args(argv)
    args.batch = args.batch or (256 if args.device == 'cuda' else 4)
    args.dtype = args.dtype or ('bf16' if args.device == 'cuda' else 'fp32')
    if args.device == 'cpu' and args.dtype != 'fp32':
        parser.error('--dtype: the CPU is measured in fp32 only')
    if not all(3 <= length <= CONTEXT_LENGTH for length in args.text_tokens):
        parser.error(f'--text-tokens: lengths from 3 to {CONTEXT_LENGTH}')
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
        f'evamm {evamm.__version__}, open_clip {installed("open_clip_torch")}\n'
    )
    heads = ['pair', 'work', 'batch', 'text tokens', 'evamm ms', 'open_clip / evamm']
    print('| ' + ' | '.join([*heads, 'results differ by']) + ' |')
    print('|' + '---|' * (len(heads) + 1), flush=True)
    for name in args.models:
        for text_tokens in args.text_tokens:
            for row in measure(name, text_tokens, args):
                print(row, flush=True)


if __name__ == '__main__':
    main()
