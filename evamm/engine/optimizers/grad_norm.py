"""Gradient norms that stay on the device until somebody wants to read them."""

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.distributed.tensor import DTensor


class GradNormRecorder:
    """Keeps the norm of all gradients of every optimizer step, before clipping.

    Wrappers that clip and have ``grad_norm`` (:class:`evamm.AmpOptimWrapper`) give theirs, with
    others the norm is computed right before the step. Wrappers of mmengine that clip log their own
    norm, which costs a wait for the device in every step; they are left alone.

    Args:
        optim_wrapper: One wrapper, or several under names (``OptimWrapperDict``).
    """

    def __init__(self, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
        self._norms: list[tuple[str, Tensor]] = []
        self._handles = []
        if isinstance(optim_wrapper, OptimWrapperDict):
            wrappers = {f'{name}.grad_norm': wrapper for name, wrapper in optim_wrapper.items()}
        else:
            wrappers = {'grad_norm': optim_wrapper}
        for name, wrapper in wrappers.items():
            clips = bool(wrapper.clip_grad_kwargs)
            if clips and not hasattr(wrapper, 'grad_norm'):
                continue
            if clips:
                wrapper.log_grad_norm = False  # from here on it is read here
            self._handles.append(
                wrapper.optimizer.register_step_pre_hook(self._make_hook(name, wrapper, clips))
            )

    def _make_hook(self, name: str, wrapper: OptimWrapper, clips: bool) -> object:
        def before_step(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
            norm = wrapper.grad_norm if clips else _total_norm(optimizer)
            if norm is not None:
                self._norms.append((name, norm))

        return before_step

    def take(self) -> list[tuple[str, float]]:
        """Names and norms since the last call, in order; this waits for the device once.

        All processes of a sharded model must call it together.
        """
        norms = [(name, _whole(norm)) for name, norm in self._norms]
        self._norms.clear()
        if not norms:
            return []
        values = torch.stack([norm.float() for _, norm in norms]).tolist()
        return [(name, value) for (name, _), value in zip(norms, values, strict=True)]

    def remove(self) -> None:
        """Stop recording."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


@torch.no_grad()
def _total_norm(optimizer: torch.optim.Optimizer) -> Tensor | None:
    grads = [
        param.grad
        for group in optimizer.param_groups
        for param in group['params']
        if param.grad is not None
    ]
    if not grads:
        return None
    norm = torch.nn.utils.get_total_norm(grads)
    # A fused optimizer is given gradients that are still scaled, and the scale beside them.
    scale = getattr(optimizer, 'grad_scale', None)
    return norm if scale is None else norm / scale
