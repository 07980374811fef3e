"""One model, loaded once, on several test sets: what the tools that print tables share."""

from collections.abc import Callable, Iterable
from copy import deepcopy

from mmengine.config import Config
from mmengine.runner import Runner, TestLoop

from . import launch


def merge_test_set(cfg: Config, base: Config) -> Config:
    """The model and the test pipeline of a config, with the images and the metric of a base."""
    merged = deepcopy(cfg)
    pipeline = merged.test_dataloader.dataset.pipeline
    merged.test_dataloader.dataset = deepcopy(base.test_dataloader.dataset)
    merged.test_dataloader.dataset.pipeline = pipeline
    merged.test_evaluator = deepcopy(base.test_evaluator)
    return merged


def parse_folders(items: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Read ``--path SET=FOLDER ...``.

    Raises:
        UsageError: No such set, or no folder.
    """
    names, folders = list(names), {}
    for item in items:
        name, _, folder = item.partition('=')
        if name not in names or not folder:
            raise launch.UsageError(
                f'--path {item}: expected SET=FOLDER with SET one of {", ".join(names)}.'
            )
        folders[name] = folder
    return folders


def build_loop(runner: Runner, cfg: Config, *, amp: bool) -> TestLoop:
    """Build the data and the metrics of one set.

    Raises:
        UsageError: What the data set or the metric says about wrong files.
    """
    launch.set_loader_defaults(cfg, ('test_dataloader',))
    try:
        return TestLoop(runner, cfg.test_dataloader, cfg.test_evaluator, fp16=amp)
    except (FileNotFoundError, ValueError) as error:
        # What the data sets and metrics say about wrong files is meant for the user as it is.
        raise launch.UsageError(str(error.__cause__ or error)) from error


def run_test_sets(
    configs: dict[str, Config],
    titles: dict[str, str],
    *,
    amp: bool = False,
    prepare: Callable[[Runner, str], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Test on every set; all of them are opened before the first one is run.

    Args:
        configs: Config of each set; they differ in the test set and the metric only.
        titles: What the log calls a set.
        amp: Test in half precision, on CUDA only.
        prepare: Called with the runner and the name before each set.

    Returns:
        What the metrics gave for each set.
    """
    first = next(iter(configs.values()))
    launch.set_loader_defaults(first, ('test_dataloader',))
    runner = launch.build_runner(first)
    loops = {name: build_loop(runner, config, amp=amp) for name, config in configs.items()}
    results = {}
    for name, loop in loops.items():
        runner.logger.info(f'{titles.get(name, name)}: {len(loop.dataloader.dataset)} images')
        runner._test_loop = loop  # the model is loaded once and serves all sets
        if prepare is not None:
            prepare(runner, name)
        results[name] = runner.test()
    return results
