"""Check every metafile against the models it describes, and the pages made from it.

Usage: python tools/analysis_tools/check_metafile.py [--write]

Held to be true: model-index.yml lists every metafile; names and aliases are unique; each config
exists, parses and builds (on the meta device) a model of exactly `Parameters` parameters and
`FLOPs`; the tables in README.md and docs/en/model_zoo.md are those of the metafiles (--write
makes them so).

Fields of an entry beyond mmpretrain's: `Alias` other names that `get_model` takes; `Official` the
authors' figure and whether it is of their averaged weights; `Published` size and cost as printed
in the table that the name comes from; `Pretraining Config` the recipe that makes a trunk;
`Training Config` that of a detector whose `Config` only evaluates; `Mask Config` the evaluation
that gives the mask AP, where `Config` gives the box AP; `Reproduced` whether a training log of ours
shows the figure.
"""

import argparse
import sys
from pathlib import Path

import torch
from generate_model_zoo import ROOT, load_metafiles, render_pages

from evamm.registry import MODELS  # isort: skip  (first: it makes the libraries importable)
from mmengine.config import Config
from mmengine.registry import DefaultScope

from evamm.models.clip_variants import CLIPArch
from evamm.models.detector_flops import count_detector_macs
from evamm.models.flops import count_clip_macs, count_table_macs

REQUIRED = ('Alias', 'Metadata', 'In Collection', 'Reproduced', 'Weights', 'Config')


def build_on_meta(cfg: Config) -> torch.nn.Module:
    """The model of a config, without memory for its weights."""
    model = cfg.model.copy()
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(model)


def _check_model(model: dict, cfg: Config) -> list[str]:
    metadata = model['Metadata']
    built = build_on_meta(cfg)
    expected = {'Parameters': sum(parameter.numel() for parameter in built.parameters())}
    backbone = cfg.model.get('backbone', {})
    img_size = backbone.get('img_size', 224)
    if cfg.model.type == 'evamm.EVACLIP':
        pair = CLIPArch(backbone['arch'], img_size, cfg.model.text['arch'], cfg.model['embed_dims'])
        expected |= {'Image Size': img_size, 'FLOPs': count_clip_macs(pair)}
    elif 'roi_head' in cfg.model:
        size = cfg.model.data_preprocessor['pad_size']
        macs = sum(count_detector_macs(built, size).values())
        expected |= {'Image Size': size, 'FLOPs': macs}
    elif backbone.get('type') == 'evamm.EVAViT':
        expected['Image Size'] = img_size
        expected['FLOPs'] = count_table_macs(backbone['arch'], img_size, backbone.get('patch_size'))
    return [
        f'Metadata.{key} is {metadata.get(key)}, the model has {value}'
        for key, value in expected.items()
        if metadata.get(key) != value
    ]


def check_entry(model: dict, collections: set[str], root: Path) -> list[str]:
    """What is wrong with one entry; empty if nothing is."""
    missing = [key for key in REQUIRED if key not in model]
    if missing:
        return [f'lacks {", ".join(missing)}']
    problems = []
    if model['In Collection'] not in collections:
        problems.append(f'In Collection names no collection: {model["In Collection"]}')
    if not model['Weights'].startswith('https://') or '/blob/' in model['Weights']:
        problems.append(f'Weights must be the address of the file itself: {model["Weights"]}')
    if 'Results' in model and 'Official' not in model:
        problems.append('has Results but no Official figure')
    published = model.get('Published', {}).get('Flops (G)')
    ours = f'{model["Metadata"]["FLOPs"] / 1e9:.2f}'
    if published is not None and f'{published:.2f}' != ours:
        problems.append(f'Published Flops (G) {published} is not {ours}')
    for key in ('Config', 'Pretraining Config', 'Mask Config', 'Training Config'):
        if key in model and not (root / model[key]).is_file():
            return [*problems, f'{key} does not exist: {model[key]}']
    config = root / model['Config']
    return problems + _check_model(model, Config.fromfile(config))


def check(root: Path = ROOT) -> list[str]:
    """All problems of the metafiles below `root`, one line each; the pages are not looked at."""
    metafiles = load_metafiles(root)
    on_disk = {path.relative_to(root) for path in root.glob('configs/*/metafile.yml')}
    problems = [
        f'model-index.yml does not import {path}' for path in sorted(on_disk - set(metafiles))
    ]
    owners: dict[str, str] = {}
    for path, content in metafiles.items():
        collections = {collection['Name'] for collection in content['Collections']}
        for model in content['Models']:
            for name in (model['Name'], *model.get('Alias', [])):
                if name.lower() in owners:
                    problems.append(
                        f'{path}: {model["Name"]}: {name} is a name of {owners[name.lower()]}'
                    )
                owners[name.lower()] = model['Name']
            problems += [
                f'{path}: {model["Name"]}: {problem}'
                for problem in check_entry(model, collections, root)
            ]
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--write', action='store_true', help='write the README and docs tables')
    args = parser.parse_args()
    problems = check()
    for path, text in render_pages().items():
        target = ROOT / path
        if target.is_file() and target.read_text(encoding='utf-8') == text:
            continue
        if args.write:
            target.write_text(text, encoding='utf-8')
            print(f'wrote {path}')
        else:
            problems.append(f'{path} is not up to date; run this tool with --write')
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f'{len(problems)} problems')
    return min(len(problems), 1)


if __name__ == '__main__':
    sys.exit(main())
