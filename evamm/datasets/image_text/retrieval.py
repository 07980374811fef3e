"""Images with several captions each: COCO, Flickr30k and alike."""

import json
from typing import Any

from mmengine import fileio
from mmpretrain.datasets import BaseDataset

from evamm.engine.errors import ConfigError
from evamm.registry import DATASETS


@DATASETS.register_module()
class CaptionRetrieval(BaseDataset):
    """Every image once, with the list of its captions as `text`.

    Two kinds of annotation files are understood:

    - Karpathy's splits (``dataset_coco.json``, ``dataset_flickr30k.json``): ``images`` with
      ``filename``, ``sentences`` and ``split`` (and ``filepath``, the folder, for COCO);
    - COCO's own (``captions_val2017.json``): ``images`` and ``annotations``.

    mmpretrain's ``Flickr30kRetrieval`` and ``COCORetrieval`` read one kind each, and the splits of
    COCO not at all.

    Args:
        ann_file: Annotation file.
        split: Part of Karpathy's splits: ``train``, ``val``, ``test`` or ``restval``; several
            joined by ``+``.
        data_root: Folder that `ann_file` and `data_prefix` are below.
        data_prefix: Folder of the images.
        max_texts: Captions of an image that count, in the order of the file; all if None.
        kwargs: Further arguments of mmpretrain's ``BaseDataset``, such as ``pipeline``.
    """

    def __init__(
        self,
        ann_file: str,
        split: str | None = None,
        data_root: str = '',
        data_prefix: str | dict = '',
        max_texts: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.split = split
        self.max_texts = max_texts
        super().__init__(ann_file=ann_file, data_root=data_root, data_prefix=data_prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """
        Raises:
            ConfigError: The file is of another kind, or the split is empty.
        """
        try:
            content = json.loads(fileio.get_text(self.ann_file))
            images = content['images']
            listed = self._karpathy(images) if 'annotations' not in content else self._coco(content)
            samples = [
                {
                    'img_path': fileio.join_path(self.img_prefix, name)
                    if self.img_prefix
                    else name,
                    'text': texts[: self.max_texts],
                    'image_id': image_id,
                }
                for name, texts, image_id in listed
            ]
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f'CaptionRetrieval: {self.ann_file} is neither a file of Karpathy nor one of COCO '
                f'captions ({type(error).__name__}: {error}).'
            ) from error
        if not samples:
            found = sorted({image.get('split', '') for image in images})
            raise ConfigError(
                f'CaptionRetrieval: {self.ann_file} has no image with a caption in '
                f'split={self.split!r}; its splits are {found}.'
            )
        return samples

    def _karpathy(self, images: list[dict]) -> list[tuple]:
        if self.split is None:
            raise ConfigError(
                f'CaptionRetrieval: {self.ann_file} holds several splits; set `split`, such as '
                "'test'."
            )
        splits = self.split.split('+')
        return [
            (
                '/'.join(filter(None, (image.get('filepath', ''), image['filename']))),
                [sentence['raw'].strip() for sentence in image['sentences']],
                image.get('cocoid', image.get('imgid')),
            )
            for image in images
            if image['split'] in splits and image['sentences']
        ]

    def _coco(self, content: dict) -> list[tuple]:
        texts: dict[int, list[str]] = {}
        for annotation in content['annotations']:
            texts.setdefault(annotation['image_id'], []).append(annotation['caption'].strip())
        return [
            (image['file_name'], texts[image['id']], image['id'])
            for image in content['images']
            if image['id'] in texts
        ]
