"""ObjectNet, restricted to the categories that overlap with ImageNet-1K."""

import json

from mmengine import fileio

from evamm.registry import DATASETS

from .folders import ClassFolders

MAPPING_FILES = (
    'folder_to_objectnet_label.json',
    'objectnet_to_imagenet_1k.json',
    'pytorch_to_imagenet_2012_id.json',
    'imagenet_to_label_2012_v2',
)


@DATASETS.register_module()
class ObjectNet(ClassFolders):
    """ObjectNet as unpacked: ``data_root`` holds ``images/<category>/*.png`` and ``mappings/``.

    As in the official evaluation (EVA-02/asuka/objectnet_dataset.py): categories without a
    counterpart in ImageNet-1K are left out, where a category has several counterparts only the
    first one counts as correct, and the model chooses among all 1,000 classes. The red border
    of the images is kept; put `evamm.CropBorder` after the loading step to remove it.
    """

    TITLE = 'ObjectNet'
    NUM_IMAGES = 18_574
    FOLDER_EXAMPLE = 'air_freshener'

    def image_root(self) -> str:
        return fileio.join_path(self.data_root, 'images')

    def folder_labels(self) -> dict[str, int]:
        labels = self._first_imagenet_labels()
        return {
            folder: labels[name]
            for folder, name in self._read_mapping(MAPPING_FILES[0]).items()
            if name in labels
        }

    def ignored_folders(self) -> set[str]:
        return set(self._read_mapping(MAPPING_FILES[0]))

    def _first_imagenet_labels(self) -> dict[str, int]:
        """Return {ObjectNet name: label of the first ImageNet class it is mapped to}."""
        line_of_label = self._read_mapping(MAPPING_FILES[2])
        names = self._read(MAPPING_FILES[3]).splitlines()
        label_of_name = {names[line]: int(label) for label, line in line_of_label.items()}
        first = {}
        for name, counterparts in self._read_mapping(MAPPING_FILES[1]).items():
            counterpart = counterparts.split('; ')[0]
            if counterpart not in label_of_name:
                raise ValueError(
                    f'ObjectNet: {MAPPING_FILES[1]} maps {name!r} to {counterpart!r}, which is no '
                    f'line of {MAPPING_FILES[3]}. Unpack the mappings folder again.'
                )
            first[name] = label_of_name[counterpart]
        return first

    def _read_mapping(self, name: str) -> dict:
        return json.loads(self._read(name))

    def _read(self, name: str) -> str:
        path = fileio.join_path(self.data_root, 'mappings', name)
        if not fileio.isfile(path):
            raise FileNotFoundError(
                f'ObjectNet: there is no file {path}. `data_root` must be the unpacked archive '
                '(usually objectnet-1.0), which holds the folders images and mappings.'
            )
        return fileio.get_text(path)
