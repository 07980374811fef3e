"""Write the model tables of configs/*/README.md and docs/en/model_zoo.md from the metafiles.

Usage: python tools/analysis_tools/generate_model_zoo.py

The metafiles are the only home of figures; a README holds two marker lines and everything between
them is replaced. `check_metafile.py` says whether the committed pages are up to date.
"""

import argparse
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BEGIN = '<!-- tables of metafile.yml: begin (generated, do not edit) -->'
END = '<!-- tables of metafile.yml: end -->'
ZOO = Path('docs/en/model_zoo.md')

NOTES = """\
- **We have reproduced none of the figures**: the weights and the figures are the authors'. A model
  that we train ourselves will say so here.
- *Params*: of our model, counted when it is built. In brackets, where it differs: the table that
  the model's name comes from. That table counts a bias on k (always zero, not stored here) and, for
  trunks, leaves the last LayerNorm out; 85.37 is a misprint for 85.77.
- *Flops*: multiply-accumulates of the trunk plus 5 per normalised element, as in mmpretrain's
  tables. `tools/analysis_tools/get_flops.py` prints the other conventions.
- *Top-1*, *Top-5*: of the table that the model's name comes from (EVA-02: mmpretrain's conversion,
  which took the trained weights; EVA-L: timm's evaluation; EVA-01-g: the authors').
- *Official*: top-1 / top-5 of the authors' README or log, with the averaged weights (EMA) or the
  trained ones (raw). A file may hold both: `evamm.get_model` and `tools/test.py` know a released
  file by its name and take the weights that the figure belongs to.
"""

CLIP_NOTES = """\
- *Flops* of a pair: multiply-accumulates of one image and one text of 77 tokens; twice that is the
  figure in OpenCLIP's table.
- *Zero-shot* top-1 (%) and *retrieval* recall at 1 / 5 / 10 (%): OpenCLIP's evaluation of the
  authors' files. *Official* in brackets: the authors' top-1 on ImageNet-1K, and their recall at 5
  of images by texts on COCO.
"""

DET_NOTES = """\
- **We have reproduced none of the figures**: the weights and the figures are the authors'.
- *Params*: of our model, counted when it is built; equal to the official model's.
- *Flops*: multiply-accumulates for one image of the size that it is tested at, with 1000 proposals
  and 100 masks.
- *Box AP*, *mask AP* (%): the authors', measured as `tools/test.py` does with the config beside it
  and their file, on COCO val2017 or LVIS v1 val. In brackets on LVIS: rare / common / frequent
  classes. Where the mask AP has a config of its own (*masks*), the authors measured both apart:
  with maskness (scores times the mean of the mask probabilities above 0.5) and without.
- *Official*: box / mask AP in the table of the authors' README, and whether it is of the averaged
  weights (EMA). Two files of one training: one for boxes, a later one for masks.
"""

ZOO_HEAD = """\
# Model zoo

<!-- Generated from configs/*/metafile.yml by tools/analysis_tools/generate_model_zoo.py. -->

Every name works in `evamm.get_model`, `evamm.list_models` and `evamm.inference_model`, and in the
functions of the same names of mmpretrain. So do the other names in the last tables: those of the
authors' files and of timm.

"""


def load_metafiles(root: Path = ROOT) -> dict[Path, dict]:
    """The metafiles that model-index.yml imports, by their path below `root`."""
    index = yaml.safe_load((root / 'model-index.yml').read_text(encoding='utf-8'))
    paths = [Path(path) for path in index['Import']]
    return {path: yaml.safe_load((root / path).read_text(encoding='utf-8')) for path in paths}


def _params(model: dict) -> str:
    ours = f'{model["Metadata"]["Parameters"] / 1e6:.2f}'
    published = model.get('Published', {}).get('Params (M)')
    published = ours if published is None else f'{published:.2f}'
    return ours if ours == published else f'{ours} ({published})'


def _accuracy(model: dict) -> list[str]:
    metrics = model['Results'][0]['Metrics']
    official = model['Official']
    weights = 'EMA' if official['Averaged Weights'] else 'raw'
    if 'Top 5 Accuracy' not in metrics:
        return [f'{metrics["Top 1 Accuracy"]:.2f}', '', f'{official["Top 1 Accuracy"]} ({weights})']
    return [
        f'{metrics["Top 1 Accuracy"]:.2f}',
        f'{metrics["Top 5 Accuracy"]:.2f}',
        f'{official["Top 1 Accuracy"]:.3f} / {official["Top 5 Accuracy"]:.3f} ({weights})',
    ]


def _row(model: dict, up: str, *, accuracy: bool) -> list[str]:
    cells = [
        f'`{model["Name"]}`',
        str(model['Metadata']['Image Size']),
        _params(model),
        f'{model["Metadata"]["FLOPs"] / 1e9:.2f}',
    ]
    if accuracy:
        cells += _accuracy(model)
    config = f'[config]({up}{model["Config"]})'
    if 'Pretraining Config' in model:
        config += f', [pre-training]({up}{model["Pretraining Config"]})'
    return [*cells, config, f'[model]({model["Weights"]})']


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


ZERO_SHOT, RETRIEVAL = 'Zero-Shot Image Classification', 'Image-Text Retrieval'


def _metrics(model: dict, task: str) -> dict[str, dict]:
    """Figures of one task by data set."""
    rows = [row for row in model.get('Results', []) if row['Task'] == task]
    return {row['Dataset']: row['Metrics'] for row in rows}


def _clip_tables(models: list[dict], up: str, heading: str) -> list[str]:
    """Tables of image-text pairs: zero-shot classification, retrieval."""
    datasets = list(_metrics(models[0], ZERO_SHOT))
    header = ['Model', 'Pixels', 'Params (M)', 'Flops (G)', *datasets, 'Config', 'Download']
    rows = []
    for model in models:
        figures = _metrics(model, ZERO_SHOT)
        cells = [f'{figures[dataset]["Top 1 Accuracy"]:.2f}' for dataset in datasets]
        cells[0] += f' ({model["Official"]["Top 1 Accuracy"]:.1f})'
        row = _row(model, up, accuracy=False)
        rows.append([*row[:4], *cells, *row[4:]])
    parts = [f'{heading} Image-text pairs, zero-shot classification', _table(header, rows)]

    datasets = list(_metrics(models[0], RETRIEVAL))
    ways = ('Text-to-Image', 'Image-to-Text')
    names = {'Text-to-Image': 'images by text', 'Image-to-Text': 'texts by image'}
    header = ['Model', *(f'{dataset}, {names[way]}' for dataset in datasets for way in ways)]
    rows = []
    for model in models:
        figures = _metrics(model, RETRIEVAL)
        cells = [
            ' / '.join(f'{figures[dataset][f"{way} R@{at}"]:.1f}' for at in (1, 5, 10))
            for dataset in datasets
            for way in ways
        ]
        official = model['Official']['COCO Text-to-Image R@5']
        cells[datasets.index('COCO') * 2] += f' ({official:.1f})'
        rows.append([f'`{model["Name"]}`', *cells])
    return [*parts, f'{heading} Image-text pairs, retrieval', _table(header, rows)]


BOXES, MASKS = 'Object Detection', 'Instance Segmentation'
DET_TITLES = {'coco': 'COCO', 'lvis': 'LVIS v1', 'o365': 'Objects365 v2, boxes only'}


def _is_detector(model: dict) -> bool:
    return model['Name'].startswith('cascade-')


def _average_precision(model: dict, task: str) -> str:
    figures = _metrics(model, task)
    if not figures:
        return ''
    ((_, metrics),) = figures.items()
    kind = 'box' if task == BOXES else 'mask'
    classes = [f'{metrics[key]:.2f}' for c in 'rcf' if (key := f'{kind} AP{c}') in metrics]
    return f'{metrics[f"{kind} AP"]:.2f}' + (f' ({" / ".join(classes)})' if classes else '')


def _det_table(models: list[dict], up: str) -> str:
    rated = 'Results' in models[0]
    header = ['Model', 'Pixels', 'Params (M)', 'Flops (G)']
    header += ['Box AP', 'Mask AP', 'Official'] if rated else []
    rows = []
    for model in models:
        name, pixels, params, flops, config, weights = _row(model, up, accuracy=False)
        if 'Mask Config' in model:
            config += f', [masks]({up}{model["Mask Config"]})'
        if 'Training Config' in model:
            config += f', [training]({up}{model["Training Config"]})'
        cells = [name, pixels, params, flops]
        if rated:
            official = model['Official']
            average = ' (EMA)' if official['Averaged Weights'] else ''
            cells += [_average_precision(model, task) for task in (BOXES, MASKS)]
            cells.append(f'{official["box AP"]} / {official["mask AP"]}{average}')
        rows.append([*cells, config, weights])
    return _table([*header, 'Config', 'Download'], rows)


def _group(model: dict) -> str:
    if _is_detector(model):
        data = model['Name'].rpartition('_')[2].partition('-')[0]
        return DET_TITLES[data]
    medft = '_in21k-medft_' in model['Name']
    if _metrics(model, ZERO_SHOT):
        return ZERO_SHOT
    if '-headless_' in model['Name']:
        return 'Image towers alone'
    if '_linear-probe_' in model['Name'] or '-linear-' in model['Name']:
        return 'ImageNet-1K, linear probing'
    if 'Results' not in model:
        return 'Fine-tuned on ImageNet-21K' if medft else 'Pre-trained trunks'
    step = 'with' if medft else 'without'
    return f'ImageNet-1K, {step} intermediate fine-tuning on ImageNet-21K'


def render_tables(models: list[dict], up: str, heading: str) -> str:
    """Markdown tables of one family.

    Args:
        models: `Models` of its metafile.
        up: Prefix that leads from the page to the root of the repository.
        heading: Marks of the headings, e.g. '###'.
    """
    groups: dict[str, list[dict]] = {}
    for model in models:
        groups.setdefault(_group(model), []).append(model)
    parts = []
    for title, members in groups.items():
        if title == ZERO_SHOT:
            parts += _clip_tables(members, up, heading)
            continue
        if _is_detector(members[0]):
            parts += [f'{heading} {title}', _det_table(members, up)]
            continue
        accuracy = 'Results' in members[0]
        header = ['Model', 'Pixels', 'Params (M)', 'Flops (G)']
        header += ['Top-1 (%)', 'Top-5 (%)', 'Official'] if accuracy else []
        header += ['Config', 'Download']
        rows = [_row(model, up, accuracy=accuracy) for model in members]
        parts += [f'{heading} {title}', _table(header, rows)]
    return '\n\n'.join(parts)


def _other_names(models: list[dict]) -> str:
    rows = [
        [f'`{model["Name"]}`', ', '.join(f'`{alias}`' for alias in model['Alias'])]
        for model in models
        if model['Alias']
    ]
    return _table(['Model', 'Other names'], rows) if rows else ''


def render_pages(root: Path = ROOT) -> dict[Path, str]:
    """Text of every generated page, by its path below `root`.

    Raises:
        ValueError: If a README lacks the marker lines.
    """
    pages, families, names = {}, [], []
    for content in load_metafiles(root).values():
        models, collection = content['Models'], content['Collections'][0]
        readme = Path(collection['README'])
        text = (root / readme).read_text(encoding='utf-8')
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            raise ValueError(f'{readme} must hold the lines "{BEGIN}" and "{END}" once each.')
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        tables = render_tables(models, '../../', '###')
        notes = NOTES + CLIP_NOTES if any(_metrics(m, ZERO_SHOT) for m in models) else NOTES
        if _is_detector(models[0]):
            notes = DET_NOTES
        pages[readme] = f'{before}{BEGIN}\n\n{tables}\n\n{notes}\n{END}{after}'
        paper = collection['Paper']
        families.append(
            f'## {collection["Name"]}\n\n[{paper["Title"]}]({paper["URL"]}), '
            f'[README](../../{readme.as_posix()})\n\n'
            + render_tables(models, '../../', '###')
            + (f'\n\n{DET_NOTES.rstrip()}' if _is_detector(models[0]) else '')
        )
        if other_names := _other_names(models):
            names.append(f'### {collection["Name"]}\n\n' + other_names)
    zoo = [ZOO_HEAD + NOTES + CLIP_NOTES.rstrip(), *families, '## Other names', *names]
    pages[ZOO] = '\n\n'.join(zoo) + '\n'
    return pages


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for path, text in render_pages().items():
        (ROOT / path).write_text(text, encoding='utf-8')
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
