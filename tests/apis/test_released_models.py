"""Every released name builds (without memory); its transforms, head and names fit together."""

import pytest
import torch
from PIL import Image

import evamm
from evamm.apis.model import class_names
from evamm.apis.model_index import find_entry
from evamm.apis.transforms import ImageTransform


@pytest.mark.parametrize('name', evamm.list_models())
def test_parts_fit_together(name: str, cat: Image.Image) -> None:
    entry = find_entry(name)
    model = evamm.get_model(name, device='meta')
    size = model.backbone.img_size
    assert ImageTransform(model._config)(cat).shape == (3, *size)
    assert entry.metadata['Image Size'] == size[0]
    assert entry.weights.startswith('https://')
    if model.head is None:
        assert entry.results is None
        return
    assert model(torch.zeros(1, 3, *size, device='meta')).shape == (1, model.head.num_classes)
    if entry.results is not None:
        assert {result.task for result in entry.results} == {'Image Classification'}
        assert len(class_names(model)) == model.head.num_classes == 1000
