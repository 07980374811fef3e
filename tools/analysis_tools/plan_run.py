"""Say how to run a config on a number of GPUs: batch, accumulation, memory and days.

Examples:
    python tools/analysis_tools/plan_run.py configs/eva02/eva02_large_p14_8xb16_in1k.py --gpus 8
    python tools/analysis_tools/plan_run.py --write     # the tables of docs/en

Nothing is measured: memory and time follow the formulas of docs/en/scaling.md, with the rate of the
GPU and the share of it that is used (MFU) as assumptions.
"""

import argparse
import contextlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from evamm.registry import MODELS  # isort: skip  (first: it makes the libraries importable)
from mmengine.config import Config
from mmengine.registry import DefaultScope

from evamm.apis.config import load_config
from evamm.models.clip_variants import CONTEXT_LENGTH as TEXT_TOKENS
from evamm.models.clip_variants import TextArch
from evamm.models.flops import count_macs
from evamm.models.variants import EVAArch, resolve_arch

sys.path.insert(0, str(Path(__file__).parent))
import detector_plan
from detector_plan import DETECTOR_MFU, Heads, measure_heads
from kept_bytes import position_bytes, saved_bytes, saved_elements, tower_bytes  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'en' / 'scaling.md'
DETECTION_PAGE = PAGE.with_name('detection_recipes.md')
BEGIN = '<!-- table of plan_run.py: begin (generated, do not edit) -->'
END = '<!-- table of plan_run.py: end -->'
IMAGES = {'ImageNet': 1_281_167, 'ImageNet21k': 14_197_122}
# Share of the rate of large matrix products that a training step reaches, by width: assumed.
MFU = ((1024, 0.40), (768, 0.35), (384, 0.25), (0, 0.15))
GIB = 2**30
# Of the memory of the device; the rest is for the context, workspaces and fragmentation.
USABLE = 0.85


@dataclass(frozen=True)
class Plan:
    """How one config runs on a number of GPUs; sizes in bytes per GPU."""

    gpus: int
    sharded: bool
    batch_size: int
    accumulation: int
    states: int
    activations: int
    days: float
    pairs: bool = False  # parts of a batch whose loss is that of the whole, not accumulation
    # Keys that count iterations, in optimizer steps; accumulation makes more of them.
    steps: tuple[tuple[str, int], ...] = ()
    accumulates: int = 1  # as the config is

    @property
    def command(self) -> str:
        """Options to add to the training command."""
        if self.pairs:
            options = [
                f'train_dataloader.batch_size={self.batch_size * self.accumulation}',
                f'model.train_cfg.micro_batch_size={self.batch_size}',
            ]
        else:
            options = [
                f'train_dataloader.batch_size={self.batch_size}',
                f'optim_wrapper.accumulative_counts={self.accumulation}',
            ]
        if self.accumulation != self.accumulates:
            options += [f'{key}={steps * self.accumulation}' for key, steps in self.steps]
        if self.sharded:
            options.append('model_wrapper_cfg.type=evamm.FSDP2')
        return ' '.join(options)


@dataclass(frozen=True)
class Recipe:
    """The numbers of a config that decide about memory and time."""

    name: str
    arch: EVAArch
    tokens: int
    params: int
    trained: int
    averaged: bool
    recomputes: bool
    macs: int
    total_batch: int
    images: int
    text: TextArch | None = None
    frozen: bool = False
    heads: Heads | None = None  # of a detector
    positions: tuple[int, ...] = ()  # bytes of relative positions, block by block
    steps: tuple[tuple[str, int], ...] = ()  # see `Plan`
    accumulates: int = 1

    @classmethod
    def from_config(cls, path: Path, images: int | None = None) -> 'Recipe':
        """Read a config.

        Args:
            path: Config file whose model has the backbone ``evamm.EVAViT``.
            images: Images seen in the whole run; None takes epochs x dataset.

        Raises:
            ValueError: The config says too little; the message names the key.
        """
        cfg, _ = load_config(path)
        backbone = cfg.model.get('backbone', {})
        if backbone.get('type') != 'evamm.EVAViT':
            raise ValueError(f'{path}: model.backbone is no evamm.EVAViT.')
        if 'train_dataloader' not in cfg or 'optim_wrapper' not in cfg:
            raise ValueError(
                f'{path}: has no train_dataloader and optim_wrapper, nothing to train.'
            )
        total_batch = cfg.get('auto_scale_lr', {}).get('base_batch_size')
        if total_batch is None:
            raise ValueError(f'{path}: auto_scale_lr.base_batch_size (the total batch) is missing.')
        if images is None:
            images = _images(cfg, path, total_batch)
        with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
            model = MODELS.build(cfg.model)
        trunk = model.backbone
        hooks = [hook.get('type', '') for hook in cfg.get('custom_hooks') or []]
        head = cfg.model.get('head') or {}
        pair, detector = cfg.model.type == 'evamm.EVACLIP', 'roi_head' in cfg.model
        patches = trunk.grid_size[0] * trunk.grid_size[1]
        return cls(
            name=Path(path).stem,
            arch=resolve_arch(backbone['arch']),
            tokens=(not detector) + int(patches * (1 - backbone.get('patch_dropout', 0))),
            params=sum(p.numel() for p in model.parameters()),
            trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
            averaged=any('EMAHook' in hook for hook in hooks),
            recomputes=bool(backbone.get('with_cp', False)),
            macs=(model if pair else trunk).train().count_macs((1, 3, *trunk.img_size))
            if pair or detector
            else count_macs(
                backbone['arch'],
                trunk.img_size,
                trunk.patch_size,
                num_classes=head.get('num_classes', 0),
            ),
            total_batch=total_batch,
            images=images,
            text=model.text.arch if pair else None,
            frozen=not any(p.requires_grad for p in trunk.parameters()),
            heads=measure_heads(model, trunk.img_size[0]) if detector else None,
            positions=tuple(
                position_bytes(trunk.arch, trunk.grid_size, block.window_size)
                for block in trunk.blocks
                if getattr(trunk, 'relative_position', False)
            ),
            steps=() if pair else _steps(cfg),
            accumulates=cfg.optim_wrapper.get('accumulative_counts', 1),
        )

    def states(self, gpus: int, sharded: bool) -> int:
        """Bytes of weights, gradients, AdamW's two moments and the average, all float32."""
        kept = 4 * self.params * (1 + self.averaged) + 12 * self.trained
        if not sharded:
            return kept + 2 * self.params  # bfloat16 copies of the weights
        block = math.ceil(self.params / self.arch.depth)
        # Two whole blocks at a time (one computes, the next arrives), with copies and a gradient.
        return kept // gpus + 2 * block * (4 + 2) + 4 * block

    def activations(self, images: int) -> int:
        """Bytes kept for the backward pass; of a frozen trunk those of the block that computes."""
        block = saved_bytes(self.arch, self.tokens)
        if self.frozen:
            return images * block
        kept = tower_bytes(
            self.arch.depth, block, self.tokens, self.arch.embed_dims, self.recomputes
        )
        if self.text is not None:
            text = TEXT_TOKENS * self.text.width * (4 * 2 + 2 * (7 + 2 * 4))
            kept += tower_bytes(
                self.text.depth, text, TEXT_TOKENS, self.text.width, self.recomputes
            )
        if self.heads is not None:
            kept += self.heads.bytes
        if self.positions:
            kept += max(self.positions) if self.recomputes else sum(self.positions)
        return images * kept

    def logits(self, gpus: int) -> int:
        """Bytes of the cosines of own images and texts with all others, and their softmax."""
        return 0 if self.text is None else 16 * self.total_batch**2 // gpus

    def flops(self, parts: int) -> float:
        """Operations of the whole run, with what is computed again."""
        passes = 1 if self.frozen else 3 + self.recomputes + (self.text is not None and parts > 1)
        macs = self.macs * passes + (0 if self.heads is None else self.heads.bf16_macs(3))
        return 2 * macs * self.images

    @property
    def counted_flops(self) -> int:
        """Operations of three forward passes of every image, without what is computed again."""
        heads = 0 if self.heads is None else self.heads.pyramid_macs + self.heads.head_macs
        return 6 * (self.macs + heads) * self.images

    def plan(self, gpus: int, memory: float, rate: float, mfu: float) -> Plan | None:
        """The largest batch per GPU that fits; None if not even one image does.

        Args:
            gpus: Number of GPUs.
            memory: GiB of one GPU.
            rate: FLOP/s of large matrix products of one GPU.
            mfu: Share of it that training reaches.
        """
        room = memory * GIB * USABLE - self.logits(gpus)
        if self.total_batch % gpus:
            return None
        for sharded in (False, True) if gpus > 1 else (False,):
            states = self.states(gpus, sharded)
            for batch in sorted(_divisors(self.total_batch // gpus), reverse=True):
                if states + self.activations(batch) <= room:
                    parts = self.total_batch // gpus // batch
                    return Plan(
                        gpus=gpus,
                        sharded=sharded,
                        batch_size=batch,
                        accumulation=parts,
                        states=states,
                        activations=self.activations(batch) + self.logits(gpus),
                        days=self.flops(parts) / (gpus * rate * mfu) / 86400,
                        pairs=self.text is not None,
                        steps=self.steps,
                        accumulates=self.accumulates,
                    )
        return None


def default_mfu(width: int) -> float:
    """The assumed MFU of a trunk of this width."""
    return next(mfu for least, mfu in MFU if width >= least)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _steps(cfg: Config) -> tuple[tuple[str, int], ...]:
    """What a config counts in iterations, in optimizer steps; nothing if it counts epochs."""
    if cfg.train_cfg.get('by_epoch', True) or 'max_iters' not in cfg.train_cfg:
        return ()
    counted = {f'train_cfg.{key}': cfg.train_cfg.get(key) for key in ('max_iters', 'val_interval')}
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    if not checkpoint.get('by_epoch', True):
        counted['default_hooks.checkpoint.interval'] = checkpoint.get('interval')
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    return tuple((key, number // counts) for key, number in counted.items() if number)


def _images(cfg: Config, path: Path, total_batch: int) -> int:
    """Images that a run of the config sees."""
    if 'max_iters' in cfg.train_cfg:
        counts = cfg.optim_wrapper.get('accumulative_counts', 1)
        return cfg.train_cfg.max_iters // counts * total_batch
    dataset = cfg.train_dataloader.dataset.type.rpartition('.')[2]
    if dataset not in IMAGES:
        raise ValueError(f'{path}: give --images, the size of {dataset} is not known here.')
    return cfg.train_cfg.max_epochs * IMAGES[dataset]


def _size(number: int) -> str:
    return f'{number / GIB:.1f} GiB'


def _days(days: float) -> str:
    return f'{days:.1f} days' if days >= 1 else f'{24 * days:.1f} h'


def recipes(pattern: str) -> Iterator[Recipe]:
    """Every config that trains a trunk of ours, detectors or not."""
    for path in sorted((ROOT / 'configs').glob(pattern)):
        if path.parent.name.endswith('_det') != ('_det' in pattern):
            continue
        with contextlib.suppress(ValueError):  # headless trunks
            yield Recipe.from_config(path)


def table(memory: float, rate: float) -> str:
    """One row per official recipe."""
    lines = [
        '| config | total batch | images seen | train FLOPs | MFU assumed | 1 GPU | 8 GPUs '
        '| 128 GPUs |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for recipe in recipes('eva*/*.py'):
        mfu = default_mfu(recipe.arch.embed_dims)
        cells = []
        for gpus in (1, 8, 128):
            plan = recipe.plan(gpus, memory, rate, mfu)
            how = 'does not fit'
            if plan is not None:
                size = _size(plan.states + plan.activations)
                kind = ' FSDP' if plan.sharded else ''
                how = f'{plan.batch_size} x {plan.accumulation}{kind}, {size}, {_days(plan.days)}'
            cells.append(how)
        exaflops = (2 if recipe.frozen else 6) * recipe.macs * recipe.images / 1e18
        name = f'`{recipe.name}`' + (' (recomputes)' if recipe.recomputes else '')
        lines.append(
            f'| {name} | {recipe.total_batch} | {recipe.images / 1e6:.1f} M | {exaflops:.3g} E | '
            f'{mfu:.0%} | {" | ".join(cells)} |'
        )
    return '\n'.join(lines)


def pages(memory: float, rate: float) -> dict[Path, str]:
    """The texts of docs/en/scaling.md and docs/en/detection_recipes.md with new tables."""
    tables = {
        PAGE: table(memory, rate),
        DETECTION_PAGE: detector_plan.table(
            list(recipes('eva*_det/*_*xb*_[clo]???.py')),
            rate=rate,
        ),
    }
    texts = {}
    for path, rows in tables.items():
        head, rest = path.read_text(encoding='utf-8').split(BEGIN)
        texts[path] = f'{head}{BEGIN}\n{rows}\n{END}{rest.split(END)[1]}'
    return texts


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', type=Path, help='config to plan')
    parser.add_argument('--gpus', type=int, default=8, help='number of GPUs (default: 8)')
    parser.add_argument('--memory', type=float, default=139, help='GiB of a GPU (default: 139)')
    parser.add_argument(
        '--tflops', type=float, default=790, help='rate of large bfloat16 products (default: 790)'
    )
    parser.add_argument('--mfu', type=float, help='share of it that is used; default: by width')
    parser.add_argument('--images', type=int, help='images seen in the run; default: by dataset')
    parser.add_argument('--write', action='store_true', help='write the tables of the docs')
    parser.add_argument(
        '--check', action='store_true', help='fail if these tables are not up to date'
    )
    args = parser.parse_args()
    if (args.config is None) == (not (args.write or args.check)):
        parser.error('give a config, or --write or --check')
    return args


def main() -> int:
    args = parse_args()
    rate = args.tflops * 1e12
    if args.write or args.check:
        stale = [
            (path, text)
            for path, text in pages(args.memory, rate).items()
            if text != path.read_text(encoding='utf-8')
        ]
        for path, text in stale:
            if args.write:
                path.write_text(text, encoding='utf-8')
            else:
                print(f'{path} is out of date: run {Path(__file__).name} --write', file=sys.stderr)
        return int(bool(stale) and not args.write)
    try:
        recipe = Recipe.from_config(args.config, args.images)
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    if args.gpus < 1:
        print(f'error: --gpus must be at least 1, found {args.gpus}', file=sys.stderr)
        return 1
    if recipe.total_batch % args.gpus:
        print(f'--gpus {args.gpus} does not divide the total batch {recipe.total_batch}.')
        return 1
    assumed = DETECTOR_MFU[0] if recipe.heads else default_mfu(recipe.arch.embed_dims)
    mfu = args.mfu or assumed
    plan = recipe.plan(args.gpus, args.memory, rate, mfu)
    print(f'Total batch                  {recipe.total_batch}')
    print(f'Images seen                  {recipe.images / 1e6:.1f} M')
    print(f'Training FLOPs               {recipe.counted_flops:.3g}')
    print(f'Weights and optimizer        {_size(recipe.states(1, False))} on one GPU')
    print(f'Activations per image        {_size(recipe.activations(1))}')
    if plan is None:
        print(f'One image does not fit into {args.memory:g} GiB: use more GPUs, or with_cp=True.')
        return 1
    print(f'Plan for {plan.gpus} GPUs')
    parts = 'parts' if plan.pairs else 'accumulated'
    print(f'  images per GPU             {plan.batch_size} x {plan.accumulation} {parts}')
    kind = 'FSDP' if plan.sharded else 'DDP' if plan.gpus > 1 else 'none'
    memory = f'{_size(plan.states)} + {_size(plan.activations)} activations'
    print(f'  parallel training          {kind}')
    print(f'  memory per GPU             {memory}')
    print(
        f'  time                       {_days(plan.days)} at {mfu:.0%} of {args.tflops:g} TFLOP/s'
    )
    print(f'  command                    bash tools/dist_train.sh {args.config} {plan.gpus} \\')
    print(f'      --cfg-options {plan.command}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
