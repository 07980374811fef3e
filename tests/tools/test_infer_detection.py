"""tools/infer.py with a detector, run as a user runs it."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import evamm
from evamm.checkpoints import write_checkpoint

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A detector, its checkpoint, and four scenes with annotations."""
    namespace = runpy.run_path(str(REPO / 'tests/apis/detectors.py'))
    monkeypatch.chdir(tmp_path)
    namespace['make_scenes'](tmp_path / 'scenes')
    (tmp_path / 'detector.py').write_text(namespace['MASK_RCNN'])
    torch.manual_seed(0)
    model = evamm.get_model('detector.py')
    write_checkpoint({'state_dict': model.state_dict(), 'meta': {}}, tmp_path / 'detector.pth')
    trunk = {n: v for n, v in model.state_dict().items() if n.startswith('backbone.')}
    write_checkpoint(trunk, tmp_path / 'trunk.pth')
    return tmp_path


@pytest.fixture
def infer(tool: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Exit status of the tool with these arguments."""

    def run(*args: str) -> int:
        monkeypatch.setattr(sys, 'argv', ['tools/infer.py', *args])
        return tool('infer').main()

    return run


def test_pictures_and_coco_files(
    place: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    args = ('detector.py', 'scenes/images', '--checkpoint', 'detector.pth', '--out-dir', 'out')
    assert infer(*args, '--score-thr', '0.2', '--batch-size', '2') == 0
    printed = capsys.readouterr().out
    assert '4 of 4 images' in printed
    content = json.loads(Path('out/predictions.json').read_text())
    counts = [
        sum(row['image_id'] == image['id'] for row in content['annotations'])
        for image in content['images']
    ]
    assert min(row['score'] for row in content['annotations']) >= 0.2
    assert f'scene_0.png: {counts[0]} objects (' in printed
    assert [row['name'] for row in content['categories']] == ['square', 'bar']
    assert len(list(Path('out/vis').iterdir())) == 4
    with Image.open('out/vis/scene_0.png') as picture:
        assert picture.size == (320, 320)


def test_coco_results_and_an_unreadable_image(
    place: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    torn = Path('scenes/images/scene_2.png')
    torn.write_bytes(torn.read_bytes()[:50])
    args = ('detector.py', 'scenes/images', '--checkpoint', 'detector.pth', '--out-dir', 'out')
    assert infer(*args, '--no-pictures', '--ann-file', 'scenes/annotations.json') == 1
    printed = capsys.readouterr()
    assert 'scene_2.png' in printed.err and 'Traceback' not in printed.err
    rows = json.loads(Path('out/predictions.bbox.json').read_text())
    assert {row['image_id'] for row in rows} == {100, 107, 121}
    assert {row['category_id'] for row in rows} <= {3, 7}
    assert not Path('out/vis').exists()


def test_a_trunk_alone_detects_nothing(
    place: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    with pytest.warns(UserWarning, match='does not hold'):
        args = ('detector.py', 'scenes/images', '--checkpoint', 'trunk.pth', '--out-dir', 'out')
        assert infer(*args) == 1
    assert 'drawn at random' in capsys.readouterr().err
    assert not Path('out/predictions.json').exists()


def test_mistakes_get_one_sentence(
    place: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture
) -> None:
    args = ('detector.py', 'scenes/images', '--checkpoint', 'detector.pth', '--out-dir', 'out')
    assert infer(*args, '--soft-nms') == 1
    assert 'soft_nms is for the heads of evamm' in capsys.readouterr().err
    assert infer(*args, '--ann-file', 'none.json') == 1
    error = capsys.readouterr().err
    assert 'none.json' in error and 'Traceback' not in error
