"""Names and figures of the detectors, against the READMEs they come from."""

import pytest

from .common import ROOT
from .test_metafile import generate_model_zoo

MODELS = [
    model
    for path, content in generate_model_zoo.load_metafiles().items()
    if path.parts[1] in ('eva_det', 'eva02_det')
    for model in content['Models']
]
BY_FILE = {model['Alias'][0]: model for model in MODELS}
COCO = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
LVIS = (*COCO, 'APr', 'APc', 'APf')

# fmt: off
# Authors' file: end of the name, pixels of the test, averaged weights, iterations, and the numbers
# that their evaluation commands print for boxes and masks; with the table of the README.
FIGURES = {
    'eva02_B_coco_bsl': (
        'eva02-base-p16_in21k-pre_3rdparty_coco-1024px', 1024, False, 60_000, (55.5, 47.1),
        '55.5017,74.8972,60.2801,36.3313,60.9265,72.7190',
        '47.0794,71.8778,50.4881,25.9719,51.6530,67.5334'),
    'eva02_L_coco_bsl': (
        'eva02-large-p16_m38m-pre_3rdparty_coco-1024px', 1024, False, 60_000, (59.2, 50.8),
        '59.1550,78.6420,64.0970,41.9209,64.4478,75.3628',
        '50.7923,75.8581,55.2317,30.4149,55.2931,70.3713'),
    'eva02_B_lvis_bsl': (
        'eva02-base-p16_in21k-pre_3rdparty_lvis-1024px', 1024, False, 50_000, (47.1, 41.4),
        '47.1304,62.8418,49.3729,34.5095,58.6703,69.0790,36.3894,47.9805,50.9023',
        '41.3575,60.4043,44.2597,27.0808,54.2237,66.4821,32.2175,42.5939,43.9947'),
    'eva02_L_lvis_bsl': (
        'eva02-large-p16_in21k-pre_3rdparty_lvis-1024px', 1024, False, 40_000, (55.3, 48.6),
        '55.2866,71.9707,58.1774,41.9690,67.2664,74.6449,50.6344,56.7946,55.6481',
        '48.5964,69.3752,52.5725,33.2063,61.7856,71.2531,45.5442,50.2401,48.1034'),
    'eva02_B_coco_sys': (
        'eva02-base-p16_in21k-pre_3rdparty_coco-1536px', 1536, False, 60_000, (58.9, 50.7),
        '58.9331,77.8558,64.5855,42.1048,63.6015,74.3375',
        '50.6875,74.8027,55.4802,30.5407,54.2940,69.7923'),
    'eva02_L_coco_sys': (
        'eva02-large-p16_m38m-pre_3rdparty_coco-1536px', 1536, False, 60_000, (62.3, 53.8),
        '62.2848,80.8003,68.0974,45.8547,66.7479,78.0017',
        '53.8006,78.2082,59.0474,34.2192,57.6212,72.6909'),
    'eva02_L_lvis_sys': (
        'eva02-large-p16_in21k-pre_3rdparty_lvis-1536px', 1536, False, 40_000, (60.1, 53.5),
        '60.0506,74.5881,63.7702,48.6573,70.7069,77.6001,53.1295,61.7127,61.2374',
        '53.5098,72.7459,57.9503,40.0757,65.5123,73.5845,47.5871,55.2739,54.1442'),
    'eva02_L_m38m_to_o365': (
        'eva02-large-p16_m38m-pre_3rdparty_o365-1536px', 1536, None, 400_000, None, '', ''),
    'eva02_L_in21k_to_o365': (
        'eva02-large-p16_in21k-pre_3rdparty_o365-1536px', 1536, None, 400_000, None, '', ''),
    'eva02_L_coco_det_sys_o365': (
        'eva02-large-p16_m38m-pre_o365-medft_3rdparty_coco-det', 1536, True, 40_000, (64.1, 54.3),
        '64.1442,82.1375,70.2666,48.8727,68.5649,78.1375', ''),
    'eva02_L_coco_seg_sys_o365': (
        'eva02-large-p16_m38m-pre_o365-medft_3rdparty_coco-seg', 1536, True, 40_000, (63.9, 55.4),
        '', '55.3584,79.7107,61.4651,36.4061,59.0486,73.1774'),
    'eva02_L_lvis_sys_o365': (
        'eva02-large-p16_in21k-pre_o365-medft_3rdparty_lvis', 1536, True, 70_000, (65.2, 57.3),
        '65.2244,78.9298,68.9737,55.3842,75.1310,79.8346,59.7070,66.8476,65.8378',
        '57.3209,76.9294,62.1691,44.9472,68.7592,74.9193,52.4748,58.9491,57.6336'),
    'eva_o365': (
        'eva-giant-p16_m30m-pre_3rdparty_o365', 1280, None, 380_000, None, '', ''),
    'eva_coco_det': (
        'eva-giant-p16_m30m-pre_o365-medft_3rdparty_coco-det', 1536, False, 35_000, (64.2, 53.9),
        '64.164,81.897,70.561,49.485,68.088,77.651', ''),
    'eva_coco_seg': (
        'eva-giant-p16_m30m-pre_o365-medft_3rdparty_coco-seg', 1536, False, 45_000, (63.9, 55.0),
        '', '55.024,79.400,60.872,37.584,58.435,72.034'),
    'eva_lvis': (
        'eva-giant-p16_m30m-pre_o365-medft_3rdparty_lvis', 1536, False, 75_001, (62.2, 55.0),
        '62.169,76.198,65.364,54.086,71.103,77.228,55.149,62.242,65.172',
        '54.982,74.214,60.114,44.894,65.657,72.792,48.329,55.478,57.352'),
}
# fmt: on


def test_every_released_file_has_an_entry():
    assert set(BY_FILE) == set(FIGURES) and len(MODELS) == len(FIGURES)


@pytest.mark.parametrize('file', FIGURES)
def test_figures(file):
    name, pixels, averaged, iterations, table, boxes, masks = FIGURES[file]
    model = BY_FILE[file]
    prefix = 'cascade-rcnn_' if table is None else 'cascade-mask-rcnn_'
    assert model['Name'] == prefix + name
    folder = (
        'BAAI/EVA/resolve/main'
        if file.startswith('eva_')
        else 'Yuxin-CV/EVA-02/resolve/main/eva02/det'
    )
    assert model['Weights'] == f'https://huggingface.co/{folder}/{file}.pth'
    assert model['Reproduced'] is False
    assert (model['Metadata']['Image Size'], model['Metadata']['Iterations']) == (
        pixels,
        iterations,
    )
    official = model.get('Official')
    if table is None:
        assert official is None and 'Results' not in model
        return
    assert official == {'box AP': table[0], 'mask AP': table[1], 'Averaged Weights': averaged}
    found = {row['Task']: row for row in model['Results']}
    for task, kind, text in (
        ('Object Detection', 'box', boxes),
        ('Instance Segmentation', 'mask', masks),
    ):
        assert (task in found) == bool(text)
        if text:
            numbers = [float(number) for number in text.split(',')]
            keys = COCO if len(numbers) == 6 else LVIS
            assert found[task]['Dataset'] == ('COCO' if keys is COCO else 'LVIS v1')
            assert found[task]['Metrics'] == pytest.approx(
                {f'{kind} {key}': number for key, number in zip(keys, numbers, strict=True)},
                abs=0.005001,
            )


@pytest.mark.parametrize('file', FIGURES)
def test_the_head_of_the_config_says_the_same(file):
    model = BY_FILE[file]
    configs = [model[key] for key in ('Config', 'Mask Config') if key in model]
    for path in configs:
        text = (ROOT / path).read_text(encoding='utf-8')
        assert f'`{file}`' in text
    for row in model.get('Results', []):
        kind = 'box' if row['Task'] == 'Object Detection' else 'mask'
        text = f'{kind} AP {row["Metrics"][f"{kind} AP"]:.2f}'
        path = configs[-1] if kind == 'mask' else configs[0]
        assert text in (ROOT / path).read_text(encoding='utf-8')


def test_the_page_shows_them():
    page = generate_model_zoo.render_tables(MODELS, '../../', '###')
    titles = [line for line in page.splitlines() if line.startswith('###')]
    assert titles == ['### Objects365 v2, boxes only', '### COCO', '### LVIS v1']
    assert '| 64.14 |  | 64.1 / 54.3 (EMA) |' in page
    assert '| 65.22 (59.71 / 66.85 / 65.84) | 57.32 (52.47 / 58.95 / 57.63) |' in page
