"""Sharded training in bfloat16 on a GPU, and in float32 on a CPU, with one process."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.distributed.tensor import DTensor

import evamm.registry  # noqa: F401
from evamm.engine import FSDP2, AmpOptimWrapper
from evamm.engine.strategies import fsdp

BACKENDS = {'cpu': 'gloo', 'cuda': 'nccl'}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=needs_cuda)])
def device(request, tmp_path, monkeypatch):
    """A device with a process group of one process."""
    monkeypatch.setattr(fsdp, 'get_device', lambda: request.param)
    torch.distributed.init_process_group(
        BACKENDS[request.param], init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    yield request.param
    torch.distributed.destroy_process_group()


class Classifier(nn.Module):
    def __init__(self, with_cp):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = MODELS.build(
            {
                'type': 'evamm.EVAViT',
                'arch': {'embed_dims': 64, 'depth': 2, 'num_heads': 2},
                'img_size': 32,
                'patch_size': 8,
                'freeze_patch_embed': True,
                'with_cp': with_cp,
            }
        )
        self.backbone.init_weights()
        self.head = nn.Linear(64, 3)

    def forward(self, inputs):
        return self.head(self.backbone(inputs)[-1])


def train(model, device):
    """Losses of four steps; gradients are clipped, activations cast by autocast."""
    params = [param for param in model.parameters() if param.requires_grad]
    wrapper = AmpOptimWrapper(
        torch.optim.AdamW(params, lr=1e-3, weight_decay=0.05), clip_grad={'max_norm': 1.0}
    )
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(6, 3, 32, 32, generator=generator).to(device)
    labels = torch.tensor([0, 1, 2, 0, 1, 2], device=device)
    losses = []
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = nn.functional.cross_entropy(model(inputs).float(), labels)
        wrapper.update_params(loss)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize('with_cp', [False, True])
def test_weights_travel_in_bfloat16_on_cuda_only(device, with_cp):
    whole = Classifier(with_cp).to(device)
    sharded = FSDP2(copy.deepcopy(whole), param_dtype='bfloat16')
    seen = []
    block = sharded.module.backbone.blocks[0]
    block.attn.register_forward_pre_hook(lambda module, _: seen.append(module.qkv.weight.dtype))

    losses = train(sharded, device)
    expected = train(whole, device)
    assert set(seen) == {torch.bfloat16 if device == 'cuda' else torch.float32}
    # Autocast rounds the weights of a whole model to bfloat16 too; norms and biases differ.
    tolerance = 1e-6 if device == 'cpu' else 0.01
    assert losses == pytest.approx(expected, abs=tolerance)
    assert losses[-1] < losses[0] - 0.05
    for name, param in sharded.module.named_parameters():
        assert isinstance(param, DTensor) and param.dtype == torch.float32, name
        difference = (param.full_tensor() - dict(whole.named_parameters())[name]).abs().max()
        assert difference <= (1e-5 if device == 'cpu' else 4e-3), name  # 4 steps of 1e-3
