"""glean_ext.mmcv_ops: the stand-ins for mmcv's ops by value, against mmcv's own references."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from glean_ext import compat, mmcv_ops

compat.apply()

STAND_IN = isinstance(sys.modules.get(mmcv_ops.MMCV_OPS), mmcv_ops.MMCVOps)
needs_stand_in = pytest.mark.skipif(not STAND_IN, reason="this mmcv has compiled ops")
# mmcv's reference warns on every convolution that it calls PyTorch's.
quiet = pytest.mark.filterwarnings("ignore:Since aten")


# The stand-in: values

# (up x, y), (down x, y), pad (x0, x1, y0, y1), flip, gain
RESAMPLING = [
    ((1, 1), (1, 1), (0, 0, 0, 0), False, 1.0),
    ((2, 2), (1, 1), (2, 1, 2, 1), False, 4.0),
    ((1, 1), (2, 2), (1, 1, 1, 1), True, 1.0),
    ((2, 3), (3, 1), (3, 0, 1, 4), False, 0.5),
    ((1, 2), (2, 1), (-1, 2, 1, -2), True, 2.0),
    ((2, 2), (2, 2), (-2, -1, -1, -3), False, 1.0),
]


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def lopsided(*shape: int) -> Tensor:
    """A filter without any symmetry, so that a wrong flip or a swapped axis shows."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1)) + torch.arange(shape[-1])


def test_upfirdn2d_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    taps = torch.tensor([[1.0, 10.0, 100.0]])
    # zeros inserted: 1 0 2 0, padded: 0 1 0 2 0
    true = mmcv_ops.upfirdn2d(x, taps, 2, 1, 1, 1, 1, 0, 0, 0, False, 1.0)
    assert true.tolist() == [[[[10.0, 102.0, 20.0]]]]
    flipped = mmcv_ops.upfirdn2d(x, taps, 2, 1, 2, 1, 1, 0, 0, 0, True, 3.0)
    assert flipped.tolist() == [[[[30.0, 60.0]]]]


@quiet
@pytest.mark.parametrize("filter_shape", [(3, 4), (3,)])
@pytest.mark.parametrize("up, down, pad, flip, gain", RESAMPLING)
def test_upfirdn2d_is_mmcvs_reference(
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, ...],
    flip: bool,
    gain: float,
    filter_shape: tuple[int, ...],
) -> None:
    from mmcv.ops import upfirdn2d as mmcv_upfirdn2d

    module = sys.modules[mmcv_upfirdn2d.__module__]
    x, taps = image(2, 3, 7, 9), lopsided(*filter_shape)
    ours = module._upfirdn2d_cuda(up, down, pad, flip, gain).apply(x, taps)
    theirs = module._upfirdn2d_ref(x, taps, up, down, pad, flip, gain)
    # mmcv's reference rounds the root of the gain of a separable filter to fp32.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@needs_stand_in
@pytest.mark.parametrize("up, down, pad, flip, gain", RESAMPLING)
def test_upfirdn2d_derivatives(
    up: tuple[int, int], down: tuple[int, int], pad: tuple[int, ...], flip: bool, gain: float
) -> None:
    from mmcv.ops import upfirdn2d as mmcv_upfirdn2d

    op = sys.modules[mmcv_upfirdn2d.__module__]._upfirdn2d_cuda(up, down, pad, flip, gain)
    x, taps = image(1, 2, 6, 7).requires_grad_(), lopsided(3, 4)
    assert gradcheck(lambda x: op.apply(x, taps), (x,))
    assert gradgradcheck(lambda x: op.apply(x, taps), (x,))


def test_upfirdn2d_keeps_its_dtype_under_autocast() -> None:
    x, taps = image(1, 2, 5, 5).float(), lopsided(3, 3)
    plain = mmcv_ops.upfirdn2d(x, taps, 1, 1, 1, 1, 1, 1, 1, 1, False, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mmcv_ops.upfirdn2d(x, taps, 1, 1, 1, 1, 1, 1, 1, 1, False, 1.0)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)


def test_fused_bias_leakyrelu_by_hand() -> None:
    x = torch.tensor([[[1.0, -3.0], [2.0, -1.0]]])  # (1, 2, 2)
    bias, none = torch.tensor([1.0, -4.0]), torch.empty(0)
    out = mmcv_ops.fused_bias_leakyrelu(x, bias, none, act=3, grad=0, alpha=0.5, scale=2.0)
    assert out.tolist() == [[[4.0, -2.0], [-2.0, -5.0]]]
    # The slope is chosen by the output, not by the features.
    slope = mmcv_ops.fused_bias_leakyrelu(torch.ones_like(x), none, out, act=3, grad=1, alpha=0.5, scale=2.0)
    assert slope.tolist() == [[[2.0, 1.0], [1.0, 1.0]]]


@pytest.mark.parametrize("act, grad", [(1, 0), (3, 2)])
def test_fused_bias_leakyrelu_refuses_what_no_wrapper_asks_for(act: int, grad: int) -> None:
    x = torch.ones(1, 1)
    with pytest.raises(ValueError) as error:
        mmcv_ops.fused_bias_leakyrelu(x, x[0], x, act=act, grad=grad, alpha=0.2, scale=1.0)
    assert str(error.value) == f"fused_bias_leakyrelu has act=3 with grad=0 or 1, not act={act} with grad={grad}"


@needs_stand_in
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3, 2)])
def test_fused_bias_leakyrelu_through_mmcv(shape: tuple[int, ...]) -> None:
    from mmcv.ops.fused_bias_leakyrelu import FusedBiasLeakyReLUFunction, bias_leakyrelu_ref

    x, bias = image(*shape).requires_grad_(), image(4).requires_grad_()
    weight = image(*shape).flip(0)

    def op(x: Tensor, bias: Tensor) -> Tensor:
        return FusedBiasLeakyReLUFunction.apply(x, bias, 0.2, 1.5)

    ours, theirs = op(x, bias), bias_leakyrelu_ref(x, bias, 0.2, 1.5)
    torch.testing.assert_close(ours, theirs)
    for mine, reference in zip(
        torch.autograd.grad((ours * weight).sum(), (x, bias)),
        torch.autograd.grad((theirs * weight).sum(), (x, bias)),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)
    assert gradcheck(op, (x, bias))
    assert gradgradcheck(op, (x, bias))


@needs_stand_in
@quiet
def test_gradient_penalty_is_that_of_plain_pytorch() -> None:
    """R1, the derivative of a squared derivative, through both ops as a discriminator chains them."""
    from mmcv.ops import upfirdn2d as mmcv_upfirdn2d
    from mmcv.ops.fused_bias_leakyrelu import FusedBiasLeakyReLUFunction, bias_leakyrelu_ref

    module = sys.modules[mmcv_upfirdn2d.__module__]
    taps, weight, bias = lopsided(4, 4), image(3, 2, 3, 3).requires_grad_(), image(3).requires_grad_()
    resampling = {"up": 1, "down": 2, "padding": [2, 2, 2, 2]}

    def penalty_gradients(resample, activate) -> tuple[Tensor, ...]:
        x = image(2, 2, 8, 8).requires_grad_()
        score = activate(torch.nn.functional.conv2d(resample(x).square(), weight), bias, 0.2, 2**0.5).sum()
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), weight)

    ours = penalty_gradients(
        lambda x: module._upfirdn2d_cuda(**resampling).apply(x, taps), FusedBiasLeakyReLUFunction.apply
    )
    theirs = penalty_gradients(lambda x: module._upfirdn2d_ref(x, taps, **resampling), bias_leakyrelu_ref)
    assert theirs[0].abs().min() > 0
    torch.testing.assert_close(ours, theirs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@quiet
def test_ops_on_the_gpu_are_those_on_the_cpu() -> None:
    from mmcv.ops import fused_bias_leakyrelu, upfirdn2d

    x, bias, taps = image(2, 16, 16, 16).float(), image(16).float(), lopsided(4, 4)
    kwargs = {"up": 2, "down": 1, "padding": [2, 1, 2, 1], "gain": 4}
    torch.testing.assert_close(upfirdn2d(x.cuda(), taps.cuda(), **kwargs).cpu(), upfirdn2d(x, taps, **kwargs))
    torch.testing.assert_close(fused_bias_leakyrelu(x.cuda(), bias.cuda()).cpu(), fused_bias_leakyrelu(x, bias))
