"""Compute the teacher's features once and keep them on disk for pre-training.

The config's pipeline must have evamm.SeededCrops: its crops are the ones whose features are kept.
The teacher is model.teacher, or `teacher` of a config that trains from a cache. An interrupted run
goes on where it was when the same command is given again. Several processes share the work
(torchrun, Slurm). Images that cannot be read are named and left out, up to the share of
train_cfg.max_damaged; training replaces them.

Examples:
    python tools/cache_teacher.py CONFIG --out data/features --dtype int8
    torchrun --nproc-per-node 8 tools/cache_teacher.py CONFIG --out F --launcher pytorch
    python tools/cache_teacher.py CONFIG --out data/features --verify
    python tools/train.py CONFIG --cfg-options model.teacher=None \
        train_dataloader.dataset.pipeline.3.cache=data/features    # evamm.LoadTeacherFeatures
"""

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm import compat

compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.dist import barrier, get_rank, get_world_size, init_dist, is_main_process
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn
from torch.utils.data import DataLoader, Dataset

from evamm.datasets import feature_cache
from evamm.datasets.feature_cache import CacheMeta, FeatureCacheError, ShardWriter
from evamm.datasets.samplers.damaged_images import Damage, DamageCount, find_damage
from evamm.datasets.samplers.generators import preserved_generators, seed_generators
from evamm.datasets.transforms import SeededCrops
from evamm.datasets.transforms.seeded_crops import relative_path
from evamm.engine.runner import launch, preflight


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='pre-training config with a teacher')
    parser.add_argument('--out', type=Path, required=True, help='folder of the cache')
    parser.add_argument(
        '--dtype',
        choices=feature_cache.DTYPES,
        default='float16',
        help='int8 takes half the space (default: float16)',
    )
    parser.add_argument('--batch-size', type=int, default=64, help='crops per step (default: 64)')
    parser.add_argument('--workers', type=int, default=2, help='loader processes (default: 2)')
    parser.add_argument(
        '--shard-size', type=int, default=1000, help='images per file (default: 1000)'
    )
    parser.add_argument('--device', help='default: cuda where there is one')
    parser.add_argument(
        '--verify',
        action='store_true',
        help='compare all files with their hashes; damaged ones are written again',
    )
    launch.add_common_arguments(parser)
    return parser.parse_args()


class Crops(Dataset):
    """Views of images, as (row of the image, view)."""

    def __init__(self, dataset: Dataset, crops: SeededCrops, pipeline: list, pack: dict) -> None:
        self.dataset, self.crops = dataset, crops
        self.transforms = Compose([*pipeline, crops, pack])
        self.pairs: list[tuple[int, int]] = []

    def path(self, row: int) -> str:
        """Path of an image as the cache knows it."""
        return relative_path(self.dataset.get_data_info(row)['img_path'], self.crops.root)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict:
        row, view = self.pairs[index]
        info = self.dataset.get_data_info(row)
        try:
            sample = self.transforms({**info, 'crop_view': view})
        except Exception as error:
            # Handed over as text: what a worker raises arrives with its whole traceback.
            damage = find_damage(self.dataset, row)
            if damage is None:
                path, reason = info['img_path'], f'{type(error).__name__}: {error}'
                return dict(row=row, view=view, error=f'{path} cannot be used ({reason}).')
            return dict(row=row, view=view, damage=Damage(row, *damage))
        return dict(inputs=sample['inputs'], row=row, view=view)

    def check_repeatable(self, draws: int = 16) -> None:
        """Are the crops the same whatever was drawn before?

        Raises:
            UsageError: A transform before the crops is random.
        """
        with preserved_generators():
            for row in range(min(len(self.dataset), draws)):
                self.pairs, crops = [(row, 0)], []
                for seed in (2 * row, 2 * row + 1):
                    seed_generators(seed)
                    crops.append(self[0].get('inputs'))
                crops = [crop if isinstance(crop, list) else [crop] for crop in crops]
                for one, other in zip(*crops, strict=True):
                    if one is not None and not torch.equal(one, other):
                        raise launch.UsageError(
                            'train_dataloader.dataset.pipeline has a random transform before '
                            'evamm.SeededCrops: put it inside, where it follows from the seed.'
                        )


def collate(samples: list[dict]) -> dict:
    """A batch of the sound crops; the others as they are.

    Raises:
        FeatureCacheError: A crop could not be made, and not because of its image.
    """
    sound = [sample for sample in samples if 'inputs' in sample]
    return dict(
        inputs=default_collate([sample['inputs'] for sample in sound]) if sound else None,
        places=[(sample['row'], sample['view']) for sample in sound],
        others=[sample for sample in samples if 'inputs' not in sample],
    )


def build_crops(cfg: Config) -> Crops:
    """The training images of a config with its pipeline up to SeededCrops."""
    settings = cfg.train_dataloader.dataset.copy()
    pipelines = [dict(part)['pipeline'] for part in _parts(settings)]
    if any(pipeline != pipelines[0] for pipeline in pipelines):
        raise launch.UsageError('train_dataloader.dataset: its parts have different pipelines.')
    types = [transform['type'].split('.')[-1] for transform in pipelines[0]]
    if 'SeededCrops' not in types:
        raise launch.UsageError(
            'train_dataloader.dataset.pipeline has no evamm.SeededCrops: crops that are drawn anew '
            'in every epoch have no features to keep. Put flip and crop into one.'
        )
    for part in _parts(settings):
        part['pipeline'] = []
    dataset = DATASETS.build(settings)
    transforms = Compose(pipelines[0][: types.index('SeededCrops') + 1]).transforms
    crops = Crops(dataset, transforms[-1], transforms[:-1], dict(type='evamm.PackMIMInputs'))
    if not len(dataset):
        raise launch.UsageError('train_dataloader.dataset has no images.')
    crops.check_repeatable()
    return crops


def _parts(settings: dict) -> Iterator[dict]:
    """The datasets inside of wrappers that have a pipeline."""
    if 'datasets' in settings:
        for part in settings['datasets']:
            yield from _parts(part)
    elif 'dataset' in settings:
        yield from _parts(settings['dataset'])
    else:
        settings.setdefault('pipeline', [])
        yield settings


def teacher_of(cfg: Config) -> dict | None:
    """Settings of the teacher."""
    return cfg.model.get('teacher') or cfg.get('teacher')


def build_model(cfg: Config, device: torch.device) -> nn.Module:
    """The pre-training model of a config with its teacher's weights."""
    settings = {'data_preprocessor': cfg.get('data_preprocessor'), **cfg.model}
    settings['teacher'] = teacher_of(cfg)
    model = MODELS.build(settings)
    if getattr(model, 'teacher', None) is None:
        raise launch.UsageError('model.teacher is missing: there is nothing to compute.')
    if isinstance(model.teacher.target_dims, tuple):
        raise launch.UsageError(
            'model.teacher has several target blocks; a cache holds the features of one.'
        )
    model.teacher.load()
    model.data_preprocessor.to(device)
    model.teacher.to(device)
    return model.eval()


def hash_weights(module: nn.Module) -> str:
    """The sha256 of all weights of a module."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def compute(model: nn.Module, inputs: object, cfg: Config, device: torch.device) -> torch.Tensor:
    """Features of a batch of crops, float32 [B, N, T] on the host."""
    data = model.data_preprocessor({'inputs': inputs, 'data_samples': None}, False)
    dtype = cfg.get('optim_wrapper', {}).get('dtype')
    # As in training: autocast on CUDA only.
    mixed = device.type == 'cuda' and dtype in ('bfloat16', 'float16')
    with torch.autocast('cuda', getattr(torch, dtype)) if mixed else nullcontext():
        features = model.teacher_features(data['inputs'])[0]
    return features.float().cpu()


def probe_inputs(crops: Crops) -> object:
    """A batch of one crop, of the first image that can be read."""
    for row in range(len(crops.dataset)):
        crops.pairs = [(row, 0)]
        batch = collate([crops[0]])
        if batch['places']:
            return batch['inputs']
        for other in batch['others']:
            if 'error' in other:
                raise FeatureCacheError(other['error'])
    raise launch.UsageError('train_dataloader.dataset: none of its images can be read.')


def begin(args: argparse.Namespace, cfg: Config, crops: Crops, model: nn.Module) -> CacheMeta:
    """Writes what the cache will hold, or checks it against what is there."""
    paths = [crops.path(row) for row in range(len(crops.dataset))]
    device = next(model.teacher.parameters()).device
    probe = compute(model, probe_inputs(crops), cfg, device)
    grid = model.backbone.grid_size
    if probe.shape[1] != grid[0] * grid[1]:
        raise launch.UsageError(
            f'the teacher gives {probe.shape[1]} patch tokens per image, model.backbone has a grid '
            f'of {grid[0]} x {grid[1]}: choose teacher.img_size so that both are one grid.'
        )
    teacher = {k: v for k, v in teacher_of(cfg).to_dict().items() if k != 'init_cfg'}
    meta = CacheMeta(
        images=len(paths),
        tokens=probe.shape[1],
        dims=probe.shape[2],
        num_views=crops.crops.num_views,
        seed=crops.crops.seed,
        crops=crops.crops.text,
        teacher=repr(teacher),
        teacher_sha256=hash_weights(model.teacher),
        dtype=args.dtype,
        shard_size=args.shard_size,
        paths_sha256=feature_cache.hash_paths(paths),
    )
    if is_main_process():
        feature_cache.create_cache(args.out, meta, paths)
    barrier()
    return meta


def fill(
    args: argparse.Namespace, cfg: Config, crops: Crops, model: nn.Module, meta: CacheMeta
) -> None:
    """Writes the shards of this process that are not there."""
    shards = [
        shard
        for shard in range(get_rank(), meta.num_shards, get_world_size())
        if not feature_cache.is_done(args.out, shard)
    ]
    crops.pairs = [
        (row, view)
        for shard in shards
        for row in meta.rows_of(shard)
        for view in range(meta.num_views)
    ]
    device = next(model.teacher.parameters()).device
    loader = DataLoader(crops, args.batch_size, num_workers=args.workers, collate_fn=collate)
    damage = DamageCount(
        len(crops.pairs) // meta.num_views, (cfg.get('train_cfg') or {}).get('max_damaged', 0.01)
    )
    start, done, shown = time.monotonic(), 0, 0.0
    writer = None
    for batch in loader:
        found = dict.fromkeys(batch['places'])
        if found:
            features = compute(model, batch['inputs'], cfg, device).numpy()
            found = dict(zip(batch['places'], features, strict=True))
        for other in batch['others']:
            if 'error' in other:
                raise FeatureCacheError(other['error'])
            damage.add([other['damage']])
            found[other['row'], other['view']] = None
        for row, view in sorted(found):
            shard = row // meta.shard_size
            if writer is None or writer.shard != shard:
                if writer is not None:
                    writer.finish()
                writer = ShardWriter(args.out, shard)
            if found[row, view] is None:
                writer.skip(row, view)
            else:
                writer.write(row, view, found[row, view])
        done += len(found)
        elapsed = time.monotonic() - start
        if is_main_process() and (elapsed - shown > 10 or done == len(crops.pairs)):
            shown = elapsed
            left = (len(crops.pairs) - done) * elapsed / done
            print(
                f'{done} of {len(crops.pairs)} crops of this process, {done / elapsed:.1f} a '
                f'second, {left / 60:.0f} min left',
                flush=True,
            )
    if writer is not None:
        writer.finish()
    if damage.paths:
        print(f'{len(damage.paths)} images of this process cannot be read and have no features')


def join_processes(launcher: str, device: str) -> str:
    """Connects the processes of a launcher; returns the device of this one."""
    if device.startswith('cuda'):
        init_dist(launcher, backend='nccl')
        return f'cuda:{torch.cuda.current_device()}'
    if launcher != 'pytorch':
        raise launch.UsageError('on CPUs, several processes are started with torchrun.')
    # mmengine's init_dist wants a CUDA device.
    torch.distributed.init_process_group('gloo')
    return device


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args.config, args)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    preflight.check_datasets(cfg, ('train_dataloader',))
    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if args.launcher != 'none':
        device = join_processes(args.launcher, device)
    crops, model = build_crops(cfg), build_model(cfg, torch.device(device))
    with feature_cache.writing(args.out) if is_main_process() else nullcontext():
        write(args, cfg, crops, model)


def write(args: argparse.Namespace, cfg: Config, crops: Crops, model: nn.Module) -> None:
    """Writes what is missing, or damaged."""
    meta = begin(args, cfg, crops, model)
    if args.verify and is_main_process():
        for shard in feature_cache.damaged_shards(args.out):
            print(f'shard {shard} is damaged and is written again', flush=True)
            feature_cache.discard_shard(args.out, shard)
    barrier()
    fill(args, cfg, crops, model, meta)
    barrier()
    if is_main_process():
        cache = feature_cache.FeatureCache(args.out)
        print(
            f'{args.out}: {meta.images} images, {meta.num_views} views, {meta.tokens} x '
            f'{meta.dims} {meta.dtype}, {cache.meta.nbytes / 1e9:.2f} GB'
        )


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
