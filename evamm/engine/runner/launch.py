"""What the training and the testing tool share: from arguments to a runner."""

import argparse
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
import torch.distributed
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from evamm.checkpoints import CheckpointError
from evamm.datasets.checks import DataError
from evamm.datasets.feature_cache import FeatureCacheError
from evamm.datasets.samplers.damaged_images import DamagedDataError

from ..errors import ConfigError
from . import config_checks
from .explain import explain, message_of, own_words
from .preflight import DatasetNotFoundError, WeightsNotFoundError


class UsageError(ConfigError):
    """Something that was asked for on the command line cannot be done."""


# Exceptions whose text is a sentence for the user
SENTENCES = (
    CheckpointError,
    ConfigError,
    DamagedDataError,
    DataError,
    DatasetNotFoundError,
    FeatureCacheError,
    WeightsNotFoundError,
)


class _Settings(DictAction):
    """KEY=VALUE pairs; says which one is none."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: list[str],
        option_string: str | None = None,
    ) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} {value}: expected KEY=VALUE, such as a.b=1')
        try:
            super().__call__(parser, namespace, values, option_string)
        except RecursionError:  # mmengine's parser knows lists and tuples only
            parser.error(
                f'{option_string}: a dict cannot be given here; name every key: a.b=1 a.c=2'
            )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every OpenMMLab tool that runs a config."""
    parser.add_argument('--work-dir', help='folder for logs, results and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Settings,
        metavar='KEY=VALUE',
        help='override settings of the config: a.b=1 a.c="[x,y]" (no spaces inside a value)',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument(
        '--no-pin-memory', action='store_true', help='switch pin_memory off in all data loaders'
    )
    # torch.distributed.launch passes it; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(path: str, args: argparse.Namespace) -> Config:
    """Read a config; apply ``--cfg-options``, set the launcher and the work folder.

    The folder is, in this order: ``--work-dir``, ``work_dir`` of the config,
    ``./work_dirs/<name of the config>``.

    Raises:
        UsageError: There is no such file, it is no config, or an option does not fit it.
    """
    if not Path(path).is_file():
        raise UsageError(f'config {path} does not exist (looked for {Path(path).absolute()}).')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    _check_launcher(args.launcher)
    options = args.cfg_options or {}
    try:
        cfg = Config.fromfile(path)
        warnings = list(config_checks.option_warnings(cfg, options))
        cfg.merge_from_dict(options)
    except RecursionError as error:
        raise UsageError(f'config {path} cannot be used: its _base_ leads back to it.') from error
    except Exception as error:  # a config is Python: anything can go wrong in it
        raise UsageError(
            f'config {path} cannot be used: {type(error).__name__}: {message_of(error)}'
        ) from error
    if 'model' not in cfg:
        raise UsageError(f'config {path} has no model: it is not a config of a run.')
    for warning in warnings:
        config_checks.warn(warning)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    config_checks.check_config(cfg)
    return cfg


def _check_launcher(launcher: str) -> None:
    if launcher != 'pytorch':
        return
    if 'RANK' not in os.environ:
        raise UsageError(
            '--launcher pytorch is for processes that torchrun has started; use '
            'tools/dist_train.sh CONFIG GPUS (dist_test.sh to test), or leave the option out.'
        )
    wanted, found = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
    if torch.cuda.is_available() and wanted > found:
        raise UsageError(
            f'{wanted} processes were started on this machine, which has {found} GPU(s): ask for '
            f'{found}, and keep the total batch with optim_wrapper.accumulative_counts.'
        )


def set_loader_defaults(cfg: Config, keys: tuple[str, ...], **forced: bool) -> None:
    """Fill in what OpenMMLab tools add to every data loader; ``forced`` values win."""
    for key in keys:
        if cfg.get(key) is None:
            continue
        loader = ConfigDict(pin_memory=True, persistent_workers=True)
        if cfg.get('default_scope') == 'mmpretrain':
            loader.collate_fn = {'type': 'default_collate'}
        loader.update(deepcopy(cfg[key]))
        loader.update(forced)
        # torch refuses or warns about what cannot be done here.
        loader.pin_memory = loader.pin_memory and torch.cuda.is_available()
        loader.persistent_workers = loader.persistent_workers and loader.get('num_workers', 0) > 0
        cfg[key] = loader


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: its ``runner_type``, else mmengine's."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def run_tool(main: Callable[[], None]) -> int:
    """Run a tool; turn mistakes a user can mend into one sentence instead of a traceback.

    The environment variable ``EVAMM_TRACEBACK=1`` shows the traceback too.

    Returns:
        Exit status of the process.
    """
    try:
        main()
    except Exception as error:
        sentence = own_words(error) if isinstance(error, SENTENCES) else explain(error)
        if sentence is None or os.environ.get('EVAMM_TRACEBACK'):
            raise
        print(f'error: {sentence}', file=sys.stderr)
        return 1
    leave_process_group()
    return 0


def leave_process_group() -> None:
    """End the communication of a finished run, whose threads would outlive the interpreter.

    One that asks for Python's lock while Python shuts down ends the process with an abort
    ("terminate called without an active exception"): all is done, and torchrun reports a failure.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
