"""What is wrong with an annotation file: counted, shown by examples, skipped or refused."""

import logging

from mmengine.logging import print_log

from ..checks import DataError

# Examples of every problem that are named.
_SHOWN = 3
CHOICES = ('skip', 'stop')


class BadData:
    """Problems of one annotation file.

    Args:
        source: Name of the file.
        choice: 'skip' leaves out what cannot be used; 'stop' allows no problem.
        limit: Largest share of annotations, or of images, that may be skipped; one always may.
    """

    def __init__(self, source: str, choice: str = 'skip', limit: float = 0.01) -> None:
        if choice not in CHOICES:
            raise ValueError(f'`bad_data` must be one of {CHOICES}, found {choice!r}')
        self.source = source
        self.choice = choice
        self.limit = limit
        self.counts: dict[str, dict[str, int]] = {'annotations': {}, 'images': {}}
        self._examples: dict[str, list[str]] = {}

    def add(self, of: str, problem: str, where: object) -> None:
        """Note a problem.

        Args:
            of: 'annotations' or 'images'.
            problem: A noun phrase, such as 'boxes without area'.
            where: An example in words, or a function that gives them.
        """
        counts = self.counts[of]
        counts[problem] = counts.get(problem, 0) + 1
        examples = self._examples.setdefault(problem, [])
        if len(examples) < _SHOWN:
            examples.append(where() if callable(where) else str(where))

    def summary(self, annotations: int, images: int) -> str:
        """One sentence with all counts and examples; empty if nothing is wrong."""
        parts = []
        for of, total in (('annotations', annotations), ('images', images)):
            counts = self.counts[of]
            if counts:
                shown = '; '.join(
                    f'{count} {problem} ({", ".join(self._examples[problem])}'
                    f'{", ..." if count > len(self._examples[problem]) else ""})'
                    for problem, count in counts.items()
                )
                parts.append(f'{sum(counts.values())} of {total} {of} cannot be used: {shown}')
        return f'{self.source}: {". ".join(parts)}.' if parts else ''

    def conclude(self, annotations: int, images: int) -> None:
        """Report what was found.

        Args:
            annotations: Number of annotations in the file.
            images: Number of images in the file.

        Raises:
            DataError: There are problems, and none or fewer are allowed.
        """
        summary = self.summary(annotations, images)
        if not summary:
            return
        if self.choice == 'stop':
            raise DataError(
                f'{summary} Correct the file, or set bad_data="skip" of the data set to leave '
                'them out.'
            )
        for of, total in (('annotations', annotations), ('images', images)):
            found = sum(self.counts[of].values())
            if found > max(1, self.limit * total):
                raise DataError(
                    f'{summary} That is more than max_bad={self.limit:g} of the {of}, which the '
                    'data set may leave out; correct the file, or allow more.'
                )
        print_log(f'{summary} They are left out.', logger='current', level=logging.WARNING)
