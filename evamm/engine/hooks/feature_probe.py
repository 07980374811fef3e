"""What the features of a model are worth, measured while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..errors import ConfigError
from ..runner.rng_state import get_rng_state, set_rng_state


class FeatureProbeHook(Hook):
    """Extracts features of two labelled sets every few epochs and scores them.

    The model gives features by ``pooled_features(inputs)`` (pre-training), [B, D], or else by
    ``extract_feat(inputs)``, [B, D] or a sequence that ends with it. It runs in evaluation mode
    without gradients; its weights, its mode and all random number generators are left as they were,
    so a run is the same with and without the hook.

    The result goes to the log and to every visualisation backend as ``<name>/top1`` in %.

    Args:
        train_dataloader: Labelled images that the score learns from.
        test_dataloader: Labelled images that are scored.
        interval: Epochs (iterations in an iteration-based run) between two measurements; the last
            one of a run is always followed by one.
        max_train_samples: Use only the first so many samples to learn from, in an order that does
            not change; None for all.
    """

    priority = 'LOW'
    name = ''

    def __init__(
        self,
        train_dataloader: dict,
        test_dataloader: dict,
        interval: int = 1,
        max_train_samples: int | None = None,
    ) -> None:
        if interval < 1:
            raise ConfigError(f'{type(self).__name__}: interval={interval} must be 1 or more.')
        self._loaders: list[dict | DataLoader] = [train_dataloader, test_dataloader]
        self.interval = interval
        self.max_train_samples = max_train_samples

    def score(
        self, features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor
    ) -> float:
        """Accuracy in %.

        Args:
            features: float32 [N, D].
            labels: int64 [N].
            test_features: float32 [M, D].
            test_labels: int64 [M].
        """
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Build the loaders, so that a mistake in them shows at the start."""
        with _untouched_generators():
            self._loaders = [
                runner.build_dataloader(_in_order(loader)) if isinstance(loader, dict) else loader
                for loader in self._loaders
            ]

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure after every ``interval`` epochs."""
        if _by_epoch(runner) and self._due(runner.epoch + 1, runner.max_epochs):
            self.measure(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        """Measure after every ``interval`` iterations of an iteration-based run."""
        if not _by_epoch(runner) and self._due(runner.iter + 1, runner.max_iters):
            self.measure(runner)

    def _due(self, done: int, total: int) -> bool:
        return done % self.interval == 0 or done == total

    @torch.no_grad()
    def measure(self, runner: Runner) -> float:
        """Extract, score and log."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        training = model.training
        with _untouched_generators():
            model.eval()
            try:
                train = self._extract(model, self._loaders[0], self.max_train_samples)
                test = self._extract(model, self._loaders[1], None)
            finally:
                model.train(training)
            with torch.enable_grad():
                accuracy = self.score(*train, *test)
        step = runner.epoch + 1 if _by_epoch(runner) else runner.iter + 1
        runner.visualizer.add_scalar(f'{self.name}/top1', accuracy, step)
        runner.message_hub.update_scalar(f'val/{self.name}_top1', accuracy)
        runner.logger.info(
            f'{self.name}/top1: {accuracy:.2f} ({len(train[0])} labelled samples, '
            f'{len(test[0])} scored)'
        )
        return accuracy

    def _extract(
        self, model: nn.Module, loader: DataLoader, limit: int | None
    ) -> tuple[Tensor, Tensor]:
        """Features [N, D] and labels [N] in the order of the dataset, on every process."""
        features, labels, seen = [], [], 0
        limit = len(loader.dataset) if limit is None else min(limit, len(loader.dataset))
        for batch in loader:
            if seen >= limit:
                break
            data = model.data_preprocessor(batch, False)
            extract = getattr(model, 'pooled_features', None) or model.extract_feat
            out = extract(data['inputs'])
            out = out[-1] if isinstance(out, (tuple, list)) else out
            if out.ndim != 2:
                raise ConfigError(
                    f'{type(self).__name__}: extract_feat of {type(model).__name__} gave features '
                    f'of shape {tuple(out.shape)}, expected [batch, channels].'
                )
            features.append(out.float())
            labels.append(torch.cat([sample.gt_label.view(-1) for sample in data['data_samples']]))
            seen += len(out) * get_world_size()
        gathered = [_gather(torch.cat(parts))[:limit] for parts in (features, labels)]
        return gathered[0], gathered[1].to(gathered[0].device)


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def _in_order(loader: dict) -> dict:
    """The settings of a loader that gives every sample once, dealt out to the processes in turn."""
    if 'dataset' not in loader:
        raise ConfigError('a dataloader of a feature probe needs `dataset`.')
    return {
        'num_workers': 0,
        'collate_fn': dict(type='default_collate'),
        **loader,
        'sampler': dict(type='DefaultSampler', shuffle=False, round_up=True),
        'drop_last': False,
    }


def _gather(values: Tensor) -> Tensor:
    """All processes' rows in the order of the dataset; process r has rows r, r + world, ..."""
    parts = all_gather(values)
    return torch.stack(parts, dim=1).flatten(0, 1)


@contextmanager
def _untouched_generators() -> Iterator[None]:
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
