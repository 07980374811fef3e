"""Test an image-text model without training it, and print the published figures beside ours.

Examples:
    python tools/test_zero_shot.py configs/eva_clip/eva02_clip_base_p16_64xb2048_merged2b.py CKPT
    python tools/test_zero_shot.py CONFIG CKPT --benchmarks imagenet imagenet-a flickr30k coco
    python tools/test_zero_shot.py CONFIG CKPT --folder photos/ --classes names.txt \\
        --templates 'a photo of a {}, a type of flower.'

Folders below --data-root: imagenet, imagenetv2-matched-frequency-format-val, imagenet-a,
imagenet-r, sketch, objectnet-1.0, flickr30k, coco. See docs/en/zero_shot.md.
"""

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evamm import compat

compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from evamm.apis.model_index import ModelEntry, index_root, load_entries, prefers_averaged
from evamm.engine.runner import launch, predictions, test_sets
from evamm.engine.runner.training_state import bare_model
from evamm.evaluation import BENCHMARKS, format_zero_shot_table
from evamm.models.clip.predictors import build_predictor
from evamm.models.clip.prompts import load_class_names

BASES = Path(__file__).resolve().parents[1] / 'configs' / '_base_' / 'datasets'
IMAGENET = ('ImageNet', 'mmpretrain.ImageNet')
CAPTION_STEPS = ('evamm.ChooseText', 'evamm.TokenizeText')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config of an image-text model')
    parser.add_argument('checkpoint', help='its checkpoint, of any dialect')
    parser.add_argument(
        '--benchmarks',
        nargs='+',
        choices=list(BENCHMARKS),
        metavar='NAME',
        help=f'of {", ".join(BENCHMARKS)} (default: those whose data is there)',
    )
    parser.add_argument(
        '--data-root', type=Path, default=Path('data'), help='folder of all sets (default: data)'
    )
    parser.add_argument(
        '--path',
        nargs='+',
        default=[],
        metavar='NAME=FOLDER',
        help='folders of sets that lie elsewhere or have another name',
    )
    parser.add_argument(
        '--partial', action='store_true', help='accept copies in which classes are missing'
    )
    parser.add_argument(
        '--folder',
        type=Path,
        help='test on this folder instead: one sub-folder of images per class',
    )
    parser.add_argument(
        '--classes',
        help='text file with the names of the classes of --folder, one per line, in the order of '
        'the sorted sub-folders (default: the names of these)',
    )
    parser.add_argument(
        '--templates',
        nargs='+',
        help="'openai' (80 sentences), 'simple' (7), sentences with {} for the name, or a text "
        'file with one per line (default: those of the config)',
    )
    parser.add_argument(
        '--no-ema',
        action='store_true',
        help='test the raw weights of a file that has their moving average too',
    )
    parser.add_argument('--amp', action='store_true', help='test in half precision (CUDA only)')
    parser.add_argument(
        '--out', type=Path, help='result file (default: zero_shot.json in the work folder)'
    )
    launch.add_common_arguments(parser)
    args = parser.parse_args()
    if args.folder is not None and args.benchmarks is not None:
        parser.error('--folder is a test of its own: leave --benchmarks out')
    if args.classes is not None and args.folder is None:
        parser.error("--classes names those of --folder; the benchmarks have ImageNet's")
    return args


def zero_shot_settings(cfg: Config, args: argparse.Namespace) -> dict:
    """`test_cfg` of the sets with classes: the config's, as far as the options do not say more."""
    settings = dict(cfg.model.get('test_cfg') or {})
    if settings.get('type') != 'zero_shot':
        settings = {}
    settings = {'templates': 'openai', **settings, 'type': 'zero_shot', 'classes': 'imagenet'}
    if args.templates is not None:
        settings['templates'] = args.templates if len(args.templates) > 1 else args.templates[0]
    if args.folder is not None:
        settings['classes'] = args.classes or 'dataset'
    return settings


def without_captions(pipeline: list[dict]) -> list[dict]:
    """The steps of a test pipeline that concern the image, packing last."""
    steps = [deepcopy(step) for step in pipeline if step['type'] not in CAPTION_STEPS]
    if steps[-1]['type'] == 'evamm.PackPairInputs':
        steps[-1] = {'type': 'evamm.PackInputs'}
    return steps


def benchmark_config(cfg: Config, name: str, args: argparse.Namespace) -> Config:
    """The model's config with the images and the metric of one benchmark."""
    benchmark = BENCHMARKS[name]
    merged = deepcopy(cfg)
    if benchmark.base is not None:
        merged = test_sets.merge_test_set(cfg, Config.fromfile(BASES / benchmark.base))
    dataset = merged.test_dataloader.dataset
    if benchmark.base is None and (dataset.type not in IMAGENET or 'metainfo' in dataset):
        # A model of one's own is tested on another set: only how it sees images is taken.
        dataset = merged.test_dataloader.dataset = ConfigDict(
            type='ImageNet', data_root='imagenet', split='val', pipeline=dataset.pipeline
        )
        merged.test_evaluator = ConfigDict(type='Accuracy', topk=(1, 5))
    if benchmark.is_retrieval:
        dataset.pipeline = dataset.pipeline[:-1] + [
            {'type': 'evamm.TokenizeText'},
            {'type': 'evamm.PackPairInputs'},
        ]
    elif args.partial and benchmark.base is not None:
        dataset.partial = True
    folder = test_sets.parse_folders(args.path, BENCHMARKS).get(name)
    dataset.data_root = str(folder or args.data_root / Path(dataset.data_root).name)
    return merged


def folder_config(cfg: Config, args: argparse.Namespace) -> Config:
    """The model's config with the images of ``--folder``."""
    if not args.folder.is_dir():
        raise launch.UsageError(f'--folder {args.folder}: there is no such folder.')
    folders = sorted(path.name for path in args.folder.iterdir() if path.is_dir())
    if not folders:
        raise launch.UsageError(
            f'--folder {args.folder} holds no sub-folder; it must hold one per class.'
        )
    if args.classes is not None:
        names = load_class_names(args.classes)
        if len(names) != len(folders):
            raise launch.UsageError(
                f'--classes {args.classes} names {len(names)} classes, but {args.folder} has '
                f'{len(folders)} sub-folders; give one name for each, in their sorted order.'
            )
        pairs = [f'{folder}: {name}' for folder, name in zip(folders, names, strict=True)]
        print(f'{args.folder}: {"; ".join(pairs[:5])}{"; ..." if len(pairs) > 5 else ""}')
    merged = deepcopy(cfg)
    merged.test_dataloader.dataset = {
        'type': 'CustomDataset',
        'data_prefix': str(args.folder),
        'with_label': True,
        'pipeline': merged.test_dataloader.dataset.pipeline,
    }
    merged.test_evaluator = {'type': 'Accuracy', 'topk': (1, 5) if len(folders) >= 5 else (1,)}
    return merged


def plan(cfg: Config, args: argparse.Namespace) -> dict[str, Config]:
    """The config of everything to test on."""
    if args.folder is not None:
        return {'folder': folder_config(cfg, args)}
    configs = {name: benchmark_config(cfg, name, args) for name in args.benchmarks or BENCHMARKS}
    if args.benchmarks is None:
        configs = {
            name: config
            for name, config in configs.items()
            if Path(config.test_dataloader.dataset.data_root).is_dir()
        }
        if not configs:
            raise launch.UsageError(
                f'none of the sets is in {args.data_root}; docs/en/zero_shot.md says how they must '
                'lie. Set --data-root, --path for single sets, or --folder for your own images.'
            )
    return configs


def find_entry(config: str, checkpoint: str) -> ModelEntry | None:
    """The released model that a file is, or else the one whose config is used."""
    entries = {entry.name: entry for entry in load_entries(index_root()).values()}.values()
    file = checkpoint.rpartition('/')[2]
    for entry in entries:
        if entry.weights and entry.weights.rpartition('/')[2] == file:
            return entry
    path = Path(config).resolve()
    return next((entry for entry in entries if entry.config.resolve() == path), None)


def published_figures(entry: ModelEntry | None) -> dict[str, dict[tuple[str, str], float]]:
    """Figures of each source by set and name, as the metafile has them."""
    if entry is None:
        return {}
    tasks = {benchmark.task for benchmark in BENCHMARKS.values()}
    authors, open_clip = {}, {}
    for name, value in entry.official.items():
        for benchmark in BENCHMARKS.values():
            if name == 'Top 1 Accuracy' and benchmark.base is None:
                authors[benchmark.title, name] = value
            elif name.startswith(f'{benchmark.title} '):
                authors[benchmark.title, name.removeprefix(f'{benchmark.title} ')] = value
    for result in entry.results or ():
        if result.task in tasks:
            open_clip.update({(result.dataset, key): v for key, v in result.metrics.items()})
    return {'EVA-CLIP': authors, 'open_clip': open_clip}


def run(cfg: Config, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Test on everything that is planned."""
    classes = build_predictor(cfg.model.test_cfg)
    captions = build_predictor({'type': 'retrieval'})

    def prepare(runner: Runner, name: str) -> None:
        retrieval = name in BENCHMARKS and BENCHMARKS[name].is_retrieval
        bare_model(runner).predictor = captions if retrieval else classes

    titles = {name: benchmark.title for name, benchmark in BENCHMARKS.items()}
    return test_sets.run_test_sets(
        plan(cfg, args), {**titles, 'folder': str(args.folder)}, amp=args.amp, prepare=prepare
    )


def main() -> None:
    args = parse_args()
    cfg = launch.load_config(args.config, args)
    if cfg.model.get('type') != 'evamm.EVACLIP':
        raise launch.UsageError(
            f'{args.config} is no config of an image-text model: model.type is '
            f'{cfg.model.get("type")!r}, not evamm.EVACLIP. tools/test.py tests classifiers.'
        )
    if cfg.get('test_dataloader') is None:
        raise launch.UsageError(f'{args.config} has no test_dataloader: there is nothing to test.')
    cfg.test_dataloader.dataset.pipeline = without_captions(cfg.test_dataloader.dataset.pipeline)
    cfg.model.test_cfg = zero_shot_settings(cfg, args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    prefer_ema = not args.no_ema and prefers_averaged(args.checkpoint)
    cfg.load_options = {'prefer_ema': prefer_ema, 'complete': True}
    results = run(cfg, args)
    if not is_main_process():
        return
    entry = find_entry(args.config, args.checkpoint)
    out = args.out or Path(cfg.work_dir, 'zero_shot.json')
    content = {
        'config': args.config,
        'checkpoint': args.checkpoint,
        'model': None if entry is None else entry.name,
        'test_cfg': cfg.model.test_cfg.to_dict(),
        'partial': args.partial,
        'results': results,
    }
    predictions.write_file(out, json.dumps(predictions.to_json(content), indent=2).encode() + b'\n')
    if args.folder is not None:
        for name, value in results['folder'].items():
            print(f'{args.folder}: {name.removeprefix("accuracy/")} {value:.2f} %')
    else:
        if entry is not None:
            print(f'Published: {entry.name}')
        print(f'In %{" (partial copies)" if args.partial else ""}:')
        print(format_zero_shot_table(results, published_figures(entry)))
    print(f'written: {out}')


if __name__ == '__main__':
    sys.exit(launch.run_tool(main))
