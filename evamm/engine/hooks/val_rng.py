"""Validation that leaves no trace in training."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from evamm.registry import HOOKS

from ..runner.rng_state import get_rng_state, set_rng_state


@HOOKS.register_module()
class ValRNGHook(Hook):
    """Give the random number generators back as they were before validation.

    A data loader draws from them whenever it starts. Without this, a run resumed from the
    checkpoint written before a validation would go on with other numbers than the run that was
    never interrupted.
    """

    # Between the hooks that evaluate (EMAHook, NORMAL) and CheckpointHook (VERY_LOW), which may
    # write a checkpoint at the end of validation.
    priority = 80

    def __init__(self) -> None:
        self._state = None

    def before_val(self, runner: Runner) -> None:
        """Remember the generators, which the loop has not touched yet."""
        self._state = get_rng_state()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put them back, and note that this validation need not be made up for."""
        if self._state is not None:
            set_rng_state(self._state)
            self._state = None
        loop = runner._train_loop
        if hasattr(loop, 'validated_iter'):
            # CheckpointHook writes its last checkpoint anew when it was the best one.
            loop.validated_iter = loop.iter
