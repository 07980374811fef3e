"""Losses reach the log without stopping the device in every iteration."""

from mmengine.hooks import RuntimeInfoHook as _RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from evamm.registry import HOOKS

from .log_schedule import will_log


@HOOKS.register_module()
class RuntimeInfoHook(_RuntimeInfoHook):
    """mmengine's hook, but losses are read from the device when they are logged or saved.

    mmengine reads every loss in every iteration and so waits for the device each time, which costs
    small models much of their speed. The history holds the same values in the same order.

    Use it as ``default_hooks = dict(runtime_info=dict(type='evamm.RuntimeInfoHook'))``.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[str, object]] = []

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Keep the outputs; hand all of them on if this iteration is logged."""
        for name, value in (outputs or {}).items():
            # A copy: a later iteration may write into the same memory (CUDA graphs).
            value = value.detach().clone() if isinstance(value, Tensor) else value
            self._pending.append((f'train/{name}', value))
        if will_log(runner, batch_idx):
            self._flush(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The history of a checkpoint is complete."""
        self._flush(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """So is the history at the end of an epoch."""
        self._flush(runner)

    def after_train(self, runner: Runner) -> None:
        """And at the end of the run."""
        self._flush(runner)
        super().after_train(runner)

    def _flush(self, runner: Runner) -> None:
        for name, value in self._pending:
            runner.message_hub.update_scalar(name, value)
        self._pending.clear()
