"""Rotation of checkpoints that never leaves a moment without one."""

from collections import deque

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as _CheckpointHook
from mmengine.runner import Runner

from evamm.registry import HOOKS


@HOOKS.register_module()
class CheckpointHook(_CheckpointHook):
    """mmengine's hook, but an old checkpoint goes only after the new one is complete.

    mmengine deletes the oldest file first: with ``max_keep_ckpts=1`` a crash while writing leaves
    none at all. Arguments are those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def before_train(self, runner: Runner) -> None:
        """Find the folder and the checkpoints of an earlier part of this run."""
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # mmengine's queue forgets its oldest entry by itself; here that one is still needed.
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if self.max_keep_ckpts <= 0:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        keep = self.max_keep_ckpts
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
        for old_step in outdated:
            self.keep_ckpt_ids.popleft()
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old_step))
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif is_main_process() and self.file_backend.isdir(path):
                self.file_backend.rmtree(path)
