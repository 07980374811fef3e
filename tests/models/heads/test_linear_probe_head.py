"""evamm.LinearProbeHead alone, behind a frozen trunk, and with the official files."""

import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.structures import DataSample

import evamm.registry  # noqa: F401
from evamm.checkpoints import load_checkpoint, write_checkpoint
from evamm.engine import LARS
from evamm.models import EVAViT, LinearProbeHead

ARCH = dict(embed_dims=16, depth=2, num_heads=2)


def samples(labels):
    return [DataSample().set_gt_label(label) for label in labels]


def classifier(head='evamm.LinearProbeHead', **backbone):
    backbone = dict(out_type='cls_token', frozen_stages=2, drop_path_rate=0.5) | backbone
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='evamm.EVAViT', arch=ARCH, img_size=28, patch_size=14, **backbone),
            head=dict(type=head, in_channels=16, num_classes=3),
        )
    )


def test_logits_are_those_of_standardised_features():
    torch.manual_seed(0)
    head = LinearProbeHead(4, 3).train()
    feats = torch.randn(8, 4).double().float() * 5 + 2
    mean, var = feats.mean(0), feats.var(0, unbiased=False)
    expected = (feats - mean) / (var + 1e-6).sqrt() @ head.fc.weight.t() + head.fc.bias
    torch.testing.assert_close(head((feats,)), expected)
    loss = head.loss((torch.zeros(2, 9), feats), samples([0, 1, 2, 0, 1, 2, 0, 1]))['loss']
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(expected, labels))


def test_the_norm_has_no_weights_and_the_official_eps():
    head = LinearProbeHead(4, 3)
    assert dict(head.named_parameters()).keys() == {'fc.weight', 'fc.bias'}
    assert head.bn.eps == 1e-6 and not head.bn.affine


def test_weights_start_with_deviation_001():
    torch.manual_seed(0)
    head = LinearProbeHead(512, 100)
    head.init_weights()
    assert head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not head.fc.bias.any()


def test_predictions():
    head = LinearProbeHead(4, 3).eval()
    feats = torch.randn(2, 4)
    found = head.predict((feats,), samples([1, 2]))
    for sample, logits, label in zip(found, head((feats,)), (1, 2), strict=True):
        torch.testing.assert_close(sample.pred_score, logits.softmax(0))
        assert sample.pred_label.item() == logits.argmax() and sample.gt_label.item() == label
    assert len(head.predict((feats,))) == 2


def test_the_frozen_trunk_keeps_nothing_for_a_backward_pass():
    """No parameter of the trunk trains, so torch records no graph; drop path is off."""
    model = classifier()
    model.init_weights()
    model.train()
    images = torch.randn(6, 3, 28, 28)
    (features,) = model.extract_feat(images)
    assert not features.requires_grad and features.grad_fn is None
    assert torch.equal(features, model.extract_feat(images)[0])
    assert model.head.bn.training

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        loss = model.loss(images, samples([0, 1, 2, 0, 1, 2]))['loss']
    # Features and weights of the head, statistics, logits and labels: nothing of a block.
    assert max(tensor.numel() for tensor in kept) <= 6 * 16
    loss.backward()
    trained = {name for name, param in model.named_parameters() if param.grad is not None}
    assert trained == {'head.fc.weight', 'head.fc.bias'}


def test_it_learns():
    torch.manual_seed(0)
    centres = torch.randn(3, 8) * 100  # of a size that no learning rate of the recipe fits alone
    labels = torch.arange(300) % 3
    feats = centres[labels] + 30 * torch.randn(300, 8)
    head = LinearProbeHead(8, 3).train()
    head.init_weights()
    optimizer = LARS(head.parameters(), lr=1.0)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss((feats,), samples(labels.tolist()))['loss'].backward()
        optimizer.step()
    scores = torch.stack([sample.pred_label for sample in head.eval().predict((feats,))])
    assert (scores.squeeze(1) == labels).float().mean() > 0.95


def official_file(path):
    """As the authors' `eva_clip_vis_enc_sz*_lincls` files: the head is a sequence."""
    torch.manual_seed(3)
    trunk = EVAViT(ARCH, img_size=28, patch_size=14, out_type='cls_token')
    trunk.init_weights()
    head = {
        'head.0.running_mean': torch.randn(16),
        'head.0.running_var': torch.rand(16) + 0.5,
        'head.0.num_batches_tracked': torch.tensor(7200),
        'head.1.weight': torch.randn(3, 16),
        'head.1.bias': torch.randn(3),
    }
    torch.save({'model': {**trunk.state_dict(), **head}}, path)
    return trunk, head


def test_official_files_load(tmp_path):
    trunk, stored = official_file(tmp_path / 'probe.pth')
    model = classifier().eval()
    load_checkpoint(model, tmp_path / 'probe.pth', complete=True)
    images = torch.randn(2, 3, 28, 28)
    feats = trunk(images)[-1]
    scale = (stored['head.0.running_var'] + 1e-6).rsqrt()
    normed = (feats - stored['head.0.running_mean']) * scale
    expected = normed @ stored['head.1.weight'].t() + stored['head.1.bias']
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    # An ordinary classifier takes both in one layer, as before.
    plain = classifier(head='mmpretrain.LinearClsHead').eval()
    load_checkpoint(plain, tmp_path / 'probe.pth', complete=True)
    torch.testing.assert_close(plain(images), expected, rtol=1e-4, atol=1e-5)


def test_its_own_files_load_again(tmp_path):
    official_file(tmp_path / 'probe.pth')
    model, again = classifier().eval(), classifier().eval()
    load_checkpoint(model, tmp_path / 'probe.pth')
    write_checkpoint({'state_dict': model.state_dict()}, tmp_path / 'ours.pth')
    load_checkpoint(again, tmp_path / 'ours.pth', complete=True)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_clip_file_starts_the_trunk_alone(tmp_path):
    """Text tower, projection and temperature are left out; the head starts fresh."""
    torch.manual_seed(3)
    trunk = EVAViT(ARCH, img_size=28, patch_size=14, out_type='cls_token')
    trunk.init_weights()
    pair = {f'visual.{name}': value for name, value in trunk.state_dict().items()}
    pair |= {'visual.head.weight': torch.ones(8, 16), 'visual.head.bias': torch.ones(8)}
    pair |= {'text.positional_embedding': torch.ones(7, 4), 'logit_scale': torch.tensor(4.6)}
    torch.save(pair, tmp_path / 'clip.pt')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'clip.pt'))
    model = classifier(init_cfg=init_cfg)
    model.init_weights()
    for name, value in trunk.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert model.head.fc.weight.abs().max() < 0.1
