"""The networks against MMagic's own classes, value by value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.networks import largest_error, randomize

from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Discriminator, StyleGAN2Generator, prepare_for_inference
from glean_ext.networks.discriminators import minibatch_stddev

# ---------------------------------------------------------------- parity with MMagic


@pytest.mark.parametrize(
    ("in_size", "out_size", "batch"),
    [(16, 64, 3)]
    + [
        pytest.param(*case, marks=pytest.mark.slow)
        for case in ((32, 256, 1), (32, 256, 3), (64, 1024, 1), (64, 1024, 3))
    ],
)
@torch.no_grad()
def test_glean_equals_mmagic(mmagic_models, in_size, out_size, batch):
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    torch.manual_seed(0)
    reference = randomize(Reference(in_size, out_size, num_rrdbs=4)).eval()
    ours = GLEANStyleGANv2(in_size, out_size, num_rrdbs=4).eval()
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict(), strict=True)
    lq = torch.rand(batch, 3, in_size, in_size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = reference(lq)
    assert expected.std() > 0.1
    assert largest_error(ours(lq), expected) < 1e-5


NARROW = {"in_size": 8, "out_size": 16, "rrdb_channels": 8, "num_rrdbs": 1, "style_channels": 8, "num_mlps": 1}
SAME_ARGUMENTS = {
    "4 to 8": {"in_size": 4, "out_size": 8},
    "4 to 16": {"in_size": 4, "out_size": 16},
    "configuration e": {"in_size": 32, "out_size": 64, "channel_multiplier": 1},
    "wider than 512": {"out_size": 64, "channel_multiplier": 3},
    "wide encoder": {"in_size": 64, "out_size": 128, "channel_multiplier": 4},
    "two taps": {"blur_kernel": [1, 1]},
    "six taps": {"blur_kernel": [1, 5, 10, 10, 5, 1]},
    "asymmetric taps": {"blur_kernel": [1, -2, 4, 1]},
    "two-dimensional filter": {"blur_kernel": [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]},
    "no mapping layer": {"num_mlps": 0},
    "no trunk": {"num_rrdbs": 0},
    "one channel of everything": {"img_channels": 1, "rrdb_channels": 1, "style_channels": 1},
    "four image channels": {"img_channels": 4},
    "integers of numpy": {"in_size": np.int64(8), "out_size": np.int64(16)},
    "without effect": {"default_style_mode": "single", "eval_style_mode": "mix", "mix_prob": 0.1, "bgr2rgb": True},
}


LARGE = "wide encoder", "wider than 512"  # they take half a minute


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name, changes in SAME_ARGUMENTS.items()
    ],
)
@torch.no_grad()
def test_same_arguments_same_outputs(mmagic_models, changes):
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    arguments = NARROW | changes
    torch.manual_seed(0)
    reference = randomize(Reference(**arguments)).eval()
    ours = GLEANStyleGANv2(**arguments).eval()
    assert list(ours.state_dict()) == list(reference.state_dict())
    for name, tensor in reference.state_dict().items():
        if name.endswith("kernel"):  # constants that are not drawn
            torch.testing.assert_close(ours.state_dict()[name], tensor)
    ours.load_state_dict(reference.state_dict(), strict=True)
    reference.load_state_dict(ours.state_dict(), strict=True)
    side = arguments["in_size"]
    lq = torch.rand(2, arguments.get("img_channels", 3), side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = reference(lq)
    assert expected.std() > 0.05
    assert largest_error(ours(lq), expected) < 1e-5
    assert largest_error(prepare_for_inference(ours)(lq), expected) < 1e-5


def test_full_size_state_dicts_agree_both_ways(mmagic_models):
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    with torch.device("meta"):
        ours, theirs = GLEANStyleGANv2(64, 1024), Reference(64, 1024)
    shapes = [{k: v.shape for k, v in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(175.5e6, rel=1e-3)  # PAPER: measured on MMagic


@pytest.mark.parametrize(
    ("in_size", "multiplier"), [(32, 2), (4, 2), *(pytest.param(64, n, marks=pytest.mark.slow) for n in (2, 4))]
)
@torch.no_grad()
def test_discriminator_equals_mmagic(mmagic_models, in_size, multiplier):
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as Reference

    torch.manual_seed(0)
    reference = randomize(Reference(in_size, channel_multiplier=multiplier))
    ours = StyleGAN2Discriminator(in_size, channel_multiplier=multiplier)
    assert list(ours.state_dict()) == list(reference.state_dict())
    ours.load_state_dict(reference.state_dict(), strict=True)
    image = torch.randn(8, 3, in_size, in_size, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(image), reference(image), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_bank_images_equal_mmagic(mmagic_models):
    from mmagic.models.editors.stylegan2 import StyleGAN2Generator as Reference

    torch.manual_seed(0)
    reference = randomize(Reference(64, 512)).eval()
    ours = StyleGAN2Generator(64, 512)
    ours.load_state_dict(reference.state_dict(), strict=True)
    z = torch.randn(2, 512, generator=torch.Generator().manual_seed(1))
    assert largest_error(ours(z), reference(z, randomize_noise=False)) < 1e-5


@pytest.mark.parametrize(("batch", "group_size"), [(1, 4), (2, 4), (3, 4), (4, 4), (8, 4), (12, 4), (6, 3), (5, 8)])
def test_minibatch_stddev_equals_mmagics(mmagic_models, batch, group_size):
    from mmagic.models.editors.stylegan2.stylegan2_modules import ModMBStddevLayer

    x = torch.randn(batch, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    for groups in 1, 3:
        expected = ModMBStddevLayer(group_size, groups)(x)
        assert expected.shape == (batch, 6 + groups, 4, 4)
        torch.testing.assert_close(minibatch_stddev(x, group_size, groups), expected)


def test_initial_weights_are_distributed_like_mmagics(mmagic_models):
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    arguments = {"in_size": 8, "out_size": 16, "num_rrdbs": 1}
    ours, theirs = GLEANStyleGANv2(**arguments).state_dict(), Reference(**arguments).state_dict()
    for name, tensor in theirs.items():
        if tensor.std() == 0 or tensor.numel() == 1:  # biases, noise strengths
            assert torch.equal(ours[name], tensor), name
        elif tensor.numel() >= 5000:
            assert ours[name].std().item() == pytest.approx(tensor.std().item(), rel=0.1), name
            assert abs(ours[name].mean()) < 0.1 * tensor.std(), name
