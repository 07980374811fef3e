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


def test_parts_of_a_detector(monkeypatch, capsys):
    name = 'cascade_mask_rcnn_eva02_base_p16_1024_8xb16_coco'
    config = str(CONFIGS / 'eva02_det' / f'{name}.py')
    code, text = run(monkeypatch, capsys, config, '--count')
    assert code == 0
    assert '1024 x 1024' in text and '141120542' in text and '(1079857078272)' in text
    assert '(385612800000) for 1000 proposals' in text
    assert '(52985856000) for 100 detections' in text
    assert "torch's counter" in text
    code, text = run(monkeypatch, capsys, config, '--shape', '512', '1024')
    assert code == 1 and 'one side' in text


def test_a_detector_is_counted_at_the_size_of_its_test(monkeypatch, capsys):
    name = 'cascade_mask_rcnn_eva_giant_p16_o365_1536_coco_det'  # trained at 1280 pixels
    code, text = run(monkeypatch, capsys, str(CONFIGS / 'eva_det' / f'{name}.py'), '--count')
    assert code == 0 and '1536 x 1536' in text and '(12859970494464)' in text
    assert 'longer keys' in text
