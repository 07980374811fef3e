"""What is installed: the public names, the version, the contents of a wheel."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import evamm

REPO = Path(__file__).resolve().parents[1]
SHIPPED = ('configs', 'tools', 'model-index.yml')


def test_public_names_are_there_and_others_are_not() -> None:
    for name in evamm.__all__:
        assert getattr(evamm, name) is not None
    assert set(evamm.__all__) <= set(dir(evamm))
    with pytest.raises(AttributeError, match="module 'evamm' has no attribute 'get_modell'"):
        evamm.get_modell  # noqa: B018


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel, built from a copy of the source tree so that the tree stays as it is."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('evamm', 'requirements', *SHIPPED):
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '.mim')
            shutil.copytree(REPO / name, source / name, ignore=ignored)
        else:
            shutil.copy(REPO / name, source / name)
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'README.md', 'LICENSE'):
        shutil.copy(REPO / name, source / name)
    build = [sys.executable, '-c', 'from setuptools import build_meta as b; b.build_wheel("..")']
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob('*.whl')))


def test_wheel_ships_every_module_config_and_tool(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    expected = {path.relative_to(REPO).as_posix() for path in REPO.glob('evamm/**/*.py')}
    expected = {name for name in expected if '.mim/' not in name}
    for shipped in ('configs/**/*.py', 'configs/**/*.yml', 'tools/**/*.py', 'tools/**/*.sh'):
        expected |= {
            f'evamm/.mim/{path.relative_to(REPO).as_posix()}' for path in REPO.glob(shipped)
        }
    expected.add('evamm/.mim/model-index.yml')
    assert len(expected) > 100
    assert expected <= names
    extra = {name for name in names - expected if name.startswith('evamm/')}
    assert {Path(name).suffix for name in extra} <= {'.md'}
    assert not [name for name in names if '__pycache__' in name or name.startswith('tests/')]


def test_wheel_requires_no_openmmlab_library_outside_the_extras(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(next(n for n in wheel.namelist() if n.endswith('METADATA'))).decode()
    assert f'Version: {evamm.__version__}' in metadata
    assert 'Requires-Python: >=3.10' in metadata
    required = re.findall(r'^Requires-Dist: (.+)$', metadata, re.MULTILINE)
    always = [line for line in required if 'extra ==' not in line]
    assert any(line.startswith('torch>=') for line in always)
    assert not [line for line in always if 'mm' in line.split('>=')[0]]
    for extra, library in (('onedl', 'onedl-mmcv'), ('openmmlab', 'mmcv-lite')):
        assert [line for line in required if line.startswith(library) and f'"{extra}"' in line]


def test_pins_agree_with_what_compat_advises_and_the_ranges_allow() -> None:
    from packaging.requirements import Requirement

    from evamm.compat import requirements

    def read(name: str) -> list[Requirement]:
        lines = (REPO / 'requirements' / f'{name}.txt').read_text().splitlines()
        return [Requirement(line) for line in lines if line and not line.startswith('#')]

    pins = {(pin.name, str(pin.marker)): str(pin.specifier)[2:] for pin in read('constraints')}
    for library in requirements._LIBRARIES.values():
        for advice in filter(None, (library.default, library.upstream)):
            name, _, version = advice.partition('==')
            assert pins[name, 'None'] == version
    files = {path.stem for path in (REPO / 'requirements').glob('*.txt')} - {'constraints'}
    for file in sorted(files):
        for needed in read(file):
            versions = [version for (name, _), version in pins.items() if name == needed.name]
            assert versions, f'{file}: {needed.name} has no pin'
            assert all(version in needed.specifier for version in versions), needed
