"""Learning-rate curves with one value per optimizer step."""

from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler


class OptimizerStepLR(_ParamScheduler):
    """Base of the curves: holds a value for a whole window of gradient accumulation.

    mmengine steps its schedulers once per iteration, also while gradients are being accumulated.
    These read the accumulation count from the optimizer wrapper. A subclass gives the values
    (``_get_value``). On resume the checkpoint says how far the run has come and the config what
    the curve looks like.
    """

    @property
    def accumulation(self) -> int:
        """Iterations per optimizer step."""
        if isinstance(self.optimizer, OptimWrapper):
            return self.optimizer._accumulative_counts
        return 1

    @property
    def optimizer_step(self) -> int:
        """Optimizer steps since ``begin``."""
        return (self._global_step - self.begin) // self.accumulation

    @property
    def total_steps(self) -> int:
        """Optimizer steps from ``begin`` to ``end``; the last window may be a short one."""
        return -(-(self.end - self.begin) // self.accumulation)

    def step(self) -> None:
        """Set the value of the next iteration in every group.

        Replaces mmengine's step, which warns when several iterations pass before the first
        optimizer step; with accumulation that is the normal course.
        """
        self._global_step += 1
        self._apply()

    def _apply(self) -> None:
        if self.begin <= self._global_step < self.end:
            self.last_step = self._global_step - self.begin
            for group, value in zip(self.optimizer.param_groups, self._get_value(), strict=True):
                group['lr'] = value
        self._last_value = [group['lr'] for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict) -> None:
        """Go on at the iteration and with the peak rates of a saved state."""
        self._global_step = state_dict['_global_step']
        self.base_values = list(state_dict['base_values'])
        if state_dict['end'] != self.end:
            print_log(
                f'The schedule of the resumed run ended at iteration {state_dict["end"]}, this one '
                f'ends at {self.end}: going on along this one.',
                'current',
            )
        self._apply()
