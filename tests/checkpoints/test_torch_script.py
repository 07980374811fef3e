"""TorchScript archives, such as OpenAI's CLIP files: weights are read, code never runs."""

import io
import pickle
import random
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from evamm.checkpoints import CheckpointError, read_checkpoint

from .common import same


class Inner(nn.Module):
    """Buffers, an integer, half precision, a transposed view and attributes that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer('steps', torch.tensor(7))
        self.matrix = nn.Parameter(torch.randn(4, 3).t().half())
        self.words = ['a', 'b']
        self.table = {1: 2.5}
        self.count = 300

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) @ self.matrix.float().t() + self.steps + self.count


class Outer(nn.Module):
    """Nested modules, and a module that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Inner(), Inner())
        self.tied = self.blocks[0].linear
        self.empty = nn.Parameter(torch.zeros(0, 2))
        self.flag = nn.Parameter(torch.tensor([True, False]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.tied(x)[:, :3])


def traced(module: nn.Module) -> torch.jit.ScriptModule:
    return torch.jit.trace(module, torch.randn(2, 3))


def save(module: nn.Module, path: Path, make: Callable = torch.jit.script) -> dict[str, Tensor]:
    """Writes an archive and says what torch itself reads from it."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        make(module).save(str(path))
        return torch.jit.load(str(path)).state_dict()


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Writes the archive anew with other records; None leaves one out."""
    out = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, 'w') as new:
        for item in old.infolist():
            data = change(item.filename, old.read(item.filename))
            if data is not None:
                new.writestr(item, data, compress_type=item.compress_type)
    path.write_bytes(out.getvalue())


def pickled(description: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, data: description if name.endswith('/data.pkl') else data


def plain(value: object) -> bytes:
    """The instructions for a number, a text or a tuple of such."""
    return pickle.dumps(value, 2)[2:-1]


def named(home: str, name: str) -> bytes:
    return f'c{home}\n{name}\n'.encode()


def module(attributes: dict[str, bytes]) -> bytes:
    """The instructions for a module, as TorchScript writes them."""
    pairs = b''.join(plain(name) + value for name, value in attributes.items())
    return named('__torch__', 'Module') + b')\x81}(' + pairs + b'ub'


@pytest.mark.parametrize('make', [torch.jit.script, traced])
@pytest.mark.parametrize('kind', [Inner, Outer])
def test_weights_are_those_that_torch_reads(kind: type, make: Callable, tmp_path: Path) -> None:
    path = tmp_path / 'file.pt'
    expected = save(kind(), path, make)
    found = read_checkpoint(path)
    assert same(found.state_dict, expected) and found.source == ''


def test_module_that_runs_a_pickle_of_its_own(tmp_path: Path) -> None:
    """What a full unpickler would call is only a name here, so it is refused or ignored."""

    class Bait:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / 'bait',))

    path = tmp_path / 'file.pt'
    save(Inner(), path)
    for protocol in (0, 2, 4):
        rewrite(path, pickled(pickle.dumps(Bait(), protocol)))
        with pytest.raises(CheckpointError, match='damaged TorchScript archive'):
            read_checkpoint(path)
    assert not (tmp_path / 'bait').exists()


@pytest.mark.parametrize(
    'length, size, stride, offset',
    [
        (12, (4, 4), (4, 1), 0),  # more than there is
        (12, (3, 4), (4, 1), 1),  # one too far
        (12, (10**12,), (0,), 0),  # repeats one number for ever
        (10**9, (4, 3), (3, 1), 0),  # not what the record holds
        (12, (-1,), (1,), 0),
        (12, (2,), (1, 1), 0),
    ],
)
def test_tensor_beyond_its_data(
    length: int, size: tuple, stride: tuple, offset: int, tmp_path: Path
) -> None:
    weight = (
        named('torch._utils', '_rebuild_tensor_v2')
        + b'(('
        + plain('storage')
        + named('torch', 'FloatStorage')
        + b''.join(map(plain, ('0', 'cpu', length)))
        + b'tQ'
        + b''.join(map(plain, (offset, size, stride)))
        + b'\x88NtR'
    )
    zeros = pickled(b'\x80\x02' + module({'weight': weight}) + b'.')
    path = tmp_path / 'file.pt'
    save(nn.Linear(3, 4), path)
    rewrite(path, lambda name, data: b'\0' * 48 if name.endswith('data/0') else zeros(name, data))
    with pytest.raises(CheckpointError, match='damaged TorchScript archive'):
        read_checkpoint(path)


def test_description_without_end(tmp_path: Path) -> None:
    """A module that holds itself, and modules whose number doubles at every level."""
    path = tmp_path / 'file.pt'
    save(Inner(), path)
    itself = named('__torch__', 'Module') + b')\x81q\x63}(' + plain('inner') + b'h\x63ub'
    doubling = module({})
    for level in range(40):
        mark = bytes([100 + level])
        doubling = module({'a': doubling + b'q' + mark, 'b': b'h' + mark})
    for description in (itself, doubling):
        rewrite(path, pickled(b'\x80\x02' + description + b'.'))
        start = time.process_time()
        with pytest.raises(CheckpointError, match='without end|more modules'):
            read_checkpoint(path)
        assert time.process_time() - start < 3


def test_damage_is_an_error_or_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / 'file.pt'
    expected = save(Outer(), path)
    whole = path.read_bytes()
    generator = random.Random(0)
    for _ in range(150):
        damaged = bytearray(whole)
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path).state_dict
        except CheckpointError as error:
            assert str(path) in str(error) and '\n' not in str(error)
        else:
            assert same(found, expected)


def test_random_descriptions_never_crash(tmp_path: Path) -> None:
    """With checksums that fit, so that the description itself is what is read."""
    path = tmp_path / 'file.pt'
    save(Inner(), path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        description = archive.read('file/data.pkl')
    generator = random.Random(0)
    for _ in range(150):
        damaged = bytearray(description)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(whole)
        rewrite(path, pickled(bytes(damaged)))
        try:
            found = read_checkpoint(path).state_dict
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(value, Tensor) for value in found.values())
