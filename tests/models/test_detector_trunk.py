"""The trunk as a detector runs it: windows, relative positions, maps of any size."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from evamm.checkpoints import load_checkpoint, rel_pos_map
from evamm.models import EVAViT, SimpleFeaturePyramid
from evamm.models.layers import relative_position

EVA01 = dict(
    embed_dims=32, depth=3, num_heads=4, ffn_hidden_dims=24, patch_size=4, ffn='mlp', rope=False
)
RULES = ('linear', 'geometric')
DETECTOR = dict(
    img_size=24,
    pretrain_img_size=16,
    out_type='featmap',
    final_norm=False,
    with_cls_token=False,
    window_size=3,
    window_blocks=(0, 2),
)


def build(arch=EVA01, **options):
    torch.manual_seed(0)
    model = EVAViT(arch, **{**DETECTOR, 'relative_position': True, **options})
    model.init_weights()
    for name, param in model.named_parameters():
        if 'rel_pos' in name:
            assert not param.any()  # official: zero at first
            torch.nn.init.normal_(param, std=0.5)
    return model


def test_tables_are_for_a_window_or_for_the_grid():
    shapes = {name: tuple(p.shape) for name, p in build(img_size=(24, 32)).named_parameters()}
    assert shapes['pos_embed'] == (1, 17, 32)
    assert [shapes[f'blocks.{i}.attn.rel_pos_h'] for i in range(3)] == [(5, 8), (11, 8), (5, 8)]
    assert [shapes[f'blocks.{i}.attn.rel_pos_w'] for i in range(3)] == [(5, 8), (15, 8), (5, 8)]
    assert not [name for name in build(relative_position=False).state_dict() if 'rel_' in name]


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('size', [(36, 36), (24, 40), (12, 20)])
def test_any_input_size_equals_a_model_built_and_loaded_for_it(rule, size, tmp_path):
    model = build(relative_position_resize=rule).eval()
    torch.save(model.state_dict(), tmp_path / 'model.pth')
    native = build(relative_position_resize=rule, img_size=size).eval()
    report = load_checkpoint(native, tmp_path / 'model.pth')
    resized = {name for name, *_ in report.resized}
    sides = zip('hw', size, strict=True)
    assert resized == {f'blocks.1.attn.rel_pos_{axis}' for axis, side in sides if side != 24}
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(model(x)[0], native(x)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [(36, 36), (24, 40)])
def test_img_size_is_nothing_to_rope_and_windows(size):
    """They follow the grid of the batch, so a detector may pad to another square."""
    arch = dict(embed_dims=32, depth=3, num_heads=2, patch_size=4)
    model = build(arch, relative_position=False).eval()
    native = build(arch, relative_position=False, img_size=size).eval()
    native.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, *size)
    assert model.arch.rope and torch.equal(model(x)[0], native(x)[0])


@pytest.mark.parametrize(
    'arch, size, expected',
    [
        ('eva-giant', 1280, (1_011_754_368, 12_278_880)),
        ('eva-giant', 1024, (1_011_698_048, 12_278_880)),
        ('eva02-base', 1024, (85_848_576, 5_560_000)),
        ('eva02-large', 1536, (303_388_608, 7_805_184)),
    ],
)
def test_number_of_parameters_is_the_official_one(arch, size, expected):
    """Counted on ``ViT`` and ``SimpleFeaturePyramid`` of EVA-01/det and EVA-02/det."""
    giant = arch == 'eva-giant'
    options = dict(DETECTOR, img_size=size, pretrain_img_size=224, patch_size=16, window_size=16)
    if giant:  # global attention in every fourth block
        options['window_blocks'] = [index for index in range(40) if index % 4 != 3]
    with torch.device('meta'):
        trunk = EVAViT(arch, **options, relative_position=giant)
        neck = SimpleFeaturePyramid(trunk.embed_dims)
    counts = [sum(param.numel() for param in part.parameters()) for part in (trunk, neck)]
    assert tuple(counts) == expected


@pytest.mark.parametrize('size', [(24, 24), (20, 28)])
def test_arithmetic_equals_the_counter(size):
    with torch.device('meta'):
        model = EVAViT(EVA01, **DETECTOR, relative_position=True).eval()
        image = torch.zeros(2, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    expected = 2 * model.count_macs(image.shape)
    resized = sum(
        2 * 11 * (2 * side // 4 - 1) * 8 for side in size if side != 24
    )  # tables of the one global block
    assert counter.get_total_flops() == expected + resized


def test_the_two_rules_differ():
    x = torch.randn(1, 3, 36, 36)
    linear, geometric = (build(relative_position_resize=rule).eval()(x)[0] for rule in RULES)
    assert (linear - geometric).norm() > 1e-3 * linear.norm()


@pytest.mark.parametrize('limit', [1024, 0])
def test_checkpointing_with_drop_path_gives_equal_gradients(limit, monkeypatch):
    monkeypatch.setattr(relative_position, '_MAX_MATRIX', limit)
    x = torch.randn(4, 3, 20, 28)
    grads = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, drop_path_rate=0.5).train()
        torch.manual_seed(1)
        model(x)[0].square().sum().backward()
        grads.append({name: param.grad for name, param in model.named_parameters()})
    for name, grad in grads[0].items():
        assert grad is not None and (grad.any() or name == 'pos_embed'), name
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def test_runs_in_double_precision():
    """Everything on the way is computed in float64, position embedding and tables included."""
    single, x = build(relative_position_resize='geometric').eval(), torch.randn(1, 3, 36, 20)
    exact = single.double()(x.double())[0]
    assert exact.dtype == torch.float64
    shaken = build(relative_position_resize='geometric').eval().double()
    with torch.no_grad():
        for param in shaken.parameters():
            param.mul_(1 + 1e-13)
    moved = (shaken(x.double())[0] - exact).norm() / exact.norm()
    assert 0 < moved < 1e-10


def test_compiles_without_graph_breaks(monkeypatch):
    torch.compiler.reset()  # an image size that another test compiled would make sizes symbols
    monkeypatch.setattr(relative_position, '_MAX_MATRIX', 9)  # a matrix in windows only
    arch = dict(EVA01, depth=2)
    model = build(arch, window_blocks=[0], relative_position_resize='geometric').eval()
    whole = torch.compile(model, backend='aot_eager', fullgraph=True)
    image = torch.randn(1, 3, 36, 24)
    found, expected = whole(image)[0], model(image)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_tokens_lie_in_order_in_memory():
    """As they come out of a convolution they would be copied by every norm of every block."""
    model = build().eval()
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, args: seen.append(args[0].is_contiguous()))
    (featmap,) = model(torch.randn(2, 3, 24, 24))
    assert seen == [True] * 3
    assert featmap.is_contiguous(memory_format=torch.channels_last)  # what the pyramid wants


def test_maps_are_made_once():
    assert rel_pos_map(11, 17, 'geometric') is rel_pos_map(11, 17, 'geometric')


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(with_cls_token=True, window_blocks=()), 'relative_position needs with_cls_token'),
        (dict(relative_position_resize='beit'), "relative_position_resize='beit' must be"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)
