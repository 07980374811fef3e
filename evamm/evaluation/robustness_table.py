"""The summary row of the official robustness evaluation."""

from collections.abc import Mapping, Sequence

from .markdown import markdown_table

# Name of a set -> heading in the official tables, in their order.
ROBUSTNESS_SETS = {
    'imagenet': 'IN-1K',
    'imagenet_v2': 'IN-V2',
    'imagenet_real': 'IN-ReaL',
    'imagenet_a': 'IN-Adv.',
    'imagenet_r': 'IN-Ren.',
    'imagenet_sketch': 'IN-Ske.',
    'objectnet': 'ObjectNet',
}


def format_robustness_table(
    rows: Sequence[tuple[str, Mapping[str, float]]], digits: int = 1
) -> str:
    """Return a Markdown table with one row per model.

    Args:
        rows: Name of a model and its accuracy in % per set; sets that are missing get a dash.
        digits: Digits after the decimal point.
    """
    lines = [['model', *ROBUSTNESS_SETS.values()], [':-', *['-:'] * len(ROBUSTNESS_SETS)]]
    for name, accuracies in rows:
        cells = [
            f'{accuracies[key]:.{digits}f}' if key in accuracies else '-' for key in ROBUSTNESS_SETS
        ]
        lines.append([name, *cells])
    return markdown_table(lines)
