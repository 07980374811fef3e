"""Rotation of checkpoints that never leaves a moment without one."""

from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.runner import Runner

from evamm.registry import HOOKS

from ..runner.find_checkpoint import INTERRUPTED


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """mmengine's hook, but an old checkpoint goes only after the new one is complete.

    mmengine deletes the oldest file first: with ``max_keep_ckpts=1`` a crash while writing leaves
    none at all.

    Args:
        args: Arguments of :class:`mmengine.hooks.CheckpointHook`.
        async_save: Write in the background (with :class:`evamm.EVARunner`). The loop waits only
            for a copy of the state, which needs memory of the size of the checkpoint, and for the
            write before, if that is not done yet. A failed write stops the run at the next save or
            at the end.
        kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, *args: object, async_save: bool = False, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.async_save = async_save

    def before_train(self, runner: Runner) -> None:
        """Find the folder and the checkpoints of an earlier part of this run."""
        super().before_train(runner)
        runner.async_save = self.async_save
        if self.max_keep_ckpts > 0:
            # mmengine's queue forgets its oldest entry by itself; here that one is still needed.
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def after_train(self, runner: Runner) -> None:
        """Publish the checkpoint after training, when it is complete."""
        if hasattr(runner, 'wait_for_saves'):
            runner.wait_for_saves()
        super().after_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        keep = self.max_keep_ckpts
        outdated = []
        if keep > 0:
            # mmengine asks for the same step again after a new best result.
            if not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step:
                self.keep_ckpt_ids.append(step)
            outdated = list(self.keep_ckpt_ids)[:-keep]
            # What the new checkpoint says about the others is true once the old ones are gone; a
            # resumed run removes what a crash in between left behind.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.max_keep_ckpts = -1
        try:
            super()._save_checkpoint_with_step(runner, step, meta)
        finally:
            self.max_keep_ckpts = keep
        for _ in outdated:
            self.keep_ckpt_ids.popleft()
        if not is_main_process():
            return
        if hasattr(runner, 'when_saved'):
            runner.when_saved(lambda: self._remove(outdated))
        else:
            self._remove(outdated)

    def _remove(self, steps: list[int]) -> None:
        """Remove old checkpoints and those of interruptions, which the new one replaces."""
        for step in steps:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):
                self.file_backend.rmtree(path)
        for path in Path(self.out_dir).glob(INTERRUPTED.format('*')):
            path.unlink(missing_ok=True)
