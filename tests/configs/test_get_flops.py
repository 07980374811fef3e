"""tools/analysis_tools/get_flops.py."""

import sys

import pytest

from .common import CONFIGS, ROOT

sys.path.insert(0, str(ROOT / 'tools' / 'analysis_tools'))

import get_flops

TINY = str(CONFIGS / 'eva02' / 'eva02_tiny_p14_8xb16_in1k.py')


def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['get_flops.py', *args])
    code = get_flops.main()
    return code, ''.join(capsys.readouterr())


def test_prints_every_convention(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, TINY)
    assert code == 0
    for figure in ('5756584', '336 x 336', '4662312960', '9.32 G', '27.97 G', '4.68 G'):
        assert figure in text


def test_count_agrees_at_another_shape(monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, TINY, '--shape', '56', '84', '--count')
    assert code == 0 and '56 x 84' in text and "torch's counter" in text


def test_count_reports_a_difference(monkeypatch, capsys):
    monkeypatch.setattr(get_flops, 'count_macs', lambda *args, **kwargs: 1)
    code, text = run(monkeypatch, capsys, TINY, '--shape', '28', '--count')
    assert code == 1 and 'differ' in text


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        ([TINY, '--shape', '1', '2', '3'], 'a side, or a height and a width'),
    ],
)
def test_bad_input_is_one_sentence(args, message, monkeypatch, capsys):
    code, text = run(monkeypatch, capsys, *args)
    assert code == 1 and message in text


def test_other_backbones_are_refused(monkeypatch, capsys, tmp_path):
    config = tmp_path / 'other.py'
    config.write_text(
        "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=50))"
    )
    code, text = run(monkeypatch, capsys, str(config))
    assert code == 1 and 'no evamm.EVAViT' in text
