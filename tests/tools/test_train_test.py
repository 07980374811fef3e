"""tools/train.py and tools/test.py as a user calls them, on eight-pixel pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[2]


def test_train_resume_and_test(call, project, capsys):
    # Not installed, another folder, no PYTHONPATH: the tool has to find the package by itself.
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    command = [sys.executable, str(REPO / 'tools/train.py'), 'tiny.py']
    first = subprocess.run(
        [*command, '--cfg-options', 'train_cfg.max_epochs=3'],
        cwd=project,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert first.returncode == 0, first.stderr
    work_dir = project / 'work_dirs' / 'tiny'
    assert (work_dir / 'epoch_3.pth').is_file()
    log = next(work_dir.glob('*/*.log')).read_text()
    assert 'Epoch(train) [3][2/3]' in log and 'eta:' in log and 'loss:' in log
    assert log.count('Parameter groups:') == 1

    assert call('train', 'tiny.py', '--resume', '--amp') == 0
    assert (work_dir / 'epoch_6.pth').is_file()
    log = max(work_dir.glob('*/*.log')).read_text()
    assert 'epoch_3.pth at epoch 3, iteration 9' in log and 'Epoch(train) [3]' not in log

    capsys.readouterr()
    assert call('test', 'tiny.py', work_dir / 'epoch_6.pth', '--out', 'scores.npz') == 0
    assert 'accuracy/top1: 100.0000' in capsys.readouterr().out
    scores = np.load('scores.npz')  # allow_pickle is off
    assert scores['pred_score'].shape == (8, 2)
    assert scores['gt_label'].tolist() == scores['pred_label'].tolist()
    assert all(Path(path).is_file() for path in scores['img_path'])


@pytest.fixture
def checkpoint(project):
    """Untrained weights with their moving average, in our dialect."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import evamm.registry
    from evamm.checkpoints import write_checkpoint

    cfg = Config.fromfile('tiny.py')
    init_default_scope('mmpretrain')
    model = evamm.registry.MODELS.build(cfg.model)
    raw = model.state_dict()
    average = {name: value.clone() for name, value in raw.items()}
    # Raw weights say class 0 always, averaged ones class 1.
    for state, bias in ((raw, [5.0, -5.0]), (average, [-5.0, 5.0])):
        state['head.fc.bias'].copy_(torch.tensor(bias))
    state = {f'module.{name}': value for name, value in raw.items()}
    write_checkpoint({'state_dict': average, 'ema_state_dict': state}, 'weights.pth')
    return project / 'weights.pth'


def test_testing_prefers_the_average_and_writes_json(call, checkpoint):
    for options, label in (((), 1), (('--no-ema',), 0)):
        assert call('test', 'tiny.py', checkpoint, '--out', 'pred.json', *options) == 0
        records = json.loads(Path('pred.json').read_text())
        assert [record['pred_label'] for record in records] == [[label]] * 8
        assert len(records[0]['pred_score']) == 2
    assert (
        call('test', 'tiny.py', checkpoint, '--out', 'out/m.json', '--out-item', 'metrics', '--tta')
        == 0
    )
    assert json.loads(Path('out/m.json').read_text()) == {'accuracy/top1': 50.0}
    assert not list(Path('out').glob('.*'))


def test_testing_a_file_without_a_head_is_an_error(call, checkpoint, capsys):
    import torch

    state = torch.load(checkpoint, weights_only=True)['state_dict']
    trunk = {name: value for name, value in state.items() if not name.startswith('head')}
    torch.save({'state_dict': trunk}, 'trunk.pth')
    assert call('test', 'tiny.py', 'trunk.pth') == 1
    error = capsys.readouterr().err
    assert error.startswith('error: trunk.pth') and 'head.fc.weight' in error


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['nowhere.py'], ['config nowhere.py does not exist']),
        (
            [
                'tiny.py',
                '--cfg-options',
                'train_dataloader.dataset.data_root=data/imagenet',
                'val_dataloader.dataset.data_root=data/imagenet',
            ],
            [
                'data/imagenet does not exist',
                'train_dataloader.dataset.data_root and val_dataloader.dataset.data_root need it',
                'docs/en/data_preparation.md',
            ],
        ),
        (
            ['tiny.py', '--cfg-options', 'val_dataloader.dataset.data_prefix=validation'],
            ['pictures/validation does not exist', 'val_dataloader.dataset.data_prefix'],
        ),
        (['tiny.py', '--resume', 'lost.pth'], ['--resume: the checkpoint lost.pth does not exist']),
        (
            [
                'tiny.py',
                '--cfg-options',
                'model.backbone.init_cfg.type=Pretrained',
                'model.backbone.init_cfg.checkpoint=lost.pth',
            ],
            ['model.backbone.init_cfg.checkpoint: the checkpoint lost.pth does not exist'],
        ),
        (
            ['tiny.py', '--auto-scale-lr', '--cfg-options', 'auto_scale_lr._delete_=True'],
            ['--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...)'],
        ),
    ],
)
def test_mistakes_get_one_sentence_before_anything_is_built(call, project, capsys, args, words):
    assert call('train', *args) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    for word in words:
        assert word in error
    assert not (project / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['tiny.py', 'w.pth', '--out', 'x.pkl'], '--out x.pkl: the name must end in .json or .npz'),
        (['tiny.py', 'w.pth'], 'load_from: the checkpoint w.pth does not exist'),
        (['tiny.py', 'tiny.py'], 'tiny.py: expected a .safetensors or torch file'),
        (['tiny.py', 'weights.pth', '--show'], 'visualization=dict'),
        (
            ['tiny.py', 'weights.pth', '--cfg-options', 'test_dataloader.dataset.data_root=gone'],
            'gone does not exist',
        ),
    ],
)
def test_mistakes_in_testing_get_one_sentence(call, checkpoint, capsys, args, words):
    assert call('test', *args) == 1
    error = capsys.readouterr().err
    assert error.startswith('error: ') and words in error


def test_options_become_settings(project, tool):
    train = tool('train')
    from evamm.engine.runner import launch

    def configure(*args):
        argv, sys.argv = sys.argv, ['train.py', 'tiny.py', *args]
        try:
            parsed = train.parse_args()
        finally:
            sys.argv = argv
        cfg = launch.load_config('tiny.py', parsed)
        train.apply_arguments(cfg, parsed)
        return cfg

    cfg = configure()
    assert cfg.work_dir == 'work_dirs/tiny' and cfg.launcher == 'none'
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'
    assert cfg.train_dataloader.persistent_workers is False  # there are none
    cfg = configure('--no-validate', '--work-dir', 'w', '--resume', '--auto-scale-lr')
    assert cfg.val_cfg is cfg.val_dataloader is cfg.val_evaluator is None
    assert (cfg.work_dir, cfg.resume, cfg.load_from) == ('w', True, None)
    assert cfg.auto_scale_lr.enable
    cfg = configure('--resume', 'a.pth', '--cfg-options', 'train_dataloader.num_workers=2')
    assert (cfg.resume, cfg.load_from) == (True, 'a.pth')
    assert cfg.train_dataloader.persistent_workers is True
    cfg = configure(
        '--no-persistent-workers',
        '--amp',
        '--cfg-options',
        'train_dataloader.num_workers=2',
        'optim_wrapper.type=OptimWrapper',
    )
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.optim_wrapper.type == 'evamm.AmpOptimWrapper'


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_scripts_pass_on_what_they_are_given(project, script):
    """A stand-in for python and srun prints the words it gets."""
    stub = project / 'stub'
    stub.write_text('#!/bin/sh\nprintf "[%s]" "$@"\n')
    stub.chmod(0o755)
    (project / 'srun').symlink_to(stub)
    given = {
        'dist_train': ['a config.py', '8', '--work-dir', 'x y'],
        'dist_test': ['a config.py', 'weights.pth', '8', '--out', 'o.json'],
        'slurm_train': ['part', 'job', 'a config.py', 'x y', '--amp'],
        'slurm_test': ['part', 'job', 'a config.py', 'weights.pth', '--out', 'o.json'],
    }[script]
    env = {**os.environ, 'PYTHON': str(stub), 'PATH': f'{project}:{os.environ["PATH"]}'}
    path = REPO / f'tools/{script}.sh'
    result = subprocess.run(
        ['bash', str(path), *given], env=env, capture_output=True, text=True, check=True
    )
    launcher, kind = script.split('_')
    words = result.stdout
    assert f'[{REPO}/tools/{kind}.py][a config.py]' in words
    assert f'[--launcher][{"pytorch" if launcher == "dist" else "slurm"}]' in words
    expected = {
        'dist_train': '[--nproc_per_node=8]',
        'dist_test': '[weights.pth]',
        'slurm_train': '[--work-dir=x y]',
        'slurm_test': '[weights.pth]',
    }[script]
    assert expected in words
    assert words.endswith(f'[{given[-1]}]')
    usage = subprocess.run(['bash', str(path)], capture_output=True, text=True, check=False)
    assert usage.returncode == 2 and f'Usage: tools/{script}.sh' in usage.stderr
