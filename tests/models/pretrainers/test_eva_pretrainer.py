"""EVAPretrainer and MAEPretrainer beyond the official numbers (tests/parity)."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmpretrain.models.utils import TwoNormDataPreprocessor
from mmpretrain.structures import DataSample
from torch.utils.flop_counter import FlopCounterMode

from evamm.checkpoints import load_checkpoint
from evamm.engine.errors import ConfigError
from evamm.engine.flop_meter import FlopMeter
from evamm.engine.hooks.ema import ForeachEMA
from evamm.engine.strategies import compile_blocks
from evamm.models import EVAPretrainer, EVAViT, MAEPretrainer
from evamm.models.pretrainers.masked_tokens import masked_tokens, stack_masks
from evamm.models.teachers.base import CLIP_MEAN, CLIP_STD

ARCH = dict(embed_dims=32, depth=2, num_heads=2)
TRUNK = dict(type='evamm.EVAViT', arch=ARCH, img_size=32, patch_size=8)
TEACHER = dict(
    type='evamm.CLIPTeacher',
    arch=dict(embed_dims=16, depth=2, num_heads=2),
    embed_dims=12,
    img_size=32,
    patch_size=8,
    allow_random=True,
)
DECODER = dict(embed_dims=16, depth=1, num_heads=2)
NORM = dict(mean=list(CLIP_MEAN), std=list(CLIP_STD), to_rgb=True)


def build(**kwargs) -> EVAPretrainer:
    kwargs = {'backbone': TRUNK, 'teacher': TEACHER, 'data_preprocessor': NORM, **kwargs}
    model = EVAPretrainer(**kwargs)
    model.init_weights()
    return model


def build_mae(**kwargs) -> MAEPretrainer:
    trunk = dict(TRUNK, arch=dict(ARCH, ffn='mlp', qkv_bias='qkv', rope=False))
    kwargs = {'backbone': trunk, 'decoder': DECODER, 'teacher': TEACHER, **kwargs}
    model = MAEPretrainer(data_preprocessor=NORM, **kwargs)
    model.init_weights()
    return model


def samples(*counts: int, **fields) -> list[DataSample]:
    """Samples whose masks have so many places, spread over a 4 x 4 grid."""
    out = []
    for index, count in enumerate(counts):
        mask = np.zeros(16, bool)
        mask[np.random.RandomState(index).permutation(16)[:count]] = True
        sample = DataSample()
        sample.set_field(mask.reshape(4, 4), 'mask')
        for name, values in fields.items():
            sample.set_field(values[index], name)
        out.append(sample)
    return out


IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_masks_become_indices():
    masks = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]], bool)
    tokens = masked_tokens(masks, torch.device('cpu'))
    assert tokens.rows.tolist() == [1, 2, 6] and tokens.counts == (2, 0, 1)
    assert tokens.rows_behind(1).tolist() == [2, 3, 9]  # [B, 1 + 3] with a class token in front
    assert tokens.everywhere().rows.tolist() == list(range(9))


def test_masks_may_be_tensors():
    sample = DataSample()
    sample.set_mask(np.eye(2, dtype=bool))
    assert stack_masks([sample]).tolist() == [[True, False, False, True]]


@pytest.mark.parametrize('make', [build, build_mae])
def test_teacher_is_no_part_of_the_model(make):
    model = make()
    assert model.teacher.is_loaded and not any(p.requires_grad for p in model.teacher.parameters())
    assert not any('teacher' in name for name in model.state_dict())
    inside = {id(param) for param in model.parameters()}
    assert not inside & {id(param) for param in model.teacher.parameters()}
    model.train()
    assert not any(module.training for module in model.teacher.modules())
    assert copy.deepcopy(model).teacher is model.teacher
    average = ForeachEMA(model)
    assert len(list(average.module.parameters())) == len(list(model.parameters()))
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='evamm.AmpOptimWrapper',
            constructor='evamm.LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        ),
    )
    optimized = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    assert optimized == {id(param) for param in model.parameters() if param.requires_grad}


def test_state_dict_is_that_of_a_released_file():
    names = set(build().state_dict())
    trunk = EVAViT(ARCH, img_size=32, patch_size=8, out_type='raw', with_mask_token=True)
    expected = {f'backbone.{name}' for name in trunk.state_dict()}
    assert names == expected | {'lm_head.weight', 'lm_head.bias'}


def test_decay_is_the_official_one():
    """The mask token is decayed, position embedding, class token, norms and biases are not."""
    model = build()
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='evamm.AmpOptimWrapper',
            constructor='evamm.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=1.0),
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        ),
    )
    groups = wrapper.optimizer.param_groups
    decayed = {id(p) for group in groups if group['weight_decay'] for p in group['params']}
    assert {group['lr'] for group in groups} == {1.0}
    for name, param in model.named_parameters():
        flat = param.ndim == 1 or name in ('backbone.pos_embed', 'backbone.cls_token')
        assert (id(param) in decayed) != flat, name


@pytest.mark.parametrize('make, counts', [(build, (5, 0, 9)), (build_mae, (12, 12, 12))])
def test_loss_and_prediction(make, counts):
    model = make()
    loss = model(IMAGES, samples(*counts), mode='loss')['loss']
    assert loss.dtype == torch.float32 and -1 <= loss <= 1
    loss.backward()
    for name, param in model.named_parameters():
        assert not param.requires_grad or param.grad is not None, name
    model.eval()
    with torch.no_grad():
        loss = model(IMAGES, samples(*counts), mode='loss')['loss']
        found = model(IMAGES, samples(*counts), mode='predict')
    assert [sample.num_masked for sample in found] == list(counts)
    weighted = sum(sample.mim_cosine * sample.num_masked for sample in found) / sum(counts)
    assert weighted == pytest.approx(-loss.item(), abs=1e-6)


def test_loss_by_definition():
    model = build().eval()
    batch = samples(5, 0, 9)
    mask = torch.from_numpy(stack_masks(batch))
    with torch.no_grad():
        tokens = model.backbone(IMAGES, mask)[0][:, 1:]
        predictions = model.lm_head(tokens)
        targets = model.teacher(IMAGES)
        cosines = torch.nn.functional.cosine_similarity(predictions, targets, dim=-1)
        for loss_on, expected in (('masked', -cosines[mask].mean()), ('all', -cosines.mean())):
            model.loss_on = loss_on
            torch.testing.assert_close(model.loss(IMAGES, batch)['loss'], expected)


def test_head_sees_masked_tokens_only():
    model = build()
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape))
    model.loss(IMAGES, samples(5, 0, 9))
    assert seen == [(14, 12)]


def test_no_masked_patch_at_all_is_no_accident():
    model = build()
    loss = model.loss(IMAGES, samples(0, 0, 0))['loss']
    loss.backward()
    assert loss == 0 and not model.lm_head.weight.grad.any()


def test_several_blocks():
    model = build(
        backbone=dict(TRUNK, out_indices=(0, 1)), teacher=dict(TEACHER, out_indices=(0, -1))
    )
    assert [head.head.out_features for head in model.block_heads] == [16]
    assert model.lm_head.out_features == 12
    batch = samples(5, 0, 9)
    loss = model.loss(IMAGES, batch)['loss']
    mask = torch.from_numpy(stack_masks(batch))
    first, last = model.backbone(IMAGES, mask)
    targets = model.teacher(IMAGES)
    by_hand = [
        head(out[:, 1:][mask]) for head, out in zip(model._heads(), (first, last), strict=True)
    ]
    cosine = torch.nn.functional.cosine_similarity
    expected = [-cosine(p, t[mask], dim=-1).mean() for p, t in zip(by_hand, targets, strict=True)]
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    # The class token of the last block is nobody's target.
    loss.backward()
    assert all(param.grad is not None for param in model.parameters())


@pytest.mark.parametrize('masked_only', [True, False])
@pytest.mark.parametrize('make, counts', [(build, (5, 0, 16)), (build_mae, (12, 12, 12))])
def test_targets_of_the_samples(make, counts, masked_only):
    """A cache gives all targets or those of masked patches; the loss is the teacher's."""
    live = make().eval()
    with torch.no_grad():
        targets = live.teacher(IMAGES).half().numpy()
    masks = [sample.mask.ravel() for sample in samples(*counts)]
    if masked_only:
        targets = [target[mask] for target, mask in zip(targets, masks, strict=True)]
    width = {'head': dict(out_channels=12)} if make is build else {'target_dims': 12}
    cached = make(teacher=None, **width).eval()
    cached.load_state_dict(live.state_dict())
    with torch.no_grad():
        expected = live.loss(IMAGES, samples(*counts))['loss']
        found = cached.loss(IMAGES, samples(*counts, target=targets))['loss']
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_teacher_gets_its_own_normalisation():
    mean, std = (10.0, 20.0, 30.0), (5.0, 6.0, 7.0)
    model = build(teacher=dict(TEACHER, mean=mean, std=std))
    pixels = torch.randint(0, 256, (3, 3, 32, 32)).float()

    def normalised(mean, std):
        return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    seen = model._as_teacher_sees(normalised(CLIP_MEAN, CLIP_STD), two_sizes=False)
    torch.testing.assert_close(seen, normalised(mean, std), atol=1e-4, rtol=1e-4)
    same = build()
    images = normalised(CLIP_MEAN, CLIP_STD)
    assert same._as_teacher_sees(images, two_sizes=False) is images


def test_two_sizes():
    """A larger image for the teacher, normalised by mmpretrain's preprocessor for two."""
    preprocessor = dict(
        NORM,
        type='mmpretrain.TwoNormDataPreprocessor',
        second_mean=[0.0, 0.0, 0.0],
        second_std=[255.0, 255.0, 255.0],
    )
    model = build(teacher=dict(TEACHER, img_size=64, patch_size=16), data_preprocessor=preprocessor)
    assert isinstance(model.data_preprocessor, TwoNormDataPreprocessor)
    pixels = [torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8) for side in (32, 64)]
    batch = model.data_preprocessor(dict(inputs=pixels, data_samples=samples(5, 0, 9)))
    masked = model.masks_of(batch['data_samples'], torch.device('cpu'))
    (found,) = model.compute_targets(batch['inputs'], batch['data_samples'], masked)
    seen = pixels[1].flip(1).float() - torch.tensor(CLIP_MEAN)[:, None, None]
    seen = seen / torch.tensor(CLIP_STD)[:, None, None]
    expected = model.teacher(seen)[masked.mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_masks_stay_on_the_host():
    """The data preprocessor copies tensors to the device; arrays it leaves alone."""
    batch = build().data_preprocessor(
        dict(inputs=torch.zeros(3, 3, 32, 32, dtype=torch.uint8), data_samples=samples(5, 0, 9))
    )
    assert all(isinstance(sample.mask, np.ndarray) for sample in batch['data_samples'])


def test_distributed_wrapper_has_no_teacher(tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        model = build()
        wrapped = MMDistributedDataParallel(model)
        assert not any('teacher' in name for name in wrapped.state_dict())
        count = len([p for p in wrapped.parameters() if p.requires_grad])
        assert count == len(list(model.parameters()))
        losses = wrapped(IMAGES, samples(5, 0, 9), mode='loss')
        losses['loss'].backward()
    finally:
        torch.distributed.destroy_process_group()


def test_checkpoint_starts_other_models(tmp_path):
    model = build()
    path = tmp_path / 'mim.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    trunk = EVAViT(ARCH, img_size=48, patch_size=8)
    report = load_checkpoint(trunk, path)
    assert {rule for _, rule, _ in report.dropped} == {'mim-extras'}
    assert torch.equal(trunk.fc_norm.weight, model.backbone.norm.weight)
    again = build(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True)
    )


def test_mae_checkpoint_starts_a_classifier(tmp_path):
    model = build_mae()
    path = tmp_path / 'mae.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    trunk = EVAViT(model.backbone.arch, img_size=32, patch_size=8)
    load_checkpoint(trunk, path)
    assert torch.equal(trunk.pos_embed, model.backbone.pos_embed) and trunk.pos_embed.requires_grad


def test_mae_trunk_sees_visible_patches_only():
    model = build_mae()
    seen = []
    model.backbone.blocks[0].register_forward_hook(lambda m, args, out: seen.append(out.shape))
    changed = IMAGES.clone()
    batch = samples(12, 12, 12)
    mask = torch.from_numpy(stack_masks(batch)).reshape(3, 4, 4)
    hidden = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None].expand_as(changed)
    changed[hidden] = 7.0
    with torch.no_grad():
        first = model.predict_features(IMAGES, batch)
        assert torch.equal(first, model.predict_features(changed, batch))
    assert seen[0] == (3, 5, 32) and first.shape == (36, 12)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(teacher=None), 'out_channels is missing'),
        (dict(head=dict(out_channels=13)), 'the teacher gives 12'),
        (dict(loss_on='visible'), 'loss_on'),
        (dict(patch_grad_scale=2.0), 'patch_grad_scale'),
        (dict(backbone=dict(TRUNK, out_indices=(0, 1))), 'as many'),
        (dict(backbone=dict(TRUNK, out_type='cls_token')), 'out_type'),
        (dict(teacher=dict(TEACHER, allow_random=False)), 'has no weights'),
        (dict(init_cfg=dict(type='Xavier')), 'init_cfg'),
    ],
)
def test_mistakes_in_a_config(change, message):
    with pytest.raises(ConfigError, match=message):
        build(**change)


def test_mistakes_in_the_data():
    model = build()
    with pytest.raises(ValueError, match=r'evamm\.BlockMasking'):
        model.loss(IMAGES, [DataSample()] * 3)
    with pytest.raises(ConfigError, match=r'no `target`'):
        build(teacher=None, head=dict(out_channels=12)).loss(IMAGES, samples(1, 1, 1))
    other = build(teacher=dict(TEACHER, img_size=64))
    with pytest.raises(ConfigError, match='64 patch tokens, the masks have 16'):
        other.loss(IMAGES, samples(1, 1, 1))
    with pytest.raises(ConfigError, match='same number of patches visible'):
        build_mae().loss(IMAGES, samples(12, 12, 11))


def test_the_teacher_is_compiled_with_the_student():
    """97 % of the arithmetic of a tiny student is the teacher's."""
    model = build()
    expected = model.loss(IMAGES, samples(5, 0, 9))['loss']
    assert compile_blocks(model, backend='eager') == 4
    assert all(block._compiled_call_impl is not None for block in model.teacher.backbone.blocks)
    torch.testing.assert_close(model.loss(IMAGES, samples(5, 0, 9))['loss'], expected)


def test_arithmetic_of_a_step():
    """Trunk and head of the student are counted, the head for masked tokens only."""
    model = build()
    meter = FlopMeter(model)
    meter.active = True
    model(IMAGES, samples(5, 0, 9), mode='loss')
    trunk = model.backbone.count_macs((3, 3, 32, 32))
    assert meter.take()[0] == 6 * (trunk + 14 * 32 * 12)

    mae = build_mae()
    meter = FlopMeter(mae)
    meter.active = True
    with FlopCounterMode(display=False) as counter:
        mae(IMAGES, samples(12, 12, 12), mode='loss')
    teacher = mae.teacher.backbone.count_macs((3, 3, 32, 32)) + 3 * 16 * 16 * 12
    # Products of queries, keys and values: the meter counts those of trunks, the counter none.
    attention = {'trunk': 3 * 2 * 2 * 5**2 * 32, 'teacher': 3 * 2 * 2 * 17**2 * 16}
    # Nor does the meter see how the decoder computes queries, keys and values in one product.
    packed = 3 * 17 * 3 * 16**2
    found = meter.take()[0] / 6 + packed + teacher - sum(attention.values())
    assert found == counter.get_total_flops() / 2
