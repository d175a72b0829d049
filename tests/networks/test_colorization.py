"""Colorization: the luminance of the input, colours within the gamut, any size, and several answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from support.networks import TINY, randomize
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.networks import GLEANColorization, build_network, prepare_for_inference
from glean_ext.networks.colorization import join, luminance
from glean_ext.utils.array_conversion import from_tensor, upload

SMALL = {k: v for k, v in TINY.items() if k != "type"} | {"in_size": 16, "encoder_size": 4, "bank_init": "random"}
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture
def net() -> Iterator[GLEANColorization]:
    torch.manual_seed(0)
    yield randomize(GLEANColorization(**SMALL)).requires_grad_(False).eval()


def pixels(height: int = 16, width: int = 16, seed: int = 0, gray: bool = True, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, np.iinfo(dtype).max, (height, width, 1 if gray else 3), dtype, endpoint=True)
    return np.repeat(image, 3, 2) if gray else image


def colour(net: GLEANColorization, image: np.ndarray, z: Tensor | None = None) -> np.ndarray:
    return from_tensor(net(upload([image], torch.device("cpu")), z)[0], image.dtype)


# ---------------------------------------------------------------- luminance and gamut


@pytest.mark.parametrize("strength", [1, 100])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_luminance_is_the_inputs(net, strength, dtype):
    """Within half a level after rounding: also of colours that would be far out of the gamut."""
    net.decoder[-1][-1].weight *= strength
    for gray in True, False:
        image = pixels(40, 24, gray=gray, dtype=dtype)
        result = colour(net, image)
        assert result.shape == image.shape and result.dtype == dtype
        error = np.abs(result.astype(float) @ LUMA - image.astype(float) @ LUMA)
        assert error.max() <= 0.51 + 1e-6 * np.iinfo(dtype).max
    assert np.ptp(result.astype(int), axis=2).max() > np.iinfo(dtype).max / (100 if strength == 1 else 3)


def test_join_by_hand():
    gray = torch.tensor([0.0, 0.0, 1.0, -1.0]).reshape(1, 1, 1, 4)
    chroma = torch.tensor([[0.5, 3.0, 1.0, 1.0], [0.0, 0.0, -1.0, -1.0]]).reshape(1, 2, 1, 4)
    image = join(gray, chroma)
    green = -0.299 * 0.5 / 0.587
    torch.testing.assert_close(image[0, :, 0, 0], torch.tensor([0.5, green, 0.0]))  # within the gamut as it is
    torch.testing.assert_close(image[0, :, 0, 1], torch.tensor([1.0, 2 * green, 0.0]))  # as far as the gamut reaches
    torch.testing.assert_close(image[0, :, 0, 2:], torch.tensor([[1.0, -1.0]] * 3))  # white and black stay
    torch.testing.assert_close(luminance(image), gray, atol=1e-6, rtol=0)


def test_colours_out_of_the_gamut_have_a_gradient():
    chroma = torch.full((1, 2, 1, 1), 5.0, requires_grad=True)
    join(torch.zeros(1, 1, 1, 1), chroma)[0, 0].sum().backward()
    assert chroma.grad.flatten().tolist() == [1.0, 0.0]


def test_only_luminance_counts(net):
    image = upload([pixels(gray=False)], torch.device("cpu"))
    torch.testing.assert_close(net(image), net(luminance(image).expand(-1, 3, -1, -1)), atol=1e-5, rtol=0)


# ---------------------------------------------------------------- sizes


def test_wide_images_lie_in_the_middle_of_a_square(net):
    image = upload([pixels(8, 16)], torch.device("cpu"))
    square = torch.nn.functional.pad(image, (0, 0, 4, 4), mode="replicate")
    torch.testing.assert_close(net(image), net(square)[:, :, 4:12])


@pytest.mark.parametrize("size", [(8, 8), (31, 17), (9, 40)])
def test_any_size(net, size):
    assert net(torch.zeros(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("shape", [(1, 3, 7, 16), (1, 1, 16, 16), (3, 16, 16)])
def test_other_inputs_are_refused(net, shape):
    with pytest.raises(InputError) as error:
        net(torch.zeros(shape))
    assert str(error.value) == (
        f"This GLEAN colours RGB images of at least 8x8 pixels, but got a tensor of shape {shape}. Give another image."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_size": 8}, "in_size and out_size must be equal, but they are 8 and 16."),
        ({"encoder_size": 16}, "in_size must be smaller than out_size, but they are 16 and 16."),
    ],
)
def test_wrong_sizes(changes, message):
    with pytest.raises(InputError) as error:
        build_network({"type": "GLEANColorization", **SMALL, **changes})
    assert str(error.value) == f"model.generator (GLEANColorization): {message}"


def test_it_has_no_fast_form(net):
    with pytest.raises(InputError, match="knows no fast form of GLEANColorization"):
        prepare_for_inference(net)


# ---------------------------------------------------------------- several answers


def test_answers(net):
    z = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    image = upload([pixels()] * 2, torch.device("cpu"))
    plain, sampled = net(image), net(image, z)
    torch.testing.assert_close(net(image, torch.zeros(2, 16)), plain)
    torch.testing.assert_close(net(image[:1], z[1:]), sampled[1:], atol=1e-5, rtol=0)
    assert (sampled - plain).abs().amax((1, 2, 3)).min() > 1e-3 and (sampled[0] - sampled[1]).abs().max() > 1e-3
    torch.testing.assert_close(luminance(sampled), luminance(image), atol=1e-5, rtol=0)


def test_training_reaches_all_but_the_bank():
    net = GLEANColorization(**SMALL)
    net(torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 16)).square().sum().backward()
    trained = {name for name, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {name for name, p in net.named_parameters() if p.requires_grad}
    assert not any(name.startswith("generator.") for name in trained) and "variation" in trained
