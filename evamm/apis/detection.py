"""Boxes and masks in images: one, a list, a folder, a pattern or arrays."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from PIL import Image

from evamm import compat
from evamm.apis.classification import ModelInput, build_for_inference
from evamm.apis.coco_files import CocoIds, write_coco_files
from evamm.apis.config import load_config
from evamm.apis.images import (
    ImageInput,
    ImageSource,
    collect_images,
    load_image,
)
from evamm.apis.loader import load_batches
from evamm.apis.model import class_names, classes_go_by_id, is_detector
from evamm.apis.model_index import list_models
from evamm.apis.transforms import test_pipeline
from evamm.engine.runner.predictions import code_masks
from evamm.registry import MODELS, TRANSFORMS

# What the published figures of the best systems were measured with.
SOFT_NMS = dict(method='linear', iou_threshold=0.6, sigma=0.5, min_score=1e-3, class_wise=True)
MASKNESS_THR = 0.5


class DetInferencer:
    """Finds objects in images, with any detector of mmdet that has an EVA trunk, or none.

    The arguments that it has in common with `mmdet.apis.DetInferencer` mean the same, and so do the
    keys of its predictions; docs/en/detection.md says what differs. Checkpoints of every dialect
    are read, and none can run code.

    Args:
        model: Name of a detection model, config path, Config, or a model from `evamm.get_model`.
        weights: A checkpoint of any dialect. None: the released weights of the name, or what a
            config names as `load_from`. False: random weights.
        device: Device to run on. None leaves a built model where it is and takes the GPU, where
            there is one, for a model built here.
        classes: Names of the classes, instead of those of the checkpoint or data set.
        img_size: Another input size in pixels, for a model built here.
        show_progress: What `progress` of a call is if it is None.

    Raises:
        NotImplementedError: The model is no detector.

    Example:
        >>> detect = evamm.DetInferencer('my_detector.py', 'work_dirs/my_detector/iter_5000.pth')
        >>> detect('photos/', out_dir='out')['predictions'][0]['names']
        ['cat', 'sofa']
    """

    def __init__(
        self,
        model: ModelInput,
        weights: bool | str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        *,
        classes: Sequence[str] | None = None,
        img_size: int | None = None,
        show_progress: bool | None = None,
    ) -> None:
        self.show_progress = show_progress
        compat.require('mmdet')
        config = model._config if hasattr(model, '_config') else None
        name = type(model).__name__
        if not isinstance(model, BaseModel):
            config, entry = load_config(model)
            name = entry.name if entry is not None else config.filename or 'This model'
        if config is not None and not is_detector(config):
            raise NotImplementedError(
                f'{name} is no detector, so it finds no boxes. '
                'evamm.DetInferencer.list_models() gives those that are.'
            )
        pretrained = weights
        if weights is None:
            pretrained = not isinstance(model, BaseModel)
        self.model = build_for_inference(model, pretrained, device, img_size=img_size).eval()
        self.config: Config = self.model._config
        self.classes = tuple(classes) if classes is not None else class_names(self.model)
        _check_classes(self.model, self.classes)
        scope = self.config.get('default_scope') or 'mmdet'
        with DefaultScope.overwrite_default_scope(scope):
            steps = [TRANSFORMS.build(step) for step in test_pipeline(self.config)]
        self.pipeline = Compose(steps)

    def __call__(
        self,
        inputs: ImageInput | Sequence[ImageInput],
        batch_size: int = 1,
        *,
        score_thr: float = 0.05,
        soft_nms: bool | dict[str, Any] | None = None,
        maskness_thr: bool | float | None = None,
        out_dir: str | os.PathLike | None = None,
        pred_score_thr: float = 0.3,
        no_save_vis: bool = False,
        no_save_pred: bool = False,
        ann_file: str | os.PathLike | None = None,
        return_vis: bool = False,
        show: bool = False,
        wait_time: float = 0,
        return_datasamples: bool = False,
        channel_order: str = 'bgr',
        on_error: str = 'raise',
        progress: bool | None = None,
    ) -> dict[str, list]:
        """Finds objects.

        Args:
            inputs: Paths, addresses, folders, patterns, uint8 arrays [H, W, 3], batches of arrays
                [B, H, W, 3], PIL images, or a list of these.
            batch_size: Images per forward pass.
            score_thr: Leave out what scores less. 0 gives all that the model's `test_cfg` lets by:
                with soft-NMS as in the published systems, thousands of boxes and masks.
            soft_nms: Soft-NMS instead of NMS: True as in the published systems (with COCO's classes
                it takes boxes of any score, with LVIS's those above the `score_thr` of `test_cfg`),
                a dict for other settings, above that `score_thr` unless it has its own; False for
                NMS, None for what `test_cfg` says.
            maskness_thr: Multiply scores by the mean of the mask above this probability: True as
                in the published systems (0.5), False not at all, None for what `test_cfg` says.
            out_dir: Folder for `vis/*.png` and `predictions.json`, a data set in COCO format.
            pred_score_thr: Leave out of the pictures what scores less.
            no_save_vis: Write no pictures into `out_dir`.
            no_save_pred: Write no predictions into `out_dir`.
            ann_file: Annotation file that image and category ids are taken from. `out_dir` then
                gets `predictions.bbox.json` and `predictions.segm.json`, COCO results.
            return_vis: Return the pictures too.
            show: Show every picture in a window.
            wait_time: Seconds to show a picture; 0: until the window is closed.
            return_datasamples: Give mmdet's DetDataSamples instead of dicts.
            channel_order: Order of the channels of arrays: 'bgr' (OpenMMLab, OpenCV) or 'rgb'.
            on_error: 'raise' at an unreadable image, or 'report' it in its place in the results.
            progress: Show a progress bar; None: for more than one batch.

        Returns:
            `predictions`, one dict per image, in order: `bboxes` (x1, y1, x2, y2 in pixels),
            `scores` (falling), `labels`, `names` (where class names are known), `masks` (COCO RLE,
            for a model with masks), `height`, `width`, `img_path` (for paths). With
            on_error='report', an unreadable image gives `img_path` and `error`. `visualization`:
            RGB pictures, uint8 [H, W, 3], for return_vis=True, else empty.

        Raises:
            ImageReadError: An image cannot be read; the message names it.
            ValueError: An option does not fit the others or the model.
        """
        out_dir = out_dir or None  # mmdet's '' is no folder
        if return_datasamples and on_error != 'raise':
            raise ValueError("return_datasamples=True needs on_error='raise': no place for errors.")
        if ann_file is not None and (out_dir is None or no_save_pred):
            raise ValueError('ann_file is for the results in out_dir; give out_dir= too.')
        if isinstance(score_thr, bool) or not isinstance(score_thr, (int, float)):
            raise ValueError(f'score_thr must be a number from 0 to 1, found {score_thr!r}.')
        if not (soft_nms is None or isinstance(soft_nms, (bool, dict))):
            raise ValueError(f'soft_nms must be True, False, None or a dict, found {soft_nms!r}.')
        if out_dir is not None and os.path.exists(out_dir) and not os.path.isdir(out_dir):
            raise NotADirectoryError(f'out_dir {out_dir} is a file, not a folder; choose another.')
        if show:
            _check_display()
        sources = collect_images(inputs)
        ids = CocoIds()
        if ann_file is not None:  # before the work, not after it
            by_id = classes_go_by_id(self.config, self.classes)
            ids = CocoIds.read(ann_file, len(self.classes) if by_id else None)
            for index, source in enumerate(sources):
                ids.image(source.path, index)
            for label in range(len(self.classes or ())):
                ids.category(label, self.classes)
        pictures = [None] * len(sources)
        if out_dir is not None and not no_save_vis:
            from evamm.visualization.predictions import picture_paths

            folder = os.path.join(out_dir, 'vis')
            pictures = picture_paths([source.name for source in sources], folder)

        draws = return_vis or show or (out_dir is not None and not no_save_vis)
        samples: list[Any] = [None] * len(sources)
        results: list[dict[str, Any]] = [{} for _ in sources]
        drawn: list[np.ndarray] = []
        batches = load_batches(
            sources,
            lambda source: self._prepare(source, channel_order),
            batch_size,
            on_error=on_error,
            progress=self.show_progress if progress is None else progress,
        )
        # Who asks for mmdet's samples gets its masks; else codes, as bitmaps may fill the memory.
        mask_format = 'bitmap' if return_datasamples else 'rle'
        with self._test_settings(score_thr, soft_nms, maskness_thr, mask_format):
            for indices, batch, errors in batches:
                for index, sample in zip(indices, self.forward(batch) if batch else []):
                    source = sources[index]
                    sample = _cut(sample, score_thr)
                    if return_datasamples:  # else their masks would fill the memory
                        samples[index] = sample
                    results[index] = self._to_dict(source, sample)
                    if draws:
                        image = load_image(source, channel_order)
                        picture = self._draw(image, sample, pred_score_thr, pictures[index])
                        if show:
                            _show(picture, source.name, wait_time)
                        if return_vis:
                            drawn.append(np.asarray(picture))
                for index, error in errors.items():
                    path = sources[index].path
                    results[index] = {} if path is None else {'img_path': path}
                    results[index]['error'] = str(error)
        if out_dir is not None and not no_save_pred:
            write_coco_files(results, self.classes, out_dir, ids)
        predictions = samples if return_datasamples else results
        return {'predictions': predictions, 'visualization': drawn}

    @torch.no_grad()
    def forward(self, batch: Sequence[dict[str, Any]]) -> list[Any]:
        """mmdet's DetDataSamples, on the CPU, of images that `pipeline` has packed."""
        return [sample.cpu() for sample in self.model.test_step(pseudo_collate(batch))]

    def _prepare(self, source: ImageSource, channel_order: str) -> dict[str, Any]:
        image = load_image(source, channel_order)
        image = np.ascontiguousarray(image[:, :, ::-1])  # OpenMMLab's loaders give BGR
        shape = image.shape[:2]
        return self.pipeline(
            dict(img=image, img_path=source.name, img_id=0, img_shape=shape, ori_shape=shape)
        )

    @contextmanager
    def _test_settings(
        self,
        score_thr: float,
        soft_nms: bool | dict[str, Any] | None,
        maskness_thr: bool | float | None,
        mask_format: str,
    ) -> Iterator[None]:
        """The model's `test_cfg` with other choices, and back."""
        head = getattr(self.model, 'roi_head', None)
        asked = [
            name
            for name, value in (('soft_nms', soft_nms), ('maskness_thr', maskness_thr))
            if value is not None
        ]
        if not isinstance(head, MODELS.get('evamm.ViTDetCascadeRoIHead')):
            if asked:
                raise ValueError(
                    f'{asked[0]} is for the heads of evamm (configs/eva_det, configs/eva02_det); '
                    f'this model has a {type(head or self.model).__name__}, whose NMS is set in '
                    'the test_cfg of its config.'
                )
            yield
            return
        if maskness_thr and not head.with_mask:
            raise ValueError('maskness_thr needs masks, and this model finds boxes only.')
        before = head.test_cfg
        settings = ConfigDict(before, mask_format=mask_format)
        if soft_nms:
            # LVIS's heads, of one sigmoid per class, keep their threshold.
            every_score = {} if head.bbox_head[-1].loss_cls.use_sigmoid else {'score_thr': 0.0}
            chosen = soft_nms if isinstance(soft_nms, dict) else every_score
            settings.soft_nms = {**SOFT_NMS, **chosen}
        elif soft_nms is False:
            settings.soft_nms = None
        if maskness_thr is not None:
            settings.maskness_thr = MASKNESS_THR if maskness_thr is True else maskness_thr or None
        # What is left out in the end changes nothing that stays: NMS goes by falling score.
        least = score_thr * (1 - 1e-6)  # the head asks for more, not for as much
        settings.score_thr = max(settings.get('score_thr', 0.0), least)
        if settings.get('soft_nms'):
            soft = dict(settings.soft_nms)
            soft['min_score'] = max(soft.get('min_score', SOFT_NMS['min_score']), least)
            if soft.get('score_thr') is not None:
                soft['score_thr'] = max(soft['score_thr'], least)
            settings.soft_nms = soft
        head.check_test_cfg(settings)
        head.test_cfg = settings
        try:
            yield
        finally:
            head.test_cfg = before

    def _to_dict(self, source: ImageSource, sample: Any) -> dict[str, Any]:
        found = sample.pred_instances
        height, width = sample.ori_shape[:2]
        entry: dict[str, Any] = {} if source.path is None else {'img_path': source.path}
        entry.update(
            height=int(height),
            width=int(width),
            bboxes=found.bboxes.tolist(),
            scores=found.scores.tolist(),
            labels=found.labels.tolist(),
        )
        if self.classes is not None:
            entry['names'] = [self.classes[label] for label in entry['labels']]
        if 'masks' in found:
            coded = isinstance(found.masks, list)
            entry['masks'] = found.masks if coded else code_masks(found.masks)
        return entry

    def _draw(
        self, image: np.ndarray, sample: Any, score_thr: float, path: str | None
    ) -> Image.Image:
        from evamm.visualization.detections import draw_detections, save_detections

        found = _cut(sample, score_thr).pred_instances
        options = dict(
            scores=found.scores.numpy(),
            masks=_bitmaps(found.masks) if 'masks' in found else None,
            names=self.classes,
        )
        boxes, labels = found.bboxes.numpy(), found.labels.numpy()
        if path is None:
            return draw_detections(image, boxes, labels, **options)
        return save_detections(image, boxes, labels, path, **options)

    @staticmethod
    def list_models(pattern: str | None = None) -> list[str]:
        """Names of the models of evamm with published figures of boxes or masks."""
        tasks = ('Object Detection', 'Instance Segmentation')
        return sorted({name for task in tasks for name in list_models(pattern, task=task)})


class _Decoded:
    """Bitmaps [H, W] of run-length codes, one at a time."""

    def __init__(self, codes: list[dict[str, Any]]) -> None:
        self.codes = codes

    def __getitem__(self, index: int) -> np.ndarray:
        from pycocotools import mask as rle

        return rle.decode(self.codes[index])


def _bitmaps(masks: Any) -> Any:
    return _Decoded(masks) if isinstance(masks, list) else np.asarray(masks, bool)


def _cut(sample: Any, score_thr: float) -> Any:
    """A data sample without the instances below a score, the others by falling score."""
    found = sample.pred_instances
    order = found.scores.argsort(descending=True, stable=True)
    order = order[found.scores[order] >= score_thr]
    cut = sample.new()
    cut.pred_instances = found[order]
    return cut


def _check_classes(model: BaseModel, classes: Sequence[str] | None) -> None:
    """Names are found by the number of the class."""
    head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
    head = head[0] if isinstance(head, torch.nn.ModuleList) else head
    count = getattr(head, 'num_classes', None)
    if classes is not None and count is not None and len(classes) != count:
        raise ValueError(
            f'{len(classes)} names of classes are given ({", ".join(classes[:3])}, ...), but the '
            f'model has {count} classes; give `classes` as many names.'
        )


def _check_display() -> None:
    import matplotlib

    if matplotlib.get_backend().lower() in ('agg', 'pdf', 'ps', 'svg', 'cairo'):
        raise RuntimeError(
            f'show=True needs a window, and matplotlib has none here (backend '
            f'{matplotlib.get_backend()}); out_dir= writes the pictures into a folder.'
        )


def _show(picture: Image.Image, title: str, wait_time: float) -> None:
    from matplotlib import pyplot

    figure = pyplot.figure(title)
    figure.add_axes((0, 0, 1, 1)).imshow(picture)
    figure.gca().set_axis_off()
    if wait_time > 0:
        pyplot.pause(wait_time)
    else:
        pyplot.show(block=True)
    pyplot.close(figure)
