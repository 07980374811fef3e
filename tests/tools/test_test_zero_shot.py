"""tools/test_zero_shot.py on miniature sets whose right figures are known beforehand.

The model decides first: an image goes into the class that the model gives it, or into another one.
"""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import evamm
from evamm.apis.model_index import find_entry
from evamm.checkpoints import write_checkpoint
from evamm.datasets.robustness.wnids import IMAGENET_A_WNIDS, IMAGENET_LABELS, IMAGENET_WNIDS

REPO = Path(__file__).parents[2]
TOOL = REPO / 'tools' / 'test_zero_shot.py'
SIZE = 28
CONFIG = f"""
_base_ = [
    '{REPO}/configs/_base_/models/eva_clip.py',
    '{REPO}/configs/_base_/default_runtime_clip.py',
]
model = dict(
    backbone=dict(arch=dict(embed_dims=32, depth=1, num_heads=2), img_size={SIZE}),
    text=dict(arch=dict(width=32, depth=1, num_heads=2)),
    embed_dims=16,
    test_cfg=dict(templates='simple'),
)
test_dataloader = dict(
    batch_size=3,
    num_workers=0,
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=[
        dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
        dict(type='ResizeEdge', scale={SIZE}, edge='short', backend='pillow',
             interpolation='bicubic'),
        dict(type='CenterCrop', crop_size={SIZE}),
        dict(type='PackInputs'),
    ]),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_evaluator = dict(type='Accuracy', topk=(1, 5))
test_cfg = dict()
default_hooks = dict(checkpoint=None)
"""
CAPTIONS = [['a cat', 'cats on a sofa'], ['two dogs'], ['a red car', 'cars', 'traffic'], ['a tree']]


class World:
    """A model, and miniature copies of some sets: 3 of 4 images right, 1 of 3, and captions."""

    def __init__(self, root: Path) -> None:
        self.root, self.data = root, root / 'data'
        self.config, self.checkpoint = root / 'tiny.py', root / 'tiny.pth'
        self.config.write_text(CONFIG)
        torch.manual_seed(0)
        model = evamm.get_model(self.config)
        torch.nn.init.normal_(model.head.weight, std=0.3)
        torch.nn.init.normal_(model.text.token_embedding.weight)
        write_checkpoint(model.state_dict(), self.checkpoint)
        self.model = model
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (8, SIZE, SIZE, 3), dtype=np.uint8)
        self.inferencer = evamm.ZeroShotInferencer(model, 'imagenet', 'simple', cache=False)
        self._make_imagenet()
        self._make_imagenet_a()
        self._make_flickr()

    def save(self, index: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels[index]).save(path, format='PNG')

    def scores(self, count: int) -> np.ndarray:
        results = self.inferencer(self.pixels[:count], channel_order='rgb')
        return np.stack([result['pred_scores'] for result in results])

    def _make_imagenet(self) -> None:
        lines = []
        for i, scores in enumerate(self.scores(4)):
            name = f'ILSVRC2012_val_{i + 1:08d}.JPEG'
            self.save(i, self.data / 'imagenet/val' / name)
            ranked = scores.argsort()[::-1]
            lines.append(f'{name} {ranked[0] if i else ranked[500]}')
        (self.data / 'imagenet/meta').mkdir()
        (self.data / 'imagenet/meta/val.txt').write_text('\n'.join(lines))

    def _make_imagenet_a(self) -> None:
        labels = np.array([IMAGENET_LABELS[wnid] for wnid in IMAGENET_A_WNIDS])
        for i, scores in enumerate(self.scores(3)):
            ranked = labels[scores[labels].argsort()[::-1]]
            wnid = IMAGENET_WNIDS[ranked[0 if i == 1 else 50]]
            self.save(i, self.data / 'imagenet-a' / wnid / f'{i}.jpg')

    def _make_flickr(self) -> None:
        root, images = self.data / 'flickr30k', []
        for i, captions in enumerate(CAPTIONS):
            self.save(i, root / 'flickr30k-images' / f'{i}.png')
            sentences = [{'raw': caption} for caption in captions]
            images.append({'filename': f'{i}.png', 'sentences': sentences, 'split': 'test'})
        images.append({'filename': 'x.png', 'sentences': [{'raw': 'no'}], 'split': 'train'})
        (root / 'dataset_flickr30k.json').write_text(json.dumps({'images': images}))

    def recalls(self) -> dict[str, float]:
        """By sorting."""
        images = evamm.embed_images(self.model, self.pixels[:4], channel_order='rgb')
        texts = evamm.embed_texts(self.model, [text for texts in CAPTIONS for text in texts])
        owners = [i for i, texts in enumerate(CAPTIONS) for _ in texts]
        scores = images @ texts.T
        found = {}
        for k in (1, 5, 10):
            best = [[owners[j] for j in row.argsort(descending=True)[:k]] for row in scores]
            found[f'image_to_text_R@{k}'] = np.mean([i in row for i, row in enumerate(best)])
            best = [row.argsort(descending=True)[:k].tolist() for row in scores.T]
            found[f'text_to_image_R@{k}'] = np.mean(
                [owner in row for owner, row in zip(owners, best, strict=True)]
            )
        return {f'retrieval/{name}': 100 * value for name, value in found.items()}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('EVAMM_HOME', str(tmp_path_factory.mktemp('home')))
        yield World(tmp_path_factory.mktemp('zero_shot'))


@pytest.fixture
def call(world, tmp_path, monkeypatch, capsys):
    """Run the tool in this process; gives exit status, stdout and stderr."""
    scope = runpy.run_path(str(TOOL), run_name='tool')

    def run(*options, config=world.config):
        argv = [TOOL, config, world.checkpoint, '--work-dir', tmp_path / 'work', *options]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in argv])
        try:
            status = scope['launch'].run_tool(scope['main'])
        except SystemExit as stopped:
            status = stopped.code
        return status, *capsys.readouterr()

    return run


def table(printed: str) -> dict[tuple[str, str], list[str]]:
    """The cells of each row behind set and figure."""
    rows = [line.strip('|').split('|') for line in printed.splitlines() if line.startswith('| ')]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {(row[0], row[1]): row[2:] for row in cells}


def check(results: dict, world: World) -> None:
    assert results['imagenet'] == pytest.approx({'accuracy/top1': 75, 'accuracy/top5': 75})
    assert results['imagenet-a']['accuracy/top1'] == pytest.approx(100 / 3)
    found = dict(results['flickr30k'])
    found.pop('retrieval/mean_recall')
    assert found == pytest.approx(world.recalls())
    assert set(results) == {'imagenet', 'imagenet-a', 'flickr30k'}


def test_what_is_there_is_tested(world, call, tmp_path):
    status, out, err = call('--data-root', world.data, '--partial')
    assert status == 0, err
    content = json.loads((tmp_path / 'work' / 'zero_shot.json').read_text())
    check(content['results'], world)
    assert content['test_cfg']['templates'] == 'simple' and content['model'] is None
    rows = table(out)
    assert rows['set', 'figure'] == ['ours']
    assert rows['ImageNet-1k', 'top-1'] == ['75.0']
    assert rows['ImageNet-A', 'top-1'] == ['33.3']
    assert rows['ObjectNet', 'top-1'] == ['-']
    recall = world.recalls()['retrieval/text_to_image_R@1']
    assert rows['Flickr30k', 'text to image R@1'] == [f'{recall:.1f}']
    assert rows['COCO', 'image to text R@10'] == ['-']
    assert 0 < recall < 100


def test_two_processes_find_the_same(world, tmp_path):
    """The classifier is built in two halves; no cache helps."""
    out = tmp_path / 'result.json'
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node=2', '--standalone']
    command += [TOOL, world.config, world.checkpoint, '--data-root', world.data]
    command += ['--partial', '--launcher', 'pytorch', '--work-dir', tmp_path / 'work']
    command += ['--out', out, '--cfg-options', 'model.test_cfg.cache=False']
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(REPO)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    check(json.loads(out.read_text())['results'], world)


def test_published_figures_stand_beside_ours(world, call, tmp_path):
    """The file's name says which released model it is."""
    entry = find_entry('EVA02-CLIP-L-14-336')
    released = tmp_path / entry.weights.rpartition('/')[2]
    released.symlink_to(world.checkpoint)
    before, world.checkpoint = world.checkpoint, released
    try:
        status, out, err = call('--data-root', world.data, '--benchmarks', 'flickr30k')
    finally:
        world.checkpoint = before
    assert status == 0, err
    assert f'Published: {entry.name}' in out
    rows = table(out)
    assert rows['set', 'figure'] == ['ours', 'EVA-CLIP', 'open_clip']
    assert rows['ImageNet-1k', 'top-1'] == ['-', '80.4', '80.4']
    assert rows['ImageNet-A', 'top-1'] == ['-', '-', '82.9']
    assert rows['COCO', 'text to image R@5'] == ['-', '71.7', '71.7']
    assert rows['COCO', 'image to text R@1'] == ['-', '-', '64.2']
    assert rows['Flickr30k', 'image to text R@10'][2] == '99.6'
    assert rows['Flickr30k', 'image to text R@10'][0] == '100.0'


@pytest.mark.parametrize(
    ('name', 'imagenet', 'recall'),
    [
        ('EVA01-CLIP-g-14', 78.5, 68.5),
        ('EVA01-CLIP-g-14-plus', 79.3, 74.0),
        ('EVA02-CLIP-B-16', 74.7, 66.9),
        ('EVA02-CLIP-L-14', 79.8, 71.2),
        ('EVA02-CLIP-L-14-336', 80.4, 71.7),
        ('EVA02-CLIP-bigE-14', 81.9, 74.7),
        ('EVA02-CLIP-bigE-14-plus', 82.0, 75.0),
    ],
)
def test_every_released_pair_has_its_figures(name, imagenet, recall):
    tool = runpy.run_path(str(TOOL), run_name='tool')
    entry = tool['find_entry'](str(find_entry(name).config), 'my.pth')
    assert entry.name == find_entry(name).name
    figures = tool['published_figures'](entry)
    assert figures['EVA-CLIP'] == {
        ('ImageNet-1k', 'Top 1 Accuracy'): imagenet,
        ('COCO', 'Text-to-Image R@5'): recall,
    }
    expected = {
        (benchmark.title, metafile_name)
        for benchmark in tool['BENCHMARKS'].values()
        for _, metafile_name in benchmark.measures.values()
    }
    assert set(figures['open_clip']) == expected
    assert figures['open_clip']['ImageNet-1k', 'Top 1 Accuracy'] == pytest.approx(imagenet, abs=0.2)
    assert figures['open_clip']['COCO', 'Text-to-Image R@5'] == pytest.approx(recall, abs=0.5)


@pytest.fixture
def folder(world, tmp_path):
    """Four images in the folders of their classes, by sentences of our own; one is wrong."""
    names = ['red fox', 'old car', 'tree']
    inferencer = evamm.ZeroShotInferencer(world.model, names, 'the {}', logit_scale=100)
    labels = [r['pred_label'] for r in inferencer(world.pixels[:5], channel_order='rgb')]
    labels[2] = (labels[2] + 1) % 3
    for i, label in enumerate(labels):
        world.save(i, tmp_path / 'photos' / f'{label}_{names[label].split()[-1]}' / f'{i}.png')
    for i in range(3):
        (tmp_path / 'photos' / f'{i}_{names[i].split()[-1]}').mkdir(exist_ok=True)
        if not any(label == i for label in labels):
            world.save(5, tmp_path / 'photos' / f'{i}_{names[i].split()[-1]}' / 'x.png')
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    return tmp_path / 'photos', tmp_path / 'names.txt'


def test_own_folder_and_own_sentences(world, call, folder, tmp_path):
    photos, names = folder
    status, out, err = call('--folder', photos, '--classes', names, '--templates', 'the {}')
    assert status == 0, err
    assert '0_fox: red fox; 1_car: old car; 2_tree: tree' in out
    files = sorted(photos.glob('*/*.png'))
    inferencer = evamm.ZeroShotInferencer(world.model, names, 'the {}', logit_scale=100)
    right = np.mean(
        [
            result['pred_label'] == int(Path(result['img_path']).parent.name[0])
            for result in inferencer(files)
        ]
    )
    assert f'top1 {100 * right:.2f} %' in out
    assert 0 < right < 1
    # The names of the folders, where no others are given
    status, out, err = call('--folder', photos, '--templates', 'the {}', 'a {}')
    assert status == 0, err
    content = json.loads((tmp_path / 'work' / 'zero_shot.json').read_text())
    assert content['test_cfg']['classes'] == 'dataset'
    assert content['test_cfg']['templates'] == ['the {}', 'a {}']


def test_imagenet_is_not_the_test_set_of_a_config_of_ones_own(world, call, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(
        f"_base_ = '{world.config}'\n"
        "test_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset', "
        "data_prefix='mine', with_label=True, "
        'pipeline={{_base_.test_dataloader.dataset.pipeline}}))\n'
        "test_evaluator = dict(_delete_=True, type='SingleLabelMetric')\n"
    )
    status, out, err = call(
        '--data-root', world.data, '--benchmarks', 'imagenet', '--partial', config=config
    )
    assert status == 0, err
    assert table(out)['ImageNet-1k', 'top-1'] == ['75.0']


def test_mistakes_get_one_sentence(world, call, folder, tmp_path):
    photos, names = folder
    names.write_text('one\ntwo\n')
    for options, message in [
        (['--data-root', tmp_path / 'none'], 'none of the sets is in'),
        (['--data-root', tmp_path, '--benchmarks', 'imagenet-a'], 'ImageNet-A: there is no folder'),
        (['--path', 'imagenet_a=x'], '--path imagenet_a=x: expected SET=FOLDER'),
        (['--folder', tmp_path / 'none'], 'there is no such folder'),
        (['--folder', photos / '0_fox'], 'holds no sub-folder'),
        (['--folder', photos, '--classes', names], 'names 2 classes, but .* has 3 sub-folders'),
        (['--folder', photos, '--classes', 'no.txt'], "classes='no.txt' is neither"),
        (['--folder', photos, '--templates', 'a photo'], "templates='a photo' is neither"),
        (['--folder', photos, '--benchmarks', 'coco'], 'leave --benchmarks out'),
        (['--classes', names], '--classes names those of --folder'),
    ]:
        status, _, err = call(*options)
        assert status in (1, 2), options
        assert re.search(message, err), (options, err)
    tiny = REPO / 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py'
    status, _, err = call(config=tiny)
    assert status == 1 and 'no config of an image-text model' in err


def test_the_ordinary_test_tools_agree(world, tmp_path, monkeypatch, capsys):
    """tools/test.py on ImageNet and tools/test_robustness.py, with the config as it is."""
    monkeypatch.chdir(world.root)
    for tool, options in (
        ('test.py', ['--out', tmp_path / 'a.json', '--out-item', 'metrics']),
        ('test_robustness.py', ['--partial', '--sets', 'imagenet', 'imagenet_a']),
    ):
        argv = [tool, world.config, world.checkpoint, '--work-dir', tmp_path / 'work', *options]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in argv])
        scope = runpy.run_path(str(REPO / 'tools' / tool), run_name='tool')
        assert scope['launch'].run_tool(scope['main']) == 0, capsys.readouterr().err
    metrics = json.loads((tmp_path / 'a.json').read_text())
    assert metrics['accuracy/top1'] == pytest.approx(75)
    results = json.loads((tmp_path / 'work' / 'robustness.json').read_text())['results']
    assert results['imagenet']['top1'] == pytest.approx(75)
    assert results['imagenet_a']['top1'] == pytest.approx(100 / 3)


def test_retrieval_bases_are_config_files():
    tool = runpy.run_path(str(TOOL), run_name='tool')
    for benchmark in tool['BENCHMARKS'].values():
        if benchmark.base is not None:
            base = Config.fromfile(REPO / 'configs/_base_/datasets' / benchmark.base)
            assert base.test_dataloader.dataset.data_root.startswith('data/')
