"""A cure for the OneDL libraries, which print a line for developers whenever they are imported."""

import functools
import logging
from types import ModuleType

# mmpretrain, mmdet and mmseg say so when OneDL's own data sets are not installed.
_NOTES = ('Could not import OneDL', 'Could not import OneDL. Skipping OneDL datasets.')


def silence_import_notes(logger_module: ModuleType) -> None:
    """Drops these very lines; they have the level DEBUG but no logger, so they are printed.

    Args:
        logger_module: the module `mmengine.logging.logger`.
    """
    original = logger_module.print_log

    @functools.wraps(original)
    def print_log(msg: object, logger: object = None, level: int = logging.INFO) -> None:
        if logger is None and level == logging.DEBUG and msg in _NOTES:
            return
        original(msg, logger, level)

    logger_module.print_log = print_log
