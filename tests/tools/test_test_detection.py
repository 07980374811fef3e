"""tools/test.py with a detector: pictures and predictions."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

import evamm
from evamm.checkpoints import write_checkpoint

REPO = Path(__file__).resolve().parents[2]


def test_pictures_and_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call) -> None:
    namespace: dict = {}
    exec((REPO / 'tests/apis/detectors.py').read_text(), namespace)
    monkeypatch.chdir(tmp_path)
    namespace['make_scenes'](tmp_path / 'scenes')
    text = namespace['MASK_RCNN'].replace(
        'default_hooks = dict(',
        "default_hooks = dict(visualization=dict(type='DetVisualizationHook'),",
    )
    text += "visualizer = dict(type='DetLocalVisualizer')\n"
    Path('detector.py').write_text(text)
    torch.manual_seed(0)
    model = evamm.get_model('detector.py')
    write_checkpoint({'state_dict': model.state_dict(), 'meta': {}}, Path('detector.pth'))
    call('test', 'detector.py', 'detector.pth', '--show-dir', 'shown', '--out', 'out.json')
    assert sorted(path.name for path in Path('shown').iterdir()) == [
        f'scene_{number}.png' for number in range(4)
    ]
    with Image.open('shown/scene_0.png') as picture:
        assert picture.size == (128, 64)  # the truth on the left
    rows = json.loads(Path('out.json').read_text())
    assert [row['img_id'] for row in rows] == [100, 107, 114, 121]
    (result,) = evamm.DetInferencer(model)('scenes/images/scene_1.png')['predictions']
    found = rows[1]['pred_instances']
    assert found['scores'] == pytest.approx(result['scores'], abs=1e-5)
    for ours, theirs in zip(found['masks'], result['masks'], strict=True):
        assert (rle.decode(ours) == rle.decode(theirs)).all()
