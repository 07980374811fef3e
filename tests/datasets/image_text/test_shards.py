"""Tar shards: what they hold, what is damaged, where they come from."""

import json
import os
import pickle
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from evamm.datasets import ImageTextMixture, ImageTextShards, ShardSampler
from evamm.datasets.checks import check_dataset
from evamm.datasets.image_text import shard_cache
from evamm.datasets.image_text import shards as shards_module
from evamm.datasets.image_text.shard_cache import ShardCache, ShardUnavailableError
from evamm.datasets.image_text.tar_index import Layout, scan
from evamm.datasets.samplers import DamagedDataError, TrainingData
from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

from .common import number_of, picture, write_shard

LOAD = [{'type': 'evamm.LoadImageFromFile'}]


def build(shards, tmp_path, **kwargs):
    cfg = dict(type='evamm.ImageTextShards', shards=shards, cache_dir=str(tmp_path / 'cache'))
    return DATASETS.build({**cfg, 'pipeline': LOAD, **kwargs})


@pytest.mark.parametrize(
    'pattern',
    [
        's-{000..004}.tar',
        's-*.tar',
        '.',
        ['s-{000..001}.tar', 's-00[2-4].tar'],
        's-000.tar::s-001.tar::s-{002..004}.tar',
    ],
)
def test_every_way_to_name_shards_finds_every_sample(shards, tmp_path, pattern):
    dataset = build(pattern, tmp_path, data_root=str(shards))
    assert len(dataset) == 100
    for index in (0, 19, 20, 63, 99):
        sample = dataset[index]
        assert number_of(sample) == index and sample['text'] == f'caption {index}'
        assert sample['img_path'] == f'{dataset.urls[index // 20]}::{index:06}'
    with pytest.raises(IndexError):
        dataset[100]


def test_shards_that_are_not_there_are_named(shards, tmp_path):
    with pytest.raises(ConfigError, match=r'x-\*\.tar.*data_preparation'):
        build('x-*.tar', tmp_path, data_root=str(shards))
    with pytest.raises(ConfigError, match='s-005.tar does not exist'):
        build('s-{000..009}.tar', tmp_path, data_root=str(shards))


def test_text_from_json_and_other_image_types(tmp_path):
    path = write_shard(tmp_path / 'a.tar', range(3), image='WEBP', content={2: {'json': b'no'}})
    dataset = build(str(path), tmp_path, text='json:caption')
    assert [dataset[i]['text'] for i in range(2)] == ['json 0', 'json 1']
    assert number_of(dataset[1]) == 1
    assert dataset.find_damage(2) == (f'{path}::000002', 'no text (json)')
    with pytest.raises(ConfigError, match='json:caption'):
        build(str(path), tmp_path, text='json')


def test_long_names_folders_and_dots(tmp_path):
    path = tmp_path / 'long.tar'
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            folder = f'{"deep/" * 30}v1.0'
            for extension, data in (('png', picture(number)), ('seg.txt', b'x'), ('txt', b'yes')):
                source = tmp_path / 'member'
                source.write_bytes(data)
                tar.add(source, f'{folder}/ünï{number}.{extension}')
    dataset = build(str(path), tmp_path)
    assert [number_of(dataset[i]) for i in range(3)] == [0, 1, 2]
    assert dataset[2]['text'] == 'yes'
    assert dataset[2]['img_path'] == f'{path}::{"deep/" * 30}v1.0/ünï2'


def test_the_index_is_kept_and_follows_the_file(shards, tmp_path, monkeypatch):
    build('.', tmp_path, data_root=str(shards))
    assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 5
    scanned = []
    monkeypatch.setattr(
        'evamm.datasets.image_text.tar_index.scan',
        lambda path, layout: scanned.append(Path(path).name) or scan(path, layout),
    )
    write_shard(shards / 's-001.tar', range(50, 53))
    dataset = build('.', tmp_path, data_root=str(shards))
    assert scanned == ['s-001.tar'] and len(dataset) == 83
    assert number_of(dataset[20]) == 50
    for index in (tmp_path / 'cache').rglob('*.npz'):
        index.write_bytes(b'damaged')
    assert len(build('.', tmp_path, data_root=str(shards))) == 83


def test_a_list_says_how_many_there_are_without_reading_shards(shards, tmp_path):
    listed = [{'url': f's-{i:03}.tar', 'nsamples': 20} for i in range(5)]
    content = {'__kind__': 'wids-shard-index-v1', 'wids_version': 1, 'shardlist': listed}
    (shards / 'list.json').write_text(json.dumps(content))
    dataset = build('list.json', tmp_path, data_root=str(shards))
    assert not (tmp_path / 'cache').exists()
    assert len(dataset) == 100 and number_of(dataset[47]) == 47
    (shards / 'list.json').write_text('{"a": 1}')
    with pytest.raises(ConfigError, match='list.json is not a list of shards'):
        build('list.json', tmp_path, data_root=str(shards))


def train(dataset, workers=0, max_damaged=0.5, batch_size=10, skip=0, seed=3):
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=ShardSampler(dataset, seed=seed, window=2),
        num_workers=workers,
        collate_fn=lambda batch: [(number_of(each), each['text']) for each in batch],
    )
    data = TrainingData(loader, seed=seed, max_damaged=max_damaged)
    batches = []
    for batch in data.batches(0, skip):
        data.count_damage()
        batches.append(batch)
    return data, batches


@pytest.mark.parametrize('workers', [0, 2])
def test_damaged_samples_are_replaced_counted_and_named(tmp_path, workers):
    content = {
        3: {'png': picture(3)[:40]},
        4: {'txt': b'  \n'},
        15: {'png': b''},
    }
    path = write_shard(tmp_path / 'a.tar', range(20), drop=('000007.png',), content=content)
    other = write_shard(tmp_path / 'b.tar', range(20, 60))
    dataset = build([str(path), str(other)], tmp_path)
    assert len(dataset) == 60
    data, batches = train(dataset, workers)
    data.count_damage()
    named = {path.rpartition('::')[2] for path in data.damage.paths.values()}
    assert named == {'000003', '000004', '000007', '000015'}
    assert data.damage.replaced >= 4
    drawn = [number for batch in batches for number, _ in batch]
    assert len(drawn) == 60 and not {3, 4, 7, 15} & set(drawn)
    assert all(text == f'caption {number}' for batch in batches for number, text in batch)
    # Substitutes are of the same shard: no other one is opened, or fetched.
    assert sum(number < 20 for number in drawn) == 20
    # In the same way in every run.
    assert train(dataset, 2 - workers)[1] == batches
    assert train(dataset, workers, skip=3)[1] == batches[3:]


def test_a_bad_first_sample_does_not_keep_a_run_from_beginning(tmp_path):
    for name in ('a', 'b'):
        write_shard(tmp_path / f'{name}.tar', range(20), drop=('000000.txt',))
    parts = [build(str(tmp_path / f'{name}.tar'), tmp_path) for name in ('a', 'b')]
    mixture = ImageTextMixture(parts)
    check_dataset(mixture, 'train_dataloader.dataset', None, training=True)
    assert train(mixture)[0].damage.replaced > 0


def test_no_image_at_all_is_said_without_an_address_in_memory(tmp_path):
    path = write_shard(tmp_path / 'a.tar', [0], content={0: {'png': b'no image'}})
    name, reason = build(str(path), tmp_path).find_damage(0)
    assert name.endswith('a.tar::000000') and reason == 'no image of a known format'


def test_too_many_damaged_samples_end_the_run(tmp_path):
    content = {number: {'txt': b''} for number in range(0, 20, 2)}
    path = write_shard(tmp_path / 'a.tar', range(20), content=content)
    with pytest.raises(DamagedDataError, match=r'max_damaged=0.3.*a.tar::0000'):
        train(build(str(path), tmp_path), max_damaged=0.3)


def test_of_endless_data_the_share_of_what_was_seen_counts(tmp_path):
    path = write_shard(tmp_path / 'a.tar', [0])
    dataset = build(str(path), tmp_path)
    data, _ = train(dataset)
    data.damage.samples = 10**9
    data.damage.limit = 0.01
    reports = [(index, f'{index}', 'why') for index in range(101)]
    data.damage.add(reports[:100], drawn=100)
    with pytest.raises(DamagedDataError, match='101 of 10000 training images seen so far'):
        data.damage.add(reports[100:], drawn=100)


def test_what_is_readable_of_a_cut_off_shard_is_used(shards, tmp_path, monkeypatch):
    path = shards / 's-002.tar'
    whole = path.read_bytes()
    for cut in (len(whole) // 2, len(whole) // 2 + 100, len(whole) // 2 + 600):
        path.write_bytes(whole[:cut])
        assert scan(str(path), Layout(('png',), 'txt')).damage
    messages = []
    monkeypatch.setattr(shards_module, 'print_log', lambda message, **kw: messages.append(message))
    dataset = build('.', tmp_path, data_root=str(shards))
    assert len(messages) == 1 and f'{path} is damaged (' in messages[0]
    assert 88 <= len(dataset) <= 92
    assert number_of(dataset[len(dataset) - 1]) == 99
    path.write_bytes(b'not a tar file at all' * 100)
    assert len(build('.', tmp_path, data_root=str(shards))) == 80


def test_a_shard_that_vanishes_is_an_error_not_a_damaged_sample(shards, tmp_path):
    dataset = build('.', tmp_path, data_root=str(shards))
    os.unlink(shards / 's-003.tar')
    with pytest.raises(FileNotFoundError, match='s-003.tar'):
        train(dataset)


def test_a_copy_in_another_process_opens_its_own_files(shards, tmp_path):
    dataset = build('.', tmp_path, data_root=str(shards))
    assert number_of(dataset[5]) == 5
    assert number_of(pickle.loads(pickle.dumps(dataset))[5]) == 5


@pytest.mark.parametrize('workers', [0, 2])
def test_past_samples_are_neither_read_nor_decoded(shards, tmp_path, workers):
    class Counting(ImageTextShards):
        def get_data_info(self, index):
            with open(tmp_path / 'read', 'a') as file:
                file.write(f'{index}\n')
            return super().get_data_info(index)

    dataset = Counting('.', data_root=str(shards), cache_dir=str(tmp_path / 'cache'), pipeline=LOAD)
    _, whole = train(dataset)
    (tmp_path / 'read').unlink()
    assert train(dataset, workers, skip=7)[1] == whole[7:]
    assert len((tmp_path / 'read').read_text().split()) == 30


class Remote:
    """Shards over HTTP, with a count of what was asked for."""

    def __init__(self, folder):
        asked = self.asked = []

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *args):
                pass

        def handler(*args):
            return Handler(*args, directory=str(folder))

        self.server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f'http://127.0.0.1:{self.server.server_address[1]}'


@pytest.fixture
def remote(shards):
    server = Remote(shards)
    yield server
    server.server.shutdown()
    server.server.server_close()


def pipe(path):
    return f'pipe:cat {path}'


@pytest.mark.parametrize('workers', [0, 2])
def test_shards_behind_addresses_are_fetched_once(shards, remote, tmp_path, workers):
    local = train(build('.', tmp_path, data_root=str(shards)))[1]
    dataset = build('s-{000..004}.tar', tmp_path, data_root=remote.url, samples_per_shard=20)
    assert not remote.asked
    assert train(dataset, workers)[1] == local
    assert train(dataset, workers)[1] == local
    assert sorted(remote.asked) == [f'/s-{i:03}.tar' for i in range(5)]
    with pytest.raises(ConfigError, match='samples_per_shard'):
        build('s-{000..004}.tar', tmp_path, data_root=remote.url)


def test_shards_come_through_pipes(shards, tmp_path, monkeypatch):
    urls = [pipe(shards / f's-{i:03}.tar') for i in range(5)]
    dataset = build(urls, tmp_path, samples_per_shard=20)
    assert number_of(dataset[83]) == 83
    monkeypatch.setattr(shard_cache.time, 'sleep', lambda seconds: None)
    failing = build([f'{urls[0]}; exit 3'], tmp_path, samples_per_shard=20)
    with pytest.raises(ShardUnavailableError, match=r'tried 3 times.*exit 3'):
        failing[0]
    assert not list((tmp_path / 'cache').rglob('*.part'))


def test_copies_used_longest_ago_are_dropped_and_fetched_again(shards, remote, tmp_path):
    dataset = build(
        's-{000..004}.tar',
        tmp_path,
        data_root=remote.url,
        samples_per_shard=20,
        max_cached_shards=2,
    )
    for index in (0, 25, 45, 65, 85):
        assert number_of(dataset[index]) == index
    copies = [p for p in (tmp_path / 'cache' / 'fetched').iterdir() if p.suffix != '.lock']
    assert len(copies) == 2 and len(remote.asked) == 5
    fresh = pickle.loads(pickle.dumps(dataset))
    assert number_of(fresh[1]) == 1 and len(remote.asked) == 6
    assert number_of(fresh[86]) == 86 and len(remote.asked) == 6


def test_processes_that_want_the_same_shard_fetch_it_once(shards, remote, tmp_path):
    cache = ShardCache(tmp_path / 'copies', limit=5)
    url = f'{remote.url}/s-000.tar'
    threads = [threading.Thread(target=cache.get, args=(url,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert remote.asked == ['/s-000.tar']
    assert Path(cache.get(url)).read_bytes() == (shards / 's-000.tar').read_bytes()


def test_s3_goes_through_the_command_line_tool(shards, tmp_path, monkeypatch):
    tool = tmp_path / 'bin' / 'aws'
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\n[ "$1 $2 $4" = "s3 cp -" ] && cat {shards}/"${{3#s3://bucket/}}"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tool.parent}:{os.environ["PATH"]}')
    dataset = build('s3://bucket/s-{000..004}.tar', tmp_path, samples_per_shard=20)
    assert number_of(dataset[61]) == 61


def test_a_mixture_of_sources(shards, tmp_path):
    small = write_shard(tmp_path / 'small' / 'c.tar', range(500, 505), content={502: {'txt': b''}})
    sources = [
        dict(type='evamm.ImageTextShards', shards=str(folder), cache_dir=str(tmp_path / 'cache'))
        for folder in (shards, small)
    ]
    for source in sources:
        source['pipeline'] = LOAD
    cfg = dict(type='evamm.ImageTextMixture', datasets=sources, weights=[1.6, 0.4])
    mixture = DATASETS.build(cfg)
    assert len(mixture) == 105 and number_of(mixture[100]) == 500
    sampler = ShardSampler(mixture, epoch_samples=1024, seed=3, window=2)
    assert sum(index >= 100 for index in sampler) == pytest.approx(205, abs=2)
    data, batches = train(mixture)
    assert {path[-6:] for path in data.damage.paths.values()} == {'000502'}
    # The substitute of a sample is of the same source.
    drawn = [number for batch in batches for number, _ in batch]
    indices = list(ShardSampler(mixture, seed=3, window=2))
    assert [number >= 500 for number in drawn] == [index >= 100 for index in indices]
    assert train(mixture, workers=2, skip=4)[1] == batches[4:]
    with pytest.raises(ConfigError, match='2 positive'):
        DATASETS.build({**cfg, 'weights': [1]})


def test_it_trains_as_a_config_says(shards, tmp_path):
    """Through the pipeline of the recipes, to a batch."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    pipeline = [
        *LOAD,
        dict(type='evamm.RandomResizedCrop', scale=8, crop_ratio_range=(0.9, 1.0)),
        dict(type='evamm.TokenizeText'),
        dict(type='evamm.PackPairInputs'),
    ]
    loader = dict(
        batch_size=25,
        num_workers=0,
        sampler=dict(type='evamm.ShardSampler'),
        collate_fn=dict(type='default_collate'),
        dataset=dict(
            type='evamm.ImageTextShards',
            shards='s-*.tar',
            data_root=str(shards),
            cache_dir=str(tmp_path / 'cache'),
            pipeline=pipeline,
        ),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        batches = list(Runner.build_dataloader(loader, seed=1))
    assert len(batches) == 4 and batches[0]['inputs'].shape == (25, 3, 8, 8)
    samples = [sample for batch in batches for sample in batch['data_samples']]
    assert len({sample.text for sample in samples}) == 100
    assert samples[0].text_tokens.shape == (77,) and samples[0].text_tokens.dtype == torch.int64
