"""Search images by texts, or texts by images, with an image-text model; draw what is found.

Examples:
    python tools/visualization/retrieval_gallery.py EVA02-CLIP-B-16 photos/ \\
        --texts 'a cat' 'a red car' --out gallery.png
    python tools/visualization/retrieval_gallery.py CONFIG photos/ --checkpoint FILE \\
        --texts captions.txt --direction image_to_text

An image that cannot be read is named and left out.
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
    parser.add_argument('model', help='name of an image-text model, or config file')
    parser.add_argument('images', nargs='+', help='images, folders, patterns or addresses')
    parser.add_argument(
        '--texts', nargs='+', required=True, help='texts, or text files (.txt) with one per line'
    )
    parser.add_argument(
        '--checkpoint', help='checkpoint of any dialect (default: the released weights)'
    )
    parser.add_argument(
        '--direction',
        choices=['text_to_image', 'image_to_text'],
        default='text_to_image',
        help='a row per text with its nearest images (default), or the other way round',
    )
    parser.add_argument('--out', type=Path, default=Path('outputs/gallery.png'))
    parser.add_argument('--topk', type=int, default=5, help='how many per row (default: 5)')
    parser.add_argument('--batch-size', type=int, default=16, help='images per pass (default: 16)')
    parser.add_argument('--device', help='default: the GPU where there is one')
    return parser.parse_args()


def read_texts(words: list[str]) -> list[str]:
    """The texts themselves; a word that ends in .txt stands for the lines of that file."""
    texts: list[str] = []
    for word in words:
        if word.endswith('.txt'):
            lines = Path(word).read_text(encoding='utf-8').splitlines()
            texts += [line.strip() for line in lines if line.strip()]
        else:
            texts.append(word)
    return texts


def main() -> int:
    args = parse_args()

    from PIL import Image

    from evamm.apis import retrieval_gallery
    from evamm.checkpoints import CheckpointError

    if args.out.suffix.lower() not in Image.registered_extensions():
        print(f'error: --out {args.out}: must end like a picture, such as .png', file=sys.stderr)
        return 2
    try:
        retrieval_gallery(
            args.model,
            args.images,
            read_texts(args.texts),
            args.out,
            direction=args.direction,
            topk=args.topk,
            pretrained=args.checkpoint or True,
            device=args.device,
            batch_size=args.batch_size,
        )
    except (NotImplementedError, ValueError, OSError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(args.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())
