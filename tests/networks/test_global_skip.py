"""The global skip: what the networks add to the enlarged input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import biggan, diffusion
from support.networks import TINY, largest_error, randomize

from glean_ext.networks import build_network, prepare_for_inference

KINDS: dict[str, dict[str, Any]] = {
    "glean": TINY,
    "light": {**TINY, "type": "LightGLEANStyleGANv2"},
    "biggan": {**biggan.NET, **biggan.sizes(32), "decoder": "slim"},
    "diffusion": {
        "type": "GLEANDiffusion",
        "pipeline": diffusion.IMAGES,
        "bank_init": "random",
        **diffusion.SIZES,
        **diffusion.NETWORK,
    },
}
PLAIN = {"glean", "light"}  # those that have a fast form


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def built(kind: str, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return randomize(build_network({**KINDS[kind], **changes})).eval().requires_grad_(False)


def test_the_enlarged_input_is_added(kind):
    net, plain = built(kind, global_skip=True), built(kind)
    lq = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gain = net.global_skip.gain.fill_(0.75)
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if "global_skip" not in key})
    drawn = plain(lq)
    expected = drawn + gain * F.interpolate(lq, size=drawn.shape[-2:], mode="bilinear", align_corners=False)
    assert largest_error(net(lq), expected) < 1e-6
    if kind in PLAIN:
        fast, fast_plain = (prepare_for_inference(x, torch.bfloat16) for x in (net, plain))
        assert largest_error(prepare_for_inference(net)(lq), expected) < 1e-5
        assert largest_error(fast(lq) - fast_plain(lq), expected - drawn) < 1e-6  # in fp32 always


def test_a_checkpoint_of_the_other_kind_is_refused(kind):
    for skip in False, True:
        state = built(kind, global_skip=skip).state_dict()
        with pytest.raises(RuntimeError, match=r"global_skip\.gain"):
            built(kind, global_skip=not skip).load_state_dict(state)


def test_it_needs_a_decoder():
    with pytest.raises(ValueError, match=r"global_skip=True needs a decoder"):
        build_network({**TINY, "decoder": "none", "global_skip": True})
