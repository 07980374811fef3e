"""ViTDet in evamm and in mmdet: EVA trunks beside the ViT of mmdet's projects, interleaved runs.

    python -m benchmarks.detection --mmdet-projects /path/to/mmdetection

mmdet's ViTDet is not in its package: --mmdet-projects is a clone of its repository,
github.com/open-mmlab/mmdetection, of which only the folder projects/ViTDet is used. All trunks have
the same image size, width, depth, heads, windows and global blocks. Rows are

- vit: evamm's trunk as a plain ViT-B with decomposed relative positions, which computes exactly
  what mmdet's does. Weights are the same; maps, losses and gradients are compared first, and if
  they differ nothing is timed.
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
import copy
import re
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import evamm
from evamm import compat

from .classification import DTYPES, MODES, optimizer_of, processor
from .timing import Ratio, interleave, peak_memory

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
TRUNKS = ('vit', 'eva02')
PARTS = ('maps', 'detector', 'cascade')
CLASSES = 5  # few, so that scores of random weights are not all below the threshold


def trunk_config(name: str, args: argparse.Namespace) -> dict:
    """evamm's trunk and pyramid."""
    arch = dict(embed_dims=args.width, depth=args.depth, num_heads=args.width // 64)
    if name == 'vit':
        arch.update(ffn='mlp', qkv_bias='qkv', rope=False)
    else:
        arch.update(ffn_norm=True)
    backbone = dict(
        type='evamm.EVAViT',
        arch=arch,
        img_size=args.img_size,
        patch_size=16,
        pretrain_img_size=224,
        out_type='featmap',
        final_norm=False,
        with_cls_token=False,
        window_size=args.window,
        window_blocks=windowed(args),
        relative_position=name == 'vit',
    )
    return dict(
        backbone=backbone, neck=dict(type='evamm.SimpleFeaturePyramid', in_channels=args.width)
    )


def peer_config(args: argparse.Namespace) -> dict:
    """mmdet's trunk and pyramid."""
    backbone = dict(
        type='ViT',
        img_size=args.img_size,
        embed_dim=args.width,
        depth=args.depth,
        num_heads=args.width // 64,
        window_size=args.window,
        window_block_indexes=windowed(args),
        use_rel_pos=True,
    )
    neck = dict(
        type='SimpleFPN',
        backbone_channel=args.width,
        in_channels=[args.width // 4, args.width // 2, args.width, args.width],
        out_channels=256,
        num_outs=5,
        norm_cfg=dict(type='LN2d'),
    )
    return dict(backbone=backbone, neck=neck)


def windowed(args: argparse.Namespace) -> list[int]:
    """Blocks with windows: all but four at equal distances."""
    step = max(1, args.depth // 4)
    return [index for index in range(args.depth) if index % step != step - 1]


def detector_config(part: str, base: dict, norm: str, args: argparse.Namespace) -> dict:
    """mmdet's Mask R-CNN or Cascade Mask R-CNN with the layers that ViTDet has."""
    from mmengine.config import Config

    mmdet = Path(sys.modules['mmdet'].__file__).parent / '.mim/configs/_base_/models'
    name = 'mask-rcnn' if part == 'detector' else 'cascade-mask-rcnn'
    model = Config.fromfile(mmdet / f'{name}_r50_fpn.py').model
    model.backbone, model.neck = copy.deepcopy(base['backbone']), copy.deepcopy(base['neck'])
    model.data_preprocessor = dict(type='DetDataPreprocessor')
    model.rpn_head.num_convs = 2
    head = dict(
        type='Shared4Conv1FCBBoxHead',
        conv_out_channels=256,
        norm_cfg=dict(type=norm),
        num_classes=CLASSES,
    )
    boxes = model.roi_head.bbox_head
    for box in boxes if isinstance(boxes, list) else [boxes]:
        box.update(head)
    model.roi_head.mask_head.update(norm_cfg=dict(type=norm), num_classes=CLASSES)
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = args.samples
        stage.mask_size = 28
    model.train_cfg.rpn_proposal.update(nms_pre=args.proposals, max_per_img=args.proposals)
    model.test_cfg.rpn.update(nms_pre=args.proposals, max_per_img=args.proposals)
    return model


def cascade_config(base: dict, args: argparse.Namespace) -> dict:
    """evamm's detector, as its configs build it."""
    from mmengine.config import Config

    model = Config.fromfile(CONFIGS / '_base_/models/cascade_mask_rcnn_eva.py').model
    model.backbone = copy.deepcopy(base['backbone'])
    model.neck.in_channels = args.width
    model.data_preprocessor.pad_size = args.img_size
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = CLASSES
    model.train_cfg.rcnn[0].sampler.num = args.samples
    model.train_cfg.rpn_proposal.update(nms_pre=args.proposals, max_per_img=args.proposals)
    model.test_cfg.rpn.update(nms_pre=args.proposals, max_per_img=args.proposals)
    return model


class Maps(nn.Module):
    """Trunk and pyramid; its loss is the mean square of every second channel.

    That of all channels would be 1, whatever the weights: the maps end in a LayerNorm.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.neck(self.backbone(images))

    def predict(self, images: Tensor, samples: list) -> object:
        return self(images)

    def loss(self, images: Tensor, samples: list) -> dict[str, Tensor]:
        return {'loss': sum(maps[:, ::2].float().square().mean() for maps in self(images))}


def build(trunk: str, part: str, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Both models; with the same weights where they compute the same."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    torch.manual_seed(0)
    ours, theirs = trunk_config(trunk, args), peer_config(args)
    with DefaultScope.overwrite_default_scope('mmdet'):
        if part == 'maps':
            models = {
                name: Maps(MODELS.build(config['backbone']), MODELS.build(config['neck']))
                for name, config in (('evamm', ours), ('mmdet', theirs))
            }
        else:
            peer = detector_config(part, theirs, 'LN2d', args)
            own = (
                cascade_config(ours, args)
                if part == 'cascade'
                else detector_config(part, ours, 'evamm.LayerNorm2d', args)
            )
            models = {'evamm': MODELS.build(own), 'mmdet': MODELS.build(peer)}
    with torch.no_grad():
        for model in models.values():
            for name, param in model.named_parameters():
                if 'rel_pos' in name or param.ndim == 3:
                    param.copy_(0.02 * torch.randn_like(param))
                elif param.ndim > 1:
                    param.copy_(torch.randn_like(param) / param[0].numel() ** 0.5)
    if trunk == 'vit' and part != 'cascade':
        models['mmdet'].load_state_dict(to_mmdet(models['evamm'].state_dict()))
    return models


def to_mmdet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of evamm's trunk, pyramid and norms in mmdet's project."""
    renamed = {}
    for name, value in state.items():
        for pattern, new in (
            (r'^neck\.levels\.(\d)\.lateral\.', r'neck.lateral_convs.\1.'),
            (r'^neck\.levels\.(\d)\.output\.', r'neck.fpn_convs.\1.'),
            (r'^(neck\.\w+_convs\.\d)\.norm\.', r'\1.norm_layer.'),
            (r'^(roi_head\..*)\.ln\.', r'\1.norm_layer.'),
        ):
            name = re.sub(pattern, new, name)
        level = re.match(r'^neck\.levels\.(\d)\.resize\.', name)
        if level:
            name = f'neck.fpn{int(level[1]) + 1}.{name[level.end() :]}'
        renamed[name] = value
    return renamed


def batch_of(args: argparse.Namespace) -> tuple[Tensor, list]:
    """Normalised images [B, 3, S, S] and their objects."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(0)
    side = args.img_size
    samples = []
    for _ in range(args.batch):
        corners = rng.integers(0, side * 3 // 4, (args.objects, 2))
        sizes = rng.integers(side // 16, side // 4, (args.objects, 2))
        boxes = np.concatenate([corners, corners + sizes], axis=1)
        masks = np.zeros((args.objects, side, side), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top:bottom, left:right] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(side, side),
                ori_shape=(side, side),
                pad_shape=(side, side),
                batch_input_shape=(side, side),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes).float(),
            labels=torch.from_numpy(rng.integers(0, CLASSES, args.objects)),
            masks=BitmapMasks(masks, side, side),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample.to(args.device))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(args.batch, 3, side, side, generator=generator)
    return images.to(args.device), samples


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
