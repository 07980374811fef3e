import copy

import numpy as np
import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from evamm.engine import KNNHook, LinearProbeHook
from evamm.engine.errors import ConfigError

LOADER = dict(dataset=dict(type='x'))


@DATASETS.register_module()
class ProbeData(Dataset):
    """Three classes on three axes, with noise; the sign of an axis says nothing."""

    def __init__(self, length: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(length) % 3
        axes = torch.eye(6)[self.labels] * 4
        self.points = axes + torch.randn(length, 6, generator=generator)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return dict(
            inputs=self.points[index], data_samples=DataSample().set_gt_label(self.labels[index])
        )


def toy_model():
    base = MODELS.get('ToyModel')

    class ProbedModel(base):
        def __init__(self):
            super().__init__()
            self.data_preprocessor = BaseDataPreprocessor()

        def extract_feat(self, inputs):
            assert not self.training
            assert not torch.is_grad_enabled()
            return (self.net[0].weight.new_zeros(0), inputs)

    return ProbedModel


def probes(**settings) -> list[dict]:
    loaders = dict(
        train_dataloader=dict(batch_size=7, dataset=dict(type='ProbeData', length=31, seed=0)),
        test_dataloader=dict(batch_size=5, dataset=dict(type='ProbeData', length=17, seed=1)),
    )
    return [
        dict(type='evamm.KNNHook', k=5, **loaders, **settings),
        dict(type='evamm.LinearProbeHook', **loaders, **settings),
    ]


@pytest.fixture
def probed_cfg(toy_cfg):
    MODELS.register_module(name='ProbedModel', module=toy_model(), force=True)
    return dict(copy.deepcopy(toy_cfg), model=dict(type='ProbedModel'))


def run(make_runner, cfg, monkeypatch=None, **overrides):
    runner = make_runner(cfg, **overrides)
    scalars = []
    runner.visualizer.add_scalar = lambda name, value, step=0, **kw: scalars.append(
        (name, value, step)
    )
    runner.train()
    return runner, [entry for entry in scalars if entry[0].startswith(('knn/', 'linear/'))]


def test_both_find_the_classes_after_the_epochs_that_were_asked_for(make_runner, probed_cfg):
    _, scalars = run(make_runner, probed_cfg, custom_hooks=probes(interval=2))
    assert [(name, step) for name, _, step in scalars] == [('knn/top1', 2), ('linear/top1', 2)]
    assert all(value > 90 for _, value, _ in scalars)


def by_iteration(cfg: dict) -> dict:
    return dict(
        cfg,
        param_scheduler=None,
        train_cfg=dict(by_epoch=False, max_iters=5, val_interval=5),
        default_hooks=dict(checkpoint=None, logger=None),
    )


def test_iteration_based_runs_are_measured_by_iteration(make_runner, probed_cfg):
    cfg = by_iteration(probed_cfg)
    _, scalars = run(make_runner, cfg, custom_hooks=probes(interval=2)[:1])
    assert [step for _, _, step in scalars] == [2, 4, 5]


@pytest.mark.parametrize('variant', [dict, by_iteration])
def test_a_run_is_the_same_with_and_without_probes(make_runner, probed_cfg, tmp_path, variant):
    cfg = variant(probed_cfg)
    plain, _ = run(make_runner, cfg, work_dir=str(tmp_path / 'a'))
    hooks = [*cfg['custom_hooks'], *probes()]
    probed, scalars = run(make_runner, cfg, work_dir=str(tmp_path / 'b'), custom_hooks=hooks)
    assert len(scalars) >= 4
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, probed.model.state_dict()[name]), name


def test_samples_to_learn_from_can_be_limited(make_runner, probed_cfg):
    hooks = probes(max_train_samples=9)
    runner, _ = run(make_runner, probed_cfg, custom_hooks=hooks)
    hook = next(h for h in runner.hooks if isinstance(h, KNNHook))
    with torch.no_grad():
        features, labels = hook._extract(runner.model.eval(), hook._loaders[0], 9)
    assert labels.tolist() == [0, 1, 2] * 3
    assert torch.equal(features, ProbeData(31, 0).points[:9])
    runner.model.train()
    hook.measure(runner)
    assert runner.model.training


def test_the_vote_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 5, generator=generator), torch.randn(9, 5, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)
    truth = []
    for query in queries.double().numpy():
        points = bank.double().numpy()
        cosine = points @ query / np.linalg.norm(points, axis=1) / np.linalg.norm(query)
        votes = np.zeros(4)
        for index in np.argsort(-cosine)[:7]:
            votes[labels[index]] += np.exp(cosine[index] / 0.5)
        truth.append(votes.argmax())
    truth = torch.tensor(truth)
    hook = KNNHook(LOADER, LOADER, k=7, temperature=0.5)
    assert hook.score(bank, labels, queries, truth) == 100
    wrong = (truth + 1) % 4
    assert hook.score(bank, labels, queries, wrong) == 0
    # More neighbours than there are samples.
    KNNHook(LOADER, LOADER, k=100).score(bank, labels, queries, truth)


def test_the_linear_probe_reaches_the_optimum_whatever_the_scale_of_a_channel():
    data, test = ProbeData(300, 0), ProbeData(300, 1)
    hook = LinearProbeHook(LOADER, LOADER)
    plain = hook.score(data.points, data.labels, test.points, test.labels)
    scale = torch.tensor([1e-3, 1.0, 1e3, 1.0, 1.0, 0.0])
    scaled = hook.score(data.points * scale + 7, data.labels, test.points * scale + 7, test.labels)
    assert plain > 95
    assert abs(plain - scaled) < 1


def test_mistakes_are_named(make_runner, probed_cfg):
    with pytest.raises(ConfigError, match='interval=0'):
        KNNHook(LOADER, LOADER, interval=0)
    with pytest.raises(ConfigError, match='k=0'):
        KNNHook(LOADER, LOADER, k=0)
    hooks = probes()[:1]
    del hooks[0]['test_dataloader']['dataset']
    with pytest.raises(ConfigError, match='needs `dataset`'):
        run(make_runner, probed_cfg, custom_hooks=hooks)
