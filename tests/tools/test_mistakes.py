"""What a user gets wrong, through the tools: one sentence that says what to do, no traceback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EPOCH = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'param_scheduler.warmup=0']


@pytest.fixture
def sentence(call, project, capfd):
    """The one line that a tool prints about a mistake, without `error: `."""

    def run(name, *args):
        capfd.readouterr()
        assert call(name, *args) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith('error: ')]
        assert len(lines) == 1
        return lines[0].removeprefix('error: ')

    return run


def options(*settings):
    return ['tiny.py', '--cfg-options', *EPOCH, *settings]


def annotate(text, name='list.txt'):
    """Write an annotation file for the training set; returns the options that use it."""
    Path('pictures', name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return options(
        f'train_dataloader.dataset.ann_file={name}',
        'train_dataloader.dataset.metainfo.classes=[bright,dark]',
    )


GOOD = ''.join(
    f'{name}/{i}.png {label}\n' for label, name in ((0, 'bright'), (1, 'dark')) for i in range(6)
)


def test_a_good_annotation_file_is_accepted(call, project):
    assert call('train', *annotate(GOOD)) == 0


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('dark/0.png 1\ndark/1.png,1\n', ['list.txt, line 2: expected an image', "'dark/1.png,1'"]),
        ('dark/0.png 1\n\ndark/1.png 1\n', ['list.txt, line 2', 'found an empty line']),
        ('dark/0.png 1\ndark/1.png one\n', ['list.txt, line 2', "'dark/1.png one'"]),
        (b'\x89PNG\r\n\x1a\n\xff\xff', ['list.txt is no text file']),
        (json.dumps({'images': []}), ['list.txt is JSON, not a list of images']),
        ('', ['pictures/list.txt is empty']),
        (GOOD + 'dark/1.png 2\n', ['dark/1.png the label 2', 'num_classes) are 0 to 1']),
        (GOOD + 'dark/1.png -1\n', ['dark/1.png the label -1', 'are 0 to 1']),
        (
            GOOD + 'dark/lost.png 1\n',
            ['list.txt lists images that do not exist, such as pictures/train/dark/lost.png (1 of'],
        ),
    ],
)
def test_annotation_files(sentence, text, words):
    found = sentence('train', *annotate(text))
    for word in words:
        assert word in found


def test_a_file_that_is_no_annotation_file_at_all(sentence):
    shutil.copy('pictures/val/dark/0.png', 'pictures/folder.txt')
    found = sentence('train', *options('train_dataloader.dataset.ann_file=folder.txt'))
    assert 'pictures/folder.txt is no text file' in found


def test_class_folders(sentence):
    classes = 'train_dataloader.dataset.metainfo.classes='
    Path('pictures/train/grey').mkdir()
    found = sentence('train', *options('model.head.num_classes=3'))
    assert 'class folders grey of pictures/train hold no image' in found
    found = sentence('train', *options(f'{classes}[bright,dark]'))
    assert 'pictures/train has 3 class folders, but metainfo.classes has 2 names' in found
    assert 'not among the names: grey' in found
    found = sentence('train', *options(f'{classes}[bright,dark,grey,white]'))
    assert 'missing: white' in found
    found = sentence('train', *options())
    assert 'train_dataloader.dataset has 3 classes (bright, dark, grey)' in found
    assert 'model.head.num_classes=3' in found
    shutil.rmtree('pictures/train/grey')
    found = sentence('train', *options(f'{classes}[dark,bright]'))
    assert 'is not the order of the sorted folders' in found and 'bright, dark' in found
    shutil.move('pictures/val/dark', 'pictures/val/night')
    found = sentence('train', *options())
    assert "class 1 is 'dark' in train_dataloader.dataset and 'night' in val_dataloader" in found
    shutil.rmtree('pictures/val/bright')
    found = sentence('test', 'tiny.py', save_weights())
    assert 'test_dataloader.dataset has 1 classes (night)' in found


def save_weights():
    torch.save({'state_dict': {'w': torch.zeros(1)}}, 'some.pth')
    return 'some.pth'


@pytest.mark.parametrize('number', [1, 5])
def test_number_of_classes(sentence, number):
    found = sentence('train', *options(f'model.head.num_classes={number}'))
    assert f'has 2 classes (bright, dark), but model.head.num_classes is {number}' in found


def test_wrapped_data_sets_are_looked_into(call, sentence):
    base = Path('tiny.py').read_text()

    def write(wrapper):
        Path('wrapped.py').write_text(base + f'inner = train_dataloader["dataset"]\n{wrapper}\n')
        return ['wrapped.py', '--cfg-options', *EPOCH]

    kfold = 'train_dataloader["dataset"] = dict(type="KFoldDataset", dataset=inner, num_splits=2)'
    joined = (
        'train_dataloader["dataset"] = dict(type="ConcatDataset", datasets=[inner, '
        'dict(type="RepeatDataset", times=2, dataset=inner)])'
    )
    for wrapper in (kfold, joined):
        assert call('train', *write(wrapper)) == 0
    found = sentence('train', *write(joined), 'model.head.num_classes=3')
    assert 'train_dataloader.dataset.datasets.0 has 2 classes' in found
    Path('pictures/train/grey').mkdir()
    found = sentence('train', *write(kfold), 'model.head.num_classes=3')
    assert 'train_dataloader.dataset.dataset: the class folders grey' in found


@pytest.mark.parametrize(
    ('setting', 'words'),
    [
        ('train_cfg=3', 'config key train_cfg: expected a dict, found 3'),
        ('model=None', 'config key model: expected a dict, found None'),
        ('custom_hooks=7', 'config key custom_hooks: expected a list, found 7'),
        ('log_level=LOUD', "config key log_level: expected one of ('DEBUG'"),
        ('randomness.seed=abc', 'config key randomness.seed: expected a number from 0'),
        ('train_cfg.max_epochs=0', 'config key train_cfg.max_epochs: expected a number of at lea'),
        ('optim_wrapper.optimizer.lr=high', 'config key optim_wrapper.optimizer.lr: expected a n'),
        ('val_evaluator.topk=[1,5]', 'config key val_evaluator.topk: there is no top-5 of 2 class'),
        ('optim_wraper.optimizer.lr=1', 'config key optim_wraper: nothing reads it; did you mean'),
        ('train_dataloadr.batch_size=2', 'did you mean train_dataloader?'),
        ('work_dir=tiny.py/x', 'tiny.py is a file, not a folder; choose another with --work-dir'),
        ('train_dataloader=None', 'tiny.py has no train_dataloader: it describes a model to use'),
        ('optim_wrapper=None', 'tiny.py has no optim_wrapper: it describes a model to use'),
        ('model.head.in_channels=64', 'set model.head.in_channels=32'),
        ('model.backbone.type=EVAViT', 'did you mean evamm.EVAViT?'),
        ('model.type=ImageClasifier', 'did you mean ImageClassifier?'),
        ('model.backbone.drop_pth_rate=0.1', 'evamm.EVAViT of the config cannot be built'),
        ('train_dataloader.dataset.type=CustomDatset', 'did you mean CustomDataset?'),
        ('train_dataloader.num_workers=-1', 'num_workers option should be non-negative'),
        ('param_scheduler.warmup=-1', 'warmup'),
        (
            'train_dataloader.batch_size=50 train_dataloader.drop_last=True',
            'its 12 samples do not fill one batch of 50',
        ),
        (
            'model.data_preprocessor.num_classes=4 model.data_preprocessor.to_onehot=True',
            'config key data_preprocessor.num_classes: it is 4, but model.head.num_classes is 2',
        ),
    ],
)
def test_settings(sentence, setting, words):
    assert words in sentence('train', *options(*setting.split()))


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('x = (', "SyntaxError: '(' was never closed"),
        ("_base_ = './gone.py'", 'FileNotFoundError'),
        ('1 / 0', 'ZeroDivisionError'),
        ('', 'wrong.py has no model: it is not a config of a run'),
        ('\0', 'wrong.py cannot be used'),
    ],
)
def test_config_files(sentence, text, words):
    Path('wrong.py').write_text(text)
    found = sentence('train', 'wrong.py')
    assert 'wrong.py' in found and words in found


def test_a_config_that_is_its_own_base(sentence):
    Path('wrong.py').write_text("_base_ = './wrong.py'")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        assert 'its _base_ leads back to it' in sentence('train', 'wrong.py')
    finally:
        sys.setrecursionlimit(limit)


def test_warnings_about_options(call, project, capfd):
    Path('own.py').write_text("_base_ = 'tiny.py'\nbatch = 4\ntext_cfg = dict()\nmodels = []\n")
    settings = [
        'model.backbone.drop_pth_rate=0.1',
        'pipeline.0.type=Nothing',
        'train_cfg.max_epochs=1',
        'batch=7',
    ]
    assert call('train', 'own.py', '--cfg-options', *settings) == 1
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith('warning')]
    assert len(warnings) == 3
    assert warnings[0] == (
        'warning: --cfg-options model.backbone.drop_pth_rate: model.backbone has no '
        'drop_pth_rate (close to drop_path_rate) so far; it is added.'
    )
    assert 'pipeline is a variable of the config file' in warnings[1]
    assert 'train_dataloader.dataset.pipeline' in warnings[1]
    assert 'batch is a variable of the config file' in warnings[2]


def test_traceback_on_request(call, project, monkeypatch):
    monkeypatch.setenv('EVAMM_TRACEBACK', '1')
    with pytest.raises(ValueError, match='expected a dict'):
        call('train', *options('train_cfg=3'))


@pytest.fixture
def epoch(call, project):
    """Checkpoint of a run of one epoch."""
    assert call('train', *options()) == 0
    return project / 'work_dirs' / 'tiny' / 'epoch_1.pth'


def test_resuming(call, sentence, epoch):
    state = torch.load(epoch, weights_only=True)

    def resume(change):
        broken = {**state}
        change(broken)
        torch.save(broken, 'broken.pth')
        return sentence('train', *options('train_cfg.max_epochs=2'), '--resume', 'broken.pth')

    found = resume(lambda s: [s.pop(key) for key in list(s) if key != 'state_dict'])
    assert 'broken.pth: cannot resume from it' in found and 'it holds weights only' in found
    assert 'meta.iter should be a count, found NoneType' in resume(
        lambda s: s.update(meta={'epoch': 1})
    )
    found = resume(lambda s: s.update(message_hub=[]))
    assert 'message_hub.log_scalars should be a dict' in found
    weights = {name: value for name, value in state['state_dict'].items() if 'blocks.1' not in name}
    found = resume(lambda s: s.update(state_dict=weights))
    assert 'is missing' in found and 'backbone.blocks.1.' in found and 'another model' in found
    weights = {**state['state_dict'], 'head.fc.weight': torch.zeros(7, 32)}
    found = resume(lambda s: s.update(state_dict=weights))
    assert 'head.fc.weight is [7, 32] in the file and [2, 32] in the model' in found
    optimizer = state['optimizer']
    groups = optimizer['param_groups']
    found = resume(lambda s: s.update(optimizer={**optimizer, 'param_groups': groups[:-1]}))
    assert f'{len(groups) - 1} parameter groups' in found and f'makes {len(groups)}' in found
    some = {number: {**entry} for number, entry in optimizer['state'].items()}
    some[3].pop('exp_avg_sq')
    found = resume(lambda s: s.update(optimizer={**optimizer, 'state': some}))
    assert 'exp_avg_sq' in found
    found = resume(lambda s: s.update(param_schedulers=[]))
    assert 'param_scheduler' in found
    found = resume(lambda s: s.update(rng=[{}]))
    assert 'rng lacks the state' in found
    torch.save([1], 'list.pth')
    assert 'it holds a list' in sentence('train', *options(), '--resume', 'list.pth')


def test_resuming_from_folders(call, sentence, epoch, capfd):
    assert call('train', *options('train_cfg.max_epochs=2'), '--resume', epoch.parent) == 0
    assert 'epoch_1.pth at epoch 1' in capfd.readouterr().out
    assert call('train', *options('train_cfg.max_epochs=2'), '--resume', epoch) == 0
    Path('empty').mkdir()
    found = sentence('train', *options(), '--resume', 'empty')
    assert '--resume empty: the folder has no checkpoint' in found
    assert '--resume: the checkpoint gone.pth' in sentence(
        'train', *options(), '--resume', 'gone.pth'
    )
    assert 'load_from: the checkpoint empty is a folder' in sentence('test', 'tiny.py', 'empty')


def test_launchers(sentence, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    found = sentence('train', 'tiny.py', '--launcher', 'pytorch')
    assert 'tools/dist_train.sh CONFIG GPUS' in found
    for name, value in (('RANK', '0'), ('LOCAL_RANK', '0'), ('LOCAL_WORLD_SIZE', '8')):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    found = sentence('train', 'tiny.py', '--launcher', 'pytorch')
    assert '8 processes were started on this machine, which has 2 GPU(s)' in found


@pytest.mark.parametrize('count', ['0', '-1', 'two', '--amp'])
def test_gpu_counts_of_the_scripts(count):
    for script, args in (('dist_train', ['c.py']), ('dist_test', ['c.py', 'w.pth'])):
        path = Path(__file__).resolve().parents[2] / f'tools/{script}.sh'
        done = subprocess.run(
            ['bash', str(path), *args, count], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"GPUS must be a number of at least 1, found '{count}'" in done.stderr


def test_a_dict_on_the_command_line(call, project, capsys):
    with pytest.raises(SystemExit):
        call('train', 'tiny.py', '--cfg-options', "model.head=dict(a=('b','c'))")
    assert 'a dict cannot be given here' in capsys.readouterr().err


def test_a_damaged_image_in_a_test(sentence, epoch):
    Path('pictures/val/dark/0.png').write_bytes(b'no image')
    changed = (
        Path('tiny.py').read_text().replace("'LoadImageFromFile'", "'evamm.LoadImageFromFile'")
    )
    Path('tiny.py').write_text(changed)
    found = sentence('test', 'tiny.py', epoch)
    assert 'dark/0.png is not an image that can be decoded' in found


@pytest.mark.parametrize('name', ['get_flops', 'plan_run'])
def test_configs_for_tools_that_count(tool, project, capsys, monkeypatch, name):
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / 'tools/analysis_tools')
    module = tool(f'analysis_tools/{name}')
    Path('wrong.py').write_text('1 / 0')
    for path, words in (('gone.py', 'no config file at gone.py'), ('wrong.py', 'ZeroDivision')):
        monkeypatch.setattr(sys, 'argv', [name, path])
        assert module.main() == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith('error: ') and words in line


def test_configs_without_a_run(sentence):
    Path('headless.py').write_text(
        "_base_ = 'tiny.py'\ntrain_dataloader = train_cfg = optim_wrapper = None\n"
        'param_scheduler = test_cfg = None\n'
    )
    assert 'headless.py has no train_dataloader: it' in sentence('train', 'headless.py')
    assert 'headless.py has no test_cfg: there is nothing' in sentence(
        'test', 'headless.py', save_weights()
    )
