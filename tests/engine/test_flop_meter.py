import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import evamm.registry  # noqa: F401
from evamm.engine import FlopMeter

ARCH = {'embed_dims': 24, 'depth': 2, 'num_heads': 2}


class Classifier(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.backbone = MODELS.build(
            {'type': 'evamm.EVAViT', 'arch': ARCH, 'img_size': 32, 'patch_size': 8, **options}
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        return self.head(self.backbone(x)[-1]).sum()


def counted(function):
    """FLOPs by torch's own counter; it sees the attention on the meta device only."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def metered(model, x, backward=True):
    meter = FlopMeter(model)
    meter.active = True
    out = model(x)
    if backward:
        out.backward()
    return meter.take()


def test_a_training_step_equals_torchs_counter():
    with torch.device('meta'):
        model, x = Classifier(), torch.zeros(3, 3, 32, 40)
    flops, hardware_flops = metered(model, x)
    # The patch embedding needs no gradient for its input, the image; the formula counts it.
    saved = 2 * 3 * 4 * 5 * 24 * 3 * 8**2
    assert flops - saved == counted(lambda: model(x).backward())
    assert hardware_flops == flops


def test_a_forward_pass_without_gradients_counts_once():
    with torch.device('meta'):
        model, x = Classifier(), torch.zeros(2, 3, 32, 32)
    with torch.no_grad():
        assert metered(model, x, backward=False)[0] == counted(lambda: model(x))


def test_windows_and_their_padding_count():
    options = {'window_size': 3, 'window_blocks': (1,), 'with_cls_token': False}
    with torch.device('meta'):
        model, x = Classifier(**options), torch.zeros(1, 3, 32, 40)
    with torch.no_grad():
        assert metered(model, x, backward=False)[0] == counted(lambda: model(x))


def test_a_frozen_trunk_has_no_backward_pass():
    model, x = Classifier(), torch.zeros(2, 3, 32, 32)
    whole, _ = metered(model, x)
    model.backbone.requires_grad_(False)
    frozen, _ = metered(model, x)
    head = 2 * 2 * 24 * 5
    assert whole == 3 * (frozen - 2 * head)


def test_recomputed_blocks_count_for_the_hardware_only():
    x = torch.zeros(2, 3, 32, 32)
    plain, _ = metered(Classifier(), x)
    flops, hardware_flops = metered(Classifier(with_cp=True), x)
    head = 3 * 2 * 2 * 24 * 5
    assert flops == plain
    assert 3 * (hardware_flops - head) == 4 * (flops - head)


class Sum(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x).sum()


@pytest.mark.parametrize(
    'layer', [nn.Conv2d(4, 8, 3, stride=2), nn.Conv1d(4, 2, 3), nn.ConvTranspose2d(4, 6, 2, 2)]
)
def test_convolutions_equal_torchs_counter(layer):
    x = torch.zeros((2, 4, 5, 6)[: layer.weight.ndim], requires_grad=True)
    assert metered(Sum(layer), x)[0] == counted(lambda: layer(x).sum().backward())


def test_a_grouped_convolution_equals_its_parts():
    """Torch's counter forgets the groups in the backward pass."""
    x = torch.zeros(2, 4, 5, 6)
    parts = metered(Sum(nn.Conv2d(2, 4, 3)), x[:, :2])[0]
    assert metered(Sum(nn.Conv2d(4, 8, 3, groups=2)), x)[0] == 2 * parts


def test_removing_takes_every_hook_away():
    model, x = Classifier(), torch.zeros(2, 3, 32, 32)
    meter = FlopMeter(model)
    meter.active = True
    meter.remove()
    model(x)
    assert meter.take() == (0, 0)
