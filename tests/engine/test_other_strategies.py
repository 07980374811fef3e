"""What evamm adds to a run leaves other runners and optimizer wrappers of mmengine alone."""

from types import SimpleNamespace

import torch
from mmengine.config import ConfigDict
from mmengine.optim import BaseOptimWrapper, OptimWrapper

from evamm.engine.optimizers.grad_norm import GradNormRecorder
from evamm.engine.runner.fit import check_fit


class _Engine(BaseOptimWrapper):
    """As DeepSpeed's: no `clip_grad_kwargs`, and a step of its own."""

    def update_params(self, *args, **kwargs):
        raise NotImplementedError

    backward = zero_grad = step = state_dict = load_state_dict = update_params


def test_a_model_that_is_not_built_yet_is_not_compared():
    model = ConfigDict(type='ImageClassifier', backbone=dict(out_type='avg_featmap'))
    check_fit(SimpleNamespace(model=model), ('train', 'val'))


def test_norms_of_foreign_wrappers_are_not_recorded():
    weight = torch.nn.Parameter(torch.ones(2))
    recorder = GradNormRecorder(_Engine(torch.optim.SGD([weight], lr=0.1)))
    weight.grad = torch.ones(2)
    recorder.remove()
    assert recorder.take() == []
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=0.1))
    recorder = GradNormRecorder(wrapper)
    wrapper.update_params(weight.sum())
    assert [name for name, _ in recorder.take()] == ['grad_norm']
