"""The model hears what the data set says about itself."""

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from evamm.registry import HOOKS

from ..runner.training_state import bare_model


@HOOKS.register_module()
class DatasetMetaHook(Hook):
    """Set `dataset_meta` of the model before a data set is evaluated.

    A zero-shot classifier takes the names of its classes from there. `EVARunner` registers this
    hook by itself.
    """

    priority = 'NORMAL'

    def before_val_epoch(self, runner: Runner) -> None:
        _tell(bare_model(runner), runner.val_loop.dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        _tell(bare_model(runner), runner.test_loop.dataloader.dataset)


def _tell(model: nn.Module, dataset: object) -> None:
    while model is not None:
        model.dataset_meta = dict(getattr(dataset, 'metainfo', None) or {})
        model = getattr(model, 'module', None)  # inside test-time augmentation
