import random
import zipfile

import pytest
import torch

from evamm.checkpoints import CheckpointError, read_object, write_checkpoint
from evamm.checkpoints.checksum import verify_checksum


@pytest.fixture
def saved(tmp_path):
    content = {'weights': torch.arange(40.0), 'empty': torch.zeros(0), 'meta': {'epoch': 3}}
    path = tmp_path / 'epoch_3.pth'
    write_checkpoint(content, path)
    return path, content


def same(a, b):
    return (
        a.keys() == b.keys()
        and torch.equal(a['weights'], b['weights'])
        and torch.equal(a['empty'], b['empty'])
        and a['meta'] == b['meta']
    )


def test_any_zip_reader_takes_a_file_with_a_checksum(saved):
    path, content = saved
    assert verify_checksum(path)
    assert zipfile.ZipFile(path).testzip() is None
    for mmap in (False, True):
        assert same(torch.load(path, weights_only=True, mmap=mmap), content)


def test_a_file_of_torch_has_none(saved, tmp_path):
    torch.save(saved[1], tmp_path / 'plain.pth')
    assert not verify_checksum(tmp_path / 'plain.pth')
    assert same(read_object(tmp_path / 'plain.pth'), saved[1])


def test_every_flipped_byte_is_found(saved, tmp_path):
    """All bytes that carry anything; a flip in the mark itself only hides the checksum."""
    path, content = saved
    good = path.read_bytes()
    rng = random.Random(0)
    damaged = tmp_path / 'damaged.pth'
    found = 0
    for position in rng.sample(range(len(good)), 300):
        data = bytearray(good)
        data[position] ^= 1 << rng.randrange(8)
        damaged.write_bytes(data)
        try:
            assert same(read_object(damaged), content), position
            assert position >= len(good) - 77, position
        except CheckpointError:
            found += 1
    assert found > 250


def test_every_truncation_is_found(saved, tmp_path):
    path, content = saved
    good = path.read_bytes()
    damaged = tmp_path / 'damaged.pth'
    for size in random.Random(0).sample(range(len(good) - 77), 100):
        damaged.write_bytes(good[:size])
        with pytest.raises(CheckpointError):
            read_object(damaged)
