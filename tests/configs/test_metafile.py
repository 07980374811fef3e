"""The metafiles: names and figures, what is checked about them, and that the check can fail."""

import sys
from pathlib import Path

import pytest
import yaml

from .common import ROOT

TOOLS = ROOT / 'tools' / 'analysis_tools'
sys.path.insert(0, str(TOOLS))

import check_metafile  # noqa: E402
import generate_model_zoo  # noqa: E402

# fmt: off
# Name: params (M), flops (G), top-1, top-5 as printed in the tables the names come from.
EVA02 = {
    'eva02-tiny-p14_in21k-pre_3rdparty_in21k': (5.50, 1.70),
    'eva02-small-p14_in21k-pre_3rdparty_in21k': (21.62, 6.14),
    'eva02-base-p14_in21k-pre_3rdparty_in21k': (85.37, 23.22),
    'eva02-base-p16_in21k-pre_3rdparty_in21k': (85.86, 17.61),
    'eva02-large-p14_in21k-pre_3rdparty_in21k': (303.29, 81.15),
    'eva02-large-p16_in21k-pre_3rdparty_in21k': (303.41, 61.66),
    'eva02-large-p14_m38m-pre_3rdparty_m38m': (303.29, 81.15),
    'eva02-large-p16_m38m-pre_3rdparty_m38m': (303.41, 61.66),
    'eva02-tiny-p14_in21k-pre_3rdparty_in1k': (5.76, 4.68, 80.69, 95.54),
    'eva02-small-p14_in21k-pre_3rdparty_in1k': (22.13, 15.48, 85.77, 97.60),
    'eva02-base-p14_in21k-pre_3rdparty_in1k': (87.13, 107.11, 88.29, 98.53),
    'eva02-large-p14_in21k-pre_3rdparty_in1k': (305.10, 362.33, 89.51, 98.86),
    'eva02-large-p14_m38m-pre_3rdparty_in1k': (305.10, 362.33, 89.39, 98.80),
    'eva02-base-p14_in21k-pre_in21k-medft_3rdparty_in1k': (87.13, 107.11, 88.47, 98.62),
    'eva02-large-p14_in21k-pre_in21k-medft_3rdparty_in1k': (305.08, 362.33, 89.66, 98.95),
    'eva02-large-p14_m38m-pre_in21k-medft_3rdparty_in1k': (305.10, 362.33, 89.83, 99.00),
}

# Authors' file: top-1, top-5, averaged weights. From the READMEs; for EVA-L the best of the logs.
OFFICIAL = {
    'eva02_Ti_pt_in21k_ft_in1k_p14': (80.714, 95.536, False),
    'eva02_S_pt_in21k_ft_in1k_p14': (85.780, 97.598, False),
    'eva02_B_pt_in21k_ft_in1k_p14': (88.282, 98.528, False),
    'eva02_L_pt_in21k_ft_in1k_p14': (89.626, 98.954, True),
    'eva02_L_pt_m38m_ft_in1k_p14': (89.570, 98.924, True),
    'eva02_B_pt_in21k_medft_in21k_ft_in1k_p14': (88.570, 98.650, True),
    'eva02_L_pt_in21k_medft_in21k_ft_in1k_p14': (89.904, 98.974, True),
    'eva02_L_pt_m38m_medft_in21k_ft_in1k_p14': (89.974, 99.022, True),
    'eva_21k_1k_336px_psz14_ema_89p6': (89.622, 98.930, True),
    'eva_21k_1k_560px_psz14_ema_89p7': (89.712, 98.958, True),
    'eva_clip_vis_enc_sz224_ftcls_89p1': (89.074, 98.710, True),
    'eva_clip_vis_enc_sz336_ftcls_89p4': (89.378, 98.792, True),
    'eva_clip_vis_enc_sz224_lincls_86p5': (86.462, 98.034, False),
    'eva_clip_vis_enc_sz336_lincls_86p5': (86.498, 98.026, False),
    'eva_l_psz14_196px_1k_ft_88p0': (87.958, 98.496, True),
    'eva_l_psz14_336px_1k_ft_88p65': (88.652, 98.746, True),
    'eva_l_psz14_196px_21k_to_1k_ft_88p6': (88.586, 98.658, True),
    'eva_l_psz14_336px_21k_to_1k_ft_89p2': (89.168, 98.854, True),
}

# Files without a published accuracy.
UNRATED = {
    'eva_psz14', 'eva_psz14to16', 'eva_21k_224px_psz14', 'eva_l_psz14', 'eva_l_psz14_21k_ft',
    'eva02_Ti_pt_in21k_p14', 'eva02_S_pt_in21k_p14', 'eva02_B_pt_in21k_p14',
    'eva02_B_pt_in21k_p14to16', 'eva02_L_pt_in21k_p14', 'eva02_L_pt_in21k_p14to16',
    'eva02_L_pt_m38m_p14', 'eva02_L_pt_m38m_p14to16', 'eva02_B_pt_in21k_medft_in21k_p14',
    'eva02_L_pt_in21k_medft_in21k_p14', 'eva02_L_pt_m38m_medft_in21k_p14',
}
# fmt: on

MODELS = [
    model
    for path, content in generate_model_zoo.load_metafiles().items()
    if path.parts[1] in ('eva', 'eva02')
    for model in content['Models']
]
BY_NAME = {model['Name']: model for model in MODELS}
BY_FILE = {Path(model['Weights']).stem: model for model in MODELS}


@pytest.mark.parametrize('name', EVA02)
def test_figures_of_the_table(name):
    model = BY_NAME[name]
    published = model['Published']
    figures = [published['Params (M)'], published['Flops (G)']]
    if 'Results' in model:
        metrics = model['Results'][0]['Metrics']
        figures += [metrics['Top 1 Accuracy'], metrics['Top 5 Accuracy']]
    assert tuple(figures) == EVA02[name]


@pytest.mark.parametrize('name', EVA02)
def test_published_params_are_explained(name):
    """A bias on k, and no last norm in a trunk: nothing else separates our count from theirs."""
    misprints = {
        'eva02-base-p14_in21k-pre_3rdparty_in21k': 85.77,
        'eva02-large-p14_in21k-pre_in21k-medft_3rdparty_in1k': 305.10,
    }
    depth, dims = {'tiny': (12, 192), 'small': (12, 384), 'base': (12, 768), 'large': (24, 1024)}[
        name.split('-')[1]
    ]
    last_norm = 0 if 'Results' in BY_NAME[name] else 2 * dims
    theirs = BY_NAME[name]['Metadata']['Parameters'] + depth * dims - last_norm
    assert f'{theirs / 1e6:.2f}' == f'{misprints.get(name, EVA02[name][0]):.2f}'


@pytest.mark.parametrize('file', OFFICIAL)
def test_official_figures(file):
    official = BY_FILE[file]['Official']
    assert tuple(official.values()) == OFFICIAL[file]
    assert file in BY_FILE[file]['Alias']


def test_every_released_file_has_an_entry():
    assert set(BY_FILE) == set(OFFICIAL) | UNRATED
    assert all('Results' not in BY_FILE[file] for file in UNRATED)
    assert {name for name in EVA02 if name not in BY_NAME} == set()


def test_nothing_is_called_reproduced():
    """There is no training log of ours yet; change this test together with one."""
    assert {model['Reproduced'] for model in MODELS} == {False}


def test_timm_names_are_aliases():
    import timm

    theirs = {
        name
        for name in timm.list_pretrained(['eva_*', 'eva02_*'])
        if '_clip_' not in name or 'clip_ft' in name
    }
    assert theirs == {
        alias
        for model in MODELS
        for alias in model['Alias']
        if alias.rpartition('.')[0] in timm.list_models()
    }


def test_config_is_the_recipe_that_made_the_model():
    for model in MODELS:
        text = (ROOT / model['Config']).read_text(encoding='utf-8')
        # The 336-pixel name of an EVA-01 file ends in its accuracy, which the README leaves out.
        names = (f'`{alias}`' for alias in model['Alias'])
        assert any(name in text for name in names), model['Name']


def test_metafiles_are_right_and_pages_are_up_to_date(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['check_metafile.py'])
    assert check_metafile.main() == 0, capsys.readouterr().err


def test_mmpretrain_takes_the_index():
    from mmpretrain.apis.model import ModelHub

    class Hub(ModelHub):
        _models_dict = {}

    Hub.register_model_index(ROOT / 'model-index.yml', config_prefix=ROOT)
    assert {name.lower() for name in BY_NAME} <= set(Hub._models_dict)
    tiny = Hub._models_dict['eva02-tiny-p14_in21k-pre_3rdparty_in1k']
    assert Path(tiny.config) == ROOT / 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py'
    assert tiny.results[0].metrics == {'Top 1 Accuracy': 80.69, 'Top 5 Accuracy': 95.54}
    assert tiny.metadata.data['Parameters'] == 5756584
    # Fields of ours survive.
    assert 'eva02_tiny_patch14_336.mim_in22k_ft_in1k' in tiny.data['Alias']


@pytest.fixture
def small_root(tmp_path):
    """A repository with one model, and a function that writes its metafile anew."""
    (tmp_path / 'model-index.yml').write_text('Import: [configs/eva02/metafile.yml]')
    folder = tmp_path / 'configs' / 'eva02'
    folder.mkdir(parents=True)
    (folder.parent / '_base_').symlink_to(ROOT / 'configs' / '_base_')
    config = 'configs/eva02/eva02_tiny_p14_8xb16_in1k.py'
    (tmp_path / config).write_bytes((ROOT / config).read_bytes())
    text = (ROOT / 'configs/eva02/metafile.yml').read_text(encoding='utf-8')
    content = yaml.safe_load(text)
    content['Models'] = [m for m in content['Models'] if m['Config'] == config]

    def write():
        (folder / 'metafile.yml').write_text(yaml.safe_dump(content))
        return tmp_path

    return content, write


def test_check_finds_nothing_wrong_with_the_small_one(small_root):
    _, write = small_root
    assert check_metafile.check(write()) == []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda m: m['Metadata'].update(Parameters=5756585), 'the model has 5756584'),
        (lambda m: m['Metadata'].update(FLOPs=4675416001), 'the model has 4675416000'),
        (lambda m: m['Metadata'].update({'Image Size': 224}), 'the model has 336'),
        (lambda m: m.update(Config='configs/eva02/none.py'), 'Config does not exist'),
        (lambda m: m.update({'In Collection': 'EVA-03'}), 'names no collection'),
        (lambda m: m.update(Weights=m['Weights'].replace('resolve', 'blob')), 'file itself'),
        (lambda m: m.pop('Reproduced'), 'lacks Reproduced'),
        (lambda m: m.pop('Official'), 'no Official figure'),
        (lambda m: m['Published'].update({'Flops (G)': 4.66}), '4.66 is not 4.68'),
        (lambda m: m['Alias'].append(m['Name'].upper()), 'is a name of'),
    ],
)
def test_check_finds_a_mistake(small_root, change, message):
    content, write = small_root
    change(content['Models'][0])
    problems = check_metafile.check(write())
    assert len(problems) == 1 and message in problems[0]


def test_check_finds_a_metafile_nobody_lists(small_root):
    _, write = small_root
    root = write()
    (root / 'configs' / 'other').mkdir()
    (root / 'configs' / 'other' / 'metafile.yml').write_text('Models: []')
    assert check_metafile.check(root) == [
        'model-index.yml does not import configs/other/metafile.yml'
    ]


def test_tables_follow_the_metafile(small_root):
    content, write = small_root
    root = write()
    readme = root / 'configs' / 'eva02' / 'README.md'
    begin, end = generate_model_zoo.BEGIN, generate_model_zoo.END
    readme.write_text(f'# Title\n{begin}\nstale\n{end}\nText after.\n')
    content['Models'][0]['Results'][0]['Metrics']['Top 1 Accuracy'] = 12.34
    pages = generate_model_zoo.render_pages(write())
    page = pages[Path('configs/eva02/README.md')]
    assert page.startswith('# Title\n') and page.endswith('\nText after.\n')
    assert 'stale' not in page
    assert '| 12.34 | 95.54 | 80.714 / 95.536 (raw) |' in page
    assert '| 12.34 | 95.54 |' in pages[generate_model_zoo.ZOO]
    readme.write_text('# No markers\n')
    with pytest.raises(ValueError, match='README.md must hold the lines'):
        generate_model_zoo.render_pages(root)
