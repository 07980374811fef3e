"""Teachers; their official numbers are in tests/parity/test_golden_pretraining.py."""

import open_clip
import pytest
import torch
from mmpretrain.models import VisionTransformer

from evamm.checkpoints import CheckpointError
from evamm.engine.errors import ConfigError
from evamm.models import BackboneTeacher, CLIPTeacher, EVAViT, OpenCLIPTeacher

VISION = dict(image_size=32, layers=2, width=128, patch_size=8)
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pretrained(path) -> dict:
    return dict(type='Pretrained', checkpoint=str(path))


@pytest.mark.parametrize('quick_gelu', [True, False])
def test_tokens_of_open_clip(tmp_path, quick_gelu):
    """open_clip gives normalised tokens itself; the projection is that of the class token."""
    model = open_clip.model.CLIP(
        24,
        open_clip.CLIPVisionCfg(**VISION, output_tokens=True),
        open_clip.CLIPTextCfg(context_length=4, vocab_size=10, width=16, heads=2, layers=1),
        quick_gelu=quick_gelu,
    ).eval()
    torch.save(model.state_dict(), tmp_path / 'clip.pt')
    teacher = OpenCLIPTeacher(
        model_cfg=dict(embed_dim=24, vision_cfg=VISION, quick_gelu=quick_gelu),
        init_cfg=pretrained(tmp_path / 'clip.pt'),
    )
    with torch.no_grad():
        _, tokens = model.visual(IMAGES)
        expected = tokens @ model.visual.proj
    found = teacher(IMAGES)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 16, teacher.target_dims)


def test_released_towers_have_the_right_size():
    """Nothing is read or allocated before it is needed."""
    for name, dims, side in (('ViT-L-14-quickgelu', 768, 224), ('ViT-B-16-quickgelu', 512, 224)):
        teacher = OpenCLIPTeacher(name, init_cfg=pretrained('open_clip::openai'))
        assert teacher.target_dims == dims and teacher.img_size == (side, side)
        assert all(param.is_meta for param in teacher.parameters())
    giant = CLIPTeacher(init_cfg=pretrained('https://example.org/eva_clip_psz14.pt'))
    assert sum(param.numel() for param in giant.parameters()) == 1_012_588_928
    assert giant.target_dims == 1024 and all(param.is_meta for param in giant.parameters())


def test_names_are_checked():
    with pytest.raises(ConfigError, match='unknown to open_clip'):
        OpenCLIPTeacher('ViT-Z-99')
    with pytest.raises(ConfigError, match='no plain vision transformer'):
        OpenCLIPTeacher('RN50')
    teacher = OpenCLIPTeacher('ViT-B-16-quickgelu', init_cfg=pretrained('open_clip::nobody'))
    with pytest.raises(ConfigError, match="no weights 'nobody'.*openai"):
        teacher.load()


@pytest.mark.parametrize(
    'settings, prefix, tokens',
    [
        (dict(out_type='featmap'), 'backbone.', 'map'),
        (dict(out_type='raw'), '', 'class token first'),
    ],
)
def test_a_backbone_of_mmpretrain(tmp_path, settings, prefix, tokens):
    arch = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
    backbone = VisionTransformer(arch, img_size=32, patch_size=8, **settings)
    backbone.eval()
    state = {prefix + name: value for name, value in backbone.state_dict().items()}
    torch.save({'state_dict': state | {'head.weight': torch.zeros(3)}}, tmp_path / 'vit.pth')
    teacher = BackboneTeacher(
        dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=32, patch_size=8, **settings),
        prefix_tokens=int(tokens != 'map'),
        init_cfg=pretrained(tmp_path / 'vit.pth'),
    )
    found = teacher(IMAGES)
    with torch.no_grad():
        expected = backbone(IMAGES)[0]
    if tokens == 'map':
        expected = torch.stack([expected[..., row, col] for row in range(4) for col in range(4)], 1)
    else:
        expected = expected[:, 1:]
    torch.testing.assert_close(found, expected)
    assert teacher.target_dims == 24 and found.shape == (2, 16, 24)


def test_standardised_tokens():
    backbone = dict(
        type='evamm.EVAViT', arch=dict(embed_dims=16, depth=1, num_heads=2), img_size=32
    )
    teacher = BackboneTeacher(
        dict(backbone, patch_size=8, out_type='featmap'), standardize=True, allow_random=True
    )
    found = teacher(IMAGES)
    assert found.mean(-1).abs().max() < 1e-5
    torch.testing.assert_close(found.std(-1, correction=0), torch.ones(2, 16), atol=1e-2, rtol=0)


def test_a_pooled_feature_is_no_target():
    teacher = BackboneTeacher(
        dict(type='evamm.EVAViT', arch=dict(embed_dims=16, depth=1, num_heads=2), img_size=28),
        img_size=28,
        allow_random=True,
    )
    with pytest.raises(ConfigError, match='patch features are needed'):
        teacher(IMAGES)


def test_weights_of_another_model(tmp_path):
    trunk = EVAViT(dict(embed_dims=16, depth=1, num_heads=2), img_size=28)
    torch.save(trunk.state_dict(), tmp_path / 'eva.pth')
    for teacher in (
        CLIPTeacher('eva02-tiny', init_cfg=pretrained(tmp_path / 'eva.pth')),
        OpenCLIPTeacher(
            model_cfg=dict(embed_dim=24, vision_cfg=VISION),
            init_cfg=pretrained(tmp_path / 'eva.pth'),
        ),
        BackboneTeacher(
            dict(type='mmpretrain.VisionTransformer', arch='deit-tiny'),
            init_cfg=pretrained(tmp_path / 'eva.pth'),
        ),
    ):
        with pytest.raises(CheckpointError, match=r'eva\.pth'):
            teacher.load()
        assert not teacher.is_loaded
    with pytest.raises(CheckpointError, match='does not exist'):
        CLIPTeacher('eva02-tiny', init_cfg=pretrained(tmp_path / 'none.pth')).load()


def test_a_tower_without_its_projection_is_refused(tmp_path):
    """The head of a CLIP is part of the target; a trunk alone is not enough."""
    arch = dict(embed_dims=16, depth=1, num_heads=2)
    trunk = EVAViT(arch, img_size=28, out_type='raw')
    torch.save(trunk.state_dict(), tmp_path / 'trunk.pth')
    teacher = CLIPTeacher(arch, 8, img_size=28, init_cfg=pretrained(tmp_path / 'trunk.pth'))
    with pytest.raises(CheckpointError, match=r'head\.weight'):
        teacher.load()


def test_images_of_another_size_are_resized():
    teacher = CLIPTeacher(
        dict(embed_dims=16, depth=1, num_heads=2), 8, img_size=56, allow_random=True
    )
    small = torch.rand(2, 3, 28, 28)
    large = torch.nn.functional.interpolate(small, size=56, mode='bicubic', antialias=True)
    torch.testing.assert_close(teacher(small), teacher(large))


def test_unsupported_init_cfg():
    with pytest.raises(ConfigError, match='Pretrained'):
        CLIPTeacher('eva02-tiny', init_cfg=dict(type='Xavier'))
