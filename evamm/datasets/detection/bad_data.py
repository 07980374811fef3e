"""What is wrong with an annotation file: counted, shown by examples, skipped or refused."""

import logging

from mmengine.logging import print_log

from ..checks import DataError

# Examples of every problem that are named.
_SHOWN = 3
CHOICES = ('skip', 'stop')


def check_settings(name: str, bad_data: object, max_bad: object) -> None:
    """
    Args:
        name: Of the class that has these arguments.
        bad_data: A choice, see :class:`BadData`.
        max_bad: A limit.

    Raises:
        ValueError: One of them is none.
    """
    if bad_data not in CHOICES:
        raise ValueError(f'{name}: `bad_data` must be one of {CHOICES}, found {bad_data!r}')
    if isinstance(max_bad, bool) or not isinstance(max_bad, (int, float)):
        raise ValueError(f'{name}: `max_bad` must be a share from 0 to 1, found {max_bad!r}')


class BadData:
    """Problems of one annotation file.

    Args:
        source: Name of the file.
        choice: 'skip' leaves out what cannot be used; 'stop' allows no problem.
        limit: Largest share of annotations, or of images, that may be bad; one always may.
        owner: Whose arguments `bad_data` and `max_bad` are, for messages.
    """

    def __init__(
        self,
        source: str,
        choice: str = 'skip',
        limit: float = 0.01,
        owner: str = 'the data set',
    ) -> None:
        self.source = source
        self.choice = choice
        self.limit = limit
        self.owner = owner
        self.counts: dict[str, dict[str, int]] = {
            of: {} for of in ('annotations', 'images', 'kept')
        }
        self._examples: dict[str, list[str]] = {}

    def add(self, of: str, problem: str, where: object) -> None:
        """Note a problem.

        Args:
            of: 'annotations' or 'images', which are left out, or 'kept' for annotations that can
                be used all the same.
            problem: A noun phrase, such as 'boxes without area'.
            where: An example in words, or a function that gives them.
        """
        counts = self.counts[of]
        counts[problem] = counts.get(problem, 0) + 1
        examples = self._examples.setdefault(problem, [])
        if len(examples) < _SHOWN:
            examples.append(where() if callable(where) else str(where))

    def summary(self, annotations: int, images: int) -> str:
        """One sentence with all counts and examples; empty if everything can be used."""
        parts = [
            f'{sum(counts.values())} of {total} {of} cannot be used: {self._listed(of)}'
            for of, total in (('annotations', annotations), ('images', images))
            if (counts := self.counts[of])
        ]
        return f'{self.source}: {". ".join(parts)}.' if parts else ''

    def _listed(self, of: str) -> str:
        return '; '.join(
            f'{count} {problem} ({", ".join(self._examples[problem])}'
            f'{", ..." if count > len(self._examples[problem]) else ""})'
            for problem, count in self.counts[of].items()
        )

    def conclude(self, annotations: int, images: int) -> None:
        """Report what was found.

        Args:
            annotations: Number of annotations in the file.
            images: Number of images in the file.

        Raises:
            DataError: There are problems, and none or fewer are allowed.
        """
        left_out = self.summary(annotations, images)
        kept = f'{self.source}: {self._listed("kept")}.' if self.counts['kept'] else ''
        found = ' '.join(filter(None, (left_out, kept)))
        if self.choice == 'stop' and found:
            deed = 'leave them out' if left_out else 'keep them'
            raise DataError(
                f'{found} Correct the file, or set bad_data="skip" of {self.owner} to {deed}.'
            )
        for of, total in (('annotations', annotations), ('images', images), ('kept', annotations)):
            if sum(self.counts[of].values()) > max(1, self.limit * total):
                of = 'annotations' if of == 'kept' else of
                raise DataError(
                    f'{found} That is more than max_bad={self.limit:g} of the {of}; correct the '
                    f'file, or allow more by max_bad of {self.owner}.'
                )
        for text, deed in ((left_out, 'left out'), (kept, 'kept')):
            if text:
                print_log(f'{text} They are {deed}.', logger='current', level=logging.WARNING)
