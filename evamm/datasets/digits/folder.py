"""Data folders that are either complete or absent."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

MANIFEST = 'manifest.json'


def read_manifest(folder: Path) -> dict | None:
    """Return the manifest of a finished data folder, or None when there is none."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        return None


def build_folder(folder: Path, manifest: dict, write: Callable[[Path], None]) -> bool:
    """Build a data folder beside its final place and move it there in one step.

    A run that is killed leaves no folder that looks complete, and what another run finished in
    the meantime is kept.

    Args:
        folder: Final place.
        manifest: What the folder holds (task, seed, counts, ...). A folder with an equal
            manifest is up to date and left alone; one with another manifest is replaced.
        write: Fills an empty folder.

    Returns:
        True when the folder was written, False when it was up to date.

    Raises:
        FileExistsError: Something that we did not write is in the way.
    """
    found = read_manifest(folder)
    if found == manifest:
        return False
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f'{folder} exists and was not written by this tool (it has no {MANIFEST}). '
            'Nothing was changed: move it away, or choose another output folder.'
        )

    folder.parent.mkdir(parents=True, exist_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix=f'.{folder.name}-', dir=folder.parent))
    try:
        staged = workspace / 'new'
        staged.mkdir()
        write(staged)
        (staged / MANIFEST).write_text(
            json.dumps(manifest, indent=2, sort_keys=True) + '\n', encoding='utf-8'
        )
        if folder.exists():
            os.rename(folder, workspace / 'old')
        os.rename(staged, folder)
    except OSError:
        # Another run may have put the same folder there first; then both are content.
        if read_manifest(folder) != manifest:
            raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    return True
