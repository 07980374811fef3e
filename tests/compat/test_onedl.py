import logging
import subprocess
import sys

from mmengine.logging import print_log


def test_only_the_notes_about_onedl_are_dropped(capsys):
    print_log('Could not import OneDL', level=logging.DEBUG)
    assert capsys.readouterr().out == ''
    print_log('Could not import OneDL')
    print_log('Could not import something else', level=logging.DEBUG)
    assert capsys.readouterr().out.splitlines() == [
        'Could not import OneDL',
        'Could not import something else',
    ]


def test_importing_mmpretrain_prints_nothing():
    command = [sys.executable, '-W', 'ignore', '-c', 'import evamm.registry, mmpretrain']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ''
