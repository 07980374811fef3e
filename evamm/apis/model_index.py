"""Model names and what is known about them, read from model-index.yml and the metafiles it imports.

Nothing here needs torch or an OpenMMLab library, so that listing the names stays quick.
"""

import difflib
import fnmatch
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_PACKAGE_DIR = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Result:
    """One row of published figures: the task, the data set and the metrics in percent."""

    task: str
    dataset: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class ModelEntry:
    """One released model.

    Attributes:
        name: The model's name, as in the metafile.
        aliases: Other names of the same model.
        config: Path of its config file on this machine.
        weights: Address of the released weights, or None.
        sha256: Hash of the weights file, or None where the publisher gives none.
        collection: The family it belongs to.
        results: Published figures. None for a model without a classifier (pre-trained only): then
            it gives features, not predictions.
        metadata: Parameters, FLOPs and whatever else the metafile says.
        official: The authors' own figures, where they differ from `results` in source or rounding.
        averaged: Whether the official figure belongs to the averaged weights of the file; None
            where there is no such figure.
    """

    name: str
    aliases: tuple[str, ...]
    config: Path
    weights: str | None
    sha256: str | None
    collection: str | None
    results: tuple[Result, ...] | None
    metadata: dict[str, Any] = field(default_factory=dict)
    official: dict[str, Any] = field(default_factory=dict)
    averaged: bool | None = None

    @property
    def library(self) -> str:
        """The library that its config is built from: 'mmpretrain', 'mmdet' or 'mmseg'."""
        kind = (self.collection or '').rpartition(' ')[2]
        return {'detection': 'mmdet', 'segmentation': 'mmseg'}.get(kind, 'mmpretrain')

    def has_task(self, task: str) -> bool:
        """Whether figures for `task` are published; the task 'null' means no figures at all."""
        if self.results is None:
            return task == 'null'
        return any(result.task == task for result in self.results)


def index_root() -> Path:
    """The folder that holds model-index.yml and configs/.

    It is the source tree where evamm is used from one (a clone or an editable install), else the
    folder `.mim` inside the installed package.

    Raises:
        FileNotFoundError: Neither place has a model-index.yml.
    """
    source_tree = _PACKAGE_DIR.parent
    # A lone model-index.yml beside the package could be another package's, in site-packages.
    if (source_tree / 'model-index.yml').is_file() and (source_tree / 'configs/eva02').is_dir():
        return source_tree
    installed = _PACKAGE_DIR / '.mim'
    if (installed / 'model-index.yml').is_file():
        return installed
    raise FileNotFoundError(
        f'evamm finds no model-index.yml in {source_tree} nor in {installed}; the model names and '
        'configs were not installed with the package. Install evamm again.'
    )


def _load_yaml(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), Loader=loader)
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must be a mapping, found {type(content).__name__}.')
    return content


def _as_tuple(value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _parse_entry(model: dict[str, Any], metafile: Path, root: Path) -> ModelEntry:
    for key in ('Name', 'Config'):
        if not isinstance(model.get(key), str):
            raise ValueError(f'{metafile}: a model entry has no "{key}": {model}')
    results = model.get('Results')
    metadata = model.get('Metadata') or {}
    return ModelEntry(
        name=model['Name'],
        aliases=_as_tuple(model.get('Alias')),
        config=root / model['Config'],
        weights=model.get('Weights'),
        sha256=metadata.get('SHA256'),
        collection=model.get('In Collection'),
        results=results
        and tuple(
            Result(task=row['Task'], dataset=row.get('Dataset', ''), metrics=row.get('Metrics', {}))
            for row in results
        ),
        metadata=metadata,
        official=model.get('Official') or {},
        averaged=(model.get('Official') or {}).get('Averaged Weights'),
    )


@cache
def load_entries(root: Path) -> dict[str, ModelEntry]:
    """Reads every metafile that `root`/model-index.yml imports.

    Args:
        root: Folder of model-index.yml; `Config` paths in the metafiles are relative to it.

    Returns:
        The entries under their names and aliases, all in lower case.

    Raises:
        ValueError: A metafile is malformed, or two entries claim one name.
    """
    entries: dict[str, ModelEntry] = {}
    for imported in _load_yaml(root / 'model-index.yml').get('Import', []):
        metafile = root / imported
        for model in _load_yaml(metafile).get('Models') or []:
            entry = _parse_entry(model, metafile, root)
            for name in (entry.name, *entry.aliases):
                key = name.lower()
                if key in entries:
                    raise ValueError(
                        f'{metafile}: the name "{name}" of {entry.name} is already taken by '
                        f'{entries[key].name}.'
                    )
                entries[key] = entry
    return entries


def find_entry(name: str) -> ModelEntry:
    """The entry called `name` (a name or an alias, in any case).

    Raises:
        ValueError: No model has that name; the message offers the nearest ones.
    """
    entries = load_entries(index_root())
    entry = entries.get(name.lower())
    if entry is None:
        close = difflib.get_close_matches(name.lower(), entries, n=3, cutoff=0.5)
        hint = f' Did you mean {" or ".join(close)}?' if close else ''
        raise ValueError(
            f'evamm has no model named "{name}".{hint} evamm.list_models() gives all names; a '
            'config file is given by its path, ending in .py.'
        )
    return entry


def prefers_averaged(weights: str | os.PathLike) -> bool:
    """Which weights to take of a file that has trained and averaged ones.

    Args:
        weights: Path or address. A released file is known by its name.

    Returns:
        False for a released file whose published figure belongs to the trained weights, else True.
    """
    name = os.fspath(weights).rpartition('/')[2]
    for entry in load_entries(index_root()).values():
        if entry.weights and entry.weights.rpartition('/')[2] == name:
            return entry.averaged is not False
    return True


def list_models(
    pattern: str | None = None,
    exclude_patterns: str | Sequence[str] | None = None,
    task: str | None = None,
) -> list[str]:
    """Names of the models of evamm.

    Args:
        pattern: Shell-style pattern that the beginning of a name must match, as in mmpretrain:
            'eva02-tiny' finds 'eva02-tiny-p14_...', '*medft' finds every name with 'medft' in it.
            An alias that matches brings its model's name.
        exclude_patterns: Pattern or patterns, read the same way, of names to leave out.
        task: Only models with published figures for it, e.g. 'Image Classification'; 'null' for
            models without figures, which are those without a classifier.

    Returns:
        Sorted names.

    Example:
        >>> evamm.list_models('eva02-tiny', task='Image Classification')
        ['eva02-tiny-p14_in21k-pre_3rdparty_in1k']
    """

    def matches(entry: ModelEntry, wanted: str) -> bool:
        return any(
            fnmatch.fnmatchcase(name.lower(), f'{wanted.lower()}*')
            for name in (entry.name, *entry.aliases)
        )

    found = set()
    for entry in load_entries(index_root()).values():
        if pattern is not None and not matches(entry, pattern):
            continue
        if any(matches(entry, excluded) for excluded in _as_tuple(exclude_patterns)):
            continue
        if task is not None and not entry.has_task(task):
            continue
        found.add(entry.name)
    return sorted(found)
