"""Image-text pairs listed in a table."""

import csv
import io
import json
import logging
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset

from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS

_SEPARATORS = {'.csv': ',', '.tsv': '\t'}
_NAMED = 20  # bad rows that are named in the log


@DATASETS.register_module()
class ImageTextTable(BaseDataset):
    """Pairs from a CSV, TSV or JSONL file: one row for each image.

    A row of a JSONL file may hold a list of texts; `evamm.ChooseText` takes one of them. Rows that
    cannot be used are left out and named with file and line.

    Args:
        ann_file: Table with a line of column names (CSV, TSV), or with an object per line (JSONL).
        image_key: Column of the image's path, relative to `data_prefix`.
        text_key: Column of its text.
        separator: What parts columns; by the name of the file if None.
        data_root: Folder that `ann_file` and `data_prefix` are below.
        data_prefix: Folder of the images.
        max_bad: Largest share of rows that may be bad.
        kwargs: Further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``.
    """

    def __init__(
        self,
        ann_file: str,
        image_key: str = 'filepath',
        text_key: str = 'title',
        separator: str | None = None,
        data_root: str = '',
        data_prefix: str | dict = '',
        max_bad: float = 0.01,
        **kwargs: Any,
    ) -> None:
        self.image_key = image_key
        self.text_key = text_key
        self.separator = separator
        self.max_bad = max_bad
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """
        Raises:
            ConfigError: A column is missing, or too many rows are bad.
        """
        rows, bad = [], []
        for line, row in self._rows(fileio.get_text(self.ann_file)):
            problem = row if isinstance(row, str) else self._problem(row)
            if problem:
                bad.append(f'{self.ann_file}, line {line}: {problem}')
                continue
            text = row[self.text_key]
            rows.append(
                {
                    'img_path': fileio.join_path(self.img_prefix, row[self.image_key].strip())
                    if self.img_prefix
                    else row[self.image_key].strip(),
                    'text': text.strip() if isinstance(text, str) else [t.strip() for t in text],
                }
            )
        if len(bad) > self.max_bad * (len(rows) + len(bad)):
            raise ConfigError(
                f'ImageTextTable: {len(bad)} of {len(rows) + len(bad)} rows cannot be used, more '
                f'than max_bad={self.max_bad:g} allows. {bad[0]}.'
            )
        for message in bad[:_NAMED]:
            print_log(f'{message}; the row is left out.', 'current', logging.WARNING)
        if len(bad) > _NAMED:
            print_log(f'{self.ann_file}: {len(bad)} rows are left out.', 'current', logging.WARNING)
        return rows

    def _rows(self, content: str) -> Iterator[tuple[int, dict | str]]:
        """Line number and row, or what is wrong with it."""
        suffix = PurePosixPath(self.ann_file).suffix.lower()
        if suffix in ('.jsonl', '.ndjson'):
            for line, text in enumerate(content.splitlines(), 1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except ValueError as error:
                    row = f'no JSON ({error})'
                yield line, row if isinstance(row, (dict, str)) else 'no JSON object'
            return
        separator = self.separator or _SEPARATORS.get(suffix)
        if separator is None:
            raise ConfigError(
                f'ImageTextTable: {self.ann_file} is neither .csv, .tsv nor .jsonl; set '
                '`separator`.'
            )
        # Captions of the web are longer than the limit of the csv module.
        csv.field_size_limit(1 << 24)
        reader = csv.DictReader(io.StringIO(content, newline=''), delimiter=separator)
        columns = reader.fieldnames or []
        missing = [name for name in (self.image_key, self.text_key) if name not in columns]
        if missing:
            raise ConfigError(
                f'ImageTextTable: {self.ann_file} has no column {missing[0]!r}, only '
                f'{", ".join(map(repr, columns))}; set `image_key` and `text_key`.'
            )
        for row in reader:
            extra = row.pop(None, None)
            yield reader.line_num, f'{len(extra)} column(s) too many' if extra else row

    def _problem(self, row: dict) -> str:
        """What is wrong with a row; empty if nothing is."""
        image, text = row.get(self.image_key), row.get(self.text_key)
        if not isinstance(image, str) or not image.strip():
            return f'no image in {self.image_key!r}'
        texts = text if isinstance(text, list) else [text]
        if not texts or not all(isinstance(each, str) and each.strip() for each in texts):
            return f'no text in {self.text_key!r}'
        return ''
