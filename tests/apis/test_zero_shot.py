"""Classes by their names, embeddings and galleries, from a config as from a released name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import evamm
from evamm.apis import model_index
from evamm.apis.transforms import ImageTransform
from evamm.checkpoints import write_checkpoint
from evamm.datasets.tokenizer import get_tokenizer

CONFIG = '''
"""A tiny image-text model with every part of a released one."""
default_scope = 'mmpretrain'
data_preprocessor = dict(
    type='ClsDataPreprocessor',
    mean=[122.7709383, 116.7460125, 104.09373615],
    std=[68.5005327, 66.6321579, 70.32316305],
    to_rgb=True,
)
model = dict(
    type='evamm.EVACLIP',
    backbone=dict(
        type='evamm.EVAViT',
        arch=dict(embed_dims=32, depth=2, num_heads=2),
        img_size=56,
        out_type='cls_token',
        init_cfg=dict(type='Pretrained', checkpoint='/nowhere/vision.pt'),
    ),
    text=dict(
        type='evamm.CLIPTextTransformer',
        arch=dict(width=32, depth=2, num_heads=2),
        init_cfg=dict(type='Pretrained', checkpoint='/nowhere/text.pt'),
    ),
    embed_dims=16,
    test_cfg=dict(type='zero_shot', classes='dataset', templates=['a {}.', 'the {}']),
)
test_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='ResizeEdge', scale=56, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=56),
    dict(type='PackInputs'),
]
test_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_prefix='data/none',
        metainfo=dict(classes=('cat', 'sparrow', 'old_car')),
        pipeline=test_pipeline,
    ),
)
'''
METAFILE = """
Collections:
  - Name: EVA-CLIP
Models:
  - Name: eva02-clip-test_3rdparty
    Alias: [EVA02-CLIP-test]
    In Collection: EVA-CLIP
    Results:
      - Task: Zero-Shot Image Classification
        Dataset: ImageNet-1k
        Metrics: {Top 1 Accuracy: 80.0}
    Weights: WEIGHTS
    Config: configs/clip.py
"""
TEXTS = ['a cat', 'a bird upon a branch', 'a car']


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('EVAMM_HOME', str(tmp_path / 'home'))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / 'clip.py').write_text(CONFIG)
    return Config.fromfile(tmp_path / 'clip.py')


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights that tell images and texts apart."""
    torch.nn.init.normal_(model.head.weight, std=0.3)
    torch.nn.init.normal_(model.text.token_embedding.weight)
    return model


@pytest.fixture
def model(config: Config) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomise(evamm.get_model(config))


@pytest.fixture
def index(tmp_path: Path, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model index with the pair in it, and its weights."""
    root = tmp_path / 'index'
    (root / 'configs').mkdir(parents=True)
    (root / 'configs' / 'clip.py').write_text(CONFIG)
    write_checkpoint(model.state_dict(), tmp_path / 'weights.pth')
    text = METAFILE.replace('WEIGHTS', str(tmp_path / 'weights.pth'))
    (root / 'configs' / 'metafile.yml').write_text(text)
    (root / 'model-index.yml').write_text('Import:\n  - configs/metafile.yml\n')
    monkeypatch.setattr(model_index, 'index_root', lambda: root)
    return root


def cosines(model: torch.nn.Module, paths: list[Path], texts: list[str]) -> torch.Tensor:
    """[N, T], one image and one text after the other."""
    transform = ImageTransform(model._config)
    with torch.no_grad():
        rows = [model.encode_image(transform(path)[None])[0] for path in paths]
        columns = [model.encode_text(get_tokenizer()(text))[0] for text in texts]
    pairs = [torch.cosine_similarity(row, column, dim=0) for row in rows for column in columns]
    return torch.stack(pairs).view(len(paths), len(texts))


def test_probabilities_of_sentences(model: torch.nn.Module, photos: Path) -> None:
    paths = [photos / 'cat.png', photos / 'bird.jpg', photos / 'grey.jpg']
    results = evamm.ZeroShotInferencer(model, TEXTS)(paths, batch_size=2)
    expected = (model.logit_scale.exp() * cosines(model, paths, TEXTS)).softmax(dim=1).detach()
    scores = np.stack([result['pred_scores'] for result in results])
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-6)
    assert [result['pred_class'] for result in results] == [
        TEXTS[label] for label in expected.argmax(1)
    ]
    assert [result['img_path'] for result in results] == [str(path) for path in paths]
    assert scores.std(axis=0).max() > 0.01  # the images are told apart
    sharper = evamm.ZeroShotInferencer(model, TEXTS, logit_scale=100)(paths[0])
    assert sharper[0]['pred_score'] > scores[0].max()


def test_names_in_sentences_and_files(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    (tmp_path / 'classes.txt').write_text('cat\nbird\n')
    (tmp_path / 'templates.txt').write_text('a photo of a {}.\n')
    one = evamm.ZeroShotInferencer(model, ['cat', 'bird'], 'a photo of a {}.')
    two = evamm.ZeroShotInferencer(model, tmp_path / 'classes.txt', tmp_path / 'templates.txt')
    three = evamm.ZeroShotInferencer(model, ['a photo of a cat.', 'a photo of a bird.'])
    assert one.classes == two.classes == ('cat', 'bird')
    assert torch.equal(one.weights, two.weights)
    torch.testing.assert_close(one.weights, three.weights)
    imagenet = evamm.ZeroShotInferencer(model, 'imagenet', 'simple', cache=False)
    assert imagenet.weights.shape == (1000, 16)
    assert imagenet(photos / 'cat.png')[0]['pred_scores'].shape == (1000,)


def test_pictures_and_errors(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    (tmp_path / 'torn.jpg').write_bytes((photos / 'bird.jpg').read_bytes()[:9000])
    inferencer = evamm.ZeroShotInferencer(model, TEXTS)
    results = inferencer(
        [tmp_path / 'torn.jpg', photos / 'cat.png'], on_error='report', show_dir=tmp_path / 'out'
    )
    assert set(results[0]) == {'img_path', 'error'}
    assert results[1]['pred_class'] in TEXTS
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['cat.png']


def test_embeddings_are_unit_vectors_in_order(model: torch.nn.Module, photos: Path) -> None:
    paths = [photos / 'grey.jpg', photos / 'cat.png', photos / 'bird.jpg']
    images = evamm.embed_images(model, paths, batch_size=2)
    texts = evamm.embed_texts(model, TEXTS, batch_size=2)
    assert images.dtype == texts.dtype == torch.float32
    assert images.shape == texts.shape == (3, 16)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(images @ texts.T, cosines(model, paths, TEXTS))
    assert not images.requires_grad and not texts.requires_grad
    assert evamm.embed_texts(model, TEXTS[0]).shape == (1, 16)
    assert evamm.embed_images(model, Image.open(photos / 'cat.png').convert('RGB')).shape == (1, 16)
    assert evamm.embed_images(model, []).shape == evamm.embed_texts(model, []).shape == (0, 16)


def test_embedding_leaves_a_model_as_it_was(model: torch.nn.Module, photos: Path) -> None:
    model.train()
    model.backbone.patch_embed.eval()  # frozen
    before = [module.training for module in model.modules()]
    evamm.embed_texts(model, TEXTS)
    evamm.embed_images(model, photos / 'cat.png')
    assert [module.training for module in model.modules()] == before


def test_unreadable_image_leaves_nan_in_its_row(
    model: torch.nn.Module, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / 'torn.jpg').write_bytes((photos / 'bird.jpg').read_bytes()[:9000])
    with pytest.warns(UserWarning, match='1 of 2 images cannot be read; .*torn.jpg'):
        images = evamm.embed_images(
            model, [tmp_path / 'torn.jpg', photos / 'cat.png'], on_error='report'
        )
    assert images.isnan().all(dim=1).tolist() == [True, False]


def test_everything_from_a_name(index: Path, photos: Path, model: torch.nn.Module) -> None:
    name = 'eva02-clip-test_3rdparty'
    assert evamm.ZeroShotInferencer.list_models() == [name]
    built = evamm.get_model('eva02-clip-TEST', pretrained=True)
    expected = evamm.embed_images(model, photos / 'cat.png')
    torch.testing.assert_close(evamm.embed_images(name, photos / 'cat.png'), expected)
    torch.testing.assert_close(
        evamm.embed_texts(built, TEXTS), evamm.embed_texts(model, TEXTS), rtol=0, atol=0
    )
    inferencer = evamm.ZeroShotInferencer(name, TEXTS, device='cpu')
    scores = inferencer(photos / 'cat.png')[0]['pred_scores']
    again = evamm.ZeroShotInferencer(model, TEXTS)(photos / 'cat.png')[0]['pred_scores']
    np.testing.assert_allclose(scores, again, rtol=1e-5)
    larger = evamm.get_model(name, pretrained=True, img_size=84)
    assert evamm.embed_images(larger, photos / 'cat.png').shape == (1, 16)
    assert larger.backbone.pos_embed.shape == (1, 37, 32)


def test_the_config_says_what_a_pair_predicts(model: torch.nn.Module, photos: Path) -> None:
    """`test_cfg` makes a classifier of it, for the ordinary functions."""
    result = evamm.inference_model(model, photos / 'cat.png')
    inferencer = evamm.ZeroShotInferencer(
        model, ['cat', 'sparrow', 'old car'], ['a {}.', 'the {}'], logit_scale=100
    )
    expected = inferencer(photos / 'cat.png')[0]
    np.testing.assert_allclose(result['pred_scores'], expected['pred_scores'], rtol=1e-4)
    assert result['pred_class'] == expected['pred_class']


def test_image_tower_of_a_pair_gives_features(
    index: Path, model: torch.nn.Module, photos: Path
) -> None:
    name = 'eva02-clip-test_3rdparty'
    cls = evamm.extract_features(name, photos / 'cat.png', pool='cls')
    images = ImageTransform(model._config)(photos / 'cat.png')[None]
    with torch.no_grad():
        torch.testing.assert_close(cls, model.backbone(images)[-1])
        torch.testing.assert_close(model.head(cls), model.encode_image(images))
    maps = evamm.extract_features(name, photos / 'cat.png', pool='map', blocks=[0, -1])
    assert [tuple(map_.shape) for map_ in maps] == [(1, 32, 4, 4)] * 2


def test_a_pair_in_mmpretrain(index: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmpretrain
    from mmpretrain.apis.model import ModelHub

    from evamm.apis.hub import register_model_index

    monkeypatch.setattr(ModelHub, '_models_dict', dict(ModelHub._models_dict))
    monkeypatch.setattr(ModelHub, 'get', ModelHub.get)
    late = '_register_mmpretrain_models'
    monkeypatch.setattr(ModelHub, late, getattr(ModelHub, late))
    register_model_index(index)
    theirs = mmpretrain.get_model('EVA02-CLIP-test', pretrained=True)
    expected = evamm.embed_texts('eva02-clip-test_3rdparty', TEXTS)
    torch.testing.assert_close(evamm.embed_texts(theirs, TEXTS), expected)


def test_weights_of_one_tower_are_named(config: Config, tmp_path: Path) -> None:
    state = evamm.get_model(config).state_dict()
    images_only = {name: value for name, value in state.items() if not name.startswith('text.')}
    write_checkpoint(images_only, tmp_path / 'half.pth')
    with pytest.warns(UserWarning, match='half.pth does not hold text.* means nothing'):
        evamm.get_model(config, tmp_path / 'half.pth')


def test_captioned_pipelines_take_images_alone(config: Config, photos: Path) -> None:
    """A retrieval or training config ends with the caption's steps."""
    expected = evamm.get_transforms(config)(photos / 'cat.png')
    config.test_dataloader.dataset.pipeline[-1:] = [
        dict(type='evamm.ChooseText'),
        dict(type='evamm.TokenizeText'),
        dict(type='evamm.PackPairInputs'),
    ]
    assert torch.equal(evamm.get_transforms(config)(photos / 'cat.png'), expected)


def test_mistakes_are_explained(model: torch.nn.Module, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes='nothing.txt' is neither"):
        evamm.ZeroShotInferencer('no-such-model', 'nothing.txt')
    with pytest.raises(TypeError, match='A text must be a str, found int: 3'):
        evamm.embed_texts(model, ['a', 3])
    classifier = evamm.get_model('eva02-tiny-p14_in21k-pre_3rdparty_in1k', device='meta')
    with pytest.raises(NotImplementedError, match='ImageClassifier has no text tower'):
        evamm.embed_texts(classifier, 'a')
    with pytest.raises(ValueError, match="direction must be .* found 'up'"):
        evamm.retrieval_gallery(model, photos, 'a', direction='up')
    with pytest.raises(ValueError, match='topk must be at least 1, found 0'):
        evamm.retrieval_gallery(model, photos, 'a', topk=0)
    with pytest.raises(ValueError, match='at least one image and one text'):
        evamm.retrieval_gallery(model, photos, [])
    with pytest.raises(ValueError, match='at most 100, found 101'):
        evamm.retrieval_gallery(model, photos, ['a'] * 101)


def test_gallery_shows_what_is_nearest(
    model: torch.nn.Module, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def keep(name):
        def draw(queries, answers, scores, **options):
            drawn[name] = (list(queries), len(answers), scores, options)
            return Image.new('RGB', (4, 4))

        return draw

    for name in ('draw_images_of_texts', 'draw_texts_of_images'):
        monkeypatch.setattr(f'evamm.apis.gallery.{name}', keep(name))
    paths = [photos / 'cat.png', photos / 'bird.jpg', photos / 'grey.jpg']
    torn = tmp_path / 'torn.jpg'
    torn.write_bytes((photos / 'bird.jpg').read_bytes()[:9000])
    with pytest.warns(UserWarning, match='torn.jpg'):
        evamm.retrieval_gallery(model, [torn, *paths], TEXTS, tmp_path / 'out' / 'a.png')
    queries, count, scores, options = drawn['draw_images_of_texts']
    assert (queries, count) == (TEXTS, 3)
    assert options['names'] == ['cat.png', 'bird.jpg', 'grey.jpg']
    expected = cosines(model, paths, TEXTS).numpy()
    np.testing.assert_allclose(scores, expected.T, rtol=1e-4, atol=1e-6)
    assert (tmp_path / 'out' / 'a.png').is_file()
    evamm.retrieval_gallery(model, paths, TEXTS, direction='image_to_text')
    queries, count, scores, options = drawn['draw_texts_of_images']
    assert count == 3 and [image.shape[2] for image in queries] == [3, 3, 3]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_galleries_are_drawn(model: torch.nn.Module, photos: Path) -> None:
    one = evamm.retrieval_gallery(model, photos, TEXTS, topk=2)
    two = evamm.retrieval_gallery(model, photos, TEXTS, direction='image_to_text')
    for picture in (one, two):
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 500


@pytest.mark.parametrize('count', [0, 3])
def test_a_pair_has_no_number_of_classes(count):
    with pytest.raises(ValueError, match='an image-text model has no classes.*-headless'):
        evamm.get_model('EVA02-CLIP-B-16', device='meta', num_classes=count)
