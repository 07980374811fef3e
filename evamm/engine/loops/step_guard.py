"""Keeps what went wrong in one step out of the weights."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from evamm.checkpoints import write_checkpoint

from ..runner import training_state
from ..runner.plain import to_plain
from ..runner.rng_state import get_rng_state, set_rng_state
from ..stop_signals import SharedFlag, StopSignals
from ..strategies.sharding import local_part
from .batches import batch_size, part_of, shallow_copy


class NonFiniteError(RuntimeError):
    """Loss or gradients with NaN or infinity."""


class _Item(NamedTuple):
    batch: Any
    rng: dict


class StepGuard:
    """Runs training steps and repeats those that fail.

    A *window* is the iterations of one optimizer step (one, without accumulation). Before the
    optimizer steps, loss and gradients are checked, with one wait for the device. A fused optimizer
    is told on the device to leave the weights alone, and is started before that wait, so that the
    device has work meanwhile. If they are not
    finite, the window is run again from the same random numbers: a second result that is finite is
    used (a transient fault, most often of the hardware), otherwise the window is skipped. After
    ``max_skips`` skipped windows the run stops and leaves what is needed to reproduce the last one.

    With a loss scaler, non-finite gradients are the normal course and left to it; the loss is
    checked.

    Args:
        runner: Runner whose model and optimizer are used.
        stop: Signals, exchanged between processes together with the result of the check.
        max_skips: Windows that may be skipped in a run; None switches the check off.
        split_on_oom: Run a batch that does not fit into the memory of the device in parts: 2, 4,
            ... whose gradients add up to those of the whole batch, if the loss is a mean over
            samples. A model with ``micro_batch_size`` (:class:`evamm.EVACLIP`) keeps the batch of
            its loss whole and divides it by itself. One process only.
    """

    def __init__(
        self,
        runner: Runner,
        stop: StopSignals,
        max_skips: int | None = 10,
        split_on_oom: bool = False,
    ) -> None:
        self.runner = runner
        self.stop = stop
        self.max_skips = max_skips
        self.split_on_oom = split_on_oom
        self.skipped = 0
        self.parts = 1
        self.active = False
        self._samples = 1
        self._window: list[_Item] = []
        self._losses: list[torch.Tensor] = []
        self._start_gradients: list | None = None
        self._start_count = 0

    @property
    def _wrapper(self) -> OptimWrapper:
        return self.runner.optim_wrapper

    @property
    def checks(self) -> bool:
        """Whether every optimizer step is checked (and signals are exchanged with it)."""
        return self.active and self.max_skips is not None

    @property
    def model(self) -> nn.Module:
        """Model inside the wrapper of distributed training."""
        return training_state.bare_model(self.runner)

    def attach(self) -> None:
        """Watch the optimizer wrapper of the runner; once, when the run begins."""
        wrapper = self._wrapper
        self.active = isinstance(wrapper, OptimWrapper)
        if not self.active:
            print_log(
                f'{type(wrapper).__name__}: losses and gradients are not checked with several '
                'optimizers.',
                logger='current',
                level=logging.WARNING,
            )
            return
        backward, step = wrapper.backward, wrapper.step

        def watched_backward(loss: torch.Tensor, **kwargs: object) -> None:
            self._losses.append(loss.detach())
            backward(loss, **kwargs)

        def watched_step(**kwargs: object) -> None:
            if self.max_skips is None:
                step(**kwargs)
                return
            bad = self.stop.start_sharing(self._find_non_finite())
            optimizer = wrapper.optimizer
            if not self._skips_on_device(optimizer):
                self._raise_if(bad)
                step(**kwargs)
                return
            optimizer.found_inf = bad.flag
            try:
                step(**kwargs)
            finally:
                del optimizer.found_inf
            self._raise_if(bad)

        wrapper.backward, wrapper.step = watched_backward, watched_step

    def step(self, batch: Any) -> dict:
        """Forward, backward and, at the end of a window, optimizer step.

        Returns:
            Values to log; empty for a batch that was skipped.
        """
        if not self.active:
            return self._train_step(batch)
        if not self._window:
            self._begin_window()
        self._window.append(_Item(batch, get_rng_state()))
        try:
            outputs = self._train_step(shallow_copy(batch))
        except NonFiniteError as error:
            outputs = self._second_try(error)
        except torch.OutOfMemoryError as error:
            outputs = self._in_parts(error)
        if self._wrapper.should_update():
            self._window.clear()
            self._losses.clear()
        return outputs

    def _train_step(self, batch: Any) -> dict:
        if self.parts > 1:
            return self._split_step(batch)
        return self.runner.model.train_step(batch, optim_wrapper=self._wrapper)

    # The check

    def _find_non_finite(self) -> torch.Tensor:
        """1 on the device if a loss or a gradient of this process is not finite, else 0."""
        total = torch.stack([loss.float().sum() for loss in self._losses]).sum()
        wrapper = self._wrapper
        if self._has_scaler():
            norms = []
        elif hasattr(wrapper, 'new_grad_norm'):
            norm = wrapper.new_grad_norm()
            norms = [] if norm is None else [local_part(norm)]
        else:
            gradients = [
                local_part(param.grad)
                for group in wrapper.optimizer.param_groups
                for param in group['params']
                if param.grad is not None
            ]
            norms = torch._foreach_norm(gradients) if gradients else []
        total = total + sum(norm.to(total.device).float() for norm in norms)
        return (~total.isfinite()).float()

    def _raise_if(self, bad: SharedFlag) -> None:
        if bad.wait():
            losses = torch.stack([loss.float().sum() for loss in self._losses])
            raise NonFiniteError('loss' if not losses.isfinite().all() else 'gradients')

    def _skips_on_device(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer takes ``found_inf``; a loss scaler would set its own."""
        return getattr(optimizer, '_step_supports_amp_scaling', False) and not self._has_scaler()

    def _has_scaler(self) -> bool:
        scaler = getattr(self._wrapper, 'loss_scaler', None)
        return isinstance(scaler, torch.amp.GradScaler) and scaler.is_enabled()

    # Going back

    def _begin_window(self) -> None:
        self._losses.clear()
        self._start_count = self._wrapper._inner_count
        # A resumed run can begin inside a window; everywhere else there are no gradients here.
        params = list(self.model.parameters())
        self._start_gradients = None
        if any(param.grad is not None for param in params):
            self._start_gradients = [
                None if param.grad is None else param.grad.clone() for param in params
            ]
        self._start_buffers = {
            name: value.clone()
            for module_name, module in self.model.named_modules()
            if isinstance(module, nn.modules.batchnorm._NormBase)
            for name, value in module.named_buffers(prefix=module_name)
        }

    def _go_back(self) -> None:
        self._losses.clear()
        self._wrapper.zero_grad()
        self._wrapper._inner_count = self._start_count
        for param, gradient in zip(
            self.model.parameters(), self._start_gradients or (), strict=False
        ):
            param.grad = None if gradient is None else gradient.clone()
        self.model.load_state_dict(self._start_buffers, strict=False)

    def _run_window_again(self, items: list[_Item]) -> dict:
        self._go_back()
        outputs = {}
        for item in items:
            set_rng_state(item.rng)
            outputs = self._train_step(shallow_copy(item.batch))
        return outputs

    def _second_try(self, error: NonFiniteError) -> dict:
        where = f'iteration {self.runner.iter + 1}'
        try:
            outputs = self._run_window_again(self._window)
        except NonFiniteError:
            self._skip(error, where)
            return {}
        print_log(
            f'{where}: non-finite {error}, but not when the same batch was run again with the '
            'same random numbers: a transient fault, the second result is used. If this happens '
            'again, look at the hardware.',
            logger='current',
            level=logging.WARNING,
        )
        return outputs

    def _skip(self, error: NonFiniteError, where: str) -> None:
        self.skipped += 1
        over = self.skipped > self.max_skips
        folder = self._write_bundle() if over else None
        self._go_back()
        self._wrapper.zero_grad()
        self._wrapper._inner_count = self._start_count + len(self._window)
        message = (
            f'{where}: non-finite {error}, again when the same batch was run again: reproducible. '
            'The weights were not changed'
        )
        if not over:
            print_log(
                f'{message}; the batch is skipped ({self.skipped} of at most {self.max_skips}).',
                logger='current',
                level=logging.WARNING,
            )
            return
        raise NonFiniteError(
            f'{message}. This is skip {self.skipped} and train_cfg.max_skips is {self.max_skips}. '
            f'The batch, the random numbers, the weights and the config are in {folder}; the '
            f'command that trains, with --resume {folder / "state.pth"}, runs into this batch at '
            'once. Lower the learning rate, clip gradients, or look at the batch.'
        )

    def _write_bundle(self) -> Path:
        """What is needed to run into the failure again."""
        *before, last = self._window
        self._run_window_again(before)  # only gradients: the window is not complete
        set_rng_state(last.rng)
        runner = self.runner
        folder = Path(runner.work_dir, f'non_finite_iter_{runner.iter + 1}')
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = training_state.collect(
            runner,
            meta={'epoch': runner.epoch, 'iter': runner.iter},
            save_optimizer=True,
            save_param_scheduler=True,
        )
        if is_main_process():
            write_checkpoint(checkpoint, folder / 'state.pth')
            (folder / 'config.py').write_text(runner.cfg.pretty_text)
        batch = _as_plain(last.batch)
        write_checkpoint({'batch': batch}, folder / f'batch_rank{get_rank()}.pth')
        return folder

    # Out of memory

    def _in_parts(self, error: torch.OutOfMemoryError) -> dict:
        if not self.split_on_oom:
            raise error
        if get_world_size() > 1 or is_model_wrapper(self.runner.model):
            raise RuntimeError(
                'train_cfg.split_on_oom works with one process only: the others would wait for '
                'this one. Use a smaller train_dataloader.batch_size with '
                'optim_wrapper.accumulative_counts.'
            ) from error
        while True:
            self.parts *= 2
            torch.cuda.empty_cache()
            print_log(
                f'iteration {self.runner.iter + 1}: out of memory; from here on every batch runs '
                f'in {self.parts} parts.',
                logger='current',
                level=logging.WARNING,
            )
            try:
                return self._run_window_again(self._window)
            except torch.OutOfMemoryError:
                if self.parts >= self._samples:
                    raise

    def _split_step(self, batch: Any) -> dict:
        """Gradients of a whole batch from parts of it, and one optimizer step."""
        wrapper, model = self._wrapper, self.model
        count = wrapper._inner_count
        if hasattr(model, 'micro_batch_size'):
            self._samples = batch_size(batch)
            size = -(-self._samples // self.parts)
            model.micro_batch_size = min(size, model.micro_batch_size or size)
            return model.train_step(batch, optim_wrapper=wrapper)
        # Mixing of samples sees the whole batch.
        batch = model.data_preprocessor(batch, True)
        self._samples = batch_size(batch)
        edges = [round(i * self._samples / self.parts) for i in range(self.parts + 1)]
        logs: dict[str, Any] = {}
        for start, stop in zip(edges, edges[1:], strict=False):
            if start == stop:
                continue
            share = (stop - start) / self._samples
            with wrapper.optim_context(model):
                losses = model._run_forward(part_of(batch, start, stop), mode='loss')
            loss, values = model.parse_losses(losses)
            wrapper._inner_count = count
            wrapper.backward(wrapper.scale_loss(loss * share))
            for name, value in values.items():
                logs[name] = logs.get(name, 0) + value.detach() * share
        if wrapper.should_update():
            wrapper.step()
            wrapper.zero_grad()
        return logs


def _as_plain(batch: Any) -> Any:
    """A batch as dicts, lists and tensors."""
    if hasattr(batch, 'to_dict') and hasattr(batch, 'metainfo'):
        return {
            'type': type(batch).__name__,
            **_as_plain(batch.metainfo),
            **_as_plain(dict(batch.items())),
        }
    if isinstance(batch, dict):
        return to_plain({key: _as_plain(value) for key, value in batch.items()}, what='batch')
    if isinstance(batch, (list, tuple)):
        return [_as_plain(value) for value in batch]
    return batch
