"""LARS as the official linear probing used it."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from evamm.registry import OPTIMIZERS

from ..errors import ConfigError
from .trust_ratio import kind_of, local_parts, parameters_with_gradients, whole_norms


@OPTIMIZERS.register_module()
class LARS(torch.optim.Optimizer):
    """Momentum SGD whose gradients are scaled, tensor by tensor, to the size of the weights.

    Paper: 1708.03888; this formula: ``LARS`` in ``EVA-01/eva/utils.py``. For a weight w with
    gradient g, biases and other vectors without the first two lines::

        g = g + weight_decay w
        g = trust_coefficient |w| / |g| g, if neither norm is 0
        buffer = momentum buffer + g
        w = w - lr buffer

    The ``LARS`` of mmpretrain differs: its buffer holds steps that include the learning rate of
    their time, vectors are scaled too unless each group says otherwise, and it waits for the device
    twice per tensor.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Decay of the buffer.
        weight_decay: Added to the gradients of matrices as ``weight_decay`` times the weight.
        trust_coefficient: Size of a scaled gradient relative to the weight.

    Raises:
        ConfigError: A value out of range; sparse gradients.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        defaults = dict(
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            trust_coefficient=trust_coefficient,
        )
        for name, value in defaults.items():
            if value < 0:
                raise ConfigError(f'LARS: optimizer.{name} must be 0 or more, found {value:g}.')
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; returns the loss of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            buckets = defaultdict(list)
            for param, grad in parameters_with_gradients(group, 'LARS'):
                if not self.state[param]:
                    self.state[param]['momentum_buffer'] = torch.zeros_like(param)
                buckets[kind_of(param), param.ndim > 1].append((param, grad))
            for (_, scaled), pairs in buckets.items():
                self._update(group, *zip(*pairs, strict=True), scaled=scaled)
        return loss

    def _update(
        self, group: dict, owners: tuple[Tensor, ...], grads: tuple[Tensor, ...], *, scaled: bool
    ) -> None:
        params, grads = local_parts(owners), local_parts(grads)
        buffers = local_parts([self.state[param]['momentum_buffer'] for param in owners])
        if scaled:
            grads = torch._foreach_add(grads, params, alpha=group['weight_decay'])
            weight_norms, grad_norms = whole_norms(owners, params), whole_norms(owners, grads)
            ratios = group['trust_coefficient'] * weight_norms / grad_norms
            ratios = torch.where((weight_norms > 0) & (grad_norms > 0), ratios, 1.0)
            torch._foreach_mul_(grads, list(ratios.to(params[0].dtype).unbind()))
        torch._foreach_mul_(buffers, group['momentum'])
        torch._foreach_add_(buffers, grads)
        torch._foreach_add_(params, buffers, alpha=-group['lr'])
