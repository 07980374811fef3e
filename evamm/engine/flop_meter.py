"""Counts the arithmetic of a model while it runs, from shapes alone."""

import math
import time

import torch
from torch import Tensor, nn

_LEAVES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


def _leaf_macs(module: nn.Module, x: Tensor, out: Tensor) -> int:
    """Multiply-accumulates of one call of a linear or convolution layer."""
    if isinstance(module, nn.Linear):
        return out.numel() * module.in_features
    kernel = math.prod(module.kernel_size)
    if isinstance(module, nn.ConvTranspose2d):
        return x.numel() * (module.out_channels // module.groups) * kernel
    return out.numel() * (module.in_channels // module.groups) * kernel


def _can_count(module: nn.Module) -> bool:
    return callable(getattr(module, 'count_macs', None))


class FlopMeter:
    """Adds up the matrix products of every forward call of a model's parts.

    It asks the model: a sub-module with ``count_macs(input_shape)`` (multiply-accumulates of one
    forward pass, batch included) speaks for everything inside it, the innermost of several for
    itself. Linear and convolution layers
    outside of such parts are counted from their shapes; anything else is not. Nothing is read from
    the device, so counting does not slow a run.

    A forward pass is counted three times if something inside is trained (the backward pass does
    twice the products of the forward pass), four times in ``hardware_flops`` if the part has
    ``with_cp=True`` and computes its blocks again. A forward pass that the backward pass asks for,
    because activations were not kept, counts for the hardware once more.

    Args:
        model: Model to watch; hooks stay on it until :meth:`remove`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.active = False
        self.flops = 0
        self.hardware_flops = 0
        # Sub-modules whose share is unknown: compiled ones cannot be watched from the outside.
        self.blind = []
        self._macs = {}
        self._handles = []
        self._watch('', model)

    def _watch(self, name: str, module: nn.Module) -> None:
        inside = (part for part in module.modules() if part is not module)
        if _can_count(module) and not any(map(_can_count, inside)):
            self._handles.append(module.register_forward_pre_hook(self._on_part, with_kwargs=True))
        elif getattr(module, '_compiled_call_impl', None) is not None:
            self.blind.append(name)
        elif isinstance(module, _LEAVES):
            self._handles.append(module.register_forward_hook(self._on_leaf))
        else:
            for child_name, child in module.named_children():
                self._watch(f'{name}.{child_name}' if name else child_name, child)

    def _on_part(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.active:
            x = args[0] if args else next(iter(kwargs.values()))
            keep = kwargs.get('keep')  # a trunk that runs some of its patches (MAE)
            options = {} if keep is None else {'kept_patches': keep.shape[1]}
            key = (module, tuple(x.shape), *options.values())
            if key not in self._macs:
                self._macs[key] = module.count_macs(tuple(x.shape), **options)
            self._add(module, self._macs[key])

    def _on_leaf(self, module: nn.Module, args: tuple, out: Tensor) -> None:
        if self.active:
            self._add(module, _leaf_macs(module, args[0], out))

    def _add(self, module: nn.Module, macs: int) -> None:
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())
        recomputed = trained and getattr(module, 'with_cp', False)
        if torch._C._current_graph_task_id() >= 0:  # in a backward pass
            self.hardware_flops += 2 * macs
            return
        self.flops += 2 * macs * (3 if trained else 1)
        self.hardware_flops += 2 * macs * (3 + recomputed if trained else 1)

    def take(self) -> tuple[int, int]:
        """FLOPs of the model and of the hardware since the last call."""
        taken = self.flops, self.hardware_flops
        self.flops = self.hardware_flops = 0
        return taken

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def matmul_rate(device: torch.device) -> float:
    """Measured rate of large matrix products in FLOP/s: the ceiling that MFU refers to.

    bfloat16 on CUDA (8192 cubed, about 0.1 s), float32 elsewhere (768 cubed). Random data: zeros
    run faster. The random number generators of the run are not touched.
    """
    cuda = device.type == 'cuda'
    size, repeats, rounds = (8192, 10, 5) if cuda else (768, 2, 5)
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if cuda else torch.float32
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    best = math.inf
    for _ in range(rounds):
        if cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(a, b, out=out)
        if cuda:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return repeats * 2 * size**3 / best
