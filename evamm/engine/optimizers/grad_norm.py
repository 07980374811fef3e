"""Gradient norms that stay on the device until somebody wants to read them."""

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor
from torch.distributed.tensor import DTensor


class GradNormRecorder:
    """Keeps the norm of all gradients of every optimizer step, before clipping.

    :class:`evamm.AmpOptimWrapper` computes one for clipping, the check of the step and the log;
    with other wrappers it is computed right before the step. Wrappers of mmengine that clip log
    their own norm, which costs a wait for the device in every step; they are left alone. Steps that
    the optimizer is told to skip (``found_inf``) leave no norm.

    Args:
        optim_wrapper: One wrapper, or several under names (``OptimWrapperDict``).
    """

    def __init__(self, optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
        self._norms: list[tuple[str, Tensor, Tensor | None]] = []
        self._handles = []
        if isinstance(optim_wrapper, OptimWrapperDict):
            wrappers = {f'{name}.grad_norm': wrapper for name, wrapper in optim_wrapper.items()}
        else:
            wrappers = {'grad_norm': optim_wrapper}
        for name, wrapper in wrappers.items():
            if not isinstance(wrapper, OptimWrapper):
                continue  # DeepSpeed and Colossal-AI keep their gradients to themselves
            clips = bool(wrapper.clip_grad_kwargs)
            if clips and not hasattr(wrapper, 'grad_norm'):
                continue
            if clips:
                wrapper.log_grad_norm = False  # from here on it is read here
            self._handles.append(
                wrapper.optimizer.register_step_pre_hook(self._make_hook(name, wrapper))
            )

    def _make_hook(self, name: str, wrapper: OptimWrapper) -> object:
        def before_step(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
            known = getattr(wrapper, 'norm_is_known', False)
            norm = wrapper.grad_norm if known else _total_norm(optimizer)
            if norm is not None:
                self._norms.append((name, norm, getattr(optimizer, 'found_inf', None)))

        return before_step

    def take(self) -> list[tuple[str, float]]:
        """Names and norms since the last call, in order; this waits for the device once.

        All processes of a sharded model must call it together.
        """
        if not self._norms:
            return []
        names = [name for name, _, _ in self._norms]
        norms = torch.stack([_whole(norm).float() for _, norm, _ in self._norms])
        skipped = [
            norms.new_zeros(()) if flag is None else flag.to(norms.device).reshape(())
            for _, _, flag in self._norms
        ]
        self._norms.clear()
        norms, skipped = torch.stack((norms, torch.stack(skipped))).tolist()
        return [
            (name, norm) for name, norm, skip in zip(names, norms, skipped, strict=True) if not skip
        ]

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
