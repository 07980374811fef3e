"""Contract of the trunk: sizes, outputs, freezing, layers, initialisation."""

import math

import pytest
import torch
from mmengine.logging import MMLogger

from evamm.checkpoints import load_checkpoint, resize_pos_embed
from evamm.models.backbones import EVAViT
from evamm.registry import MODELS

SMALL = dict(embed_dims=32, depth=3, num_heads=4, ffn_hidden_dims=24, patch_size=4)
FAMILIES = {
    'eva01': dict(SMALL, ffn='mlp', rope=False),
    'eva-large': dict(SMALL, ffn='mlp', rope=False, qkv_bias='qkv'),
    'eva02': SMALL,
    'eva02-subln': dict(SMALL, ffn_norm=True),
    'eva02-clip': dict(SMALL, ffn_norm=True, attn_norm=True),
    'enormous': dict(SMALL, ffn='mlp', rope=False, post_norm=True),
}


def build(arch=SMALL, **options):
    torch.manual_seed(0)
    model = EVAViT(arch, **{'img_size': 16, **options})
    model.init_weights()
    return model


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('size', [(16, 16), (24, 24), (8, 20)])
def test_any_input_size_equals_a_model_built_for_it(family, size):
    model = build(FAMILIES[family]).eval()
    native = EVAViT(FAMILIES[family], img_size=size).eval()
    state = model.state_dict()
    state['pos_embed'] = resize_pos_embed(model.pos_embed.detach(), native.grid_size)
    native.load_state_dict(state)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(model(x)[0], native(x)[0], rtol=1e-5, atol=1e-6)


def test_a_pass_at_another_size_changes_nothing():
    model = build().eval()
    x = torch.randn(1, 3, 16, 16)
    before = model(x)[0]
    model(torch.randn(1, 3, 32, 12))
    assert torch.equal(model(x)[0], before)


def test_state_dict_holds_nothing_of_the_grid_but_pos_embed():
    small, large = build(img_size=16).state_dict(), build(img_size=32).state_dict()
    assert [name for name in small if small[name].shape != large[name].shape] == ['pos_embed']
    assert not [name for name in small if 'rope' in name or 'freqs' in name]
    assert set(small) == {name for name, _ in build().named_parameters()}


@pytest.mark.parametrize('img_size', [32, (24, 40)])
def test_position_embedding_kept_at_the_size_of_pretraining(img_size, tmp_path):
    detector = dict(out_type='featmap', final_norm=False, with_cls_token=False)
    small = build(**detector).eval()
    large = EVAViT(SMALL, img_size=img_size, pretrain_img_size=16, **detector).eval()
    assert large.grid_size == tuple(side // 4 for side in large.img_size)
    large.load_state_dict(small.state_dict())  # nothing is of another shape
    x = torch.randn(1, 3, *large.img_size)
    assert torch.equal(large(x)[0], small(x)[0])
    # A file with another table is resized to the one that is kept.
    other = build(img_size=24)
    torch.save(other.state_dict(), tmp_path / 'other.pth')
    report = load_checkpoint(large, tmp_path / 'other.pth')
    assert [name for name, *_ in report.resized] == ['pos_embed']
    expected = resize_pos_embed(other.pos_embed.detach(), (4, 4))
    torch.testing.assert_close(large.pos_embed.detach(), expected)


def test_output_types():
    x = torch.randn(2, 3, 16, 24)
    tokens = build(out_type='raw', final_norm=False).eval()(x)[0]
    assert tokens.shape == (2, 1 + 24, 32)
    normed = torch.nn.functional.layer_norm(tokens, (32,), eps=1e-6)
    for out_type, expected in {
        'raw': normed,
        'cls_token': normed[:, 0],
        'featmap': normed[:, 1:].transpose(1, 2).reshape(2, 32, 4, 6),
    }.items():
        torch.testing.assert_close(build(out_type=out_type).eval()(x)[0], expected)
    # Mean pooling normalises the mean; with a final norm it averages normalised tokens.
    pooled = torch.nn.functional.layer_norm(tokens[:, 1:].mean(1), (32,), eps=1e-6)
    torch.testing.assert_close(build().eval()(x)[0], pooled)
    torch.testing.assert_close(build(final_norm=True).eval()(x)[0], normed[:, 1:].mean(1))


def test_out_indices_return_unnormalised_inner_blocks():
    x = torch.randn(1, 3, 16, 16)
    outs = build(out_type='raw', out_indices=(0, -1)).eval()(x)
    first = build(out_type='raw', out_indices=0).eval()(x)
    assert len(outs) == 2 and len(first) == 1
    assert torch.equal(outs[0], first[0])
    model = build(out_type='raw').eval()
    torch.testing.assert_close(outs[1], model(x)[0])
    shallow = EVAViT(dict(SMALL, depth=1), img_size=16, out_type='raw', final_norm=False).eval()
    shallow.load_state_dict({key: model.state_dict()[key] for key in shallow.state_dict()})
    torch.testing.assert_close(outs[0], shallow(x)[0])


def test_mask_token_replaces_patches_before_the_position_embedding():
    model = build(with_mask_token=True, out_type='raw').eval()
    x = torch.randn(2, 3, 16, 16)
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    changed = x.clone()
    changed[0, :, 4:8, 8:12] += 1  # only the masked patch differs
    assert torch.equal(model(x, mask)[0], model(changed, mask)[0])
    assert torch.equal(model(x, mask.flatten(1))[0], model(x, mask)[0])
    out = model(x, mask)[0]
    model.pos_embed.data[:, 1 + 6] += torch.randn(32)  # a constant would vanish in the norm
    assert not torch.allclose(model(x, mask)[0][0], out[0], atol=1e-4)
    with pytest.raises(ValueError, match='with_mask_token=True'):
        build()(x, mask)


@pytest.mark.parametrize('family', FAMILIES)
def test_checkpointing_gives_equal_gradients(family):
    x = torch.randn(4, 3, 16, 16)
    grads = []
    for with_cp in (False, True):
        model = build(FAMILIES[family], with_cp=with_cp, drop_path_rate=0.5).train()
        torch.manual_seed(1)
        model(x)[0].square().sum().backward()
        grads.append({name: param.grad for name, param in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


def test_checkpointing_works_with_frozen_embeddings():
    model = build(with_cp=True, frozen_stages=0).train()
    model(torch.randn(1, 3, 16, 16))[0].sum().backward()
    assert all(param.grad is not None for param in model.blocks.parameters())


def test_drop_path_rises_linearly():
    rates = [block.drop_path.rate for block in build(drop_path_rate=0.4).blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4])


def test_drop_path_drops_whole_samples_in_training_only():
    model = build(drop_path_rate=0.6)
    x = torch.randn(1, 3, 16, 16).expand(16, -1, -1, -1)
    dropped = model.train()(x)[0]
    assert len({tuple(row.tolist()) for row in dropped.detach().round(decimals=4)}) > 4
    kept = model.eval()(x)[0]
    torch.testing.assert_close(kept, kept[:1].expand_as(kept))


def frozen(model):
    return {name for name, param in model.named_parameters() if not param.requires_grad}


def test_frozen_stages():
    assert frozen(build()) == set()
    embeddings = {'cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias'}
    assert frozen(build(freeze_patch_embed=True)) == {
        name for name in embeddings if name.startswith('patch')
    }
    assert frozen(build(frozen_stages=0)) == embeddings
    one = frozen(build(frozen_stages=1))
    assert {name.split('.')[1] for name in one - embeddings} == {'0'}
    everything = build(frozen_stages=3, drop_path_rate=0.5).train()
    assert frozen(everything) == {name for name, _ in everything.named_parameters()}
    x = torch.randn(8, 3, 16, 16)
    assert torch.equal(everything(x)[0], everything(x)[0])  # no drop path in frozen blocks


def test_layer_depth():
    model = build(with_mask_token=True, layer_scale=0.1)
    expected = {'cls_token': 0, 'mask_token': 0, 'pos_embed': 0, 'fc_norm': 4, 'patch_embed': 0}
    for name, _ in model.named_parameters():
        top = name.split('.')[0]
        layer = int(name.split('.')[1]) + 1 if top == 'blocks' else expected[top]
        assert model.get_layer_depth('backbone.' + name, 'backbone.') == (layer, 5)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)
    assert model.no_weight_decay() == {'pos_embed', 'cls_token'}


def test_windowed_trunk_runs_at_any_size_without_class_token():
    options = dict(out_type='featmap', with_cls_token=False, window_size=2)
    model = build(window_blocks=(0, 2), **options).eval()
    assert model(torch.randn(1, 3, 20, 12))[0].shape == (1, 32, 5, 3)
    # A window as large as the grid is global attention.
    x = torch.randn(1, 3, 16, 16)
    full = build(window_blocks=(0, 1, 2), **{**options, 'window_size': 4}).eval()
    torch.testing.assert_close(full(x)[0], build(**options).eval()(x)[0])
    assert not torch.allclose(model(x)[0], full(x)[0], atol=1e-4)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(img_size=18), r'img_size=\(18, 18\).*patch_size=4'),
        (dict(img_size=0), 'img_size=0 must be'),
        (dict(img_size=-4), 'img_size=-4 must be'),
        (dict(img_size=(16, 16, 16)), 'or .height, width.'),
        (dict(img_size=16.0), 'img_size=16.0 must be'),
        (dict(pretrain_img_size=18), r'pretrain_img_size=\(18, 18\)'),
        (dict(patch_size=0), 'patch_size=0 must be'),
        (dict(in_channels=0), 'in_channels=0 must be'),
        (dict(out_indices=()), r'out_indices=\(\) must name a block'),
        (dict(out_indices=(2, 0)), r'out_indices=\(2, 0\) must rise'),
        (dict(out_indices=(1, -2)), 'no block twice'),
        (dict(out_type='cls'), "out_type='cls'"),
        (dict(out_indices=3), '3 is no block of a 3-block'),
        (dict(out_indices=-4), '-4 is no block'),
        (dict(out_type='cls_token', with_cls_token=False), 'with_cls_token=True'),
        (dict(window_blocks=[0], with_cls_token=False), 'window_size >= 1'),
        (dict(window_blocks=[0], window_size=2), 'with_cls_token=False'),
        (dict(window_blocks=[3], window_size=2, with_cls_token=False), 'window_blocks: 3'),
        (dict(frozen_stages=4), 'frozen_stages=4'),
        (dict(weight_init='xavier'), "weight_init='xavier'"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        EVAViT(SMALL, **{'img_size': 16, **options})


def test_built_by_name_from_any_scope():
    model = MODELS.build(dict(type='evamm.EVAViT', arch=SMALL, img_size=16))
    assert isinstance(model, EVAViT)


@pytest.mark.parametrize('family', FAMILIES)
def test_compiles_without_graph_breaks(family):
    model = build(FAMILIES[family], drop_path_rate=0.2).train()
    compiled = torch.compile(model.blocks[-1], backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 17, 32, requires_grad=True)
    rope = model._rope((4, 4), x, 1)
    compiled(x, rope, (4, 4)).sum().backward()
    model.eval()
    whole = torch.compile(model, backend='aot_eager', fullgraph=True)
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(whole(image)[0], model(image)[0], rtol=1e-5, atol=1e-5)


def test_finetune_initialisation():
    wide = dict(embed_dims=128, depth=3, num_heads=2, patch_size=4)
    blocks = build(wide, weight_init='finetune').blocks
    for index, block in enumerate(blocks, start=1):
        assert block.attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.03)
        scaled = 0.02 / math.sqrt(2 * index)
        assert block.attn.proj.weight.std().item() == pytest.approx(scaled, rel=0.03)
        assert block.mlp.w3.weight.std().item() == pytest.approx(scaled, rel=0.03)
        assert not block.mlp.w12.bias.any() and not block.attn.q_bias.any()


@pytest.mark.parametrize('weight_init', ['finetune', 'pretrain'])
@pytest.mark.parametrize('family', FAMILIES)
def test_initialisation_leaves_nothing_as_it_was(family, weight_init):
    with torch.device('meta'):
        model = EVAViT(FAMILIES[family], img_size=16, weight_init=weight_init, layer_scale=0.1)
    model.to_empty(device='cpu')
    for param in model.parameters():
        param.data.fill_(float('nan'))
    model.init_weights()
    assert not [name for name, param in model.named_parameters() if param.isnan().any()]
    assert (model.blocks[1].gamma_2 == 0.1).all()


def test_pretrain_initialisation_of_eva02():
    wide = dict(embed_dims=128, depth=12, num_heads=2, patch_size=4)
    plain = build(wide, weight_init='pretrain')
    hidden = plain.arch.ffn_hidden_dims
    weight = plain.blocks[5].mlp.w12.weight  # packed in the official code: one Xavier draw
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (128 + 2 * hidden)), rel=0.03)
    split = build(dict(wide, ffn_norm=True), weight_init='pretrain')
    gain = math.sqrt(math.log(24))
    block = split.blocks[5]
    query, _, value = block.attn.qkv.weight.chunk(3)
    xavier = math.sqrt(2 / (128 + 128))
    assert query.std().item() == pytest.approx(xavier, rel=0.03)
    assert value.std().item() == pytest.approx(xavier * gain, rel=0.03)
    assert block.attn.proj.weight.std().item() == pytest.approx(xavier * gain, rel=0.03)
    expected = math.sqrt(2 / (128 + hidden)) * gain
    for weight in (*block.mlp.w12.weight.chunk(2), block.mlp.w3.weight):
        assert weight.std().item() == pytest.approx(expected, rel=0.03)
    assert plain.cls_token.abs().max() <= 0.02


def test_pretrain_initialisation_of_eva01_and_mae():
    wide = dict(embed_dims=128, depth=2, num_heads=2, patch_size=4, ffn='mlp', rope=False)
    model = build(wide, weight_init='pretrain')
    assert model.blocks[0].attn.qkv.weight.abs().max() <= 0.015
    assert model.patch_embed.proj.weight.abs().max() <= 0.015
    ratio = model.blocks[0].mlp.fc2.weight.std() / model.blocks[1].mlp.fc2.weight.std()
    assert ratio.item() == pytest.approx(math.sqrt(2), rel=0.03)
    mae = build(dict(wide, qkv_bias='qkv'), weight_init='pretrain')
    assert not mae.pos_embed[:, 0].any()
    # Channels 0..D/2 encode the column: two tokens of one column share them.
    assert torch.equal(mae.pos_embed[0, 1, :64], mae.pos_embed[0, 1 + 4, :64])
    assert not torch.equal(mae.pos_embed[0, 1, :64], mae.pos_embed[0, 2, :64])


def checkpoint_of(model, path):
    torch.save({'module': {**model.state_dict(), 'mask_token': torch.zeros(1, 1, 32)}}, path)
    return str(path)


def test_init_cfg_loads_a_file_with_its_options_and_logs_what_happened(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', lambda r: lines.append(r.msg))
    pretrained = build(out_type='raw')  # owns `norm`, as after masked image modelling
    torch.nn.init.constant_(pretrained.norm.bias, 0.5)
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint_of(pretrained, tmp_path / 'mim.pt'))
    fresh = build(init_cfg=dict(init_cfg, mim_norm='discard'), img_size=24)
    moved = build(init_cfg=init_cfg)
    for name, value in pretrained.blocks.state_dict().items():
        assert torch.equal(fresh.blocks.state_dict()[name], value), name
    assert not fresh.fc_norm.bias.any() and torch.equal(moved.fc_norm.bias, pretrained.norm.bias)
    logged = '\n'.join(lines)
    for words in ('mim.pt', 'resized   pos_embed', 'mask_token', "mim_norm='discard'"):
        assert words in logged


def test_what_a_file_may_lack_gets_the_official_initialisation(tmp_path):
    path = checkpoint_of(build(FAMILIES['eva02-subln']), tmp_path / 'file.pt')
    init_cfg = dict(type='Pretrained', checkpoint=path, allow_partial=True)
    model = build(FAMILIES['eva02-subln'] | dict(depth=4), init_cfg=init_cfg)
    new = model.blocks[3].attn.qkv  # linear layers have no bias at first, PyTorch's own have one
    assert not model.blocks[3].mlp.w12.bias.any() and 0.015 < new.weight.std() < 0.025


def test_other_initialisers_are_refused():
    with pytest.raises(ValueError, match="use type='Pretrained' or leave init_cfg out"):
        build(init_cfg=dict(type='Kaiming'))


def test_multiply_adds_of_other_images_than_rgb():
    three, one = build(), build(in_channels=1)
    patches, per_channel = 16, 4**2 * 32
    difference = three.count_macs((2, 3, 16, 16)) - one.count_macs((2, 1, 16, 16))
    assert difference == 2 * patches * 2 * per_channel
