"""Keeps the temperature of a contrastive model in its range."""

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from evamm.registry import HOOKS

from ..errors import ConfigError


@HOOKS.register_module()
class ClampLogitScaleHook(Hook):
    """Calls ``clamp_logit_scale()`` of the model after every step of the optimizer.

    :class:`evamm.EVACLIP` clamps before every forward pass of training by itself, so that training
    is the same with any runner. With this hook weights that are averaged, saved or evaluated are in
    the range, too.
    """

    # Before moving averages, checkpoints and validation see the weights.
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Find out whether the model has something to clamp."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not callable(getattr(model, 'clamp_logit_scale', None)):
            raise ConfigError(
                f'custom_hooks: ClampLogitScaleHook needs a model with clamp_logit_scale(), '
                f'{type(model).__name__} has none; remove the hook.'
            )
        self._clamp = model.clamp_logit_scale

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Clamp; nothing changes inside an accumulation window."""
        self._clamp()
