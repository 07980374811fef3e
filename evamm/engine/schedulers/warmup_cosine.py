"""The learning-rate curve of every official EVA recipe, in closed form."""

import math

from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType

from evamm.registry import PARAM_SCHEDULERS

from ..errors import ConfigError
from .optimizer_steps import OptimizerStepLR


def warmup_cosine(
    step: int,
    *,
    total_steps: int,
    warmup_steps: int,
    peak: float,
    eta_min: float,
    from_zero: bool = True,
) -> float:
    """Value of the official schedule at one optimizer step.

    A line from 0 to ``peak`` that includes both ends, so that step 0 has value 0 and the steps
    ``warmup_steps - 1`` and ``warmup_steps`` both have the peak; then a half cosine over the
    remaining steps that ends one step before it would reach ``eta_min``. Source: ``utils.py``
    (``cosine_scheduler``) of EVA-01 and EVA-02. Without ``from_zero`` step 0 has the value
    ``peak / warmup_steps`` (``rei/training/scheduler.py`` of EVA-CLIP).
    """
    if step < warmup_steps and not from_zero:
        return peak * (step + 1) / warmup_steps
    if step < warmup_steps:
        return peak * step / (warmup_steps - 1) if warmup_steps > 1 else 0.0
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    return eta_min + 0.5 * (peak - eta_min) * (1 + math.cos(math.pi * progress))


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(OptimizerStepLR):
    """Linear warm-up from 0, then cosine: one value per optimizer step, in closed form.

    mmengine steps its schedulers once per iteration, also while gradients are being accumulated.
    This one counts optimizer steps: it reads the accumulation count from the optimizer wrapper and
    holds the value during a window, so every optimizer step has exactly the official rate.

    A group's peak is its initial ``lr`` (layer decay included), its floor ``eta_min * lr_scale``:
    the official "schedule value x lr_scale" for every group. On resume the checkpoint says how far
    the run has come and the config what the curve looks like, so that a later ``end`` continues on
    the longer curve.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup: Length of the warm-up, in epochs if ``by_epoch``, else in iterations. A run that is
            shorter ends on its way up.
        eta_min: Value the cosine falls towards, for a group with ``lr_scale`` 1.
        begin: First epoch or iteration of the schedule.
        end: Epoch or iteration after the last one; the runner fills in the end of the training.
        by_epoch: Whether ``warmup``, ``begin`` and ``end`` are epochs. Needs
            ``convert_to_iter_based=True`` beside it in the config, because the value changes with
            every optimizer step.

    Raises:
        ConfigError: Epochs without ``convert_to_iter_based``, or a negative warm-up.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup: float = 0,
        eta_min: float = 0.0,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = True,
        from_zero: bool = True,
    ) -> None:
        if by_epoch:
            raise ConfigError(
                'WarmupCosineLR changes with every optimizer step: add '
                'convert_to_iter_based=True to it in param_scheduler, or give its warmup, begin '
                'and end in iterations with by_epoch=False.'
            )
        if warmup < 0:
            raise ConfigError(f'param_scheduler.warmup must be 0 or more, found {warmup:g}.')
        self.warmup = int(warmup)
        self.eta_min = eta_min
        self.from_zero = from_zero
        super().__init__(optimizer, param_name='lr', begin=begin, end=end, by_epoch=False)

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: OptimizerType,
        epoch_length: int,
        warmup: float = 0,
        eta_min: float = 0.0,
        begin: float = 0,
        end: float = INF,
        by_epoch: bool = True,
        from_zero: bool = True,
    ) -> 'WarmupCosineLR':
        """Build from epochs; ``epoch_length`` is the number of iterations of one.

        mmengine calls this for ``convert_to_iter_based=True``.
        """
        return cls(
            optimizer,
            warmup=round(warmup * epoch_length),
            eta_min=eta_min,
            begin=round(begin * epoch_length),
            end=end if end == INF else round(end * epoch_length),
            by_epoch=False,
            from_zero=from_zero,
        )

    def _get_value(self) -> list[float]:
        return [
            warmup_cosine(
                self.optimizer_step,
                total_steps=self.total_steps,
                warmup_steps=self.warmup // self.accumulation,
                peak=base_value,
                eta_min=self.eta_min * group.get('lr_scale', 1.0),
                from_zero=self.from_zero,
            )
            for base_value, group in zip(self.base_values, self.optimizer.param_groups, strict=True)
        ]
