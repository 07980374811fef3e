"""Numbers of images and categories in the files that COCO tools read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evamm
from evamm.apis.coco_files import CocoIds
from evamm.apis.model import classes_go_by_id

from .detectors import small_recipe

LVIS = 1203


@pytest.fixture(scope='module')
def lvis() -> evamm.DetInferencer:
    path = 'eva02_det/cascade_mask_rcnn_eva02_base_p16_1024_8xb16_lvis.py'
    return small_recipe(path, None, LVIS)


def write_lvis(path: Path, names: list[str]) -> Path:
    """An annotation file of one image; the categories are not in the order of their ids."""
    categories = [dict(id=2 * label + 1, name=name) for label, name in enumerate(names)]
    image = dict(id=7, coco_url='http://images.cocodataset.org/val2017/cat.png')
    path.write_text(json.dumps(dict(images=[image], categories=categories[::-1])))
    return path


def test_image_ids_by_the_longest_name(tmp_path: Path) -> None:
    rows = [(1, 'a/same.jpg'), (2, 'b/same.jpg'), (3, 'b/only.jpg')]
    content = dict(images=[dict(id=i, file_name=name) for i, name in rows], categories=[])
    content['images'].append(dict(id=9, coco_url='http://images/train2017/000000000009.jpg'))
    (tmp_path / 'ann.json').write_text(json.dumps(content))
    ids = CocoIds.read(tmp_path / 'ann.json')
    assert ids.image('/data/b/same.jpg', 0) == 2
    assert ids.image('elsewhere/only.jpg', 0) == 3
    assert ids.image('train2017/000000000009.jpg', 0) == 9
    with pytest.raises(ValueError, match='is not in'):
        ids.image('c/same.jpg', 0)  # two images have that name


def test_classes_of_lvis_go_by_id(lvis: evamm.DetInferencer, tmp_path: Path) -> None:
    """The official file writes some names otherwise than mmdet: their order decides."""
    names = list(lvis.classes)
    names[654] = 'speaker_(stero_equipment)'
    assert len(names) == LVIS and names[654] not in lvis.classes
    ann_file = write_lvis(tmp_path / 'lvis_v1_val.json', names)
    noise = np.random.default_rng(0).integers(0, 255, (90, 128, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / 'cat.png')
    options = dict(out_dir=tmp_path / 'out', no_save_vis=True)
    (result,) = lvis(tmp_path / 'cat.png', ann_file=ann_file, **options)['predictions']
    rows = json.loads((tmp_path / 'out/predictions.bbox.json').read_text())
    assert len(set(result['labels'])) > 2
    assert [row['category_id'] for row in rows] == [2 * label + 1 for label in result['labels']]
    assert {row['image_id'] for row in rows} == {7}
    few = write_lvis(tmp_path / 'few.json', names[:80])
    with pytest.raises(ValueError, match='few.json has 80 categories, but the model has 1203'):
        lvis(tmp_path / 'cat.png', ann_file=few, **options)


def test_other_names_go_by_name(lvis: evamm.DetInferencer) -> None:
    """Those of a user, a checkpoint or a config, as the data set and the metric have it."""
    config = lvis.config.copy()
    assert classes_go_by_id(config, lvis.classes)
    assert not classes_go_by_id(config, lvis.classes[::-1])
    assert not classes_go_by_id(config, None)
    config.test_dataloader.dataset.metainfo = dict(classes=lvis.classes)
    assert not classes_go_by_id(config, lvis.classes)
    config.test_dataloader.dataset = dict(type='evamm.CocoDataset')
    assert not classes_go_by_id(config, lvis.classes)
