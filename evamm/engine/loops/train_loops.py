"""Training loops that can be taken up at any iteration."""

import signal
from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from evamm.datasets.samplers import TrainingData
from evamm.registry import LOOPS

from ..hooks import ValRNGHook
from ..runner.rng_state import set_rng_state
from ..stop_signals import StopSignals, ValidationInterrupted, WorkerInit
from .step_guard import StepGuard


def _end_workers(loader: Any) -> None:
    """End workers that wait for a next pass, or are inside one, now that there will be none.

    At the end of the program they would be terminated, and their grace (:class:`WorkerInit`) would
    keep it waiting.
    """
    iterator = getattr(loader, '_iterator', None)
    if hasattr(iterator, '_shutdown_workers'):
        iterator._shutdown_workers()
        loader._iterator = None


class _ResumableLoop:
    """What both loops share: the place in the data and the way back to it.

    ``_place`` is the batch that comes next: pass over the data and number in it. It is moved on
    before the hooks that save are called, so that a checkpoint always names the batch that the
    uninterrupted run takes after it.
    """

    def _prepare(
        self, runner: Runner, max_skips: int | None, split_on_oom: bool, max_damaged: float
    ) -> None:
        self.data = TrainingData(self.dataloader, runner.seed, max_damaged)
        self.stop = StopSignals()
        self.guard = StepGuard(runner, self.stop, max_skips, split_on_oom)
        self._place = (0, 0)
        self._rng_state = None
        # Iteration after which the last validation was run.
        self.validated_iter = None

    def state_dict(self) -> dict:
        """Place in the data and what is known about this place."""
        epoch, batch = self._place
        return {
            'data_epoch': epoch,
            'data_batch': batch,
            'data_seed': self.data.seed,
            'data': self.data.describe(),
            'validated_iter': self.validated_iter,
            'skipped': self.guard.skipped,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a place of :meth:`state_dict`; warn if the data is not that of then."""
        self._place = (state['data_epoch'], state['data_batch'])
        self.validated_iter = state['validated_iter']
        self.guard.skipped = state['skipped']
        if state['data_seed'] is not None:
            self.data.seed = state['data_seed']
        then, now = state.get('data') or {}, self.data.describe()
        changed = [
            f'{key} {value} then, {now.get(key)} now'
            for key, value in then.items()
            if value != now.get(key)
        ]
        if changed:
            self.runner.logger.warning(
                f'The training data is not that of the resumed run ({"; ".join(changed)}): the run '
                'goes on in another order, in which samples may come again or be left out.'
            )

    def start_with_rng_state(self, state: dict) -> None:
        """Set the generators when the next batch or validation is due, after all preparations."""
        self._rng_state = state

    def _set_rng_state(self) -> None:
        if self._rng_state is not None:
            set_rng_state(self._rng_state)
            self._rng_state = None

    def _step(self, batch_idx: int, data_batch: Any) -> None:
        """One iteration: hooks, forward, backward, optimizer."""
        runner = self.runner
        runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        outputs = self.guard.step(data_batch)
        epoch, batch = self._place
        self._place = (epoch, batch + 1)
        runner.call_hook(
            'after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1
        self.data.count_damage()
        if get_world_size() == 1 or not self.guard.checks:
            self.stop.share()
        if self.stop.shared:
            self._save_and_stop()

    def run(self) -> nn.Module:
        """Train to the end, or to the iteration in which a signal to stop arrives.

        Raises:
            SystemExit: After SIGTERM or SIGINT, when the state of the run is saved; its code is
                128 + the number of the signal, as usual.
        """
        self.guard.attach()
        loaders = [self.dataloader]
        if self.runner.val_loop is not None:
            loaders.append(self.runner.val_loop.dataloader)
        for loader in loaders:
            if isinstance(loader, DataLoader) and not isinstance(loader.worker_init_fn, WorkerInit):
                loader.worker_init_fn = WorkerInit(loader.worker_init_fn)
        with self.stop:
            model = self._run()
        for loader in loaders:
            _end_workers(loader)
        if self.data.damage is not None and self.data.damage.paths:
            self.runner.logger.warning(self.data.damage.summary())
        return model

    def _save_and_stop(self) -> None:
        name = signal.Signals(self.stop.shared).name
        self.runner.logger.warning(f'{name}: saving and stopping after iteration {self._iter}.')
        path = self.runner.save_interrupted()
        self.runner.logger.warning(f'The state of the run is in {path}; resume goes on from it.')
        raise SystemExit(128 + self.stop.shared)

    def _validate(self, position: int, last: int) -> None:
        """Validate if the interval says so, unless the resumed run had done it."""
        if (
            self.runner.val_loop is not None
            and position > 0
            and position >= self.val_begin
            and (position % self.val_interval == 0 or position == last)
            and self.validated_iter != self._iter
        ):
            try:
                self.runner.val_loop.run()
            except ValidationInterrupted:
                self._leave_validation()
                self.stop.share()
                self._save_and_stop()
            self.validated_iter = self._iter
            if get_world_size() == 1:
                self.stop.share()
                if self.stop.shared:
                    self._save_and_stop()

    def _leave_validation(self) -> None:
        """Put the weights and generators of training back."""
        for hook in self.runner.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(self.runner, None)
            elif isinstance(hook, ValRNGHook):
                hook.restore()
        self.runner.message_hub.update_info('loop_stage', 'train')


@LOOPS.register_module()
class EpochBasedTrainLoop(_ResumableLoop, _EpochBasedTrainLoop):
    """mmengine's loop, with a resume that is exact at every iteration.

    ``max_skips`` and ``split_on_oom`` are explained at :class:`StepGuard`, ``max_damaged`` is the
    share of images that may be damaged (:class:`DamageCount`); the other arguments are those of
    :class:`mmengine.runner.EpochBasedTrainLoop`. A resumed epoch begins at
    the batch after the last one; batches before it are not loaded. A validation that was due
    between the checkpoint and the interruption is made up for.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_skips: int | None = 10,
        split_on_oom: bool = False,
        max_damaged: float = 0.01,
    ) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self._prepare(runner, max_skips, split_on_oom, max_damaged)

    def resume_at(self, epoch: int, iteration: int) -> None:
        """Go on after ``epoch`` epochs and ``iteration`` iterations."""
        self._epoch, self._iter = epoch, iteration
        self._place = (epoch, max(0, iteration - epoch * len(self.dataloader)))

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        if self._place[1] == 0:  # between two epochs
            self._set_rng_state()
            self._decide_current_val_interval()
            self._validate(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            self._validate(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """The rest of the current epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self._set_rng_state()
        done = self._place[1]
        for batch_idx, data_batch in enumerate(self.data.batches(self._epoch, done), done):
            self._step(batch_idx, data_batch)
        self._place = (self._epoch + 1, 0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class _NotStarted:
    """Stands for a data loader where some versions of mmengine would start its workers."""

    def __init__(self, dataloader: DataLoader) -> None:
        self.dataset = dataloader.dataset

    def __iter__(self) -> Iterator:
        return iter(())


@LOOPS.register_module()
class IterBasedTrainLoop(_ResumableLoop, _IterBasedTrainLoop):
    """mmengine's loop, with a resume that is exact and loads no past batch.

    ``max_skips`` and ``split_on_oom`` are explained at :class:`StepGuard`, ``max_damaged`` is the
    share of images that may be damaged (:class:`DamageCount`); the other arguments are those of
    :class:`mmengine.runner.IterBasedTrainLoop`. A finite sampler is started
    again after its end with the next epoch's order.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
        max_skips: int | None = 10,
        split_on_oom: bool = False,
        max_damaged: float = 0.01,
    ) -> None:
        if isinstance(dataloader, dict):
            dataloader = runner.build_dataloader(
                dataloader,
                seed=runner.seed,
                diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
            )
        super().__init__(
            runner, _NotStarted(dataloader), max_iters, val_begin, val_interval, dynamic_intervals
        )
        self.dataloader = dataloader
        self.dataloader_iterator = None
        self._prepare(runner, max_skips, split_on_oom, max_damaged)

    def resume_at(self, epoch: int, iteration: int) -> None:
        """Go on after ``iteration`` iterations; ``epoch`` is always 0 here."""
        self._epoch, self._iter = epoch, iteration
        # An infinite sampler says how large the dataset is, but never ends.
        infinite = hasattr(self.data.sampler, '_indices_of_rank')
        self._place = (0, iteration) if infinite else divmod(iteration, len(self.dataloader))

    def _run(self) -> nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self._set_rng_state()
        self._validate_at_iter()
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self._step(self._iter, next(batches))
            self._validate_at_iter()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Iterator[Any]:
        """Pass after pass over the data."""
        while True:
            epoch, done = self._place
            self.data.set_epoch(epoch)
            yield from self.data.batches(epoch, done)
            if self._place == (epoch, 0):
                raise ValueError(
                    'train_dataloader gave no batch: its dataset is empty, or smaller than one '
                    'batch with drop_last=True.'
                )
            self._place = (epoch + 1, 0)

    def _validate_at_iter(self) -> None:
        self._decide_current_val_interval()
        self._validate(self._iter, self._max_iters)
