"""When the logger is going to print."""

from mmengine.hooks import LoggerHook
from mmengine.runner import Runner


def will_log(runner: Runner, batch_idx: int) -> bool:
    """Whether a ``LoggerHook`` of the run prints after this training iteration."""
    for hook in runner.hooks:
        if not isinstance(hook, LoggerHook):
            continue
        if hook.every_n_inner_iters(batch_idx, hook.interval):
            return True
        length = len(runner.train_dataloader)
        if hook.end_of_epoch(runner.train_dataloader, batch_idx) and (
            not hook.ignore_last or length <= hook.interval
        ):
            return True
    return False
