"""Loss scaling of the mixed-precision optimiser, by a scaler on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.engine.amp_optim_wrapper import MixedPrecisionOptimWrapper

SCALE = 1024.0


def scaled(weight: nn.Parameter, **settings: object) -> MixedPrecisionOptimWrapper:
    """SGD with a rate of 1 and a loss scale of 1024."""
    wrapper = MixedPrecisionOptimWrapper(torch.optim.SGD([weight], lr=1.0), "bfloat16", **settings)
    wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=2)
    return wrapper


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values))


@pytest.mark.parametrize(
    ("clip_grad", "moved"),
    [
        (None, [3.0, 4.0]),
        ({"max_norm": 1.0}, [0.6, 0.8]),
        ({"max_norm": 100.0}, [3.0, 4.0]),
        ({"type": "value", "clip_value": 3.5}, [3.0, 3.5]),
    ],
)
def test_gradients_are_clipped_without_the_loss_scale(clip_grad, moved):
    w = weight(0.0, 0.0)
    wrapper = scaled(w, clip_grad=clip_grad)
    wrapper.update_params((w * torch.tensor([3.0, 4.0])).sum())
    assert (-w).tolist() == pytest.approx(moved, rel=1e-5)


def test_gradients_are_scaled_and_accumulated():
    w = weight(0.0)
    wrapper = scaled(w, accumulative_counts=2)
    wrapper.update_params(6 * w.sum())
    assert w.grad.tolist() == [3 * SCALE] and w.tolist() == [0] and wrapper.inner_count == 1
    wrapper.update_params(2 * w.sum())
    assert w.tolist() == [-4] and w.grad is None and wrapper.inner_count == 2


def test_a_step_that_overflows_is_left_out_and_lowers_the_scale():
    w = weight(1.0)
    wrapper = scaled(w, clip_grad={"max_norm": 1.0})
    wrapper.update_params(torch.inf * w.sum())
    assert w.tolist() == [1] and wrapper.loss_scaler.get_scale() == SCALE / 2


def test_the_scale_is_saved():
    w = weight(1.0)
    wrapper = scaled(w)
    wrapper.update_params(torch.inf * w.sum())
    wrapper.update_params(w.sum())
    state = wrapper.state_dict()
    assert state["loss_scaler"]["scale"] == SCALE / 2 and state["loss_scaler"]["_growth_tracker"] == 1
    other = scaled(weight(1.0))
    other.load_state_dict(state)
    assert other.loss_scaler.state_dict() == wrapper.loss_scaler.state_dict()
    del state["loss_scaler"]  # of an optimiser without mixed precision
    third = scaled(weight(1.0))
    third.load_state_dict(state)
    assert third.loss_scaler.get_scale() == SCALE


@pytest.mark.parametrize(
    ("fast", "scales"), [(torch.bfloat16, False), (torch.float16, True), (torch.float32, False)]
)  # H200, T4, GTX 1080
def test_what_auto_takes_on_a_gpu(monkeypatch, caplog, fast, scales):
    module = "glean_ext.engine.amp_optim_wrapper"
    scalers: list[bool] = []
    monkeypatch.setattr(f"{module}.get_device", lambda: "cuda")
    monkeypatch.setattr(f"{module}.fast_dtype", lambda device: fast)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, enabled: scalers.append(enabled))
    wrapper = MixedPrecisionOptimWrapper(torch.optim.SGD([weight(1.0)], lr=1.0), "auto")
    assert (wrapper.dtype, wrapper.enabled, scalers) == (fast, fast != torch.float32, [scales])
    assert not caplog.messages
    MixedPrecisionOptimWrapper(torch.optim.SGD([weight(1.0)], lr=1.0), "bfloat16")
    name = {torch.float16: "fp16", torch.float32: "fp32"}.get(fast)
    slow = f"bf16 makes training many times slower on this GPU; optim_wrapper.dtype='auto' would take {name} here."
    assert caplog.messages == ([slow] if name else [])
