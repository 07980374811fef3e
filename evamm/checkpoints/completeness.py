"""Whether a state dict holds all that it must, judged by itself alone."""

import re
from collections.abc import Mapping

from torch import Tensor

from .errors import CheckpointError, abbreviate

# Lists of equal blocks: (beginning of the names, what every block has).
_LISTS = (
    ('blocks.', re.compile(r'^(norm[12]|attn|mlp)\.|^gamma_[12]$')),
    ('text.transformer.resblocks.', re.compile('')),
    ('neck.levels.', re.compile(r'^(lateral|output)\.')),
    ('roi_head.bbox_head.', re.compile(r'^(shared_|fc_)')),
)
# Some of the windowed blocks of detectors only.
_OF_SOME = re.compile(r'^attn\.(rel_pos_[hw]$|rope)')
_TRUNK = ('pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias')
_TEXT = (
    'text.token_embedding.weight',
    'text.positional_embedding',
    'text.ln_final.weight',
    'text.ln_final.bias',
    'text.text_projection',
)


def check_whole(state_dict: Mapping[str, Tensor]) -> None:
    """Refuses a canonical state dict from which tensors are missing.

    Blocks must be numbered from 0 without gaps and have the same tensors; what stands around them
    must be there. That the last blocks are missing altogether cannot be seen without a model.

    Raises:
        CheckpointError: Names what is missing.
    """
    absent = [name for name in _TRUNK if name not in state_dict]
    if any(name.startswith('text.') for name in state_dict):
        absent += [name for name in _TEXT if name not in state_dict]
    for beginning, counts in _LISTS:
        absent += _absent_from_blocks(state_dict, beginning, counts)
    for kind in ('norm', 'fc_norm', 'head', 'lm_head', 'patch_embed.proj'):
        pair = {f'{kind}.weight', f'{kind}.bias'}
        if pair & set(state_dict):
            absent += sorted(pair - set(state_dict) - set(absent))
    if absent:
        raise CheckpointError(
            f'{len(absent)} tensors are missing, among them {abbreviate(absent, 4)}; the file is '
            'incomplete, get it again.'
        )


def _absent_from_blocks(
    state_dict: Mapping[str, Tensor], beginning: str, counts: re.Pattern
) -> list[str]:
    blocks: dict[int, set[str]] = {}
    for name in state_dict:
        number, _, rest = name.removeprefix(beginning).partition('.')
        if name.startswith(beginning) and number.isdigit():
            blocks.setdefault(int(number), set()).add(rest)
    if not blocks:
        return []
    everything = {
        rest
        for names in blocks.values()
        for rest in names
        if counts.match(rest) and not _OF_SOME.match(rest)
    }
    return [
        f'{beginning}{number}.{rest}'
        for number in range(max(blocks) + 1)
        for rest in sorted(everything - blocks.get(number, set()))
    ]
