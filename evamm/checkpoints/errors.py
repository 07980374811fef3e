"""The one error class of this package."""

import difflib
from collections.abc import Iterable


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, does not fit, or cannot be written.

    The message is one sentence that names the file or tensor, what was expected, what was found
    and what to do. Whatever was asked for has not happened, not even partly.
    """


def abbreviate(names: Iterable[str], limit: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    text = ', '.join(names[:limit])
    return text if len(names) <= limit else f'{text} and {len(names) - limit} more'


def with_close_matches(name: str, candidates: Iterable[str]) -> str:
    """``name``, followed by the most similar candidate where there is one."""
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.75)
    return f'{name} (close to {close[0]})' if close else name
