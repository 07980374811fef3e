"""Files of every kind: whole, damaged, hostile, or something else altogether."""

import argparse
import functools
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from evamm.checkpoints import CheckpointError, read_checkpoint, read_object, write_checkpoint
from evamm.checkpoints.safetensors_file import MAX_HEADER_BYTES

from .common import same

STATE = {
    'patch_embed.proj.weight': torch.arange(24.0).reshape(2, 3, 2, 2),
    'cls_token': torch.ones(1, 1, 2, dtype=torch.bfloat16),
    'step': torch.tensor(7),
    'half': torch.linspace(0, 1, 300).half(),
    'empty': torch.zeros(0, 2),
}


def refused(path: Path, match: str | None = None) -> None:
    """A CheckpointError within a second that names the file."""
    start = time.process_time()
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(path)
    assert time.process_time() - start < 1
    assert str(path) in str(error.value) and '\n' not in str(error.value)


# ---- whole files -------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_we_write_is_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f'file{suffix}'
    write_checkpoint(STATE, path)
    assert same(read_checkpoint(path).state_dict, STATE)


@pytest.mark.parametrize('zipped', [True, False])
def test_torch_files_old_and_new(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / 'wrong-ending.safetensors'  # the content decides
    torch.save({'model': STATE, 'epoch': 3}, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert same(found.state_dict, STATE) and found.source == 'model'


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / 'file.bin'
    safetensors.torch.save_file(STATE, path, metadata={'format': 'pt', 'note': 'x'})
    found = read_checkpoint(path)
    assert same(found.state_dict, STATE) and found.meta['note'] == 'x' and found.source == ''


def test_training_state_of_official_files(tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    torch.save(
        {
            'module': OrderedDict(STATE),
            'args': argparse.Namespace(lr=1e-4, out='x'),
            'best': np.float64(0.5),
            'count': np.int64(3),
            'name': np.str_('eva'),
            'curve': np.linspace(0, 1, 5),
            'table': np.arange(6, dtype='>i2').reshape(2, 3, order='F'),
            'flags': np.array([True, False]),
            'words': np.array(['a', 'bc']),
        },
        path,
    )
    found = read_object(path)
    assert found['args'].lr == 1e-4
    assert found['best'] == 0.5 and found['count'] == 3 and found['name'] == 'eva'
    assert np.array_equal(found['curve'], np.linspace(0, 1, 5))
    assert np.array_equal(found['table'], np.arange(6).reshape(2, 3, order='F'))
    assert found['flags'].dtype == bool
    assert found['words'].tolist() == ['a', 'bc']
    copy = pickle.loads(pickle.dumps(found['curve']))
    assert type(copy) is np.ndarray and np.array_equal(copy, found['curve'])


def test_log_buffers_of_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training checkpoint of mmengine holds them, and names getattr in doing so."""
    from mmengine.logging import HistoryBuffer

    path = tmp_path / 'file.pth'
    torch.save({'state_dict': STATE, 'log': HistoryBuffer([1.0, 3.0], [1, 1])}, path)
    assert 'builtins.getattr' in torch.serialization.get_unsafe_globals_in_checkpoint(path)
    found = read_object(path)['log']
    assert type(found) is HistoryBuffer and found.mean() == 2.0
    found.update(5.0)
    assert found.current() == 5.0

    monkeypatch.delitem(sys.modules, 'mmengine.logging.history_buffer')
    stand_in = read_object(path)['log']
    assert stand_in._log_history.tolist() == [1.0, 3.0]
    assert 'mmengine.logging.history_buffer' not in sys.modules


def test_reading_leaves_torchs_own_list_alone(tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    torch.save({'model': STATE, 'p': functools.partial(print)}, path)
    with torch.serialization.safe_globals([functools.partial, print]):
        torch.load(path, weights_only=True)  # others may allow what they like, we do not
        refused(path, 'functools.partial')
        assert {functools.partial, print} <= set(torch.serialization.get_safe_globals())
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


# ---- hostile files -----------------------------------------------------------------------------

BAIT = 'evamm-bait'


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple:
        return self.call


class _Object:
    """An object array whose dtype claims to hold numbers: raw bytes would become pointers."""

    def __reduce__(self) -> tuple:
        core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
        dtype = np.dtype('O')
        state = (1, (1,), dtype, False, b'\x41' * 8)
        return core._reconstruct, (np.ndarray, (0,), b'b'), state


class _Flags:
    """A dtype of numbers whose flags say that they are references."""

    def __reduce__(self) -> tuple:
        return np.dtype, ('f8', False, True), (3, '<', None, None, None, -1, -1, 63)


ATTACKS = {
    'os.system': lambda: Call(os.system, f'touch {BAIT}'),
    'subprocess.Popen': lambda: Call(subprocess.Popen, ['touch', BAIT]),
    'builtins.eval': lambda: Call(eval, f'open({BAIT!r}, "w")'),
    'builtins.exec': lambda: Call(exec, f'open({BAIT!r}, "w")'),
    'builtins.open': lambda: Call(open, BAIT, 'w'),
    'builtins.__import__': lambda: Call(__import__, 'antigravity'),
    'getattr': lambda: Call(getattr, 'text', 'format'),
    'getattr-method': lambda: Call(getattr, argparse.Namespace, '__init__'),
    'torch.load': lambda: Call(torch.load, BAIT),
    'torch.hub.load': lambda: Call(torch.hub.load, 'a/b', 'c'),
    'functools.partial': lambda: Call(functools.partial, print),
    'numpy.save': lambda: Call(np.save, BAIT, 1),
    'object-array': lambda: np.array([print], dtype=object),
    'pointer-array': lambda: _Object(),
    'dtype-flags': lambda: _Flags(),
    'tensor-of-no-memory': lambda: Call(
        torch._utils._rebuild_tensor_v2,
        torch.ones(1).untyped_storage(),
        0,
        (10**13,),
        (1,),
        False,
        OrderedDict(),
    ),
}


@pytest.fixture(autouse=True)
def no_bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a test in which code of a file ran."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not os.path.exists(BAIT) and 'antigravity' not in sys.modules


def hostile(name: str, form: str) -> bytes:
    obj = {'model': STATE, 'extra': ATTACKS[name]()}
    buffer = io.BytesIO()
    if form in ('zip', 'legacy'):
        torch.save(obj, buffer, _use_new_zipfile_serialization=form == 'zip')
        return buffer.getvalue()
    return pickle.dumps(ATTACKS[name](), protocol=2 if form == 'pickle2' else 4)


@pytest.mark.parametrize(
    'name, form',
    [
        (name, form)
        for name in ATTACKS
        for form in ('zip', 'legacy', 'pickle2', 'pickle4')
        if (name, form[:6]) != ('tensor-of-no-memory', 'pickle')
    ],
)  # needs torch's own pickler
def test_code_in_a_file_is_never_run(name: str, form: str, tmp_path: Path) -> None:
    if name == 'dtype-flags' and form in ('zip', 'legacy'):
        # Flags of the file are not looked at: a harmless dtype is left.
        path = tmp_path / 'file.pth'
        path.write_bytes(hostile(name, form))
        assert read_object(path)['extra'].dtype.flags == np.dtype('f8').flags
        return
    path = tmp_path / 'file.pth'
    path.write_bytes(hostile(name, form))
    refused(path)


@pytest.mark.parametrize(
    'name, message',
    [
        ('os.system', r'asks for (posix|nt)\.system, .*code in a checkpoint is never run'),
        ('getattr', 'asks for getattr, and code in a checkpoint is never run'),
        ('object-array', "array of 'O8', only numbers and text"),
        ('tensor-of-no-memory', 'damaged or no checkpoint'),
    ],
)
def test_the_message_names_what_a_file_asks_for(name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    path.write_bytes(hostile(name, 'zip'))
    refused(path, message)


def test_pickle_bomb(tmp_path: Path) -> None:
    """Nested references would be 10^30 elements if anything walked them."""
    value: list = []
    for _ in range(30):
        value = [value] * 10
    path = tmp_path / 'file.pth'
    torch.save({'model': STATE, 'bomb': value}, path)
    start = time.process_time()
    assert same(read_checkpoint(path).state_dict, STATE)
    assert time.process_time() - start < 1


def header(entries: dict | bytes, data: bytes = b'') -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack('<Q', len(text)) + text + data


def entry(start: int, end: int, shape: tuple = (1,), dtype: str = 'F32') -> dict:
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [start, end]}


SAFETENSORS = {
    'duplicate': (
        header(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 4)).encode(),) * 2), b'1234'),
        'names an entry twice',
    ),
    'overlap': (header({'a': entry(0, 4), 'b': entry(0, 4)}, b'1234'), "'b' overlaps"),
    'gap': (header({'a': entry(0, 4), 'b': entry(8, 12)}, b'0' * 12), "'b' overlaps .* gap"),
    'too short': (header({'a': entry(0, 8, (2,))}, b'1234'), 'need 8 bytes and it holds 4'),
    'padded': (header({'a': entry(0, 4)}, b'123456'), 'need 4 bytes and it holds 6'),
    'wrong size': (header({'a': entry(0, 4, (2,))}, b'1234'), "size of 'a'"),
    'overflow': (header({'a': entry(0, 4, (2**62, 4, 2**62))}, b'1234'), "size of 'a'"),
    'negative': (header({'a': entry(4, 0, (-1,))}, b'1234'), "size of 'a'"),
    'bool shape': (header({'a': entry(0, 4, (True,))}, b'1234'), "size of 'a'"),
    'dtype': (header({'a': entry(0, 4, (1,), 'X9')}, b'1234'), "entry of 'a' is damaged"),
    'not a table': (header(b'{"a":5}'), "entry of 'a' is damaged"),
    'not json': (header(b'{nonsense'), 'header is damaged'),
    'nested': (header(b'{"a":' + b'[' * 100_000), 'header is damaged'),
    'metadata': (header({'__metadata__': {'a': 5}}), 'metadata'),
    'long header': (struct.pack('<Q', 2**62) + b'{"a":1}', f'at most {MAX_HEADER_BYTES}'),
    'header past end': (struct.pack('<Q', 1000) + b'{"a":1}', 'truncated'),
    'bloat': (header({f'{i:05d}': entry(0, 0, (0,)) for i in range(50_000)}), '50000 tensors'),
    'big header': (header(b'{' + b' ' * MAX_HEADER_BYTES + b'}'), f'at most {MAX_HEADER_BYTES}'),
}


@pytest.mark.parametrize('name', SAFETENSORS)
def test_hostile_safetensors(name: str, tmp_path: Path) -> None:
    content, message = SAFETENSORS[name]
    path = tmp_path / 'file.safetensors'
    path.write_bytes(content)
    refused(path, message)


def rezip(path: Path, target: Path, **options: object) -> None:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, 'w', **options) as new:
        for record in old.infolist():
            new.writestr(record.filename, old.read(record))


def test_hostile_zips(tmp_path: Path) -> None:
    path, other = tmp_path / 'a.pth', tmp_path / 'b.pth'
    torch.save(STATE, path)
    rezip(path, other, compression=zipfile.ZIP_DEFLATED)
    refused(other, 'is compressed')
    with pytest.warns(UserWarning, match='Duplicate name'), zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('a/data/0', b'x')
    refused(path, 'names a record twice')
    with zipfile.ZipFile(other, 'w') as archive:
        archive.writestr('word/document.xml', 'text')
    refused(other, 'no torch file: it holds word/document.xml')
    content = bytearray(b'PK\x03\x04' + bytes(100) + b'PK\x05\x06' + bytes(18))
    content[-10:-6] = struct.pack('<I', 1 << 30)
    other.write_bytes(content)
    refused(other, 'directory has 1073741824 bytes')


# ---- damaged files -----------------------------------------------------------------------------


def write(kind: str, path: Path) -> None:
    if kind == 'safetensors':
        write_checkpoint(STATE, path.with_suffix('.safetensors'))
        path.with_suffix('.safetensors').rename(path)
    else:
        torch.save({'model': STATE}, path, _use_new_zipfile_serialization=kind == 'zip')


@pytest.mark.parametrize('kind', ['zip', 'safetensors', 'legacy'])
def test_truncated(kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'file'
    write(kind, path)
    content = path.read_bytes()
    cuts = random.Random(0).sample(range(1, len(content)), 40)
    for cut in [*cuts, len(content) - 1]:
        path.write_bytes(content[:cut])
        refused(path)


@pytest.mark.parametrize('kind', ['zip', 'safetensors'])
def test_flipped_bits_are_noticed_or_do_no_harm(kind: str, tmp_path: Path) -> None:
    """Never a tensor with other numbers, never another kind of error."""
    path = tmp_path / 'file'
    write(kind, path)
    content = path.read_bytes()
    chance = random.Random(1)
    noticed = 0
    for _ in range(120):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        start = time.process_time()
        try:
            assert same(read_checkpoint(path).state_dict, STATE)
        except CheckpointError:
            noticed += 1
        assert time.process_time() - start < 1
    assert noticed > 60


def test_flipped_bits_of_legacy_files_never_crash(tmp_path: Path) -> None:
    """They carry no checksum, so a flip in a number cannot be seen; sha256 can be given."""
    path = tmp_path / 'file'
    write('legacy', path)
    content = path.read_bytes()
    chance = random.Random(2)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except CheckpointError:
            pass
        with pytest.raises(CheckpointError):
            read_checkpoint(path, sha256='0' * 64)


# ---- other files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'an empty file'),
        (b'<!DOCTYPE html><html>Rate limit</html>', 'a web page'),
        (b'\n <html><body>404</body></html>', 'a web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:1\n', 'Git LFS pointer'),
        (b'just some words\n' * 50, 'a text file'),
        (b'{"error": "not found"}', 'a text file'),
        (bytes(512), 'other data'),
        (b'\x1f\x8b\x08' + bytes(50), 'gzip'),
        (bytes(257) + b'ustar' + bytes(300), 'an archive'),
        (b'\x89PNG\r\n\x1a\n' + bytes(50), 'other data'),
        (b'\x80\x02N.', 'damaged or no checkpoint'),
    ],
)
def test_other_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    path.write_bytes(content)
    refused(path, message)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    refused(tmp_path / 'nothing.pth', 'does not exist')
    refused(tmp_path, 'is a folder; give the path of a checkpoint file')
    (tmp_path / 'model.safetensors').touch()
    refused(tmp_path, 'is a folder; give a file in it: model.safetensors')
    (tmp_path / 'state.pth').touch()
    (tmp_path / 'shard-00001-model-00001-of-00001.safetensors').touch()
    refused(tmp_path, 'a sharded run.*once without sharded_checkpoints')


@pytest.mark.parametrize(
    'content, message',
    [
        ({'optimizer': {'lr': 1}}, "found a dict with the entries 'optimizer'"),
        ([STATE], 'found list'),
        (torch.ones(2), 'found Tensor'),
        ({'model': {}}, 'expected tensors by name'),
        ({'model': {**STATE, 'version': 'x'}}, r'no tensors \(version\)'),
    ],
)
def test_files_without_a_model(content: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    torch.save(content, path)
    refused(path, message)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / 'file.pth'
    torch.save(STATE, path)
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for expected in (digest, digest[:8], digest.upper()):
        assert same(read_checkpoint(path, sha256=expected).state_dict, STATE)
    with pytest.raises(CheckpointError, match='expected sha256 0000.*found'):
        read_checkpoint(path, sha256='0' * 64)
    with pytest.raises(CheckpointError, match='8 to 64 hexadecimal digits'):
        read_checkpoint(path, sha256='12')


@pytest.mark.parametrize(
    ('kind', 'value'),
    [
        ('sparse', torch.eye(3).to_sparse()),
        ('on the meta device', torch.empty(3, 3, device='meta')),
    ],
)
def test_tensors_without_plain_values(kind: str, value: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / 'odd.pth'
    torch.save({'first': torch.zeros(2), 'odd': value}, path)
    with pytest.raises(CheckpointError, match=f'odd.*{kind}'):
        read_checkpoint(path)
