"""Pre-training models and teachers give the official code's numbers (tests/data/golden)."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from safetensors.torch import load_file
from torch import Tensor

from evamm.checkpoints import load_checkpoint
from evamm.models.heads import CLIPTargetHead
from evamm.models.pretrainers import EVAPretrainer, MAEPretrainer
from evamm.models.pretrainers.masked_tokens import MaskedTokens
from evamm.models.teachers import CLIPTeacher, OpenCLIPTeacher

from . import formula
from .common import TOLERANCE, relative_error
from .test_golden import FAMILIES

GOLDEN = Path(__file__).parents[1] / 'data' / 'golden'
CASES = json.loads((GOLDEN / 'pretrain_cases.json').read_text())
OFFICIAL = load_file(GOLDEN / 'pretrain.safetensors')
BEIT_STYLE = ['eva01_pretrain', 'eva02_s_pretrain', 'eva02_b_pretrain']


def state(name: str) -> dict[str, Tensor]:
    return formula.state_dict(CASES[name]['state'])


def build(name: str, folder: Path) -> EVAPretrainer | MAEPretrainer:
    """A model with the weights of a case, read from a file as official training leaves it."""
    kwargs = CASES[name]['kwargs']
    backbone = dict(
        type='evamm.EVAViT',
        arch=FAMILIES[name[: name.index('_pretrain')]],
        img_size=kwargs['img_size'],
        patch_size=kwargs['patch_size'],
    )
    if name in BEIT_STYLE:
        model = EVAPretrainer(
            backbone,
            head=dict(out_channels=kwargs['predict_feature_dim']),
            patch_grad_scale=0.1 if kwargs.get('stop_grad_conv1') else 1.0,
        )
    else:
        sizes = {'embed_dims': 'embed_dim', 'depth': 'depth', 'num_heads': 'num_heads'}
        decoder = {ours: kwargs[f'decoder_{theirs}'] for ours, theirs in sizes.items()}
        model = MAEPretrainer(backbone, decoder, kwargs['predict_feature_dim'])
    model.init_weights()
    weights = state(name)
    if name not in BEIT_STYLE:  # tables, no weights
        weights['pos_embed'] = model.backbone.pos_embed.detach()
        weights['decoder_pos_embed'] = OFFICIAL[f'{name}.decoder_pos_embed']
    path = folder / 'official.pt'
    torch.save({'module': weights}, path)
    report = load_checkpoint(model, path)
    assert not report.missing and {rule for _, rule, _ in report.dropped} <= {'rope-tables'}
    return model.train()


def batch(name: str) -> tuple[Tensor, list[DataSample]]:
    case = CASES[name]
    images = formula.uniform('image', tuple(case['image']))
    side = case['kwargs']['img_size'] // case['kwargs']['patch_size']
    patches = side**2
    if name in BEIT_STYLE:  # many, none and more
        mask = formula.uniform('mask', (3, patches)) > torch.tensor([[0.4], [9.0], [-0.2]])
    else:
        order = formula.uniform('mae', (3, patches)).argsort(1)
        mask = torch.zeros(3, patches, dtype=torch.bool).scatter_(1, order[:, :192], True)
    assert mask.sum(1).tolist() == case['counts']
    targets = formula.uniform('target', (3, patches, case['kwargs']['predict_feature_dim']))
    samples = []
    for image_mask, target in zip(mask, targets, strict=True):
        sample = DataSample()
        sample.set_field(image_mask.reshape(side, side).numpy(), 'mask')
        sample.set_field(target.numpy(), 'target')
        samples.append(sample)
    return images, samples


def errors(name: str, model: EVAPretrainer | MAEPretrainer) -> dict[str, float]:
    """Relative errors of predictions, loss and gradients."""
    images, samples = batch(name)
    with torch.no_grad():
        found = {'predictions': model.predict_features(images, samples)}
    found['loss'] = model(images, samples, mode='loss')['loss']
    found['loss'].backward()
    gradients = {
        (n.removeprefix('backbone.')): param.grad
        for n, param in model.named_parameters()
        if param.grad is not None
    }
    out = {key: relative_error(value, OFFICIAL[f'{name}.{key}']) for key, value in found.items()}
    for key in CASES[name]['grads']:
        renamed = key.replace('mlp.ffn_ln', 'mlp.norm')
        out[key] = relative_error(gradients[renamed], OFFICIAL[f'{name}.grad.{key}'])
    return out


@pytest.mark.parametrize('name', [*BEIT_STYLE, 'eva_l_pretrain'])
def test_predictions_loss_and_gradients(name: str, tmp_path: Path) -> None:
    for key, value in errors(name, build(name, tmp_path)).items():
        # A loss that is a sum of positive and negative cosines is near zero here.
        tolerance = 20 * TOLERANCE if key == 'loss' else 2 * TOLERANCE
        assert value < tolerance, (key, value)


def test_sine_cosine_table_of_the_decoder(tmp_path: Path) -> None:
    """Computed at the start; the file holds it as well."""
    model = build('eva_l_pretrain', tmp_path)
    table = OFFICIAL['eva_l_pretrain.decoder_pos_embed']
    model.decoder_pos_embed.data.zero_()
    model._is_init = model.backbone._is_init = False
    model.init_weights()
    assert relative_error(model.decoder_pos_embed.detach(), table) < 1e-6


# The golden tensors notice every mistake below.


def _whole_gradient_of_patches(name: str, model, patch: pytest.MonkeyPatch) -> None:
    model.backbone.patch_embed._forward_hooks.clear()


def _mask_before_patches_are_chosen(name: str, model, patch: pytest.MonkeyPatch) -> None:
    """The rows of all patches after the class token, off by one."""
    patch.setattr(MaskedTokens, 'rows_behind', lambda self, prefix: self.rows)


def _mean_of_images(name: str, model, patch: pytest.MonkeyPatch) -> None:
    """Every image with the same weight, however many of its patches are masked."""
    counts = [count for count in CASES[name]['counts'] if count]

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        cosines = self.cosine(self(tokens), targets).split(counts)
        return -torch.stack([cosine.mean() for cosine in cosines]).mean()

    patch.setattr(CLIPTargetHead, 'loss', loss)


def _published_sign(name: str, model, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CLIPTargetHead, 'cosine', staticmethod(lambda a, b: -F.cosine_similarity(a, b)))


def _other_patches(name: str, model, patch: pytest.MonkeyPatch) -> None:
    """Tokens one place off: other patches are visible than the mask says."""
    embed = model.backbone._embed

    def rolled(x: Tensor, mask: Tensor | None) -> tuple:
        tokens, grid = embed(x, mask)
        return tokens.roll(1, dims=1), grid

    patch.setattr(model.backbone, '_embed', rolled)


@pytest.mark.parametrize(
    'mistake, name',
    [
        (_whole_gradient_of_patches, 'eva02_s_pretrain'),
        (_whole_gradient_of_patches, 'eva02_b_pretrain'),
        (_mask_before_patches_are_chosen, 'eva01_pretrain'),
        (_mean_of_images, 'eva01_pretrain'),
        (_published_sign, 'eva_l_pretrain'),
        (_other_patches, 'eva_l_pretrain'),
    ],
)
def test_notices(mistake, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(name, tmp_path)
    mistake(name, model, monkeypatch)
    assert max(errors(name, model).values()) > 1e-3


# Teachers


def test_eva_clip_teacher(tmp_path: Path) -> None:
    """``infer_image`` of EVA-02: patch tokens after the last norm and the projection."""
    case = CASES['eva_clip_teacher']
    kwargs = case['kwargs']
    path = tmp_path / 'eva_clip.pt'
    tower = {f'visual.{key}': value for key, value in state('eva_clip_teacher').items()}
    text = {'text.token_embedding.weight': torch.zeros(4, 2), 'logit_scale': torch.zeros(())}
    torch.save(tower | text, path)
    teacher = CLIPTeacher(
        dict(FAMILIES['clip_g']),
        kwargs['num_classes'],
        img_size=kwargs['img_size'],
        patch_size=kwargs['patch_size'],
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    found = teacher(formula.uniform('image', tuple(case['image'])))
    assert relative_error(found, OFFICIAL['eva_clip_teacher.targets']) < TOLERANCE


def test_openai_clip_teacher(tmp_path: Path) -> None:
    """``infer_image`` of EVA-01, through open_clip's tower and a file with OpenAI's names."""
    case = CASES['openai_clip_teacher']
    kwargs = case['kwargs']
    path = tmp_path / 'clip.pt'
    torch.save(state('openai_clip_teacher'), path)
    vision = dict(layers=kwargs['layers'], width=kwargs['width'], patch_size=kwargs['patch_size'])
    teacher = OpenCLIPTeacher(
        model_cfg=dict(
            embed_dim=kwargs['output_dim'],
            quick_gelu=True,
            vision_cfg=dict(vision, image_size=kwargs['input_resolution']),
        ),
        init_cfg=dict(type='Pretrained', checkpoint=str(path)),
    )
    found = teacher(formula.uniform('image', tuple(case['image'])))
    assert relative_error(found, OFFICIAL['openai_clip_teacher.targets']) < TOLERANCE
