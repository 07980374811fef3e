"""Lets torchvision be imported beside a torch build its compiled operators were not made for.

The torchvision wheel of the package index is a CUDA build. Beside a CPU torch its operators do
not load, and `import torchvision` then fails because it describes `torchvision::nms` and
`torchvision::qnms`, which nobody has declared. Declaring them is enough: everything that is not a
compiled operator works, and calling one of the two gives torch's own "not implemented" error.
"""

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'


def declare_missing_schemas() -> None:
    """Declares the two schemas unless torchvision's operators have loaded."""
    import torch

    for name in ('nms', 'qnms'):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', _SCHEMA)
