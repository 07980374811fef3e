"""The tools with a detector: pictures and predictions, and mistakes."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

import evamm
from evamm.checkpoints import write_checkpoint

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Text of a config, in a folder with its scenes."""
    namespace = runpy.run_path(str(REPO / 'tests/apis/detectors.py'))
    monkeypatch.chdir(tmp_path)
    namespace['make_scenes'](tmp_path / 'scenes')
    return namespace['MASK_RCNN']


def test_pictures_and_predictions(config: str, call) -> None:
    text = config.replace(
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


LOSS = 'model.roi_head.bbox_head.loss_cls'
SQUARE = """
model['data_preprocessor'] = dict(type='evamm.SquarePadDetDataPreprocessor', pad_size=48)
for loader in (train_dataloader, test_dataloader):
    place = loader['dataset']['pipeline'].index(resize)
    loader['dataset']['pipeline'][place] = dict(type='evamm.ResizeLongestEdge', size=64)
del loader, place
"""
# The same with mmdet's resizing, which the config has.
SCALE = '\n' + SQUARE.splitlines()[1]


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        ('train', ['model.neck.in_channels=[48]'], 'model.neck.in_channels is [48], but model.bac'),
        ('test', ['model.neck.out_channels=20'], 'model.neck.out_channels is 20, but model.rpn_he'),
        (
            'train',
            [f'{LOSS}.type=evamm.FederatedLoss', f'{LOSS}.frequencies=[3,4,5]'],
            f'{LOSS}.frequencies is for 3 classes, but num_classes of the head is 2',
        ),
        (
            'train',
            SQUARE,
            'train_dataloader.dataset.pipeline makes images of 64 pixels, but model.',
        ),
        ('test', SQUARE, 'model.data_preprocessor.pad_size is 48: set both to the same number'),
        ('test', SCALE, 'test_dataloader.dataset.pipeline makes images of 64 pixels, but model.'),
    ],
)
def test_parts_that_do_not_fit(config: str, call, capfd, name, options, words) -> None:
    """One sentence before the first batch; the weights are not even read."""
    if isinstance(options, str):
        config, options = config + options, []
    Path('detector.py').write_text(config)
    Path('detector.pth').touch()
    arguments = ['detector.py', *(['detector.pth'] if name == 'test' else [])]
    assert call(name, *arguments, *(['--cfg-options', *options] if options else [])) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and words in lines[0]
