"""Runs of tools that follow each other."""

import os
import time

import pytest

from evamm.engine.runner.steps import Runs, Step, StepFailedError


@pytest.fixture
def step(tmp_path):
    """Makes a step whose tool is a line of Python."""

    def make(name, code, *arguments, needs=(), resumes=False):
        tool = tmp_path / f'{name}.py'
        tool.write_text(f'import os, sys, time\n{code}\n')
        return Step(tmp_path / 'out' / name, tool, arguments, tuple(needs), resumes)

    return make


APPEND = "open(os.path.join(os.path.dirname(__file__), 'log'), 'a').write(sys.argv[1])"


def test_a_step_runs_once_and_again_when_it_changes(step, tmp_path, capfd):
    need = tmp_path / 'need'
    need.write_text('')
    log = tmp_path / 'log'
    for _ in range(2):
        Runs(1)([step('one', APPEND, 'a', needs=[need])])
    assert log.read_text() == 'a'
    assert capfd.readouterr().out.count('done already') == 1
    Runs(1)([step('one', APPEND, 'b', needs=[need])])
    assert log.read_text() == 'ab'
    os.utime(need, ns=(1, 1))
    Runs(1)([step('one', APPEND, 'b', needs=[need])])
    assert log.read_text() == 'abb'


def test_an_interrupted_step_keeps_its_folder_only_for_the_same_command(step):
    for resumes, argument, kept in ((True, 'a', True), (True, 'b', False), (False, 'a', False)):
        first = step('one', 'pass', 'a', resumes=resumes)
        first.begin()
        (first.folder / 'checkpoint').write_text('')
        again = step('one', 'pass', argument, resumes=resumes)
        again.begin()
        assert (first.folder / 'checkpoint').exists() == kept
        assert not again.is_done()


def test_a_failure_is_shown_and_ends_the_others(step, tmp_path):
    slow = step('slow', "time.sleep(60); open(__file__ + '.end', 'w')")
    bad = step('bad', "print('what went wrong'); sys.exit(3)")
    start = time.monotonic()
    with pytest.raises(StepFailedError) as error:
        Runs(2)([slow, bad], jobs=2)
    assert time.monotonic() - start < 30
    message = str(error.value)
    assert 'what went wrong' in message and 'bad.py failed with exit status 3' in message
    assert not bad.is_done() and not slow.is_done()
    assert (bad.folder / 'output.txt').read_text() == 'what went wrong\n'
