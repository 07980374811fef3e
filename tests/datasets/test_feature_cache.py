import pickle
import resource
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from evamm.datasets.feature_cache import (
    CacheMeta,
    FeatureCache,
    FeatureCacheError,
    ShardWriter,
    create_cache,
    damaged_shards,
    discard_shard,
    hash_paths,
    is_done,
    quantize,
    read_meta,
    writing,
)

PATHS = [f'n{i % 3}/{i}.JPEG' for i in range(7)]


def make_meta(**settings) -> CacheMeta:
    numbers = dict(images=7, tokens=4, dims=6, num_views=2, seed=3, shard_size=3, dtype='float16')
    texts = dict(crops='c', teacher='t', teacher_sha256='0' * 64, paths_sha256=hash_paths(PATHS))
    return CacheMeta(**{**numbers, **texts, **settings})


def features_of(row: int, view: int) -> np.ndarray:
    return np.random.default_rng(100 * row + view).normal(size=(4, 6)).astype(np.float32)


def write(folder, meta, shards) -> None:
    create_cache(folder, meta, PATHS)
    for shard in shards:
        writer = ShardWriter(folder, shard)
        for row in meta.rows_of(shard):
            for view in range(meta.num_views):
                writer.write(row, view, features_of(row, view))
        writer.finish()


def test_fp16_features_come_back_for_any_order_of_paths(tmp_path):
    meta = make_meta()
    write(tmp_path, meta, range(meta.num_shards))
    cache = FeatureCache(tmp_path)
    for row in (6, 0, 3, 5):
        for view in range(2):
            found = cache.read(PATHS[row], view)
            assert found.dtype == np.float16
            np.testing.assert_array_equal(found, features_of(row, view).astype(np.float16))
    some = np.array([True, False, False, True])
    np.testing.assert_array_equal(
        cache.read(PATHS[4], 1, some), features_of(4, 1)[some].astype(np.float16)
    )


def test_int8_keeps_the_direction_of_every_token(tmp_path):
    meta = make_meta(dtype='int8')
    write(tmp_path, meta, range(3))
    found = FeatureCache(tmp_path).read(PATHS[2], 1).astype(np.float32)
    wanted = features_of(2, 1)
    # Half a step of 1/127 of the largest value, and the rounding of the scale and the product.
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() * (0.5 / 127 + 2e-3)
    cosine = (found * wanted).sum(-1) / np.linalg.norm(found, axis=-1)
    assert (cosine / np.linalg.norm(wanted, axis=-1) > 0.9999).all()


def test_int8_of_zeros_and_of_very_small_values():
    values, scales = quantize(np.array([[0.0, 0.0], [1e-6, -1e-6]]))
    assert np.isfinite(scales).all()
    np.testing.assert_array_equal(values[0], 0)
    assert values[1, 0] == -values[1, 1] > 0


def test_size_is_what_the_files_take(tmp_path):
    for dtype in ('float16', 'int8'):
        folder, meta = tmp_path / dtype, make_meta(dtype=dtype)
        write(folder, meta, range(3))
        data = sum(np.load(p).nbytes for p in folder.glob('*_0*.npy'))
        assert data == meta.nbytes


def test_unfinished_shards_are_found_and_written_again(tmp_path):
    meta = make_meta()
    write(tmp_path, meta, [0, 2])
    ShardWriter(tmp_path, 1)  # interrupted before finish()
    assert [is_done(tmp_path, s) for s in range(3)] == [True, False, True]
    with pytest.raises(FeatureCacheError, match='1 of 3 shards are not written, the first is 1'):
        FeatureCache(tmp_path)
    write(tmp_path, meta, [1])
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).read(PATHS[3], 0), features_of(3, 0).astype(np.float16)
    )


def test_a_missing_crop_is_not_taken_for_zeros(tmp_path):
    meta = make_meta()
    create_cache(tmp_path, meta, PATHS)
    writer = ShardWriter(tmp_path, 0)
    writer.write(0, 0, features_of(0, 0))
    with pytest.raises(FeatureCacheError, match='view 1 of image 0'):
        writer.finish()
    assert not is_done(tmp_path, 0)


def test_damage_is_found(tmp_path):
    write(tmp_path, make_meta(), range(3))
    path = tmp_path / 'features_000001.npy'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert damaged_shards(tmp_path) == [1]
    (tmp_path / 'features_000002.npy').unlink()
    assert damaged_shards(tmp_path) == [1, 2]
    discard_shard(tmp_path, 1)
    with pytest.raises(FeatureCacheError, match='the first is 1'):
        FeatureCache(tmp_path)


def test_truncated_shard_is_an_error_not_a_crash(tmp_path):
    write(tmp_path, make_meta(), range(3))
    path = tmp_path / 'features_000001.npy'
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(FeatureCacheError, match='features_000001.npy'):
        FeatureCache(tmp_path).read(PATHS[3], 0)


def test_going_on_needs_the_same_content(tmp_path):
    meta = make_meta()
    create_cache(tmp_path, meta, PATHS)
    create_cache(tmp_path, meta, PATHS)
    with pytest.raises(FeatureCacheError, match="teacher_sha256='000.*expected '111"):
        create_cache(tmp_path, replace(meta, teacher_sha256='1' * 64), PATHS)
    assert read_meta(tmp_path) == meta


def test_bad_input_is_named(tmp_path):
    with pytest.raises(FeatureCacheError, match='no feature cache here'):
        FeatureCache(tmp_path)
    with pytest.raises(FeatureCacheError, match='n0/0.JPEG occurs twice'):
        create_cache(tmp_path, make_meta(), [*PATHS[:-1], PATHS[0]])
    with pytest.raises(FeatureCacheError, match='GB are free'):
        create_cache(tmp_path / 'big', make_meta(images=10**12), PATHS)
    assert not (tmp_path / 'big' / 'meta.json').exists()
    write(tmp_path, make_meta(), range(3))
    with pytest.raises(FeatureCacheError, match='other.JPEG is not in the feature cache'):
        FeatureCache(tmp_path).read('other.JPEG', 0)
    writer = ShardWriter(tmp_path, 0)
    with pytest.raises(FeatureCacheError, match=r'expected \(4, 6\)'):
        writer.write(0, 0, np.zeros((6, 4)))
    with pytest.raises(FeatureCacheError, match='NaN'):
        writer.write(0, 0, np.full((4, 6), np.nan))
    (tmp_path / 'meta.json').write_text('{}')
    with pytest.raises(FeatureCacheError, match='cannot be understood'):
        FeatureCache(tmp_path)


def test_travels_to_workers_as_its_folder(tmp_path):
    write(tmp_path, make_meta(), range(3))
    cache = FeatureCache(tmp_path)
    cache.read(PATHS[0], 0)
    content = pickle.dumps(cache)
    assert len(content) < 500
    np.testing.assert_array_equal(pickle.loads(content).read(PATHS[6], 1), cache.read(PATHS[6], 1))


@pytest.mark.parametrize('limit', [60, 250])
def test_a_full_disk_keeps_what_is_done(tmp_path, limit):
    """The header of the file, or its content, finds no room."""
    write(tmp_path, make_meta(), [0, 2])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(FeatureCacheError, match=r'no room for shard 1 \(File too large\)'):
            ShardWriter(tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob('.*.tmp'))
    write(tmp_path, make_meta(), [1])
    FeatureCache(tmp_path)


def test_blocks_are_there_before_they_are_written(tmp_path):
    """A page of a hole in a file that finds no block ends the process."""
    meta = make_meta(images=30_000, shard_size=30_000)
    create_cache(tmp_path, replace(meta, paths_sha256=''), [str(i) for i in range(30_000)])
    ShardWriter(tmp_path, 0)
    (temporary,) = tmp_path.glob('.*.tmp')
    assert temporary.stat().st_blocks * 512 >= meta.nbytes


def test_room_is_asked_for_what_is_left(tmp_path, monkeypatch):
    meta = make_meta()
    write(tmp_path, meta, [0, 1])
    usage = namedtuple('usage', 'free')
    free = meta.nbytes // 2  # one of three shards is missing
    monkeypatch.setattr('shutil.disk_usage', lambda folder: usage(free))
    create_cache(tmp_path, meta, PATHS)
    (tmp_path / 'done_000001.json').unlink()
    with pytest.raises(FeatureCacheError, match='GB are free'):
        create_cache(tmp_path, meta, PATHS)


def test_one_run_writes_at_a_time(tmp_path):
    with writing(tmp_path):
        with pytest.raises(FeatureCacheError, match=r'another run \(process \d+ on .+\)'):
            with writing(tmp_path):
                pass
    with writing(tmp_path):
        pass


@pytest.mark.parametrize('dtype', ['float16', 'int8'])
def test_a_crop_without_features_is_no_crop_of_zeros(tmp_path, dtype):
    meta = make_meta(dtype=dtype)
    create_cache(tmp_path, meta, PATHS)
    for shard in range(3):
        writer = ShardWriter(tmp_path, shard)
        for row in meta.rows_of(shard):
            for view in range(2):
                if row == 4:
                    writer.skip(row, view)
                else:
                    writer.write(row, view, features_of(row, view))
        writer.finish()
    cache = FeatureCache(tmp_path)
    with pytest.raises(FeatureCacheError, match='4.JPEG could not be read when.*done_000001'):
        cache.read(PATHS[4], 0)
    assert np.isfinite(cache.read(PATHS[3], 1)).all()


def test_masks_of_another_grid_and_shards_of_another_cache_are_refused(tmp_path):
    write(tmp_path, make_meta(), range(3))
    with pytest.raises(FeatureCacheError, match='holds 4 patches per image, the masks have 9'):
        FeatureCache(tmp_path).read(PATHS[0], 0, np.ones(9, bool))
    np.save(tmp_path / 'features_000000.npy', np.zeros((3, 2, 4, 5), np.float16))
    with pytest.raises(FeatureCacheError, match=r'shape \(3, 2, 4, 5\), expected \(3, 2, 4, 6\)'):
        FeatureCache(tmp_path).read(PATHS[0], 0)
