"""Reading torch files without ever running code from them."""

import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from .allowlist import only_these_globals
from .checksum import verify_checksum
from .errors import CheckpointError, abbreviate
from .torch_script import is_script_code, is_torch_script, load_torch_script

MAX_DIRECTORY_BYTES = 16 << 20
_END_RECORD = b'PK\x05\x06'


def _check_directory(path: Path) -> None:
    """Refuses a zip directory of absurd size before parsing it."""
    size = path.stat().st_size
    with path.open('rb') as file:
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(_END_RECORD)
    if at < 0 or len(tail) - at < 22:
        raise CheckpointError('it begins like a torch file but has no end: it is truncated')
    directory = struct.unpack('<I', tail[at + 12 : at + 16])[0]
    if MAX_DIRECTORY_BYTES < directory < 0xFFFFFFFF:
        raise CheckpointError(f'its directory has {directory} bytes, which no checkpoint needs')


def check_zip(path: Path) -> None:
    """Checks the structure of a torch zip file and its checksum, or those of its records.

    torch itself writes one for every record and never looks at them.

    Raises:
        CheckpointError: Without the file name, which the caller adds.
    """
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            names = [record.filename for record in records]
            if len(set(names)) != len(names):
                raise CheckpointError('it names a record twice')
            if not any(re.fullmatch(r'[^/]+/data\.pkl', name) for name in names):
                raise CheckpointError(
                    f'it is a zip archive but no torch file: it holds {abbreviate(names, 3)}'
                )
            if is_torch_script(names):
                records = [item for item in records if not is_script_code(item.filename)]
            packed = [record.filename for record in records if record.compress_type]
            if packed:
                raise CheckpointError(f'{packed[0]} is compressed, which torch never does')
            whole = verify_checksum(path)
            for record in records:
                _check_record(archive, record, contents=not whole)
    except CheckpointError:
        raise
    except Exception as error:  # zipfile raises many kinds on damaged input
        raise CheckpointError(f'it is damaged ({error})') from error


def _check_record(archive: zipfile.ZipFile, record: zipfile.ZipInfo, *, contents: bool) -> None:
    if record.file_size != record.compress_size:
        raise CheckpointError(f'the size of {record.filename} is damaged')
    if not contents:
        return
    # `read` would keep a gigabyte in memory; reading to the end makes zipfile check the CRC.
    with archive.open(record) as file:
        while file.read(1 << 22):
            pass


def load_torch_file(path: Path, *, verify: bool = True) -> Any:
    """Reads a torch file with the weights-only unpickler; never falls back to a full one.

    Args:
        path: Zip file (torch >= 1.6), whose data stays memory-mapped, a TorchScript archive (its
            tensors by name), or a legacy file.
        verify: Check the checksums of a zip file.

    Raises:
        CheckpointError: Damaged, or it names something that is not plain data.
    """
    with path.open('rb') as file:
        is_zip = file.read(4) == b'PK\x03\x04'
    if is_zip and verify:
        check_zip(path)
    if is_zip and _is_torch_script_file(path):
        return load_torch_script(path)
    try:
        with only_these_globals(), warnings.catch_warnings(), path.open('rb') as file:
            warnings.simplefilter('ignore')  # about TypedStorage and numpy names
            # Mapping needs a path, and by its ending torch would take it for another format.
            mapped = is_zip and path.suffix != '.safetensors'
            return torch.load(
                path if mapped else file, map_location='cpu', weights_only=True, mmap=mapped
            )
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(_explain(error)) from error


def _is_torch_script_file(path: Path) -> bool:
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return is_torch_script(archive.namelist())
    except Exception:  # damaged; torch says how
        return False


def _explain(error: Exception) -> str:
    text = str(error)
    named = re.search(r'GLOBAL ([\w.]+)', text)
    if named:
        return (
            f'it asks for {named.group(1)}, which is not plain data, and code in a checkpoint is '
            'never run; where the file was made, save its weights alone: torch.save(model.'
            'state_dict(), path)'
        )
    if isinstance(error, EOFError | zlib.error) or 'unexpected EOF' in text:
        return 'it is truncated'
    # torch's own texts go on to recommend unsafe loading; only the clause that says what is wrong
    # is passed on.
    reason = text.split('WeightsUnpickler error: ')[-1].strip()
    first = re.split(r'\. |\n', reason)[0][:120]
    if first.startswith(('Weights only load failed', 'In PyTorch')):
        first = 'unknown instructions'
    return f'it is damaged or no checkpoint ({first or type(error).__name__})'
