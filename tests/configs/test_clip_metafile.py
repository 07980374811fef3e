"""Names and figures of the image-text models, against the tables they come from."""

import pytest

from .common import ROOT
from .test_metafile import generate_model_zoo

MODELS = {
    model['Name']: model
    for path, content in generate_model_zoo.load_metafiles().items()
    if path.parts[1] == 'eva_clip'
    for model in content['Models']
}
SHORT = {
    'g': 'eva01-clip-g-p14_3rdparty_laion400m-s11b',
    'g+': 'eva01-clip-g-plus-p14_3rdparty_merged2b-s11b',
    'B': 'eva02-clip-b-p16_3rdparty_merged2b-s8b',
    'L': 'eva02-clip-l-p14_3rdparty_merged2b-s4b',
    'L336': 'eva02-clip-l-p14_3rdparty_merged2b-s6b_336px',
    'E': 'eva02-clip-e-p14_3rdparty_laion2b-s4b',
    'E+': 'eva02-clip-e-plus-p14_3rdparty_laion2b-s9b',
}

# fmt: off
# Authors' name, their file, OpenCLIP's model and tag, timm's image tower.
NAMES = {
    'g': ('EVA01-CLIP-g-14', 'EVA01_CLIP_g_14_psz14_s11B', 'EVA01-g-14/laion400m_s11b_b41k',
          'eva_giant_patch14_clip_224.laion400m'),
    'g+': ('EVA01-CLIP-g-14-plus', 'EVA01_CLIP_g_14_plus_psz14_s11B',
           'EVA01-g-14-plus/merged2b_s11b_b114k', 'eva_giant_patch14_clip_224.merged2b'),
    'B': ('EVA02-CLIP-B-16', 'EVA02_CLIP_B_psz16_s8B', 'EVA02-B-16/merged2b_s8b_b131k',
          'eva02_base_patch16_clip_224.merged2b'),
    'L': ('EVA02-CLIP-L-14', 'EVA02_CLIP_L_psz14_s4B', 'EVA02-L-14/merged2b_s4b_b131k',
          'eva02_large_patch14_clip_224.merged2b'),
    'L336': ('EVA02-CLIP-L-14-336', 'EVA02_CLIP_L_336_psz14_s6B',
             'EVA02-L-14-336/merged2b_s6b_b61k',
             'eva02_large_patch14_clip_336.merged2b'),
    'E': ('EVA02-CLIP-bigE-14', 'EVA02_CLIP_E_psz14_s4B', 'EVA02-E-14/laion2b_s4b_b115k',
          'eva02_enormous_patch14_clip_224.laion2b'),
    'E+': ('EVA02-CLIP-bigE-14-plus', 'EVA02_CLIP_E_psz14_plus_s9B',
           'EVA02-E-14-plus/laion2b_s9b_b144k', 'eva02_enormous_patch14_clip_224.laion2b_plus'),
}
# The authors' card: ImageNet-1K, COCO text-to-image recall at 5. OpenCLIP's openclip_results.csv:
# ImageNet-1K, V2, Sketch, A, R, ObjectNet. Its model_profile.csv: M parameters, GFLOPs.
FIGURES = {
    'g': ((78.5, 68.5), (.7852, .7152, .6730, .7359, .9250, .7200), (1136.4, 547)),
    'g+': ((79.3, 74.0), (.7933, .7214, .6814, .7416, .9246, .7491), (1366.6, 581)),
    'B': ((74.7, 66.9), (.7472, .6701, .5771, .5396, .8244, .6214), (149.7, 41)),
    'L': ((79.8, 71.2), (.7977, .7295, .6813, .7619, .9272, .7489), (427.8, 175)),
    'L336': ((80.4, 71.7), (.8039, .7380, .6891, .8289, .9324, .7789), (428.1, 395)),
    'E': ((81.9, 74.7), (.8196, .7566, .7151, .8044, .9407, .7674), (4704.6, 2311)),
    'E+': ((82.0, 75.0), (.8201, .7564, .7162, .8223, .9456, .7937), (5044.9, 2362)),
}
# OpenCLIP's openclip_retrieval_results.csv: Flickr30k, then COCO; images by text, texts by image.
RETRIEVAL = {
    'g': ((72.6, 91.6, 95.1), (88.1, 98.3, 99.3), (44.1, 68.5, 77.3), (61.8, 83.3, 90.0)),
    'g+': ((79.0, 94.5, 96.9), (91.7, 99.3, 99.7), (50.3, 74.0, 82.1), (68.2, 87.5, 92.5)),
    'B': ((71.5, 91.1, 94.7), (86.0, 96.6, 98.8), (42.2, 66.9, 76.3), (58.7, 80.6, 88.1)),
    'L': ((77.3, 93.7, 96.8), (89.7, 98.5, 99.1), (47.5, 71.2, 79.7), (63.7, 84.3, 90.4)),
    'L336': ((78.0, 94.3, 96.8), (89.6, 98.9, 99.6), (47.9, 71.7, 80.0), (64.2, 85.2, 90.8)),
    'E': ((78.1, 94.4, 97.0), (92.2, 99.5, 99.7), (50.4, 74.3, 82.2), (67.5, 87.4, 92.6)),
    'E+': ((78.9, 94.3, 97.0), (94.1, 99.3, 99.8), (51.1, 74.9, 82.8), (68.7, 87.6, 92.7)),
}
# fmt: on
DATASETS = (
    'ImageNet-1k',
    'ImageNet-V2',
    'ImageNet-Sketch',
    'ImageNet-A',
    'ImageNet-R',
    'ObjectNet',
)


def headless(name):
    family, data = name.split('_3rdparty_')
    return f'{family}-headless_3rdparty_{data}'


def test_every_pair_and_its_tower_has_an_entry():
    assert set(MODELS) == {*SHORT.values(), *map(headless, SHORT.values())}
    assert set(SHORT) == set(NAMES) == set(FIGURES) == set(RETRIEVAL)


@pytest.mark.parametrize('short', SHORT)
def test_names_and_files(short):
    official, file, open_clip, timm = NAMES[short]
    model, tower = MODELS[SHORT[short]], MODELS[headless(SHORT[short])]
    assert {official, file, open_clip.split('/')[0]} <= set(model['Alias'])
    assert tower['Alias'] == [timm]
    for entry in (model, tower):
        assert entry['Weights'] == (
            f'https://huggingface.co/QuanSun/EVA-CLIP/resolve/main/{file}.pt'
        )
        assert entry['Converted From']['OpenCLIP'] == open_clip
        text = (ROOT / entry['Config']).read_text(encoding='utf-8')
        assert f'`{file}`' in text and entry['Reproduced'] is False
        assert entry['Metadata']['Image Size'] == (336 if short == 'L336' else 224)


def test_the_libraries_know_these_names():
    import open_clip
    import timm

    known = {'/'.join(pair) for pair in open_clip.list_pretrained()}
    assert {names[2] for names in NAMES.values()} == {n for n in known if n.startswith('EVA0')}
    towers = {name for name in timm.list_pretrained('eva*_clip_*') if '.clip_ft' not in name}
    assert {names[3] for names in NAMES.values()} == towers


@pytest.mark.parametrize('short', SHORT)
def test_figures(short):
    official, zero_shot, (params, gflops) = FIGURES[short]
    model = MODELS[SHORT[short]]
    assert tuple(model['Official'].values()) == official
    rows = [row for row in model['Results'] if row['Task'].startswith('Zero-Shot')]
    assert tuple(row['Dataset'] for row in rows) == DATASETS
    found = [row['Metrics']['Top 1 Accuracy'] for row in rows]
    assert found == pytest.approx([100 * value for value in zero_shot], abs=1e-9)
    assert round(model['Metadata']['Parameters'] / 1e6, 1) == params
    assert round(2 * model['Metadata']['FLOPs'] / 1e9) == gflops
    assert 'Results' not in MODELS[headless(SHORT[short])]


@pytest.mark.parametrize('short', SHORT)
def test_retrieval(short):
    rows = [row for row in MODELS[SHORT[short]]['Results'] if row['Task'] == 'Image-Text Retrieval']
    assert [row['Dataset'] for row in rows] == ['Flickr30k', 'COCO']
    found = [
        tuple(row['Metrics'][f'{way} R@{at}'] for at in (1, 5, 10))
        for row in rows
        for way in ('Text-to-Image', 'Image-to-Text')
    ]
    assert tuple(found) == RETRIEVAL[short]


def test_the_page_shows_them():
    page = generate_model_zoo.render_tables(list(MODELS.values()), '../../', '###')
    assert '| 74.72 (74.7) | 67.01 | 57.71 | 53.96 | 82.44 | 62.14 |' in page
    assert '| 50.4 / 74.3 / 82.2 (74.7) | 67.5 / 87.4 / 92.6 |' in page
    titles = [line for line in page.splitlines() if line.startswith('###')]
    assert titles == [
        '### Image-text pairs, zero-shot classification',
        '### Image-text pairs, retrieval',
        '### Image towers alone',
    ]
