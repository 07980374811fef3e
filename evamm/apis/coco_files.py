"""Detections as files that COCO tools read."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evamm.engine.runner.predictions import write_file


@dataclass(frozen=True)
class CocoIds:
    """Numbers of images and categories.

    Attributes:
        images: By the file name, as in the annotation file, and by its last part.
        categories: By the name of the class.
        source: The annotation file; None where the numbers are our own.
        by_label: Numbers of the categories by label, where names do not decide.
    """

    images: dict[str, int] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)
    source: str | None = None
    by_label: tuple[int, ...] | None = None

    @classmethod
    def read(cls, path: str | os.PathLike, num_classes: int | None = None) -> 'CocoIds':
        """Takes the numbers of an annotation file (COCO, LVIS, Objects365).

        Args:
            path: The file.
            num_classes: The classes are all categories in the order of their ids, and so many,
                whatever their names (LVIS, Objects365). None: they are found by name.

        Raises:
            ValueError: It is no such file, or has another number of categories.
        """
        path = os.fspath(path)
        try:
            content = json.loads(Path(path).read_text(encoding='utf-8'))
            images: dict[str, int] = {}
            ambiguous = set()
            for image in content['images']:
                # LVIS has an address in the place of the name.
                name = image.get('file_name') or image['coco_url']
                images[name] = image['id']
                short = os.path.basename(name)
                if images.setdefault(short, image['id']) != image['id']:
                    ambiguous.add(short)
            for name in ambiguous:  # one name in several folders names no image
                del images[name]
            categories = {category['name']: category['id'] for category in content['categories']}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path} is no annotation file in COCO format (images with id and file_name, '
                f'categories with id and name): {type(error).__name__}: {error}'
            ) from error
        if num_classes is None:
            return cls(images, categories, path)
        by_label = tuple(sorted(category['id'] for category in content['categories']))
        if len(by_label) != num_classes:
            raise ValueError(
                f'{path} has {len(by_label)} categories, but the model has {num_classes} classes, '
                'which are taken in the order of their ids; give the annotation file of the data '
                'set that the model was trained on.'
            )
        return cls(images, categories, path, by_label)

    def image(self, path: str | None, index: int) -> int:
        """Number of an image; its place in the list where there is no annotation file.

        Raises:
            ValueError: The annotation file has no such image.
        """
        if self.source is None:
            return index + 1
        parts = Path(path).parts if path is not None else ()
        for start in range(len(parts)):  # the longest name that fits
            name = '/'.join(parts[start:])
            if name in self.images:
                return self.images[name]
        raise ValueError(
            f'{path or f"Image {index}, an array"} is not in {self.source}, so its results have no '
            'image id. Leave it out, or give no annotation file.'
        )

    def category(self, label: int, names: Sequence[str] | None) -> int:
        """Number of a category; its label + 1 where there is no annotation file.

        Raises:
            ValueError: The annotation file has no such category.
        """
        if self.source is None:
            return label + 1
        if self.by_label is not None:
            return self.by_label[label]
        name = names[label] if names is not None else None
        if name not in self.categories:
            raise ValueError(
                f'The model has a class {name or label!r}, which is no category of {self.source}.'
            )
        return self.categories[name]


def coco_annotations(
    predictions: Sequence[dict[str, Any]], names: Sequence[str] | None, ids: CocoIds
) -> dict[str, list[dict[str, Any]]]:
    """Predictions as a data set in COCO format; every annotation has a `score` too.

    Args:
        predictions: Of `evamm.DetInferencer`. Those with `error` go into a list of their own.
        names: Names of all classes.
        ids: Numbers of images and categories.
    """
    images, annotations, errors, used = [], [], [], set()
    for index, prediction in enumerate(predictions):
        path = prediction.get('img_path')
        if 'error' in prediction:
            errors.append(dict(file_name=path or f'image_{index}', error=prediction['error']))
            continue
        image_id = ids.image(path, index)
        images.append(
            dict(
                id=image_id,
                file_name=path or f'image_{index}',
                height=prediction['height'],
                width=prediction['width'],
            )
        )
        masks = prediction.get('masks') or [None] * len(prediction['bboxes'])
        for box, score, label, mask in zip(
            prediction['bboxes'], prediction['scores'], prediction['labels'], masks, strict=True
        ):
            used.add(label)
            left, top, right, bottom = box
            box = [round(value, 3) for value in (left, top, right - left, bottom - top)]
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=ids.category(label, names),
                bbox=box,
                area=round(box[2] * box[3], 3),
                iscrowd=0,
                score=round(score, 6),
            )
            if mask is not None:
                annotation.update(segmentation=mask, area=_mask_area(mask))
            annotations.append(annotation)
    labels = range(len(names)) if names is not None and ids.source is None else sorted(used)
    categories = [
        dict(
            id=ids.category(label, names),
            name=names[label] if names is not None else f'class {label}',
        )
        for label in labels
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    return {**content, 'errors': errors} if errors else content


def write_coco_files(
    predictions: Sequence[dict[str, Any]],
    names: Sequence[str] | None,
    out_dir: str | os.PathLike,
    ids: CocoIds,
) -> list[str]:
    """Writes predictions.json, and for a known annotation file what its evaluation takes.

    Args:
        predictions: Of `evamm.DetInferencer`.
        names: Names of all classes.
        out_dir: Folder of the files.
        ids: Numbers of images and categories.

    Returns:
        The paths: predictions.json (a data set in COCO format, with scores) and, where the
        annotation file is known, predictions.bbox.json and predictions.segm.json (COCO results).
    """
    content = coco_annotations(predictions, names, ids)
    files: dict[str, Any] = {'predictions.json': content}
    if ids.source is not None:
        common = ('image_id', 'category_id', 'score')
        for key, kind in (('bbox', 'bbox'), ('segmentation', 'segm')):
            rows = [
                {name: annotation[name] for name in (*common, key)}
                for annotation in content['annotations']
                if key in annotation
            ]
            if rows or kind == 'bbox':
                files[f'predictions.{kind}.json'] = rows
    paths = []
    for name, rows in files.items():
        path = Path(out_dir) / name
        write_file(path, json.dumps(rows, ensure_ascii=False).encode())
        paths.append(str(path))
    return paths


def _mask_area(mask: dict[str, Any]) -> int:
    from pycocotools import mask as rle

    return int(rle.area(mask))
