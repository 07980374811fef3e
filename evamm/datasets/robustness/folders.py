"""ImageNet-V2, -A, -R and -Sketch: folders of images whose folder names say the class.

Every dataset gives labels among the 1,000 classes of ImageNet-1K, so that an ordinary ImageNet-1K
model is tested as it is. Mechanics as in the official evaluation (EVA-02/asuka:
robustness_dataset.py, imagenet_a_r_indices.py, datasets.py).
"""

import logging
from collections.abc import Sequence

from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from evamm.registry import DATASETS

from .wnids import IMAGENET_A_WNIDS, IMAGENET_LABELS, IMAGENET_R_WNIDS, IMAGENET_WNIDS

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class ClassFolders(BaseDataset):
    """Images in one folder per class, with ImageNet-1K labels found from the folder names.

    Args:
        data_root: Folder that holds the class folders.
        pipeline: Transforms; take the test pipeline of the model's own config.
        partial: Accept a copy in which classes are missing. The figure is then not comparable
            with published ones.
        indices: Use only these images (a number: the first n).
        test_mode: As in mmengine's BaseDataset.
        lazy_init: As in mmengine's BaseDataset.

    Raises:
        FileNotFoundError: There is no such folder, or a class folder is missing or empty.
        ValueError: The class folders have names that this set does not have.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}
    TITLE: str
    NUM_IMAGES: int
    FOLDER_EXAMPLE: str

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence = (),
        partial: bool = False,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = True,
        lazy_init: bool = False,
    ) -> None:
        self.partial = partial
        super().__init__(
            ann_file='',
            data_root=data_root,
            pipeline=pipeline,
            indices=indices,
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def image_root(self) -> str:
        """Return the folder that holds the class folders."""
        return self.data_root

    def folder_labels(self) -> dict[str, int]:
        """Return the ImageNet-1K label of every class folder that counts."""
        raise NotImplementedError

    def ignored_folders(self) -> set[str]:
        """Return the class folders that belong to the set but are not evaluated."""
        return set()

    def load_data_list(self) -> list[dict]:
        root = self.image_root()
        labels = self.folder_labels()
        self._check_folders(root, expected=set(labels) | self.ignored_folders())
        samples, empty = [], []
        for folder, label in sorted(labels.items(), key=lambda item: (item[1], item[0])):
            path = fileio.join_path(root, folder)
            names = self._list_images(path) if fileio.isdir(path) else []
            if not names:
                empty.append(folder)
            samples += [
                dict(img_path=fileio.join_path(path, name), gt_label=label) for name in names
            ]
        self._check_counts(root, len(samples), empty)
        return samples

    @staticmethod
    def _list_images(path: str) -> list[str]:
        names = fileio.list_dir_or_file(path, list_dir=False, suffix=None)
        return sorted(name for name in names if name.lower().endswith(IMAGE_EXTENSIONS))

    def _check_folders(self, root: str, expected: set[str]) -> None:
        if not fileio.isdir(root):
            raise FileNotFoundError(
                f'{self.TITLE}: there is no folder {root}. Unpack the data set there or set '
                '`data_root` to where it is; docs/en/robustness.md says where to get it.'
            )
        found = set(fileio.list_dir_or_file(root, list_file=False))
        unknown = sorted(found - expected)
        if found & expected and not unknown:
            return
        message = (
            f'{self.TITLE}: {root} should hold class folders such as {self.FOLDER_EXAMPLE!r}, but '
        )
        for name in unknown:
            inner = fileio.join_path(root, name)
            if expected & set(fileio.list_dir_or_file(inner, list_file=False)):
                raise ValueError(f'{message}they are one level deeper. Set `data_root` to {inner}.')
        if not found:
            raise ValueError(f'{message}it holds no folder at all.')
        raise ValueError(
            f'{message}it holds {unknown[0]!r}'
            f'{f" and {len(unknown) - 1} more unknown names" if len(unknown) > 1 else ""}. '
            'Is it another data set, or are there extra folders? Set `data_root` to the unpacked '
            f'{self.TITLE} and keep other folders out of it.'
        )

    def _check_counts(self, root: str, num_images: int, empty: list[str]) -> None:
        if empty and not self.partial:
            raise FileNotFoundError(
                f'{self.TITLE}: {len(empty)} class folders in {root} are missing or hold no '
                f'image, the first is {empty[0]!r}. Unpack the data set again, or set '
                '`partial=True` to evaluate what is there (not comparable with published figures).'
            )
        if num_images != self.NUM_IMAGES:
            print_log(
                f'{self.TITLE}: found {num_images} images in {root}, the released set has '
                f'{self.NUM_IMAGES}; the figure is not comparable with published ones.',
                logger='current',
                level=logging.WARNING,
            )

    def extra_repr(self) -> list[str]:
        return [f'Root of dataset: \t{self.data_root}']


@DATASETS.register_module()
class ImageNetV2(ClassFolders):
    """ImageNet-V2: folders named by the class number, "0" to "999" (not zero-padded).

    A plain image-folder dataset would sort the names as text ("0", "1", "10", ...) and give wrong
    labels. Figures are usually reported on the matched-frequency copy.
    """

    TITLE = 'ImageNet-V2'
    NUM_IMAGES = 10_000
    FOLDER_EXAMPLE = '0'

    def folder_labels(self) -> dict[str, int]:
        return {str(label): label for label in range(len(IMAGENET_WNIDS))}


@DATASETS.register_module()
class ImageNetSketch(ClassFolders):
    """ImageNet-Sketch: all 1,000 classes, folders named by WordNet id."""

    TITLE = 'ImageNet-Sketch'
    NUM_IMAGES = 50_889
    FOLDER_EXAMPLE = IMAGENET_WNIDS[0]

    def folder_labels(self) -> dict[str, int]:
        return IMAGENET_LABELS


class SubsetFolders(ClassFolders):
    """A set with some of the ImageNet-1K classes, folders named by WordNet id.

    The meta information ``label_subset`` holds the labels that occur, in ascending order;
    `evamm.SubsetAccuracy` lets only those compete.
    """

    WNIDS: tuple[str, ...]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.FOLDER_EXAMPLE = cls.WNIDS[0]
        cls.METAINFO = {
            **cls.METAINFO,
            'label_subset': tuple(IMAGENET_LABELS[wnid] for wnid in cls.WNIDS),
        }

    def folder_labels(self) -> dict[str, int]:
        return {wnid: IMAGENET_LABELS[wnid] for wnid in self.WNIDS}


@DATASETS.register_module()
class ImageNetA(SubsetFolders):
    """ImageNet-A (natural adversarial examples): 200 classes."""

    TITLE = 'ImageNet-A'
    NUM_IMAGES = 7_500
    WNIDS = IMAGENET_A_WNIDS


@DATASETS.register_module()
class ImageNetR(SubsetFolders):
    """ImageNet-R (renditions): 200 classes."""

    TITLE = 'ImageNet-R'
    NUM_IMAGES = 30_000
    WNIDS = IMAGENET_R_WNIDS
