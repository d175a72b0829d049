"""The library: images of 8 and 16 bits, alone and together, in any dtype; test_export.py has its ONNX models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import TINY, randomize

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.torch_backend import TorchBackend, default_dtype
from glean_ext.networks import build_network, precision
from glean_ext.utils.array_conversion import from_floats, to_floats

LIGHT = {**TINY, "type": "LightGLEANStyleGANv2"}


def noise(height: int = 8, width: int = 8, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (height, width, 3), dtype, endpoint=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """glean.safetensors and light.safetensors."""
    folder = tmp_path_factory.mktemp("home")
    for name, generator in ("glean", TINY), ("light", LIGHT):
        torch.manual_seed(0)
        checkpoints.save(randomize(build_network(generator)).state_dict(), folder / f"{name}.safetensors")
    return folder


def make(home: Path, name: str = "glean", **arguments) -> ImageRestorer:
    generator = {"glean": TINY, "light": LIGHT}[name]
    arguments = {"device": "cpu", "dtype": "float32", "notify": lambda line: None, **arguments}
    return ImageRestorer({"model": {"generator": generator}}, home / f"{name}.safetensors", **arguments)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize("policy", ["tile", "resize"])
@pytest.mark.parametrize("size", [(8, 8), (20, 13)])
def test_16_bits_are_8_bits_in_more_steps(home, policy, size):
    """257 v is to 65535 what v is to 255."""
    restorer, image = make(home, size_policy=policy), noise(*size)
    fine = restorer.restore(image.astype(np.uint16) * 257)
    coarse = restorer.restore(image)
    assert fine.dtype == np.uint16 and coarse.dtype == np.uint8 and fine.shape == coarse.shape
    assert len(np.unique(fine)) > len(np.unique(coarse)) and coarse.std() > 1
    # resizing rounds, in other steps
    assert np.abs(fine / 257 - coarse).max() <= (0.51 if policy == "tile" or size == (8, 8) else 3)


def test_16_bits_come_out_finer_than_8(home):
    network = make(home).network
    image = noise(dtype=np.uint16)
    exact = (network(to_floats(image))[0].transpose(1, 2, 0).clip(-1, 1) + 1) / 2
    np.testing.assert_allclose(network.restore([image])[0] / 65535, exact, atol=0.51 / 65535)
    np.testing.assert_array_equal(from_floats(to_floats(image), np.uint16), image)


def test_other_arrays_are_refused(home):
    for wrong in noise() / 255, noise()[..., 0], noise().astype(np.int32):
        with pytest.raises(TypeError, match=r"restore takes \(h, w, 3\) uint8 or uint16 RGB"):
            make(home).restore(wrong)


# ---------------------------------------------------------------- together


def test_a_batch_is_what_each_is_alone(home):
    restorer, shapes = make(home), []
    images = [noise(seed=1), noise(12, 9), noise(dtype=np.uint16), noise(seed=2)]
    alone = [restorer.restore(image) for image in images]
    restorer.network.net.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    together = restorer.restore_batch(images)
    assert shapes == [(4, 3, 8, 8)]  # the second was resized to 8x8
    for one, other in zip(alone, together, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        step = 1 if one.dtype == np.uint8 else 8  # a batch sums in another order
        assert np.abs(one.astype(int) - other).max() <= step


def test_lightgleans_other_sizes_go_one_by_one(home):
    restorer, shapes = make(home, "light"), []
    restorer.restore(noise(9, 8))  # once, as its memory is counted by a forward
    restorer.network.net.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    results = restorer.restore_batch([noise(), noise(9, 8), noise(seed=1)])
    assert shapes == [(2, 3, 8, 8), (1, 3, 9, 8)]
    assert [result.shape for result in results] == [(16, 16, 3), (18, 16, 3), (16, 16, 3)]


def test_the_one_at_fault_is_named(home):
    restorer = make(home, size_policy="error")
    with pytest.raises(InputError, match=r"^b\.png has 9x9 pixels"):
        restorer.restore_batch([noise(), noise(9, 9)], ["a.png", "b.png"])
    assert restorer.restore_batch([]) == []


def test_one_bad_result_does_not_take_the_batch_with_it(home):
    """An image that makes the network overflow: the others are restored, by themselves."""
    notices = []
    restorer = make(home, notify=notices.append)
    good, bad = noise(seed=1), np.zeros((8, 8, 3), np.uint8)

    def burst(module, inputs, output):
        return torch.where(inputs[0].amax((1, 2, 3), keepdim=True) == -1, torch.nan, output)

    expected = restorer.restore(good)
    restorer.network.net.register_forward_hook(burst)
    prepared = [restorer.prepare(image, name) for image, name in ((good, "a"), (bad, "b"), (good, "c"))]
    first, second, third = restorer.try_batch(prepared)
    np.testing.assert_array_equal(first.unwrap(), expected)
    np.testing.assert_array_equal(third.unwrap(), expected)
    assert str(second.error) == "b: the network's output is not finite. The checkpoint is of a failed training."
    assert list(map(str, notices)) == ["3 images did not go through the network together; they go one by one."]


# ---------------------------------------------------------------- how the network is run


def test_dtypes(home):
    exact = make(home).restore(noise()).astype(int)
    for name, most in ("bfloat16", 6), ("float16", 1):
        restorer = make(home, dtype=name)
        assert restorer.network.net.dtype == getattr(torch, name)
        difference = np.abs(restorer.restore(noise()) - exact).max()
        assert 0 < difference <= most
    with pytest.raises(InputError, match="dtype is 'half', but it must be one of float32, bfloat16, float16"):
        make(home, dtype="half")


def test_the_default_dtype_follows_the_hardware(home, monkeypatch):
    cpu = torch.device("cpu")
    for capabilities, expected in ({"avx2": True}, "float32"), ({"amx_bf16": True}, "bfloat16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        precision.cpu_has_bf16.cache_clear()
        assert default_dtype(cpu) == expected
        assert make(home, dtype=None).network.dtype == expected
    precision.cpu_has_bf16.cache_clear()


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_network_without_fast_form_is_run_as_it_is(tmp_path, dtype):
    generator = TINY | {"bank": "absent"}
    net = randomize(build_network(generator)).eval()
    checkpoints.save(net.state_dict(), tmp_path / "net.safetensors")
    network = TorchBackend({"model": {"generator": generator}}, tmp_path / "net.safetensors", "cpu", dtype=dtype)
    assert type(network.net) is type(net) and network.dtype == (dtype or "float32")
    with torch.inference_mode():
        expected = net(torch.from_numpy(to_floats(noise()))).numpy()
    difference = np.abs(network(to_floats(noise())) - expected).max()
    assert difference == 0 if dtype is None else 0 < difference < 0.1


def test_a_mode_that_torch_compile_does_not_know(home):
    with pytest.raises(
        InputError,
        match=r"^compile: torch\.compile in mode 'turbo' cannot be used here \(.*turbo.*\)\. Leave compile out\.$",
    ):
        make(home, compile="turbo")


@pytest.mark.slow  # the compiler takes half a minute
def test_compiled_networks_give_the_same(home):
    difference = np.abs(make(home, compile="default").restore(noise()).astype(int) - make(home).restore(noise()))
    assert difference.max() <= 1


def test_a_config_alone_is_not_enough():
    with pytest.raises(InputError, match=r"^light\.py is no ONNX model: it needs a checkpoint, too\."):
        ImageRestorer("light.py")
