"""How fast a run is and how well it uses the device: one hook for the log line."""

import time

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from evamm.registry import HOOKS

from ..flop_meter import FlopMeter, matmul_rate
from ..optimizers.grad_norm import GradNormRecorder
from .log_schedule import will_log


def _batch_size(data_batch: object) -> int:
    """Images in a batch of any OpenMMLab data loader."""
    if isinstance(data_batch, dict):
        if 'inputs' in data_batch:
            return _batch_size(data_batch['inputs'])
        return _batch_size(next(iter(data_batch.values()), ()))
    # Several views of the same images: a list of batches.
    if isinstance(data_batch, (list, tuple)) and data_batch:
        if isinstance(data_batch[0], torch.Tensor) and data_batch[0].ndim == 4:
            return len(data_batch[0])
    return len(data_batch) if hasattr(data_batch, '__len__') else 0


class _EndOfIteration(Hook):
    """Tells a hook when all others are done, so that the wait for data can be measured."""

    priority = 'LOWEST'

    def __init__(self, owner: 'ThroughputHook') -> None:
        self.owner = owner

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self.owner.wait_from_now()

    def before_train_epoch(self, runner: Runner) -> None:
        self.owner.wait_from_now()

    def after_val(self, runner: Runner) -> None:
        self.owner.wait_from_now()


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Adds speed and gradient norm to every log line and every visualisation backend.

    - ``images_per_second`` of all processes together, since the last log line. Validation, saving
      and logging do not count.
    - ``data_wait``: share of that time in which the loop waited for the next batch.
    - ``mfu``: model FLOPs per second over the measured rate of large matrix products on this
      device (bfloat16 on CUDA, float32 elsewhere). See :class:`evamm.engine.FlopMeter` for what
      counts. Not shown if the model cannot say.
    - ``hfu``: the same with the recomputation of activation checkpointing, where there is any.
    - ``grad_norm`` before clipping, mean over the logging window. It is read from the device only
      when it is logged; mmengine's own wrappers log it themselves if they clip.

    Works with any runner, model and config of OpenMMLab: ``custom_hooks`` or ``default_hooks``.

    Args:
        matmul_tflops: Rate that ``mfu`` refers to, per device, instead of the measured one.
        flops_per_image: Model FLOPs of training with one image, for models that cannot say.
        grad_norm: Log the gradient norm.
    """

    # After the hooks that provide values (NORMAL, 50), before LoggerHook (BELOW_NORMAL, 60).
    priority = 55

    def __init__(
        self,
        matmul_tflops: float | None = None,
        flops_per_image: float | None = None,
        grad_norm: bool = True,
    ) -> None:
        self.rate = None if matmul_tflops is None else matmul_tflops * 1e12
        self.flops_per_image = flops_per_image
        self.log_grad_norm = grad_norm
        self._meter = None
        self._recorder = None
        self._restart()

    def _restart(self) -> None:
        self._images = 0
        self._waiting = self._working = 0.0
        self._mark = time.perf_counter()

    def wait_from_now(self) -> None:
        """What passes from here to the next iteration is waiting for data."""
        self._mark = time.perf_counter()

    def before_run(self, runner: Runner) -> None:
        """Have the end of iterations reported."""
        if isinstance(runner._train_loop, BaseLoop):
            runner.register_hook(_EndOfIteration(self))

    def before_train(self, runner: Runner) -> None:
        """Measure the device and start to watch the model and the optimizer."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.log_grad_norm:
            self._recorder = GradNormRecorder(runner.optim_wrapper)
        if self.flops_per_image is None:
            self._meter = FlopMeter(model)
            if self._meter.blind:
                runner.logger.warning(
                    f'ThroughputHook: {self._meter.blind[0]} is compiled and has no count_macs; '
                    'no MFU is logged. Give flops_per_image to the hook.'
                )
        if self.rate is None:
            self.rate = matmul_rate(next(model.parameters()).device)
            runner.logger.info(
                f'Large matrix products run at {self.rate / 1e12:.4g} TFLOP/s per device; mfu '
                'refers to this.'
            )
        self._restart()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """The batch is here: the work begins."""
        now = time.perf_counter()
        self._waiting += now - self._mark
        self._mark = now
        if self._meter is not None:
            self._meter.active = True

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Count the batch; publish if this iteration is logged."""
        if self._meter is not None:
            self._meter.active = False
        self._images += _batch_size(data_batch)
        log = will_log(runner, batch_idx)
        if log:
            self._publish_grad_norm(runner)
            device = next(runner.model.parameters()).device
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
        self._working += time.perf_counter() - self._mark
        if log:
            self._publish(runner)
            self._restart()

    def _publish(self, runner: Runner) -> None:
        seconds = max(self._waiting + self._working, 1e-9)
        world_size = get_world_size()
        hub = runner.message_hub
        hub.update_scalar('train/images_per_second', self._images * world_size / seconds)
        hub.update_scalar('train/data_wait', self._waiting / seconds)
        if self._meter is None:
            flops = hardware_flops = self._images * self.flops_per_image
        else:
            flops, hardware_flops = self._meter.take()
            if self._meter.blind:
                return
        if flops:
            hub.update_scalar('train/mfu', flops / seconds / self.rate)
        if hardware_flops > flops:
            hub.update_scalar('train/hfu', hardware_flops / seconds / self.rate)

    def _publish_grad_norm(self, runner: Runner) -> None:
        if self._recorder is not None:
            for name, value in self._recorder.take():
                runner.message_hub.update_scalar(f'train/{name}', value)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """The history of a checkpoint is complete."""
        self._publish_grad_norm(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave model and optimizer as they were."""
        self._publish_grad_norm(runner)
        if self._meter is not None:
            self._meter.remove()
        if self._recorder is not None:
            self._recorder.remove()
