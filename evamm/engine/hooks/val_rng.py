"""Validation that leaves no trace in training."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from evamm.registry import HOOKS

from ..runner.rng_state import get_rng_state, set_rng_state
from ..stop_signals import ValidationInterrupted


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

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: object = None,
    ) -> None:
        """Break off when the run is to stop: its state can be saved without the result."""
        stop = getattr(runner._train_loop, 'stop', None)
        # With several processes all have to stop at the same place: after the validation.
        if stop is not None and stop.received and get_world_size() == 1:
            raise ValidationInterrupted

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Put them back, and note that this validation need not be made up for."""
        self.restore()
        loop = runner._train_loop
        if hasattr(loop, 'validated_iter'):
            # CheckpointHook writes its last checkpoint anew when it was the best one.
            loop.validated_iter = loop.iter

    def restore(self) -> None:
        """Put the generators back as they were before validation."""
        if self._state is not None:
            set_rng_state(self._state)
            self._state = None
