"""One sentence about a library that is missing, too old or installed twice."""

import importlib.metadata
import importlib.util
import warnings
from typing import NamedTuple


class _Library(NamedTuple):
    """A library under its import name, as two distributions may provide it.

    Attributes:
        minimum: lowest supported version.
        default: what to install, as a requirement.
        upstream: the same from the upstream set; None where there is only one distribution.
    """

    minimum: str
    default: str
    upstream: str | None = None


_LIBRARIES = {
    'torch': _Library('2.10', 'torch==2.13.0'),
    'torchvision': _Library('0.25', 'torchvision==0.28.0'),
    'mmengine': _Library('0.10.7', 'onedl-mmengine==0.10.12', 'mmengine==0.10.7'),
    'mmcv': _Library('2.1.0', 'onedl-mmcv==2.3.6', 'mmcv-lite==2.1.0'),
    'mmpretrain': _Library('1.2.0', 'onedl-mmpretrain==1.3.6', 'mmpretrain==1.2.0'),
    'mmdet': _Library('3.3.0', 'onedl-mmdetection==3.5.1', 'mmdet==3.3.0'),
    'mmseg': _Library('1.2.2', 'onedl-mmsegmentation==1.4.2', 'mmsegmentation==1.2.2'),
}

_OTHER_DISTRIBUTIONS = {'mmcv': ('mmcv', 'mmcv-full')}


def require(*names: str) -> None:
    """Checks that libraries are there and new enough, without importing them.

    Args:
        names: import names, among torch, torchvision, mmengine, mmcv, mmpretrain, mmdet, mmseg.

    Raises:
        ImportError: one is missing or too old; one sentence says what to install.
    """
    for name in names:
        library = _LIBRARIES[name]
        advice = f'run `pip install "{library.default}"`'
        if library.upstream is not None:
            advice += f' (or, among the upstream libraries, "{library.upstream}")'
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'evamm needs {name}, which is not installed: {advice}', name=name)
        versions = _installed_versions(name)
        if len(versions) > 1:
            warnings.warn(
                f'{" and ".join(versions)} are both installed and overwrite each other: '
                f'uninstall both, then {advice}',
                stacklevel=2,
            )
        for version in versions.values():
            if _release(version) < _release(library.minimum):
                raise ImportError(
                    f'evamm needs {name} >= {library.minimum}, found {version}: {advice}', name=name
                )


def _installed_versions(name: str) -> dict[str, str]:
    library = _LIBRARIES[name]
    distributions = [
        requirement.split('==')[0]
        for requirement in (library.default, library.upstream)
        if requirement is not None
    ]
    versions = {}
    for distribution in (*distributions, *_OTHER_DISTRIBUTIONS.get(name, ())):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split('+')[0].split('.'):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
