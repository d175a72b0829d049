"""The networks against values worked by hand, and what their arguments and inputs may be."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from support.networks import largest_error, randomize
from torch import nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.errors import InputError
from glean_ext.networks import (
    GLEANStyleGANv2,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
    build_network,
    ops,
    precision,
)
from glean_ext.networks.discriminators import minibatch_stddev, require_batch
from glean_ext.networks.encoder import ResidualBlock, StyleCodes
from glean_ext.networks.glean import GLEANNetwork
from glean_ext.networks.layers import EqualizedLinear
from glean_ext.networks.shapes import channels_by_resolution

# ---------------------------------------------------------------- operations


def test_upfirdn2d_by_hand():
    x = torch.tensor([[[[1.0, 2.0]]]])
    kernel = torch.tensor([[1.0, 10.0]])
    # zeros inserted: 1 0 2 0; padded by one on both sides, both axes; convolved with the flipped kernel
    out = ops.upfirdn2d(x, kernel, up=2, pad=(1, 1))
    assert out.shape == (1, 1, 4, 5)
    assert out[0, 0, 1].tolist() == [1, 10, 2, 20, 0]
    assert ops.upfirdn2d(x, kernel, pad=(0, 0)).tolist() == [[[[12.0]]]]  # 1 * 10 + 2 * 1


def test_upfirdn2d_crops_with_negative_padding():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert ops.upfirdn2d(x, torch.ones(1, 1), pad=(-1, -1)).tolist() == [[[[5, 6], [9, 10]]]]


def test_bias_leaky_relu_by_hand():
    out = ops.bias_leaky_relu(torch.tensor([[1.0, -3.0]]), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(out, torch.tensor([[2.0, -0.4]]) * 2**0.5)


def test_modulated_convolution_equals_per_image_weights():
    """Scaling activations must equal the definition: weights built for each image (CVPR 2020, eq. 1 to 3)."""
    g = torch.Generator().manual_seed(0)
    x, weight, style = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((3, 4, 5, 6), (2, 4, 3, 3), (3, 4)))
    out = ops.modulated_conv2d(x, weight, style)
    for n in range(3):
        w = weight * style[n][None, :, None, None]
        w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(out[n : n + 1], F.conv2d(x[n : n + 1], w, padding=1), rtol=1e-5, atol=1e-5)


def test_modulated_convolution_has_second_derivatives():
    g = torch.Generator().manual_seed(0)
    x, w, s = (
        torch.randn(*shape, generator=g, dtype=torch.float64, requires_grad=True)
        for shape in ((1, 2, 3, 3), (2, 2, 3, 3), (1, 2))
    )

    def conv(x, w, s):
        # the factors are fp32 by design, so demodulation is left out of this fp64 check
        return ops.modulated_conv2d(x, w, s, demodulate=False, upsample=True)

    assert torch.autograd.gradcheck(conv, (x, w, s))
    assert torch.autograd.gradgradcheck(conv, (x, w, s))


def test_demodulation_survives_fp16_overflow():
    x = torch.full((1, 4, 2, 2), 100.0, dtype=torch.float16)
    style = torch.full((1, 4), 1e4)
    out = ops.modulated_conv2d(x, torch.ones(1, 4, 1, 1, dtype=torch.float16), style)
    assert torch.equal(out.float(), torch.full((1, 1, 2, 2), 200.0))  # 4 * 100 / sqrt(4)


def test_minibatch_stddev_by_hand():
    x = torch.zeros(4, 1, 2, 2)
    x[1] = x[3] = 2.0  # two groups of two: (0, 2 in batch index) -> all 0; (1, 3) -> all 2
    out = minibatch_stddev(x, group_size=2)
    assert out.shape == (4, 2, 2, 2)
    torch.testing.assert_close(out[:, 1], torch.full((4, 2, 2), 1e-4))
    mixed = minibatch_stddev(torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1), group_size=2)
    torch.testing.assert_close(mixed[:, 1].flatten(), torch.ones(2))


def test_minibatch_stddev_names_the_batch_size():
    with pytest.raises(ValueError, match=r"a batch of 6 does not fit: take at most 4 images or a multiple of 4"):
        minibatch_stddev(torch.zeros(6, 1, 4, 4))


@pytest.mark.parametrize("batch", [5, 6, 7, 9])
def test_unfit_batches_are_refused_before_training(mmagic_models, batch):
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as Reference

    message = (
        f"The discriminator compares images in groups of 4, so a batch of {batch} does not fit: take at most 4 images "
        "or a multiple of 4 (train_dataloader.batch_size, which is per GPU), or set "
        "model.discriminator.mbstd_cfg.group_size."
    )
    narrow = StyleGAN2Discriminator(8, max_channels=8)
    for discriminator in narrow, nn.Sequential(narrow), Reference(8):
        with pytest.raises(InputError) as error:
            require_batch(discriminator, batch)
        assert str(error.value) == message
    with pytest.raises(InputError) as error:
        narrow(torch.zeros(batch, 3, 8, 8))
    assert str(error.value) == message
    require_batch(nn.Linear(1, 1), batch)
    for fits in 1, 2, 3, 4, 8, 12:
        require_batch(narrow, fits)
    require_batch(StyleGAN2Discriminator(8, max_channels=8, mbstd_cfg={"group_size": batch}), batch)


def test_mistakes_in_mbstd_cfg_are_found_when_the_network_is_built():
    with pytest.raises(TypeError, match="group_sise"):
        StyleGAN2Discriminator(8, max_channels=8, mbstd_cfg={"group_sise": 2})
    with pytest.raises(ValueError, match=r"^mbstd_cfg.channel_groups must divide 8, but it is 3\.$"):
        StyleGAN2Discriminator(8, max_channels=8, mbstd_cfg={"channel_groups": 3})


# ---------------------------------------------------------------- the network itself


def test_channel_table_is_stylegan2s():
    assert channels_by_resolution(1024) == dict(
        zip((4, 8, 16, 32, 64, 128, 256, 512, 1024), (512,) * 5 + (256, 128, 64, 32), strict=True)
    )
    assert channels_by_resolution(128, channel_multiplier=1)[128] == 128
    assert channels_by_resolution(256, channel_multiplier=3) == {
        4: 512,
        8: 512,
        16: 512,
        32: 512,
        64: 768,
        128: 384,
        256: 192,
    }
    assert channels_by_resolution(128, channel_multiplier=4, max_channels=100) == {
        4: 100,
        8: 100,
        16: 100,
        32: 100,
        64: 200,
        128: 200,
    }


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((24, 64), "in_size must be a power of two of at least 4, but it is 24."),
        ((2, 64), "in_size must be a power of two of at least 4, but it is 2."),
        ((True, 64), "in_size must be a power of two of at least 4, but it is 1."),
        ((64, 64), "in_size must be smaller than out_size, but they are 64 and 64."),
        ((8, 48), "out_size must be a power of two of at least 8, but it is 48."),
        ((16.0, 64), "in_size must be one whole number or (height, width), but it is 16.0."),
        (((8, 8, 8), 64), "in_size must be one whole number or (height, width), but it is (8, 8, 8)."),
        (((18, 24), (72, 96)), "The longer side of in_size must be a power of two of at least 4, but it is 24."),
        (((7, 16), (28, 64)), "in_size=(7, 16) cannot be centred: make both sides even."),
        (((12, 16), 64), "in_size and out_size must have one aspect, but they are (12, 16) and 64."),
        (((12, 16), (16, 12)), "in_size must be smaller than out_size, but they are (12, 16) and (16, 12)."),
    ],
)
def test_sizes_are_checked(sizes, message):
    with pytest.raises(ValueError) as error:
        GLEANStyleGANv2(*sizes)
    assert str(error.value) == message


def test_wrong_input_size_says_what_fits(tiny_cfg):
    with pytest.raises(InputError, match=r"takes images of 8x8 pixels, but got a tensor of shape \(1, 3, 9, 8\)"):
        build_network(tiny_cfg)(torch.zeros(1, 3, 9, 8))


def test_unknown_argument_is_named(tiny_cfg):
    with pytest.raises(InputError, match=r".*\(GLEANStyleGANv2\): there .* 'in_sizee'\. Did you mean in_size or out"):
        build_network({**tiny_cfg, "in_sizee": 8})
    with pytest.raises(InputError, match=r"model.generator.type is 'GLEAM', but it must be one of"):
        build_network({"type": "GLEAM"})


def test_styles_and_demodulation_stay_in_fp32_under_autocast():
    linear, codes = EqualizedLinear(16, 16, activation=True), StyleCodes(2, 3, 8, unused=1)
    x, features = torch.randn(2, 16), torch.randn(2, 32)
    weight = torch.randn(4, 16, 3, 3)
    expected = linear(x), codes(features), ops.demodulation(weight, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(x), codes(features), ops.demodulation(weight, x)
        half = ops.demodulation(weight.bfloat16(), x.bfloat16())
    for ours, right in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, right)
    torch.testing.assert_close(half, expected[2], rtol=1e-2, atol=0)
    assert half.dtype == torch.float32


@torch.no_grad()
def test_fresh_noise_differs_between_images_and_calls():
    bank = randomize(StyleGAN2Generator(16, 16, 2, 0.125, 16))
    codes = torch.randn(1, bank.num_latents, 16).expand(2, -1, -1)
    stored = bank.synthesis(codes)
    assert torch.equal(stored[0], stored[1]) and torch.equal(stored, bank.synthesis(codes))
    layers = bank.conv1, *bank.convs.values()
    for layer in layers:
        layer.noise_injector.weight.zero_()
    assert torch.equal(bank.synthesis(codes, fresh_noise=True), bank.synthesis(codes))
    for layer in layers:  # each draws its own
        layer.noise_injector.weight.fill_(1)
        first, second = (bank.synthesis(codes, fresh_noise=True) for _ in range(2))
        assert not torch.allclose(first[0], first[1]) and not torch.allclose(first, second)
        layer.noise_injector.weight.zero_()


@torch.no_grad()
def test_shapes_that_would_broadcast_are_refused(tiny_cfg):
    net = build_network(tiny_cfg | {"decoder": "slim"})
    bank, x, codes = net.generator, torch.zeros(2, 16, 8, 8), torch.zeros(2, 4, 16)
    light = build_network(tiny_cfg | {"type": "LightGLEANStyleGANv2"}).generator
    calls = {
        "codes of one image for two": lambda: bank.block(x, 16, codes[:1]),
        "codes of two images for one": lambda: light(x[:1], codes),
        "codes without layers": lambda: bank.start(codes[:, 0]),
        "noise of one pixel": lambda: bank.style_conv(2)(x, codes[:, 0], torch.zeros(1, 1, 1, 1)),
        "noise of every channel": lambda: bank.style_conv(2)(x, codes[:, 0], torch.zeros(1, 16, 8, 8)),
        "features of one pixel": lambda: net.decoder(x, [torch.zeros(2, 16, 1, 1)]),
        "features of one image": lambda: net.decoder(x, [torch.zeros(1, 16, 16, 16)]),
        "style of one channel": lambda: ops.modulated_conv2d(x, torch.zeros(4, 16, 3, 3), torch.zeros(2, 1)),
        "bias of one channel": lambda: ops.bias_leaky_relu(x, torch.zeros(1)),
        "image of one pixel": lambda: bank.to_rgbs[0](x, codes[:, 0], torch.zeros(2, 3, 1, 1)),
    }
    for name, call in calls.items():
        with pytest.raises(AssertionError, match=r"^expected a tensor of shape .*, but got "):
            call()
            pytest.fail(name)


def test_every_trainable_parameter_gets_a_gradient_and_the_bank_none(tiny_cfg):
    net = randomize(build_network(tiny_cfg))
    net(torch.randn(2, 3, 8, 8)).square().mean().backward()
    for name, param in net.named_parameters():
        assert (param.grad is not None) == param.requires_grad, name
        assert param.requires_grad != name.startswith(("generator.", "fusion_skip.")), name


def test_mixed_precision_follows_autocast_and_the_switch(tiny_cfg, monkeypatch):
    net = randomize(build_network(tiny_cfg)).eval()
    lq = torch.rand(2, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        full = net(lq)
        with torch.autocast("cpu", torch.bfloat16):
            auto = net(lq)
        net.fp16_enabled = True
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
        switched = net(lq)
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
        assert torch.equal(net(lq), full), "bf16 without instructions for it takes many times longer"
    assert auto.dtype == switched.dtype == torch.float32
    assert torch.equal(auto, switched)
    assert 0 < largest_error(auto, full) < 0.05


def test_the_precision_around_a_network_is_kept(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    cpu = torch.device("cpu")
    with precision.mixed_precision(cpu, True):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
    with torch.autocast("cpu", torch.float16), precision.mixed_precision(cpu, True):
        assert torch.get_autocast_dtype("cpu") == torch.float16


@pytest.mark.parametrize(
    ("bf16", "capability", "expected"),
    [
        (True, (9, 0), torch.bfloat16),
        (True, (8, 0), torch.bfloat16),
        (False, (7, 5), torch.float16),
        (False, (7, 0), torch.float16),
        (False, (6, 1), torch.float32),
    ],
)
def test_fast_dtype_of_gpus(monkeypatch, bf16, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision.fast_dtype(torch.device("cuda")) == expected


def test_fast_dtype_of_cpus(monkeypatch):
    for has, expected in (True, torch.bfloat16), (False, torch.float32):
        monkeypatch.setattr(precision, "cpu_has_bf16", lambda has=has: has)
        assert precision.fast_dtype(torch.device("cpu")) == expected


def test_r1_works_in_mixed_precision():
    net = randomize(StyleGAN2Discriminator(16, channel_multiplier=0.125, max_channels=16))
    gradients = []
    for enabled in False, True:
        image = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = net(image)
        (slope,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
        net.zero_grad()
        slope.square().sum().backward()
        gradients.append(net.convs[1].conv1[0].conv.weight_orig.grad.clone())
    cosine = F.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0)
    assert cosine > 0.99


@torch.no_grad()
def test_truncation_moves_towards_the_mean():
    bank = randomize(StyleGAN2Generator(16, 16, 2, 0.125, 16)).eval()
    z = torch.randn(4, 16)
    torch.testing.assert_close(bank(z, truncation=0.0)[0], bank(-z, truncation=0.0)[1])
    assert not torch.allclose(bank(z)[0], bank(-z)[1])


def test_networks_import_with_torch_alone():
    """Law 1: no mmengine, mmcv, mmagic behind these imports, and nearly no time on top of torch."""
    code = (
        "import sys, time, torch; t = time.perf_counter(); import glean_ext.networks, glean_ext.checkpoints; "
        "t = time.perf_counter() - t; "
        "print(t, [m for m in ('mmengine', 'mmcv', 'mmagic', 'torchvision', 'cv2', 'rich') if m in sys.modules])"
    )
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, modules = out.split(" ", 1)
    assert modules.strip() == "[]"
    assert float(seconds) < 0.15 * (time.perf_counter() - start)


def test_every_module_of_the_networks_is_torch_only():
    from pathlib import Path

    import glean_ext.networks as package

    for path in Path(package.__file__).parent.rglob("*.py"):
        for word in "mmengine", "mmcv", "mmagic":
            assert f"import {word}" not in path.read_text() and f"from {word}" not in path.read_text(), path


def test_networks_are_plain_modules(tiny_cfg):
    assert type(build_network(tiny_cfg)).__mro__[1:3] == (GLEANNetwork, nn.Module)


def test_a_residual_block_is_that_of_mmagic():
    from mmagic.models.archs.sr_backbone import ResidualBlockNoBN

    ours, theirs = randomize(ResidualBlock(4)), ResidualBlockNoBN(4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))
