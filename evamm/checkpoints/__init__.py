"""Checkpoints of the EVA family: every dialect, read safely, written atomically.

Pure functions on state dicts and files; no model class and no OpenMMLab library is imported here.
"""

from .converting import convert_checkpoint
from .dialects import DIALECTS, canonicalize, detect_dialect, from_evamm, to_evamm
from .download import fetch_weights
from .errors import CheckpointError
from .fitting import fit_state_dict
from .hashing import file_sha256
from .loading import check_options, load_checkpoint
from .reading import Checkpoint, read_checkpoint, read_object
from .rel_pos import REL_POS_RULES, rel_pos_map, rel_pos_maps, resize_rel_pos
from .report import LoadReport
from .resize import resize_patch_kernel, resize_pos_embed
from .text_tower import load_text_checkpoint
from .wrappers import unwrap
from .writing import remove_stale_files, write_checkpoint

__all__ = [
    'DIALECTS',
    'REL_POS_RULES',
    'Checkpoint',
    'CheckpointError',
    'LoadReport',
    'canonicalize',
    'check_options',
    'convert_checkpoint',
    'detect_dialect',
    'fetch_weights',
    'file_sha256',
    'fit_state_dict',
    'from_evamm',
    'load_checkpoint',
    'load_text_checkpoint',
    'read_checkpoint',
    'read_object',
    'rel_pos_map',
    'rel_pos_maps',
    'remove_stale_files',
    'resize_patch_kernel',
    'resize_pos_embed',
    'resize_rel_pos',
    'to_evamm',
    'unwrap',
    'write_checkpoint',
]
