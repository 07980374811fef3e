"""Features of every kind and block, checked against the trunk's own blocks."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import evamm
from evamm.apis.features import FeatureExtractor
from evamm.apis.images import ImageReadError
from evamm.apis.transforms import ImageTransform
from evamm.models.backbones import EVAViT


@pytest.fixture
def model(config: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    return evamm.get_model(config)


def block_outputs(trunk: EVAViT, images: torch.Tensor) -> list[torch.Tensor]:
    """Tokens after each block, [B, 1 + N, D], taken by hooks."""
    outputs: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda *args: outputs.append(args[-1]))
        for block in trunk.blocks
    ]
    with torch.no_grad():
        trunk(images)
    for handle in handles:
        handle.remove()
    return outputs


def test_shapes_and_values_of_every_pool(model: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 56, 84)
    tokens = block_outputs(model.backbone, images)[-1]
    assert tokens.shape == (2, 1 + 4 * 6, 32)
    features = {
        pool: evamm.extract_features(model, images, pool=pool)
        for pool in ('tokens', 'cls', 'map', 'mean')
    }
    torch.testing.assert_close(features['tokens'], tokens)
    torch.testing.assert_close(features['cls'], tokens[:, 0])
    assert features['map'].shape == (2, 32, 4, 6)
    torch.testing.assert_close(features['map'][:, :, 2, 5], tokens[:, 1 + 2 * 6 + 5])
    torch.testing.assert_close(features['mean'], model.backbone.fc_norm(tokens[:, 1:].mean(1)))
    torch.testing.assert_close(features['mean'], model.extract_feat(images)[0])


def test_blocks_in_the_order_asked_for(model: torch.nn.Module) -> None:
    images = torch.randn(1, 3, 56, 56)
    outputs = block_outputs(model.backbone, images)
    last, first, again = evamm.extract_features(model, images, pool='tokens', blocks=[-1, 0, 3])
    torch.testing.assert_close(first, outputs[0])
    torch.testing.assert_close(last, outputs[3])
    assert torch.equal(last, again)


def test_final_norm_is_part_of_the_last_block(config: Config) -> None:
    model = evamm.get_model(config, backbone=dict(final_norm=True), num_classes=0)
    torch.nn.init.constant_(model.backbone.norm.bias, 3.0)
    images = torch.randn(1, 3, 56, 56)
    outputs = block_outputs(model.backbone, images)
    middle, last = evamm.extract_features(model, images, pool='tokens', blocks=[2, 3])
    torch.testing.assert_close(middle, outputs[2])
    torch.testing.assert_close(last, model.backbone.norm(outputs[3]))


def test_the_model_is_left_as_it_was(model: torch.nn.Module, photos: Path) -> None:
    model.train()
    images = torch.randn(1, 3, 56, 56)
    with pytest.raises(RuntimeError):
        evamm.extract_features(model, torch.randn(1, 4, 56, 56), pool='map', blocks=[1])
    features = evamm.extract_features(model, images, pool='map', blocks=[1])[0]
    assert not features.requires_grad
    evamm.extract_features(model, photos / 'cat.png', pool='map')
    assert model.training
    assert model.backbone.training
    assert (model.backbone.out_type, model.backbone.out_indices) == ('avg_featmap', (3,))


def test_stochastic_depth_is_off(config: Config) -> None:
    model = evamm.get_model(config, backbone=dict(drop_path_rate=0.9))
    images = torch.randn(4, 3, 56, 56)
    expected = evamm.extract_features(model, images)
    torch.testing.assert_close(evamm.extract_features(model.train(), images), expected)


def test_features_can_train_a_probe(model: torch.nn.Module) -> None:
    features = evamm.extract_features(model, torch.randn(2, 3, 56, 56))
    probe = torch.nn.Linear(32, 1)
    probe(features).sum().backward()  # an inference-mode tensor would raise here
    assert probe.weight.grad is not None


def test_images_go_through_the_models_own_transforms(model: torch.nn.Module, photos: Path) -> None:
    transform = ImageTransform(model._config)
    paths = [photos / 'cat.png', photos / 'bird.jpg', photos / 'grey.jpg']
    expected = evamm.extract_features(model, torch.stack([transform(path) for path in paths]))
    features = evamm.extract_features(model, paths, batch_size=2)
    assert features.shape == (3, 32)
    torch.testing.assert_close(features, expected)
    one, two = FeatureExtractor(model)(paths, batch_size=3, pool='map', blocks=[0, 2])
    assert one.shape == two.shape == (3, 32, 4, 4)
    assert evamm.extract_features(model, paths[0]).shape == (1, 32)


def test_a_bare_trunk_takes_tensors_only(photos: Path) -> None:
    trunk = EVAViT(dict(embed_dims=32, depth=2, num_heads=2), img_size=56)
    assert evamm.extract_features(trunk, torch.zeros(1, 3, 56, 56), pool='cls').shape == (1, 32)
    with pytest.raises(TypeError, match='carries no transforms'):
        evamm.extract_features(trunk, photos)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(pool='max'), "pool must be one of mean, cls, tokens, map, found 'max'"),
        (dict(blocks=[]), r'blocks=\[\] names no block; the trunk has blocks 0 to 3'),
        (dict(blocks=[0, 4]), r'blocks=\[4\] do not exist: the trunk has blocks 0 to 3'),
    ],
)
def test_wrong_options_are_explained(model: torch.nn.Module, options: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        evamm.extract_features(model, torch.zeros(1, 3, 56, 56), **options)


def test_missing_pieces_are_explained(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r'normalised and \[B, 3, H, W\], found torch.uint8'):
        evamm.extract_features(model, torch.zeros(1, 3, 56, 56, dtype=torch.uint8))
    with pytest.raises(ValueError, match='Linear contains no evamm.EVAViT'):
        evamm.extract_features(torch.nn.Linear(1, 1), torch.zeros(1, 3, 56, 56))
    arch = dict(embed_dims=32, depth=2, num_heads=2)
    trunk = EVAViT(arch, img_size=56, out_type='featmap', with_cls_token=False)
    with pytest.raises(ValueError, match="pool='cls' needs a class token"):
        evamm.extract_features(trunk, torch.zeros(1, 3, 56, 56), pool='cls')


def test_a_model_is_built_where_the_tensor_is(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)  # it would go to the GPU
    size = config.model.backbone.img_size
    images = torch.zeros(1, 3, size, size)
    assert evamm.extract_features(config, images, pretrained=False).device == images.device


def test_no_image_gives_no_row(model: torch.nn.Module) -> None:
    assert evamm.extract_features(model, []).shape == (0, 32)
    maps = evamm.extract_features(model, [], pool='map', blocks=[0, 1])
    assert [tuple(map_.shape) for map_ in maps] == [(0, 32, 4, 4)] * 2


def test_unreadable_image_leaves_nan_in_its_row(
    model: torch.nn.Module, photos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / 'torn.jpg'
    bad.write_bytes((photos / 'bird.jpg').read_bytes()[:9000])
    inputs = [bad, photos / 'cat.png', bad, photos / 'bird.jpg']
    with pytest.raises(ImageReadError, match='torn.jpg'):
        evamm.extract_features(model, inputs)
    extractor = FeatureExtractor(model)
    with pytest.warns(UserWarning, match='2 of 4 images cannot be read; .*torn.jpg'):
        features = extractor(inputs, batch_size=3, on_error='report')
    assert sorted(extractor.errors) == [0, 2]
    assert features.isnan().all(dim=1).tolist() == [True, False, True, False]
    torch.testing.assert_close(features[[1, 3]], evamm.extract_features(model, inputs[1::2]))
    assert extractor(inputs[1:2]).shape == (1, 32)
    assert extractor.errors == {}
    with pytest.raises(ImageReadError, match='torn.jpg'):
        extractor([bad, bad], on_error='report')
