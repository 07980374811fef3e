"""Show what a model's patch features hold: principal components as colours, beside the image.

Patches of one colour have like features, in all images given together. --attention adds where the
class token looks (mean over heads) in the same block. An image that cannot be read is named, and
makes the exit status 1.

Examples:
    python tools/visualization/features.py eva02-base-p14_in21k-pre_3rdparty_in21k photos/
    python tools/visualization/features.py CONFIG photo.jpg --checkpoint FILE --block -4 \\
        --img-size 448 --attention
"""

import argparse
import sys
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='model name (see evamm.list_models) or config file')
    parser.add_argument('images', nargs='+', help='images, folders, patterns or addresses')
    parser.add_argument(
        '--checkpoint', help='checkpoint of any dialect (default: the released weights)'
    )
    parser.add_argument('--out-dir', type=Path, default=Path('outputs/features'))
    parser.add_argument('--block', type=int, default=-1, help='block to look at (default: last)')
    parser.add_argument('--img-size', type=int, help='another input size in pixels')
    parser.add_argument('--batch-size', type=int, default=8, help='images per pass (default: 8)')
    parser.add_argument('--device', help='default: the GPU where there is one')
    parser.add_argument('--attention', action='store_true', help='add the class attention')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if args.batch_size < 1:
        print('error: --batch-size must be at least 1', file=sys.stderr)
        return 2

    from evamm import compat

    compat.require('torch', 'mmengine', 'mmcv', 'mmpretrain')
    import torch

    from evamm.apis.batches import to_picture
    from evamm.apis.features import FeatureExtractor, extract_features, find_trunk
    from evamm.apis.images import collect_images, load_image
    from evamm.apis.loader import load_batches
    from evamm.apis.transforms import ImageTransform
    from evamm.checkpoints import CheckpointError
    from evamm.visualization.features import (
        class_attention,
        enlarge,
        overlay_heat,
        pca_colours,
        side_by_side,
    )
    from evamm.visualization.predictions import picture_paths

    try:
        sources = collect_images(args.images)
        # Before the model, so that a folder that cannot take the pictures shows at once.
        args.out_dir.mkdir(parents=True, exist_ok=True)
        paths = picture_paths([source.name for source in sources], args.out_dir)
        extractor = FeatureExtractor(
            args.model, args.checkpoint or True, args.device, img_size=args.img_size
        )
        transform = ImageTransform(extractor.config)
        trunk = find_trunk(extractor.model)
        device = next(trunk.parameters()).device
        inputs, maps, heats, shown = [], [], [], []
        batches = load_batches(
            sources,
            lambda source: transform.pack(load_image(source)),
            args.batch_size,
            on_error='report',
        )
        for indices, samples, errors in batches:
            for error in errors.values():
                print(f'error: {error}', file=sys.stderr)
            if not samples:
                continue
            packed = {'inputs': [sample['inputs'] for sample in samples]}
            batch = transform.data_preprocessor(packed)['inputs'].to(device)  # [b, 3, H, W]
            inputs += batch.cpu()
            shown += indices
            maps += extract_features(trunk, batch, pool='map', blocks=[args.block])[0].cpu()
            if args.attention:
                heats += class_attention(trunk, batch, args.block).mean(dim=1).cpu()
    except (ValueError, OSError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1

    if not shown:
        return 1
    colours = pca_colours(torch.stack(maps))  # [B, h, w, 3]
    for index, path in enumerate(paths[place] for place in shown):
        image = to_picture(inputs[index], transform.data_preprocessor)
        row = [image, enlarge(colours[index], *image.shape[:2])]
        if args.attention:
            row.append(overlay_heat(image, heats[index].numpy()))
        side_by_side(row, height=max(224, min(image.shape[0], 448))).save(path)
        print(path)
    return 1 if len(shown) < len(sources) else 0


if __name__ == '__main__':
    sys.exit(main())
