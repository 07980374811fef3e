"""Exponential moving average of the weights, as timm's ModelEma in the official runs."""

import copy
import logging

import torch
from mmengine.hooks import EMAHook as _EMAHook
from mmengine.logging import print_log
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import nn

from evamm.registry import HOOKS, MODELS

from ..errors import ConfigError
from ..strategies.sharding import copy_parameters, is_sharded


@MODELS.register_module()
class ForeachEMA(BaseAveragedModel):
    """``ema += momentum * (weights - ema)`` for all parameters in a few fused calls.

    Buffers are copied. The average starts from the weights at the time of :meth:`restart`, and
    every update mixes (mmengine's own averages overwrite at the first one).

    Args:
        model: Model to average.
        momentum: Share of the new weights, 1 - decay: 1e-4 for the official decay of 0.9999.
        interval: Optimizer steps between two updates.
    """

    def __init__(self, model: nn.Module, momentum: float = 1e-4, interval: int = 1) -> None:
        if not 0 < momentum < 1:
            raise ConfigError(
                f'EMAHook: momentum must be in (0, 1), found {momentum}. It is 1 - decay: 1e-4 '
                'for a decay of 0.9999.'
            )
        source = copy_parameters(model) if is_sharded(model) else model
        super().__init__(source, interval=interval, update_buffers=False)
        self.momentum = momentum

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Start over from the weights of ``model``."""
        self.module.load_state_dict(model.state_dict())
        self.steps.zero_()

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Mix in the current weights of ``model``."""
        self.steps += 1
        for averaged, current in zip(self.module.buffers(), model.buffers(), strict=True):
            averaged.copy_(current)
        if self.steps % self.interval == 0:
            torch._foreach_lerp_(
                list(self.module.parameters()),
                [param.detach() for param in model.parameters()],
                self.momentum,
            )

    def avg_func(
        self, averaged_param: torch.Tensor, source_param: torch.Tensor, steps: int
    ) -> None:
        """One parameter of the update (the interface of the base class)."""
        averaged_param.lerp_(source_param, self.momentum)


@HOOKS.register_module()
class EMAHook(_EMAHook):
    """Average the weights after every optimizer step and evaluate the average.

    Checkpoints keep mmengine's layout: ``state_dict`` holds the averaged weights, which is what
    every tool loads, and ``ema_state_dict`` the raw ones, which training resumes from.

    Args:
        momentum: Share of the new weights in each update, 1 - decay. The official decay 0.9999 is
            momentum 1e-4.
        interval: Optimizer steps between two updates.
        begin_iter: Iteration at which averaging begins; the average equals the weights before.
        begin_epoch: The same in epochs; give one of the two.
        evaluate_on_ema: Validate the average. Its metrics are the run's metrics.
        evaluate_on_origin: Validate the raw weights; beside the average their metrics get the
            suffix ``_origin``.

    Raises:
        ConfigError: Nothing to evaluate, or a momentum outside (0, 1).
    """

    def __init__(
        self,
        momentum: float = 1e-4,
        interval: int = 1,
        begin_iter: int = 0,
        begin_epoch: int = 0,
        evaluate_on_ema: bool = True,
        evaluate_on_origin: bool = False,
    ) -> None:
        if not (evaluate_on_ema or evaluate_on_origin):
            raise ConfigError('EMAHook: set evaluate_on_ema or evaluate_on_origin, or both.')
        super().__init__(
            ema_type='evamm.ForeachEMA',
            strict_load=True,
            begin_iter=begin_iter,
            begin_epoch=begin_epoch,
            momentum=momentum,
            interval=interval,
        )
        self.evaluate_on_ema = evaluate_on_ema
        self.evaluate_on_origin = evaluate_on_origin
        self.ema_model = None
        self._resumed = False

    def before_run(self, runner: Runner) -> None:
        """Make the average, in training only: testing uses the weights that were loaded."""
        if isinstance(runner._train_loop, BaseLoop):
            super().before_run(runner)

    def before_train(self, runner: Runner) -> None:
        """Start from the initial or loaded weights, unless an average was resumed."""
        super().before_train(runner)
        if not self._resumed:
            self.ema_model.restart(self.src_model)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Update, if the weights were."""
        # OptimWrapperDict (several optimizers) cannot say; its members step in every iteration.
        should_update = getattr(runner.optim_wrapper, 'should_update', lambda: True)
        try:
            stepped = should_update()
        except NotImplementedError:
            stepped = True
        if not stepped:
            return
        if self._ema_started(runner):
            self.ema_model.update_parameters(self.src_model)
        else:
            self.ema_model.restart(self.src_model)

    def before_val_epoch(self, runner: Runner) -> None:
        """Put the averaged weights into the model."""
        if self.ema_model is not None and self.evaluate_on_ema:
            self._swap_ema_parameters()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put the raw weights back and evaluate them too, if asked to."""
        if self.ema_model is None or not self.evaluate_on_ema:
            return
        self._swap_ema_parameters()
        if self.evaluate_on_origin and metrics is not None:
            for name, value in self._evaluate(runner).items():
                metrics[f'{name}_origin'] = value
                runner.message_hub.update_scalar(f'val/{name}_origin', value)

    @staticmethod
    def _evaluate(runner: Runner) -> dict[str, float]:
        loop = runner.val_loop
        runner.model.eval()
        for index, data_batch in enumerate(loop.dataloader):
            loop.run_iter(index, data_batch)
        return loop.evaluator.evaluate(len(loop.dataloader.dataset))

    def before_test_epoch(self, runner: Runner) -> None:
        """Leave the model as it was loaded."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Leave the model as it was loaded."""

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the average as ``state_dict`` and the raw weights as ``ema_state_dict``."""
        checkpoint['ema_state_dict'] = copy.copy(self.ema_model.state_dict())
        self._swap_ema_state_dict(checkpoint)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """On resume, take the average and hand the raw weights on to the model."""
        if not runner._resume or self.ema_model is None:
            return
        if 'ema_state_dict' not in checkpoint:
            print_log(
                'The checkpoint has no moving average of the weights; averaging starts over from '
                'its weights.',
                logger='current',
                level=logging.WARNING,
            )
            return
        self._swap_ema_state_dict(checkpoint)
        self.ema_model.load_state_dict(checkpoint['ema_state_dict'])
        self._resumed = True
