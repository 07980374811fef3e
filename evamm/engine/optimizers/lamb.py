"""LAMB as EVA-CLIP used it."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from evamm.registry import OPTIMIZERS

from ..errors import ConfigError
from .trust_ratio import kind_of, local_parts, parameters_with_gradients, whole_norms


@OPTIMIZERS.register_module()
class LAMB(torch.optim.Optimizer):
    """Adam whose step is scaled, tensor by tensor, to the size of the weights.

    Paper: 1904.00962. The formula is that of DeepSpeed's ``FusedLamb``, which every official
    EVA-CLIP run used. For a weight w with gradient g, in step t::

        m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
        u = m / (sqrt(v) + eps) + weight_decay w
        ratio = clamp(|w| / |u|, min_coeff, max_coeff), or 1 if |w| or |u| is 0
        w = w - lr sqrt(1 - beta2^t) / (1 - beta1^t) ratio u

    The bias correction is part of the step size: it scales the weight decay too and stays outside
    of the ratio. Gradients are not clipped here; ``optim_wrapper.clip_grad`` does that. The
    ``Lamb`` of mmpretrain, timm's, differs in all of it: it divides the gradients by their global
    norm when that exceeds 1, takes the ratio after the bias correction and only where the weight
    decays, does not bound it, and fails on a scalar such as ``logit_scale``.

    The official runs combined LAMB with ZeRO-1, which gives the optimizer slices of concatenated
    tensors, so that their ratios depended on the number of GPUs; here a ratio belongs to a tensor,
    as in the paper.

    Works on all tensors of a group at once, does not wait for the device, and with sharded
    parameters (:class:`evamm.FSDP2`) takes the norms of whole tensors.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        betas: Decay of the averages of gradients and of their squares.
        eps: Added to the root of the second average.
        weight_decay: Weight decay inside the step.
        bias_correction: Whether the step size makes up for averages that start at 0.
        min_coeff: Least ratio.
        max_coeff: Largest ratio.

    Raises:
        ConfigError: A value out of range; sparse gradients.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        min_coeff: float = 0.01,
        max_coeff: float = 10.0,
    ) -> None:
        for name, value in (('lr', lr), ('eps', eps), ('weight_decay', weight_decay)):
            if value < 0:
                raise ConfigError(f'LAMB: optimizer.{name} must be 0 or more, found {value:g}.')
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f'LAMB: optimizer.betas must be two values in [0, 1), found {betas}.')
        if not 0 <= min_coeff <= max_coeff:
            raise ConfigError(
                'LAMB: optimizer.min_coeff must lie between 0 and max_coeff, found '
                f'{min_coeff:g} and {max_coeff:g}.'
            )
        defaults = dict(
            lr=lr,
            betas=tuple(betas),
            eps=eps,
            weight_decay=weight_decay,
            bias_correction=bias_correction,
            min_coeff=min_coeff,
            max_coeff=max_coeff,
        )
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step; returns the loss of ``closure``, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # One bucket, unless a parameter had no gradient in some step.
            buckets = defaultdict(list)
            for param, grad in parameters_with_gradients(group, 'LAMB'):
                state = self.state[param]
                if not state:
                    # On the CPU: reading it does not wait for the device.
                    state['step'] = torch.zeros((), dtype=torch.float32)
                    state['exp_avg'] = torch.zeros_like(param)
                    state['exp_avg_sq'] = torch.zeros_like(param)
                state['step'] += 1
                buckets[kind_of(param), int(state['step'])].append((param, grad))
            for (_, step), pairs in buckets.items():
                self._update(group, step, *zip(*pairs, strict=True))
        return loss

    def _update(
        self, group: dict, step: int, owners: tuple[Tensor, ...], grads: tuple[Tensor, ...]
    ) -> None:
        beta1, beta2 = group['betas']
        params, grads = local_parts(owners), local_parts(grads)
        first = local_parts([self.state[param]['exp_avg'] for param in owners])
        second = local_parts([self.state[param]['exp_avg_sq'] for param in owners])

        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        updates = torch._foreach_sqrt(second)
        torch._foreach_add_(updates, group['eps'])
        torch._foreach_reciprocal_(updates)
        torch._foreach_mul_(updates, first)
        if group['weight_decay']:
            torch._foreach_add_(updates, params, alpha=group['weight_decay'])

        weight_norms, update_norms = whole_norms(owners, params), whole_norms(owners, updates)
        ratios = (weight_norms / update_norms).clamp(group['min_coeff'], group['max_coeff'])
        ratios = torch.where((weight_norms > 0) & (update_norms > 0), ratios, 1.0)
        step_size = group['lr']
        if group['bias_correction']:
            step_size *= (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        torch._foreach_mul_(updates, list((ratios * -step_size).to(params[0].dtype).unbind()))
        torch._foreach_add_(params, updates)
