"""Class names and the sentences they are put into: open_clip's own lists, or the user's."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evamm.engine.errors import ConfigError

Template = str | Callable[[str], str]
PLACE = '{}'

# Our word -> the name in open_clip.zero_shot_metadata.
TEMPLATE_SETS = {'openai': 'OPENAI_IMAGENET_TEMPLATES', 'simple': 'SIMPLE_IMAGENET_TEMPLATES'}


def load_class_names(classes: str | os.PathLike | Sequence[str]) -> list[str]:
    """The names of the classes.

    Args:
        classes: 'imagenet' (open_clip's 1,000 names, in the order of the labels), a list of names,
            or a text file with one name per line.

    Raises:
        ConfigError: There is no such file, or no name in it.
    """
    if isinstance(classes, str) and classes == 'imagenet':
        return list(_open_clip_list('IMAGENET_CLASSNAMES'))
    if isinstance(classes, (str, os.PathLike)):
        return _read_lines(classes, 'classes', "'imagenet', a list")
    names = list(classes)
    wrong = [name for name in names if not isinstance(name, str) or not name.strip()]
    if not names or wrong:
        found = f'{wrong[0]!r} among them' if wrong else 'none'
        raise ConfigError(f'classes must be one or more names, found {found}.')
    return names


def load_templates(templates: str | os.PathLike | Sequence[Template]) -> list[Template]:
    """The sentences that a class name is put into.

    Args:
        templates: 'openai' (the 80 of the CLIP paper), 'simple' (7 of them, nearly as good), one
            sentence with ``{}`` for the name, a list of such sentences or of functions from a name
            to a sentence, or a text file with one sentence per line.

    Raises:
        ConfigError: There is no such file, or a sentence has no ``{}``.
    """
    if isinstance(templates, str) and templates in TEMPLATE_SETS:
        return list(_open_clip_list(TEMPLATE_SETS[templates]))
    if callable(templates) or (isinstance(templates, str) and PLACE in templates):
        templates = [templates]
    elif isinstance(templates, (str, os.PathLike)):
        templates = _read_lines(
            templates, 'templates', f'{", ".join(map(repr, TEMPLATE_SETS))}, a list'
        )
    templates = list(templates)
    if not templates:
        raise ConfigError('templates is empty; "{}" alone takes the class names as they are.')
    for template in templates:
        if not callable(template) and not (isinstance(template, str) and PLACE in template):
            raise ConfigError(
                f'templates: {template!r} has no place {PLACE} for the name of a class, as in '
                '"a photo of a {}."'
            )
    return templates


def fill(template: Template, name: str) -> str:
    """The sentence of one class; other braces than ``{}`` stay as they are."""
    return template(name) if callable(template) else template.replace(PLACE, name)


def _read_lines(path: str | os.PathLike, key: str, others: str) -> list[str]:
    path = Path(path).expanduser()
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'no UTF-8 text'
        raise ConfigError(
            f'{key}={os.fspath(path)!r} is neither {others} nor a text file with one per line '
            f'({reason}).'
        ) from error
    lines = [line.strip() for line in lines]
    if not any(lines):
        raise ConfigError(f'{key}: the file {path} holds no line.')
    return [line for line in lines if line]


def _open_clip_list(name: str) -> Sequence:
    try:
        from open_clip import zero_shot_metadata
    except ImportError as error:
        raise ConfigError(
            'The class names and prompts of ImageNet come with the package open_clip, which '
            f'cannot be imported ({error}). Install it: pip install "evamm[clip]". Your own '
            '`classes` and `templates` need only its tokenizer.'
        ) from error
    return getattr(zero_shot_metadata, name)
