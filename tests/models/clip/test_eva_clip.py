"""Contract of the image-text model in one process."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from evamm.engine import AmpOptimWrapper, FlopMeter
from evamm.engine.strategies import find_blocks

from .pairs import CONTEXT, build, gradients, images, samples, tokens

RANDOM = dict(drop_path_rate=0.4, patch_dropout=0.5)


def step(model, count=6, seed=3):
    """Gradients of one forward and backward pass in training mode."""
    model.train().zero_grad()
    torch.manual_seed(seed)
    losses = model(images(count), samples(tokens(count)), mode='loss')
    losses['loss'].backward()
    return losses['loss'].detach(), gradients(model)


def assert_equal(found, expected, rtol=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=1e-13, msg=name)


def test_modes():
    model = build().eval()
    rows = tokens(4)
    image_features, text_features, scale = model(images(4), samples(rows))
    torch.testing.assert_close(image_features, F.normalize(model.encode_image(images(4)), dim=-1))
    torch.testing.assert_close(text_features, F.normalize(model.encode_text(rows), dim=-1))
    assert scale.item() == pytest.approx(1 / 0.07)
    assert model(images(4))[1] is None and model(None, samples(rows))[0] is None
    losses = model(images(4), samples(rows), mode='loss')
    logits = scale * image_features @ text_features.t()
    target = torch.arange(4)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
    torch.testing.assert_close(losses['loss'], expected)
    assert losses['logit_scale'] == scale and not losses['logit_scale'].requires_grad
    with pytest.raises(ValueError, match="mode='train'"):
        model(images(4), samples(rows), mode='train')


def test_several_texts_of_a_sample_follow_one_another():
    model, rows = build().eval(), tokens(6)
    several = [DataSample(), DataSample()]
    several[0].set_field(rows[:2], 'text_tokens')
    several[1].set_field(rows[2:], 'text_tokens')
    found = model(None, several)[1]
    torch.testing.assert_close(found, model.encode_text(rows, normalize=True))


def test_short_captions_are_cut_without_a_change():
    model, seen = build().eval(), []
    rows = tokens(6)[:, :]
    lengths = rows.argmax(-1) + 1
    model.text.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    short = lengths < CONTEXT - 2
    found = model.encode_text(rows[short])
    assert seen[0] == (int(short.sum()), int(lengths[short].max())) and seen[0][1] < CONTEXT
    torch.testing.assert_close(found, model.text(rows[short]), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (tokens(2)[0], r'shape \[B, T\], found torch.int64 \[12\]'),
        (tokens(2).float(), 'found torch.float32'),
        (tokens(2)[:0], r'\[0, 12\]'),
        (tokens(2) + 3, r'the id 52 is not in the vocabulary .* \(50 ids\)'),
    ],
)
def test_tokens_that_are_none_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        build().encode_text(wrong)


@pytest.mark.parametrize('scale', [None, 0.0, -1.0])
def test_a_factor_without_a_logarithm_is_refused(scale):
    with pytest.raises(ValueError, match='logit_scale=.* must be a positive number'):
        build(logit_scale=scale)


def test_the_sigmoid_loss_needs_a_bias_when_the_model_is_built():
    with pytest.raises(ValueError, match='model.logit_bias=-10'):
        build(loss=dict(type='evamm.SigmoidLoss'))


@pytest.mark.parametrize('size', [1, 3, 4])
def test_micro_batches_have_the_gradients_of_the_whole_batch(size):
    whole_loss, whole = step(build())
    loss, found = step(build(train_cfg=dict(micro_batch_size=size)))
    torch.testing.assert_close(loss, whole_loss)
    assert_equal(found, whole)
    # Gradients of the parts alone are others: the negatives are missing.
    model = build()
    for part in (slice(0, 3), slice(3, 6)):
        (model(images(6)[part], samples(tokens(6)[part]), mode='loss')['loss'] / 2).backward()
    assert (gradients(model)['head.weight'] - whole['head.weight']).norm() > 0.1 * whole[
        'head.weight'
    ].norm()


def test_micro_batches_replay_their_random_numbers():
    """As a run that keeps all activations and draws the same numbers for each part."""
    parts = dict(train_cfg=dict(micro_batch_size=3))
    loss, found = step(build(vision=RANDOM, **parts))
    model = build(vision=RANDOM).train()
    torch.manual_seed(3)
    halves = [
        model._encode(images(6)[part], tokens(6)[part]) for part in (slice(0, 3), slice(3, 6))
    ]
    kept = model.loss(*map(torch.cat, zip(*halves, strict=True)), model.logit_scale.exp())
    kept.backward()
    torch.testing.assert_close(loss, kept.detach())
    assert_equal(found, gradients(model))
    assert not torch.allclose(step(build(vision=RANDOM, **parts), seed=4)[0], loss)
    # The blocks may be recomputed, too.
    both = build(vision=dict(with_cp=True, **RANDOM), text=dict(with_cp=True), **parts)
    assert_equal(step(both)[1], found)


def test_micro_batches_keep_the_activations_of_one():
    """Of the tensors saved for the backward pass, not of those recomputed within it."""

    def saved(**options):
        model, sizes = build(**options).train(), []
        alive = {param.data_ptr() for param in model.parameters()}

        def pack(tensor):
            if tensor.untyped_storage().data_ptr() not in alive:
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(images(16), samples(tokens(16)), mode='loss')
        return sum(sizes)

    assert saved(train_cfg=dict(micro_batch_size=4)) < 0.1 * saved()


def test_evaluation_needs_no_parts(monkeypatch):
    model = build(train_cfg=dict(micro_batch_size=2)).eval()
    monkeypatch.setattr('evamm.models.clip.eva_clip.checkpoint', None)
    with torch.no_grad():
        model(images(6), samples(tokens(6)), mode='loss')


def test_logit_scale_stays_in_its_range():
    model = build().train()
    batch = dict(inputs=images(4), data_samples=samples(tokens(4)))
    optimizer = AmpOptimWrapper(torch.optim.SGD([model.logit_scale], lr=0.0))
    for value, expected in ((5.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        model.logit_scale.data.fill_(value)
        model.train_step(copy.copy(batch), optimizer)
        assert model.logit_scale.item() == pytest.approx(expected)
    free = build(train_cfg=dict(clamp_logit_scale=None)).train()
    free.logit_scale.data.fill_(5.0)
    free.train_step(batch, optimizer)
    assert free.logit_scale.item() == 5.0


def test_sigmoid_loss_trains_its_bias():
    loss = dict(type='evamm.SigmoidLoss')
    model = build(loss=loss, logit_scale=10.0, logit_bias=-10.0)
    assert model.logit_scale.exp().item() == pytest.approx(10) and model.logit_bias.item() == -10
    assert step(model)[1]['logit_bias'].item() != 0
    assert 'logit_bias' not in dict(build().named_parameters())


def test_towers_are_found_for_compilation_and_sharding():
    names = find_blocks(build())
    assert len(names) == 6
    assert {name.split('.')[0] for name in names} == {'backbone', 'text'}


def test_flop_meter_counts_what_runs():
    """Both towers and the head, three times; what is computed again is the hardware's."""
    lengths = (3, 5, 7, 9)
    rows = torch.zeros(4, CONTEXT, dtype=torch.long)
    for row, length in zip(rows, lengths, strict=True):
        row[length - 1] = 1  # the end of the text

    def counted(**options):
        model = build(**options).train()
        meter = FlopMeter(model)
        meter.active = True
        model(images(4), samples(rows), mode='loss')['loss'].backward()
        flops = meter.take()
        meter.remove()
        return flops

    model = build()
    towers = model.count_macs((4, 3, 16, 16)) - model.text.count_macs((4, CONTEXT))
    forward = 2 * (towers + model.text.count_macs((4, 9)))
    assert counted() == (3 * forward, 3 * forward)
    forward = 2 * (towers + model.text.count_macs((2, 5)) + model.text.count_macs((2, 9)))
    assert counted(train_cfg=dict(micro_batch_size=2)) == (3 * forward, 4 * forward)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(vision=dict(final_norm=True), train_cfg=dict(micro_batch=3)), 'micro_batch'),
        (dict(text=dict(embed_dims=8)), 'text.embed_dims=8'),
        (dict(init_cfg=dict(type='Normal')), "type='Pretrained'"),
    ],
)
def test_errors_name_the_setting(options, words):
    with pytest.raises(ValueError, match=words):
        build(**options)
