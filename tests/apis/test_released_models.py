"""Every released name builds (without memory); its transforms, head and names fit together."""

import pytest
import torch
from PIL import Image

import evamm
from evamm.apis.model import class_names
from evamm.apis.model_index import ModelEntry, find_entry
from evamm.apis.transforms import ImageTransform


def check_pair(model: torch.nn.Module, size: tuple[int, int], entry: ModelEntry) -> None:
    images = model.encode_image(torch.zeros(1, 3, *size, device='meta'), normalize=True)
    tokens = torch.zeros(2, 77, dtype=torch.long, device='meta')
    assert images.shape == (1, model.embed_dims)
    assert model.encode_text(tokens, normalize=True).shape == (2, model.embed_dims)
    assert len(class_names(model)) == 1000
    tasks = [result.task for result in entry.results]
    assert tasks[0] == 'Zero-Shot Image Classification'
    assert set(tasks) == {'Zero-Shot Image Classification', 'Image-Text Retrieval'}
    assert entry.name in evamm.ZeroShotInferencer.list_models()
    assert entry.name not in evamm.ImageClassificationInferencer.list_models()


def check_detector(model: torch.nn.Module, entry: ModelEntry) -> None:
    heads = model.roi_head.bbox_head
    assert {head.num_classes for head in heads} == {len(class_names(model))}
    assert not model.with_mask or model.roi_head.mask_head.num_classes == heads[0].num_classes
    tasks = {result.task for result in entry.results or ()}
    assert tasks <= {'Object Detection', 'Instance Segmentation'}
    assert 'Instance Segmentation' not in tasks or model.with_mask
    assert tasks == set() or entry.name in evamm.DetInferencer.list_models()
    assert entry.name not in evamm.ImageClassificationInferencer.list_models()


@pytest.mark.parametrize('name', evamm.list_models())
def test_parts_fit_together(name: str, cat: Image.Image) -> None:
    entry = find_entry(name)
    model = evamm.get_model(name, device='meta')
    detector = hasattr(model, 'roi_head')
    # A detector's trunk keeps the tables of its training size, and every input is padded.
    size = (model.data_preprocessor.pad_size,) * 2 if detector else model.backbone.img_size
    assert ImageTransform(model._config)(cat).shape == (3, *size)
    assert entry.metadata['Image Size'] == size[0]
    assert entry.weights.startswith('https://')
    if detector:
        check_detector(model, entry)
        return
    if type(model).__name__ == 'EVACLIP':
        check_pair(model, size, entry)
        return
    if not hasattr(
        getattr(model, 'head', None), 'num_classes'
    ):  # none, or that of a pre-training algorithm
        assert entry.results is None
        return
    assert model(torch.zeros(1, 3, *size, device='meta')).shape == (1, model.head.num_classes)
    if entry.results is not None:
        assert {result.task for result in entry.results} == {'Image Classification'}
        assert len(class_names(model)) == model.head.num_classes == 1000
