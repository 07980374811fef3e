"""The learning-rate curve of the official detection recipes, in closed form."""

import itertools
from collections.abc import Sequence

from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import INF, OptimizerType

from evamm.registry import PARAM_SCHEDULERS

from ..errors import ConfigError
from .optimizer_steps import OptimizerStepLR


def warmup_multistep(
    step: int,
    *,
    warmup_steps: int,
    warmup_factor: float,
    milestones: Sequence[int],
    gamma: float = 0.1,
) -> float:
    """Share of the peak rate at one optimizer step.

    A line from ``warmup_factor`` at step 0 to 1 at step ``warmup_steps``; then a factor of
    ``gamma`` from every milestone on. Without milestones the rate stays. Source:
    ``det/detectron2/solver/lr_scheduler.py`` of EVA-01 and EVA-02 (``WarmupParamScheduler`` over
    ``MultiStepParamScheduler``).
    """
    if step < warmup_steps:
        return warmup_factor + (1 - warmup_factor) * step / warmup_steps
    return gamma ** sum(milestone <= step for milestone in milestones)


@PARAM_SCHEDULERS.register_module()
class WarmupMultiStepLR(OptimizerStepLR):
    """Linear warm-up, then constant with drops: one value per optimizer step, in closed form.

    ``warmup_steps`` and ``milestones`` count optimizer steps, as the recipes do. With gradient
    accumulation only the length of the run is another one: ``train_cfg.max_iters`` counts
    iterations and is ``accumulative_counts`` times as large.

    Args:
        optimizer: Optimizer or optimizer wrapper.
        warmup_steps: Optimizer steps until the peak.
        warmup_factor: Share of the peak rate at the first step.
        milestones: Optimizer steps at which the rate is multiplied by ``gamma``; none: constant.
        gamma: Factor of a drop.
        begin: First iteration of the schedule.
        end: Iteration after the last one; the runner fills in the end of the training.
        by_epoch: Only False: steps are counted.

    Raises:
        ConfigError: Epochs, a negative warm-up, milestones that do not rise or lie in the warm-up.
    """

    def __init__(
        self,
        optimizer: OptimizerType,
        warmup_steps: int = 0,
        warmup_factor: float = 0.001,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
        begin: int = 0,
        end: int = INF,
        by_epoch: bool = False,
    ) -> None:
        if by_epoch:
            raise ConfigError('WarmupMultiStepLR counts optimizer steps: set by_epoch=False.')
        if warmup_steps < 0:
            raise ConfigError(
                f'param_scheduler.warmup_steps must be 0 or more, found {warmup_steps}.'
            )
        if any(a >= b for a, b in itertools.pairwise((warmup_steps, *milestones))):
            raise ConfigError(
                'param_scheduler.milestones must rise and lie after the warm-up of '
                f'{warmup_steps} steps, found {list(milestones)}.'
            )
        self.warmup_steps = warmup_steps
        self.warmup_factor = warmup_factor
        self.milestones = tuple(milestones)
        self.gamma = gamma
        super().__init__(optimizer, param_name='lr', begin=begin, end=end, by_epoch=False)
        if milestones and milestones[-1] >= self.total_steps:
            print_log(
                f'param_scheduler.milestones {list(milestones)}: the run ends after '
                f'{self.total_steps} optimizer steps ({end - begin} iterations, '
                f'{self.accumulation} accumulated). If it should be the whole recipe, raise '
                'train_cfg.max_iters.',
                'current',
            )

    def _get_value(self) -> list[float]:
        share = warmup_multistep(
            self.optimizer_step,
            warmup_steps=self.warmup_steps,
            warmup_factor=self.warmup_factor,
            milestones=self.milestones,
            gamma=self.gamma,
        )
        return [base_value * share for base_value in self.base_values]
