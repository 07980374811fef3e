"""Packaging of evamm: ranges of dependencies, and the configs and tools inside the package.

OpenMMLab's tools look for the configs, the tools and the model index of a package in its folder
`.mim`. A wheel gets a copy of them there. An editable install gets links to the source tree, so
that a changed config counts at once.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Also puts `SHIPPED` into the folder `.mim` of the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            link_shipped(ROOT / 'evamm' / '.mim')
        else:
            copy_shipped(Path(self.build_lib) / 'evamm' / '.mim')


def copy_shipped(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)  # what an earlier build has left
    target.mkdir(parents=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target / name)


def link_shipped(target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in SHIPPED:
        link = target / name
        if link.is_symlink() or link.exists():
            continue
        link.symlink_to(Path('..', '..', name), target_is_directory=(ROOT / name).is_dir())


def requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def version() -> str:
    source = (ROOT / 'evamm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '(.+)'", source).group(1)


setup(
    name='evamm',
    version=version(),
    description='The EVA family of vision models as one OpenMMLab-style framework',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='MIT',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['evamm', 'evamm.*']),
    cmdclass={'build_py': BuildWithMim},
    # The OpenMMLab libraries are extras: each set would overwrite the other.
    install_requires=requirements('runtime'),
    extras_require={
        'onedl': requirements('mminstall'),
        'openmmlab': requirements('mminstall_upstream'),
        'optional': requirements('optional'),
        'clip': requirements('clip'),
        'detection': requirements('detection'),
        'tests': sum(map(requirements, ('tests', 'optional', 'clip', 'detection')), []),
    },
    classifiers=[
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
