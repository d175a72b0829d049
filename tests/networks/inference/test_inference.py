"""The fast form of the networks against their plain forward, in every precision and cut into bands."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.networks import TINY, randomize
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, build_network, conv2d_gradfix, prepare_for_inference
from glean_ext.networks.banks.stylegan2 import ModulatedConv
from glean_ext.networks.decoder import PixelShuffleUp
from glean_ext.networks.inference import banded_upsampling as inference
from glean_ext.networks.inference import fast_networks
from glean_ext.networks.inference.decoder_stages import TransposedUp, four_pixels_at_once
from glean_ext.networks.inference.folded_style_conv import Modulation

GLEAN = {**TINY, "out_size": 32}
LIGHT = {**GLEAN, "type": "LightGLEANStyleGANv2", "decoder_channels": 8}
VARIANTS = {
    "glean": GLEAN,
    "glean 8->64": {**GLEAN, "out_size": 64, "channel_multiplier": 0.25},
    "glean, slim decoder": {**GLEAN, "decoder": "slim", "decoder_channels": 8},
    "glean, features at 4 alone": {**GLEAN, "inject_at": [4]},
    "glean, not square": {**GLEAN, "in_size": (6, 8), "out_size": (24, 32)},
    "glean, three taps": {**GLEAN, "blur_kernel": (1, 2, 1)},
    "light": LIGHT,
    "light, full decoder": {**LIGHT, "decoder": "full"},
    "light, three taps": {**LIGHT, "blur_kernel": (1, 2, 1)},
}
SIZES = [(8, 8), (9, 13), (16, 8), (20, 24)]  # LightGLEAN's


def network(config: dict) -> nn.Module:
    """With nothing at its initial value."""
    torch.manual_seed(0)
    net = randomize(build_network(config))
    if hasattr(net, "style_codes"):
        nn.init.normal_(net.style_codes)
    return net.eval()


def pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def span(image: Tensor) -> Tensor:
    return image.max() - image.min()


def psnr(image: Tensor, reference: Tensor) -> float:
    """In dB, the reference's range as the peak."""
    return 10 * math.log10(span(reference) ** 2 / (image - reference).square().mean())


@pytest.fixture(params=["one band", "narrow bands"])
def bands(request, monkeypatch) -> None:
    if request.param == "narrow bands":
        monkeypatch.setattr(inference, "BAND_BYTES", 1)
        monkeypatch.setattr(inference, "MIN_ROWS", 3)


# ---------------------------------------------------------------- equal to the plain forward


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("bands")
@torch.no_grad()
def test_fast_equals_plain(variant, batch):
    net = network(VARIANTS[variant])
    before = {key: value.clone() for key, value in net.state_dict().items()}
    lq = pixels(batch, 3, *((6, 8) if "square" in variant else (8, 8)))
    expected = net(lq)
    assert expected.std() > 0.01
    output = prepare_for_inference(net)(lq)
    assert output.shape == expected.shape and output.is_contiguous()
    assert (output - expected).abs().max() < 1e-5 * span(expected)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.usefixtures("bands")
@torch.no_grad()
def test_light_equals_plain_at_any_size(size):
    net, lq = network(LIGHT), pixels(2, 3, *size)
    expected = net(lq)
    assert (prepare_for_inference(net)(lq) - expected).abs().max() < 1e-5 * span(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_batch_that_is_computed_together_equals_its_images(monkeypatch, variant, dtype):
    """As on a GPU: one call for all images, whole images instead of bands, filters on channels-first memory."""
    net, lq = network(VARIANTS[variant]), pixels(3, 3, *((6, 8) if "square" in variant else (8, 8)))
    fast = prepare_for_inference(net, dtype)
    batches: list[int] = []
    fast.high_res.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    filters: list[torch.dtype] = []
    by_image = fast(lq)
    monkeypatch.setattr(fast_networks, "images_together", len)
    monkeypatch.setattr(conv2d_gradfix, "prefers_channels_first", lambda x: filters.append(x.dtype) or True)
    together = fast(lq)
    assert batches == [1, 1, 1, 3]
    assert set(filters) == {dtype}
    expected = net(lq)
    assert together.is_contiguous()
    if dtype == torch.float32:
        assert (together - expected).abs().max() < 1e-5 * span(expected)
    else:
        assert psnr(together, expected) > (40 if dtype == torch.bfloat16 else 55)
    assert psnr(together, by_image) > {torch.float32: 100, torch.bfloat16: 40, torch.float16: 55}[dtype]


@torch.no_grad()
def test_styles_of_any_size_in_fp16():
    """A style's size is taken out before fp16 could overflow; demodulation makes up for it, its epsilon included."""
    net, lq = network(GLEAN), pixels(2, 3, 8, 8)
    for factor in 1e-6, 1e-4, 1e6:
        scaled = copy.deepcopy(net)
        for layer in scaled.generator.convs.values():
            layer.conv.style_modulation.linear.weight_orig.mul_(factor)
            layer.conv.style_modulation.bias.mul_(factor)
        expected = scaled(lq)
        assert expected.std() > 0.01
        assert psnr(prepare_for_inference(scaled, torch.float16)(lq), expected) > 50
        assert (prepare_for_inference(scaled)(lq) - expected).abs().max() < 1e-5 * span(expected)
        with torch.autocast("cpu", torch.float16):
            assert psnr(scaled(lq), expected) > 50


@torch.no_grad()
def test_bands_are_used(monkeypatch):
    """Bands of three rows make more calls than whole images, so the tests above do test them."""
    fast, lq = prepare_for_inference(network(GLEAN)), pixels(1, 3, 8, 8)
    calls = []
    block = fast.high_res.blocks[0]
    block.register_forward_pre_hook(lambda block, inputs: calls.append(block.band_rows(inputs[0])))
    fast(lq)
    monkeypatch.setattr(inference, "BAND_BYTES", 1)
    monkeypatch.setattr(inference, "MIN_ROWS", 3)
    fast(lq)
    assert calls == [32, 3]  # the input has 8 rows


def test_a_band_stays_below_its_bytes():
    fast = prepare_for_inference(network(GLEAN), torch.bfloat16)
    block = fast.high_res.blocks[-1]
    x = torch.zeros(1, 1, 4096, 2048, dtype=torch.bfloat16)
    # What makes the image is given bank and decoder, twice the 16 channels of 32x32, at four pixels for one.
    row = 4 * 2 * 16 * 2048 * 2
    rows = block.band_rows(x)
    assert rows * row <= inference.BAND_BYTES < 2 * rows * row
    assert block.band_rows(x.expand(64, -1, -1, -1)) == inference.MIN_ROWS


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_without_gradients(mode):
    fast, lq = prepare_for_inference(network(GLEAN)), pixels(1, 3, 8, 8)
    with mode():
        output = fast(lq)
    assert not output.requires_grad
    assert torch.equal(output, fast(lq))


@pytest.mark.parametrize("config", [GLEAN, LIGHT], ids=["glean", "lightglean"])
@pytest.mark.usefixtures("bands")
@torch.no_grad()
def test_compiles_as_one_graph(config):
    fast, lq = prepare_for_inference(network(config)), pixels(1, 3, 8, 8)
    assert torch.equal(torch.compile(fast, backend="eager", fullgraph=True)(lq), fast(lq))


@torch.no_grad()
def test_four_pixels_at_once_by_hand():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    conv.weight.copy_(torch.arange(1.0, 10).reshape(1, 1, 3, 3))
    conv.bias.fill_(100)
    dot = torch.zeros(1, 1, 4, 4)
    dot[0, 0, 2, 1] = 1
    # A dot shows the kernel turned by 180 degrees around it.
    rows = [[0, 0, 0, 0], [9, 8, 7, 0], [6, 5, 4, 0], [3, 2, 1, 0]]
    assert (four_pixels_at_once(conv)(dot)[0, 0] - 100).tolist() == rows


@torch.no_grad()
def test_a_transposed_convolution_shuffles_pixels():
    up, x = PixelShuffleUp(5, 3), pixels(2, 5, 4, 7)
    up.upsample_conv.bias.normal_()
    expected = up(x)
    assert (TransposedUp(up)(x) - expected).abs().max() < 1e-6 * span(expected)


@torch.no_grad()
def test_modulation_makes_the_weight_of_the_definition():
    """CVPR 2020, equations 1 to 3; with the activation's gain."""
    layer = network(GLEAN).generator.style_conv(1)
    conv, code = layer.conv, torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    weight = conv.weight_orig[0] * conv.style(code)[0, :, None, None]
    weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt() * 2**0.5
    torch.testing.assert_close(Modulation(layer).folded(code).weight, weight.transpose(0, 1))


# ---------------------------------------------------------------- what is left


@pytest.mark.parametrize("config", [GLEAN, LIGHT], ids=["glean", "light"])
def test_nothing_is_shared_modulated_or_trainable(config):
    net = network(config).train()
    fast = prepare_for_inference(net)
    assert not fast.training and not any(param.requires_grad for param in fast.parameters())
    assert not any(isinstance(module, ModulatedConv) for module in fast.modules())
    tensors = [{t.data_ptr() for t in (*n.parameters(), *n.buffers()) if t.numel()} for n in (net, fast)]
    assert not tensors[0] & tensors[1]
    assert net.training and any(param.requires_grad for param in net.parameters())


@torch.no_grad()
@pytest.mark.parametrize("config", [GLEAN, LIGHT], ids=["glean", "light"])
def test_weights_can_be_shared_with_the_plain_network(config):
    net, lq = network(config), pixels(1, 3, 8, 8)
    expected = net(lq)
    fast = prepare_for_inference(net, share=True)
    torch.testing.assert_close(fast(lq), expected, atol=1e-4, rtol=0)
    own = {value.untyped_storage().data_ptr() for value in net.encoder.parameters()}
    shared = [value for value in fast.encoder.parameters() if value.untyped_storage().data_ptr() in own]
    assert len(shared) == len(list(fast.encoder.parameters()))
    assert not any(value.requires_grad for value in fast.parameters())


@torch.no_grad()
def test_what_reaches_no_output_is_dropped():
    net = network(GLEAN)
    for part in net.fusion_skip, net.generator.style_mapping, net.generator.to_rgb1, net.generator.to_rgbs:
        for tensor in (*part.parameters(), *part.buffers()):
            tensor.fill_(math.nan)
    codes = net.encoder[-1][-1]
    codes.weight[-codes.style_channels :] = codes.bias[-codes.style_channels :] = math.nan  # the last code
    assert not any(tensor.isnan().any() for tensor in prepare_for_inference(net).state_dict().values())


@torch.no_grad()
def test_flops_are_those_of_the_plain_network():
    """But for the last convolution, which has 4x4 weights for 2x2 pixels instead of 3x3 for one."""
    net, lq, counts = network(GLEAN), pixels(1, 3, 8, 8), []
    for form in net, prepare_for_inference(net):
        with FlopCounterMode(display=False) as counter:
            form(lq)
        counts.append(counter.get_total_flops())
    weights_of_a_pixel = 3 * 64 * (4 * 4 - 3 * 3)  # of 12 outputs a quarter belongs to one
    assert counts[1] - counts[0] == 2 * weights_of_a_pixel * 32 * 32


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 40), (torch.float16, 55)])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_half_precision(variant, dtype, least):
    net, lq = network(VARIANTS[variant]), pixels(1, 3, *((6, 8) if "square" in variant else (8, 8)))
    output = prepare_for_inference(net, dtype)(lq)
    assert output.dtype == torch.float32
    assert psnr(output, net(lq)) > least


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_stored_in_half_precision(dtype):
    light = prepare_for_inference(network(LIGHT), dtype)
    assert {tensor.dtype for tensor in light.state_dict().values()} == {dtype}
    glean = prepare_for_inference(network(GLEAN), dtype)
    others = {name for name, tensor in glean.state_dict().items() if tensor.dtype != dtype}
    assert others and all("modulation" in name for name in others)


@torch.no_grad()
def test_the_demo_model_in_bf16():
    """At least 45 dB on every image: noise, flat colours and what lies between."""
    from glean_ext.config import load_config

    config = load_config(Path(__file__).parents[3] / "configs" / "demo_glean_x8.py")
    net = build_network(config.model.generator)
    checkpoints.load_network_weights(net, "glean-ext://demo_glean_x8.safetensors")
    net.eval()
    soft = F.interpolate(pixels(4, 3, 3, 3), size=(8, 8), mode="bilinear")
    lq = torch.cat([soft, pixels(2, 3, 8, 8), torch.full((1, 3, 8, 8), 0.5)])
    expected = net(lq)
    for ours, reference in zip(prepare_for_inference(net, torch.bfloat16)(lq), expected, strict=True):
        error = (ours - reference).square().mean()
        assert 10 * torch.log10(2**2 / error) > 45  # images are in [-1, 1]
    assert (prepare_for_inference(net)(lq) - expected).abs().max() < 1e-5 * span(expected)


@pytest.mark.slow
@pytest.mark.usefixtures("mmagic_models")
@torch.no_grad()
def test_full_size_against_mmagic():
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    reference = randomize(Reference(64, 1024)).eval()
    net = GLEANStyleGANv2(64, 1024).eval()
    net.load_state_dict(reference.state_dict(), strict=True)
    lq = pixels(1, 3, 64, 64)
    expected = reference(lq)
    assert (prepare_for_inference(net)(lq) - expected).abs().max() < 1e-5 * span(expected)
    assert psnr(prepare_for_inference(net, torch.bfloat16)(lq), expected) > 40


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_on_a_gpu(variant, dtype):
    net, lq = network(VARIANTS[variant]), pixels(3, 3, *((6, 8) if "square" in variant else (8, 8)))
    output = prepare_for_inference(net, dtype).cuda()(lq.cuda())
    assert output.is_cuda and output.dtype == torch.float32
    # Convolutions run in TF32 there, as PyTorch's defaults have it.
    assert psnr(output.cpu(), net(lq)) > (40 if dtype == torch.bfloat16 else 55)


# ---------------------------------------------------------------- what has no fast form


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({**GLEAN, "bank": "absent"}, "NoBank"),
        ({**GLEAN, "decoder": "none"}, "GLEANStyleGANv2"),
        ({**LIGHT, "bank": "absent"}, "NoBlocks"),
    ],
)
def test_networks_without_bank_or_decoder_are_refused(config, name):
    with pytest.raises(InputError) as error:
        prepare_for_inference(build_network(config))
    assert str(error.value) == (
        f"prepare_for_inference knows no fast form of {name}. It takes a GLEANStyleGANv2 or "
        "LightGLEANStyleGANv2 that has a bank and a decoder and takes no references; use any other network as it is."
    )


def test_other_modules_and_dtypes_are_refused():
    with pytest.raises(InputError, match=r"knows no fast form of Linear\. It takes a GLEANStyleGANv2 or "):
        prepare_for_inference(nn.Linear(1, 1))
    with pytest.raises(InputError, match=r"dtype must be one of torch.float32, .*, but it is torch.int8."):
        prepare_for_inference(network(LIGHT), torch.int8)


def test_unfit_input_is_refused():
    with pytest.raises(InputError, match=r"takes images of 8x8 pixels, but got a tensor of shape \(1, 3, 9, 8\)"):
        prepare_for_inference(network(GLEAN))(torch.zeros(1, 3, 9, 8))
