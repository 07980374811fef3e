"""Count the samples of tar shards and write a list of them, which a config names as its shards.

Reading a million pairs takes about a minute on one processor; the index of every local shard is
kept for training.

Examples:
    python tools/dataset_converters/index_shards.py 'data/laion2b/*.tar'
    python tools/dataset_converters/index_shards.py 's3://bucket/{00000..00099}.tar' --out list.json
"""

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

try:
    import evamm  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('shards', nargs='+', help='paths, addresses, braces, globs or folders')
    parser.add_argument('--out', type=Path, help='default: shards.json beside the first shard')
    parser.add_argument(
        '--text', default='txt', help="the `text` of the data set, such as 'json:caption'"
    )
    parser.add_argument('--cache-dir', help='the `cache_dir` of the data set')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
    return parser.parse_args()


def count(url: str, cache_dir: str | None, text: str) -> tuple[int, str]:
    """Samples of a shard, and what is wrong with it."""
    from evamm.datasets import ImageTextShards

    dataset = ImageTextShards([url], text=text, cache_dir=cache_dir, samples_per_shard=1)
    _, index = dataset.read_index(0)
    return len(index.places), index.damage


def main() -> int:
    args = parse_args()
    from evamm.datasets.image_text.shard_list import expand, is_remote, list_content
    from evamm.engine.errors import ConfigError

    try:
        shards = expand(args.shards)
        local = not is_remote(shards[0].url)
        if args.out is None and not local:
            raise ConfigError('name the list to write for shards behind addresses: --out FILE.')
        out = args.out or Path(shards[0].url).parent / 'shards.json'
        base = out.resolve().parent
        listed = []
        with ProcessPoolExecutor(max(1, args.workers or 1)) as pool:
            work = partial(count, cache_dir=args.cache_dir, text=args.text)
            results = pool.map(work, [shard.url for shard in shards], chunksize=1)
            for shard, (samples, damage) in zip(shards, results, strict=True):
                if damage:
                    print(f'warning: {shard.url} is damaged ({damage}).', file=sys.stderr)
                url = shard.url
                if not is_remote(url) and base in Path(url).resolve().parents:
                    url = str(Path(url).resolve().relative_to(base))
                listed.append(shard._replace(url=url, samples=samples))
    except FileNotFoundError as error:
        print(
            f'error: {error.filename}: no such shard; give tar files, addresses, patterns such as '
            "'data/{00000..00099}.tar', or a folder that exists.",
            file=sys.stderr,
        )
        return 1
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    temporary = out.with_name(f'.{out.name}.{os.getpid()}')
    temporary.write_text(json.dumps(list_content(listed), indent=1) + '\n', encoding='utf-8')
    os.replace(temporary, out)
    print(f'{out}: {len(listed)} shards, {sum(shard.samples for shard in listed)} samples')
    return 0


if __name__ == '__main__':
    sys.exit(main())
