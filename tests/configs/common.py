"""Where the configs are, and a model of a config without memory for its weights."""

from copy import deepcopy
from functools import cache
from pathlib import Path

import torch

from evamm.registry import MODELS  # isort: skip  (first: it makes the libraries importable)
from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
ALL = sorted(CONFIGS.rglob('*.py'))
FINAL = [path for path in ALL if '_base_' not in path.parts]


def name_of(path: Path) -> str:
    return path.relative_to(CONFIGS).with_suffix('').as_posix()


@cache
def _read(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """A config of one's own: each is read once, and a test may change it."""
    return deepcopy(_read(path))


def build_on_meta(cfg: Config) -> torch.nn.Module:
    model = cfg.model.copy()
    model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(model)
