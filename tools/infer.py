"""Classify images, or find objects in them: one picture per image and one predictions.json.

The model decides which. A detector's pictures are in OUT_DIR/vis, and its predictions.json is a
data set in COCO format (boxes, masks as run-length codes, scores).

Examples:
    python tools/infer.py eva02-tiny-p14_in21k-pre_3rdparty_in1k photo.jpg
    python tools/infer.py configs/eva02/eva02_tiny_p14_8xb16_in1k.py photos/ 'more/*.png' \\
        --checkpoint work_dirs/my_run/epoch_100.pth --batch-size 16 --out-dir out
    python tools/infer.py my_detector.py photos/ --checkpoint work_dirs/my_detector/iter_5000.pth \\
        --score-thr 0.5 --ann-file data/coco/annotations/instances_val2017.json

An image that cannot be read is named, written into the JSON, and makes the exit status 1.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='model name (see evamm.list_models) or config file')
    parser.add_argument('images', nargs='+', help='images, folders, patterns or addresses')
    parser.add_argument(
        '--checkpoint', help='checkpoint of any dialect (default: the released weights)'
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('outputs/infer'), help='default: outputs/infer'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per pass (default: 1)')
    parser.add_argument('--device', help='default: the GPU where there is one')
    parser.add_argument('--topk', type=int, default=5, help='classes per image (default: 5)')
    parser.add_argument('--img-size', type=int, help='another input size in pixels')
    parser.add_argument('--no-pictures', action='store_true', help='write only the JSON')
    detection = parser.add_argument_group('detectors')
    detection.add_argument(
        '--score-thr',
        type=float,
        help='least score; 0: all that the config lets by (default: 0.3 in pictures, else 0.05)',
    )
    detection.add_argument(
        '--soft-nms', action='store_true', help='soft-NMS as in the published systems'
    )
    detection.add_argument(
        '--maskness', action='store_true', help='scores times the mean of the mask'
    )
    detection.add_argument(
        '--ann-file', help='take image and category ids from it, and write COCO results'
    )
    return parser.parse_args()


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes beside the file first, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + '\n', encoding='utf-8')
    os.replace(temporary, path)


def summarise(result: dict[str, Any], topk: int, classes: tuple[str, ...] | None) -> dict[str, Any]:
    """What the JSON keeps of one result: the path and the best classes, or the error."""
    from evamm.visualization.predictions import top_classes

    if 'error' in result:
        return result
    best = [
        {'label': label, 'score': score, **({'class': name} if classes is not None else {})}
        for label, score, name in top_classes(result['pred_scores'], topk, classes)
    ]
    kept = {key: value for key, value in result.items() if key != 'pred_scores'}
    return {**kept, 'topk': best}


def list_images(images: list[str], out_dir: Path) -> list[str]:
    """Paths without repetitions, and without the pictures that an earlier run left in `out_dir`."""
    from evamm.apis.images import collect_images

    own = out_dir.resolve()
    paths = dict.fromkeys(source.path for source in collect_images(images))
    paths = [path for path in paths if not Path(path).resolve().is_relative_to(own)]
    if not paths:
        raise FileNotFoundError(f'All images lie in --out-dir {out_dir}, which is for results.')
    return paths


def report(summary: dict[str, Any]) -> str:
    """One line for the terminal."""
    name = summary.get('pred_class', f'class {summary["pred_label"]}')
    return f'{summary["img_path"]}: {name} ({summary["pred_score"]:.1%})'


def report_detections(result: dict[str, Any], score_thr: float) -> str:
    """One line for the terminal."""
    count = sum(score >= score_thr for score in result['scores'])
    names = result.get('names') or [f'class {label}' for label in result['labels']]
    best = [f'{name} {score:.2f}' for name, score in zip(names[:5], result['scores'])][:count]
    listed = f' ({", ".join(best)}{", ..." if count > len(best) else ""})' if best else ''
    return f'{result["img_path"]}: {count} object{"s" if count != 1 else ""}{listed}'


def check_trained(model: Any, checkpoint: str | None, purpose: str) -> None:
    """Refuses to predict with random weights.

    Raises:
        ValueError: A part of the model was not in the checkpoint.
    """
    from evamm.apis.model import fresh_parts

    fresh = fresh_parts(model.load_report)
    if fresh:
        raise ValueError(
            f'{checkpoint or "the checkpoint"} does not hold {", ".join(fresh[:3])} of '
            'the model, so every prediction would be drawn at random. Give the checkpoint of a '
            f'model that was trained to {purpose}, with its config; '
            'tools/visualization/features.py shows what a pre-trained trunk sees.'
        )


def classify(paths: list[str], args: argparse.Namespace) -> tuple[list[dict[str, Any]], float]:
    """Writes pictures and predictions.json; gives results with a `line` to print, and seconds."""
    from evamm.apis import ImageClassificationInferencer
    from evamm.visualization.predictions import picture_paths

    inferencer = ImageClassificationInferencer(
        args.model, args.checkpoint or True, args.device, img_size=args.img_size
    )
    check_trained(inferencer.model, args.checkpoint, 'classify')
    start = time.monotonic()
    results = inferencer(
        paths,
        batch_size=args.batch_size,
        on_error='report',
        show_dir=None if args.no_pictures else args.out_dir,
        topk=args.topk,
    )
    seconds = time.monotonic() - start
    summaries = [summarise(result, args.topk, inferencer.classes) for result in results]
    if not args.no_pictures:
        for summary, picture in zip(summaries, picture_paths(paths, args.out_dir)):
            if 'error' not in summary:
                summary['picture'] = picture
    content = {'model': args.model, 'checkpoint': args.checkpoint, 'predictions': summaries}
    write_json(content, args.out_dir / 'predictions.json')
    lines = [summary if 'error' in summary else {'line': report(summary)} for summary in summaries]
    return lines, seconds


def detect(paths: list[str], args: argparse.Namespace) -> tuple[list[dict[str, Any]], float]:
    """Writes pictures and COCO files; gives results with a `line` to print, and seconds."""
    from evamm.apis import DetInferencer

    inferencer = DetInferencer(args.model, args.checkpoint, args.device, img_size=args.img_size)
    check_trained(inferencer.model, args.checkpoint, 'detect')
    shown = 0.3 if args.score_thr is None else args.score_thr
    start = time.monotonic()
    results = inferencer(
        paths,
        batch_size=args.batch_size,
        on_error='report',
        # All would be thousands of masks per image where the config has soft-NMS.
        score_thr=0.05 if args.score_thr is None else args.score_thr,
        pred_score_thr=shown,
        soft_nms=True if args.soft_nms else None,
        maskness_thr=True if args.maskness else None,
        out_dir=args.out_dir,
        no_save_vis=args.no_pictures,
        ann_file=args.ann_file,
    )['predictions']
    seconds = time.monotonic() - start
    lines = [
        result if 'error' in result else {'line': report_detections(result, shown)}
        for result in results
    ]
    return lines, seconds


def main() -> int:
    args = parse_args()
    if args.topk < 1 or args.batch_size < 1:
        print('error: --topk and --batch-size must be at least 1', file=sys.stderr)
        return 2

    # The APIs need torch and the libraries; the first of them says which one is missing.
    from evamm import compat

    compat.require('torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain')
    from evamm.apis.config import load_config
    from evamm.apis.model import is_detector
    from evamm.checkpoints import CheckpointError

    try:
        # Read first, so that a wrong path shows before the model is built.
        paths = list_images(args.images, args.out_dir)
        config, _ = load_config(args.model)
        args.out_dir.mkdir(parents=True, exist_ok=True)
        work = detect if is_detector(config) else classify
        results, seconds = work(paths, args)
    except (NotImplementedError, ValueError, OSError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1

    for result in results[:20]:
        if 'error' not in result:
            print(result['line'])
    path = args.out_dir / 'predictions.json'
    if len(results) > 20:
        print(f'... and {len(results) - 20} more in {path}')
    failed = [result for result in results if 'error' in result]
    for result in failed:
        print(f'error: {result["error"]}', file=sys.stderr)
    pictures = '' if args.no_pictures else f' Pictures are in {args.out_dir}/.'
    print(
        f'{len(results) - len(failed)} of {len(results)} images in {seconds:.1f} s. '
        f'Predictions are in {path}.{pictures}'
    )
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
