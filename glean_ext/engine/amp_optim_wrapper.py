"""Mixed-precision training, on GPUs and on CPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from glean_ext.compat import clip_gradients, set_backward_count
from glean_ext.errors import InputError
from glean_ext.networks.precision import fast_dtype, log_fp32_fallback
from glean_ext.utils.dtypes import DTYPES

logger = logging.getLogger(__name__)

SLOW = "bf16 makes training many times slower on this %s; optim_wrapper.dtype='auto' would take %s here."
CHOICES = ("auto", *(name for name in DTYPES if name != "float32"))


class MixedPrecisionOptimWrapper(OptimWrapper):
    """An optimiser whose forward passes run under autocast; fp16 also scales the loss, bf16 needs no scaling.

    mmengine's ``AmpOptimWrapper`` does the same on GPUs only.

    Args:
        optimizer: The wrapped optimiser.
        dtype: ``'bfloat16'``, ``'float16'`` (GPU only), or ``'auto'``: bf16 where the hardware computes in it, else
            fp16 on a GPU that has it, else fp32.
        accumulative_counts: Backward passes whose gradients are added up before an update.
        clip_grad: Arguments of ``clip_grad_norm_`` or ``clip_grad_value_``, as in mmengine.

    Raises:
        InputError: An unknown ``dtype``, or fp16 without a GPU.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: str = "bfloat16",
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ):
        super().__init__(optimizer, accumulative_counts=accumulative_counts, clip_grad=clip_grad)
        self.device_type = get_device()
        if dtype not in CHOICES:
            raise InputError(f"optim_wrapper.dtype must be one of {sorted(CHOICES)}, but it is {dtype!r}.")
        if dtype == "float16" and self.device_type == "cpu":
            raise InputError("optim_wrapper.dtype='float16' needs a GPU; on a CPU take dtype='bfloat16'.")
        fast = fast_dtype(torch.device(self.device_type))
        self.dtype: torch.dtype = fast if dtype == "auto" else getattr(torch, dtype)
        self.enabled = self.dtype != torch.float32
        if self.dtype == torch.bfloat16 != fast:
            logger.warning(
                SLOW, "CPU" if self.device_type == "cpu" else "GPU", "fp16" if fast == torch.float16 else "fp32"
            )
        elif not self.enabled and self.device_type == "cpu":
            log_fp32_fallback()
        self.loss_scaler = torch.amp.GradScaler(self.device_type, enabled=self.dtype == torch.float16)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        mixed = torch.autocast(self.device_type, self.dtype) if self.enabled else nullcontext()
        with super().optim_context(model), mixed:
            yield

    def backward(self, loss: Tensor, **kwargs: object) -> None:
        self.loss_scaler.scale(loss).backward(**kwargs)
        set_backward_count(self, self.inner_count + 1)

    def step(self, **kwargs: object) -> None:
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)  # the limit is for gradients of the loss, not of the scaled one
            clip_gradients(self)
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict:
        return {**super().state_dict(), "loss_scaler": self.loss_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        state = dict(state_dict)
        self.loss_scaler.load_state_dict(state.pop("loss_scaler", {}) or self.loss_scaler.state_dict())
        super().load_state_dict(state)
