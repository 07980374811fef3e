"""Training loops that can be taken up at any iteration."""

from collections.abc import Iterator
from typing import Any

from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from mmengine.runner import IterBasedTrainLoop as _IterBasedTrainLoop
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from evamm.datasets.samplers import TrainingData
from evamm.registry import LOOPS

from ..runner.rng_state import set_rng_state


class _ResumableLoop:
    """What both loops share: the place in the data and the way back to it.

    ``_place`` is the batch that comes next: pass over the data and number in it. It is moved on
    before the hooks that save are called, so that a checkpoint always names the batch that the
    uninterrupted run takes after it.
    """

    def _prepare(self, runner: Runner) -> None:
        self.data = TrainingData(self.dataloader, runner.seed)
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
            'validated_iter': self.validated_iter,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from a place of :meth:`state_dict`."""
        self._place = (state['data_epoch'], state['data_batch'])
        self.validated_iter = state['validated_iter']
        if state['data_seed'] is not None:
            self.data.seed = state['data_seed']

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
        outputs = runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
        epoch, batch = self._place
        self._place = (epoch, batch + 1)
        runner.call_hook(
            'after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def _validate(self, position: int, last: int) -> None:
        """Validate if the interval says so, unless the resumed run had done it."""
        if (
            self.runner.val_loop is not None
            and position > 0
            and position >= self.val_begin
            and (position % self.val_interval == 0 or position == last)
            and self.validated_iter != self._iter
        ):
            self.runner.val_loop.run()
            self.validated_iter = self._iter


@LOOPS.register_module()
class EpochBasedTrainLoop(_ResumableLoop, _EpochBasedTrainLoop):
    """mmengine's loop, with a resume that is exact at every iteration.

    Arguments are those of :class:`mmengine.runner.EpochBasedTrainLoop`. A resumed epoch begins at
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
    ) -> None:
        super().__init__(
            runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals
        )
        self._prepare(runner)

    def resume_at(self, epoch: int, iteration: int) -> None:
        """Go on after ``epoch`` epochs and ``iteration`` iterations."""
        self._epoch, self._iter = epoch, iteration
        self._place = (epoch, max(0, iteration - epoch * len(self.dataloader)))

    def run(self) -> nn.Module:
        """Train to the end."""
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


@LOOPS.register_module()
class IterBasedTrainLoop(_ResumableLoop, _IterBasedTrainLoop):
    """mmengine's loop, with a resume that is exact and loads no past batch.

    Arguments are those of :class:`mmengine.runner.IterBasedTrainLoop`. A finite sampler is started
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
    ) -> None:
        super().__init__(runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals)
        # Some versions of mmengine start their iterator, and with it the workers, at once.
        self.dataloader_iterator = None
        self._prepare(runner)

    def resume_at(self, epoch: int, iteration: int) -> None:
        """Go on after ``iteration`` iterations; ``epoch`` is always 0 here."""
        self._epoch, self._iter = epoch, iteration
        # An infinite sampler says how large the dataset is, but never ends.
        infinite = hasattr(self.data.sampler, '_indices_of_rank')
        self._place = (0, iteration) if infinite else divmod(iteration, len(self.dataloader))

    def run(self) -> nn.Module:
        """Train to the end."""
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
