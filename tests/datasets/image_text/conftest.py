"""Small shards."""

import pytest

from .common import write_shard


@pytest.fixture
def shards(tmp_path):
    """Five shards of 20 samples each."""
    for shard in range(5):
        write_shard(tmp_path / 'tars' / f's-{shard:03}.tar', range(20 * shard, 20 * shard + 20))
    return tmp_path / 'tars'
