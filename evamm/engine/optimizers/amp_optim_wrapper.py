"""Mixed precision that is on where it is fast and off where it is not."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from evamm.registry import OPTIM_WRAPPERS

from ..errors import ConfigError

_DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@OPTIM_WRAPPERS.register_module()
class AmpOptimWrapper(OptimWrapper):
    """Autocast on CUDA, plain float32 on every other device.

    bfloat16 has the range of float32 and needs no loss scaling; float16 gets a ``GradScaler``. On
    a CPU nothing is cast (bfloat16 products are many times slower than float32 ones on most
    CPUs), so one config runs everywhere. Accumulation and clipping are mmengine's.

    Args:
        optimizer: Optimizer to wrap.
        dtype: ``'bfloat16'`` or ``'float16'``.
        loss_scale: ``'dynamic'``, a fixed scale, or a dict of ``GradScaler`` arguments; used with
            float16 only.
        accumulative_counts: Iterations per optimizer step.
        clip_grad: Arguments of ``clip_grad_norm_`` (or of ``clip_grad_value_`` with
            ``type='value'``).

    Raises:
        ConfigError: Unknown ``dtype`` or ``loss_scale``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: str | torch.dtype = 'bfloat16',
        loss_scale: str | float | dict = 'dynamic',
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        super().__init__(optimizer, accumulative_counts=accumulative_counts, clip_grad=clip_grad)
        self.cast_dtype = _DTYPES.get(dtype, dtype)
        if self.cast_dtype not in _DTYPES.values():
            raise ConfigError(
                f'optim_wrapper.dtype must be one of {sorted(_DTYPES)}, found {dtype!r}. '
                "For float32 use type='OptimWrapper'."
            )
        # Norm before clipping in the last step; on the device, reading it waits for the device.
        self.grad_norm = None
        self._norm_is_new = False
        # ThroughputHook reads it when it logs and switches this off.
        self.log_grad_norm = True
        # The runner moves the model to its device before it builds the optimizer.
        self.device_type = optimizer.param_groups[0]['params'][0].device.type
        self._fixed_scale = None
        scaler_args = {}
        if isinstance(loss_scale, dict):
            scaler_args = loss_scale
        elif isinstance(loss_scale, (int, float)):
            self._fixed_scale = float(loss_scale)
            scaler_args = {'init_scale': self._fixed_scale}
        elif loss_scale != 'dynamic':
            raise ConfigError(
                "optim_wrapper.loss_scale must be 'dynamic', a number or a dict of GradScaler "
                f'arguments, found {loss_scale!r}.'
            )
        enabled = self.device_type == 'cuda' and self.cast_dtype is torch.float16
        # A disabled scaler passes everything through untouched and has an empty state.
        self.loss_scaler = torch.amp.GradScaler('cuda', enabled=enabled, **scaler_args)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast (CUDA) and no gradient synchronisation inside an accumulation window."""
        if self.device_type == 'cuda':
            autocast = torch.autocast('cuda', dtype=self.cast_dtype)
        else:
            autocast = nullcontext()
        with super().optim_context(model), autocast:
            yield

    def backward(self, loss: Tensor, **kwargs: object) -> None:
        """Backpropagate the (scaled) loss; ``kwargs`` are those of ``Tensor.backward``."""
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: object) -> None:
        """Unscale, clip, step. float16 steps with a non-finite gradient are skipped."""
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update(self._fixed_scale)
        self._norm_is_new = False

    def new_grad_norm(self) -> Tensor | None:
        """Norm of the gradients that the next step will use, before clipping.

        Computed once for every step, whoever asks first, and never waited for. With a loss scaler
        the gradients have to be unscaled before; None without gradients.
        """
        if not self._norm_is_new:
            gradients = [param.grad for param in self._params_with_gradients()]
            options = {}
            if self._clips_norm:
                options = {k: v for k, v in self.clip_grad_kwargs.items() if k != 'max_norm'}
            norm = torch.nn.utils.get_total_norm(gradients, **options) if gradients else None
            self.grad_norm = None if norm is None else norm.detach()
            self._norm_is_new = True
        return self.grad_norm

    @property
    def norm_is_known(self) -> bool:
        """Whether :meth:`new_grad_norm` has been computed for the step that comes."""
        return self._norm_is_new

    def zero_grad(self, **kwargs: object) -> None:
        """Free the gradients."""
        self._norm_is_new = False
        super().zero_grad(**kwargs)

    @property
    def _clips_norm(self) -> bool:
        return bool(self.clip_grad_kwargs) and self.clip_func is torch.nn.utils.clip_grad_norm_

    def _params_with_gradients(self) -> list[nn.Parameter]:
        return [
            param
            for group in self.optimizer.param_groups
            for param in group['params']
            if param.grad is not None
        ]

    def _clip_grad(self) -> None:
        """Clip in a few fused calls, without waiting for the device."""
        params = self._params_with_gradients()
        if not params:
            return
        if not self._clips_norm:
            self.clip_func(params, **self.clip_grad_kwargs)
            return
        norm = self.new_grad_norm()
        foreach = self.clip_grad_kwargs.get('foreach')
        max_norm = self.clip_grad_kwargs['max_norm']
        torch.nn.utils.clip_grads_with_norm_(params, max_norm, norm, foreach=foreach)
        if self.log_grad_norm:
            whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
            self.message_hub.update_scalar(f'train/{self.grad_name}', float(whole))

    def state_dict(self) -> dict:
        """State of the optimizer and, with float16, of the loss scaler."""
        state = super().state_dict()
        if self.loss_scaler.is_enabled():
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state; a scaler state that this precision has no use for is left aside."""
        state_dict = dict(state_dict)
        scaler_state = state_dict.pop('loss_scaler', None)
        if scaler_state and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(scaler_state)
        super().load_state_dict(state_dict)
