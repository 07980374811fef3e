"""Our zero-shot figures beside the published ones, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .markdown import markdown_table

TOP1 = {'accuracy/top1': ('top-1', 'Top 1 Accuracy')}
# Result of the metric -> what the table calls it, and what a metafile calls it.
RECALLS = {
    f'retrieval/{way}_R@{k}': (f'{way.replace("_", " ")} R@{k}', f'{title} R@{k}')
    for way, title in (('text_to_image', 'Text-to-Image'), ('image_to_text', 'Image-to-Text'))
    for k in (1, 5, 10)
}


@dataclass(frozen=True)
class Benchmark:
    """A set that image-text models are tested on without training.

    Attributes:
        title: Its name, in tables and in metafiles.
        base: File of configs/_base_/datasets with its images and metric; None for ImageNet, which
            is the test set of the released models' configs.
        measures: Result of the metric -> (name in the table, name in the metafile).
        task: Its task in metafiles.
    """

    title: str
    base: str | None
    measures: Mapping[str, tuple[str, str]]
    task: str

    @property
    def is_retrieval(self) -> bool:
        """Whether captions are searched, instead of classes."""
        return self.measures is RECALLS


def _classes(title: str, base: str | None) -> Benchmark:
    return Benchmark(title, base, TOP1, 'Zero-Shot Image Classification')


def _captions(title: str, base: str) -> Benchmark:
    return Benchmark(title, base, RECALLS, 'Image-Text Retrieval')


BENCHMARKS = {
    'imagenet': _classes('ImageNet-1k', None),
    'imagenet-v2': _classes('ImageNet-V2', 'robustness_imagenet_v2.py'),
    'imagenet-a': _classes('ImageNet-A', 'robustness_imagenet_a.py'),
    'imagenet-r': _classes('ImageNet-R', 'robustness_imagenet_r.py'),
    'imagenet-sketch': _classes('ImageNet-Sketch', 'robustness_imagenet_sketch.py'),
    'objectnet': _classes('ObjectNet', 'robustness_objectnet.py'),
    'flickr30k': _captions('Flickr30k', 'flickr30k_retrieval.py'),
    'coco': _captions('COCO', 'coco_retrieval.py'),
}


def format_zero_shot_table(
    ours: Mapping[str, Mapping[str, float]],
    published: Mapping[str, Mapping[tuple[str, str], float]],
    names: Sequence[str] = tuple(BENCHMARKS),
) -> str:
    """Return a Markdown table with one row per figure, in %; a dash where there is none.

    Args:
        ours: Results of the metrics, by benchmark.
        published: For every source a figure by title of the set and name in the metafile.
        names: Benchmarks to list.
    """
    lines = [['set', 'figure', 'ours', *published], [':-', ':-', *['-:'] * (1 + len(published))]]
    for name in names:
        benchmark = BENCHMARKS[name]
        for key, (measure, metafile_name) in benchmark.measures.items():
            figures = [ours.get(name, {}).get(key)]
            figures += [
                source.get((benchmark.title, metafile_name)) for source in published.values()
            ]
            cells = ['-' if figure is None else f'{figure:.1f}' for figure in figures]
            lines.append([benchmark.title, measure, *cells])
    return markdown_table(lines)
