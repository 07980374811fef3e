"""The list of shards that a user makes, and the data set that reads it."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from evamm.datasets import ImageTextShards

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'index_shards.py'


@pytest.fixture
def folder(tmp_path):
    for shard, samples in enumerate((3, 0, 5)):
        with tarfile.open(tmp_path / f'{shard:02}.tar', 'w') as tar:
            for number in range(samples):
                for extension in ('jpg', 'json', 'txt'):
                    info = tarfile.TarInfo(f'{number:04}.{extension}')
                    info.size = 2
                    tar.addfile(info, io.BytesIO(b'{}'))
    return tmp_path


def run(*args):
    command = [sys.executable, TOOL, '--workers', '1', *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_counts_samples_and_the_data_set_reads_the_list(folder):
    cache = folder / 'cache'
    done = run(folder, '--cache-dir', cache)
    assert '3 shards, 8 samples' in done.stdout, done.stderr
    content = json.loads((folder / 'shards.json').read_text())
    assert content['shardlist'] == [
        {'url': '00.tar', 'nsamples': 3},
        {'url': '01.tar', 'nsamples': 0},
        {'url': '02.tar', 'nsamples': 5},
    ]
    dataset = ImageTextShards('shards.json', data_root=str(folder), cache_dir=str(cache))
    assert len(dataset) == 8
    assert dataset[3]['img_path'] == f'{folder}/02.tar::0000'
    # The index is there already.
    assert len(list(cache.rglob('*.npz'))) == 3


def test_shards_behind_addresses_are_counted_and_damage_is_named(folder):
    out = folder / 'list.json'
    path = folder / '02.tar'
    path.write_bytes(path.read_bytes()[:4000])
    urls = [f'pipe:cat {folder}/{shard:02}.tar' for shard in (0, 2)]
    done = run(*urls, '--cache-dir', folder / 'cache', '--out', out)
    assert done.returncode == 0 and f'{urls[1]} is damaged' in done.stderr
    listed = json.loads(out.read_text())['shardlist']
    assert listed == [{'url': urls[0], 'nsamples': 3}, {'url': urls[1], 'nsamples': 2}]


def test_mistakes_get_one_sentence(folder):
    for shards, message in (
        ('pipe:cat x', '--out FILE'),
        (folder / 'no-*.tar', 'no-*.tar'),
        (folder / 'gone', 'gone: no such shard'),
    ):
        done = run(shards)
        assert done.returncode == 1 and message in done.stderr
        assert 'Traceback' not in done.stderr
