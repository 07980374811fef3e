import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / 'tools/analysis_tools/plot_curves.py'
EPOCH = 63


@pytest.fixture(scope='module')
def plot_curves():
    spec = importlib.util.spec_from_file_location('plot_curves', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_log(work_dir, time, epochs, loss, origin=False):
    """What mmengine's logger leaves: a line every ten iterations and one for each validation."""
    file = work_dir / time / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    lines = []
    for epoch in epochs:
        for inner in range(10, EPOCH, 10):
            step = (epoch - 1) * EPOCH + inner
            lines.append(
                {
                    'lr': 1e-4,
                    'base_lr': 1e-3,
                    'loss': loss,
                    'time': 1.0,
                    'epoch': epoch,
                    'iter': step,
                    'step': step,
                }
            )
        metrics = {'accuracy/top1': 50.0 + epoch, 'data_time': 0.1, 'step': epoch}
        lines.append({**metrics, 'accuracy/top1_origin': 40.0} if origin else metrics)
    file.write_text('\n'.join(map(json.dumps, lines)) + '\n')


def test_reads_a_resumed_run_as_one(plot_curves, tmp_path):
    write_log(tmp_path, '20260101_000000', [1, 2, 3], loss=2.0)
    write_log(tmp_path, '20260102_000000', [3, 4], loss=1.0)
    run = plot_curves.Run(tmp_path)
    assert run.epoch_length == EPOCH
    x, y = run.curve('loss')
    assert (
        len(x) == 24
        and x[0] == pytest.approx(10 / EPOCH)
        and x[-1] == pytest.approx(3 + 60 / EPOCH)
    )
    assert y.tolist() == [2.0] * 12 + [1.0] * 12  # the repeated epoch counts once, its later log
    x, y = run.curve('accuracy/top1', val=True)
    assert x.tolist() == [1, 2, 3, 4] and y.tolist() == [51, 52, 53, 54]
    assert run.keys(val=True) == ['accuracy/top1']


def test_smoothing_keeps_length_and_constants(plot_curves):
    values = np.full(200, 3.0)
    values[100] = 10
    smoothed = plot_curves.smooth(values)
    assert len(smoothed) == 200 and smoothed[0] == smoothed[-1] == 3
    assert smoothed.sum() == pytest.approx(values.sum())
    assert 3 < smoothed[100] < 5


def test_averaged_and_raw_weights_share_a_panel(plot_curves, tmp_path):
    write_log(tmp_path, '1', [1, 2], loss=1.0, origin=True)
    run = plot_curves.Run(tmp_path)
    assert plot_curves.panels([run]) == ['loss', 'learning rate', 'accuracy/top1']
    figure = plot_curves.draw([run], 'title')
    axis = figure.axes[2]
    lines = [line for line in axis.lines if len(line.get_xdata())]
    assert [line.get_linestyle() for line in lines] == ['--', '-']
    assert [text.get_text() for text in axis.texts] == ['best 52 at 2']


def test_writes_a_picture(plot_curves, tmp_path, monkeypatch, capsys):
    for name in ('one', 'two'):
        write_log(tmp_path / name, '1', [1, 2], loss=1.0)
    monkeypatch.setattr(sys, 'argv', ['plot', str(tmp_path / 'one'), str(tmp_path / 'two')])
    assert plot_curves.main() == 0
    out = tmp_path / 'one' / 'curves.png'
    assert str(out) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.size[0] > 1500
        assert len(image.convert('RGB').getcolors(1 << 20)) > 50  # something is drawn


@pytest.mark.parametrize('name', ['loss', 'loss.png', 'loss.svg', 'v1.2'])
def test_the_picture_has_the_name_that_was_asked_for(
    plot_curves, tmp_path, monkeypatch, capsys, name
):
    write_log(tmp_path, '1', [1, 2], loss=1.0)
    out = tmp_path / 'pictures' / name
    monkeypatch.setattr(sys, 'argv', ['plot', str(tmp_path), '--out', str(out)])
    if name == 'v1.2':  # not drawn for a minute to fail at the end, and nothing is written
        with pytest.raises(SystemExit):
            plot_curves.main()
        assert 'unknown kind of file, use one of' in capsys.readouterr().err
        assert not out.parent.exists()
        return
    assert plot_curves.main() == 0
    written = out if out.suffix else out.with_suffix('.png')
    assert list(out.parent.iterdir()) == [written]
    assert capsys.readouterr().out == f'written: {written}\n'


def test_says_what_is_missing(plot_curves, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['plot', str(tmp_path)])
    assert plot_curves.main() == 1
    assert capsys.readouterr().err.startswith(f'error: {tmp_path}: no scalars')
