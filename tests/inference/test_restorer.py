"""The library: images of 8 and 16 bits, alone and together, in any dtype; test_export.py has its ONNX models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoint_files import fault
from support.fake_gpu import FakeGPUTensor
from support.networks import TINY, randomize

from glean_ext import checkpoints
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.backend import OutOfMemory
from glean_ext.inference.image_restorer import ImageRestorer, TileSizes
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.inference.torch_backend import TorchBackend, default_dtype
from glean_ext.networks import build_network, precision
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import from_floats, from_tensor, to_floats, upload

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


def test_options_and_a_label_change_a_config_that_is_a_dict(home):
    config = {"model": {"generator": {**load_config("demo_glean_biggan_x8").model.generator}}}
    weights, image = "glean-ext://demo_glean_biggan_x8.safetensors", noise()
    label = config["model"]["generator"]["class_names"].index("food")
    options = {"cfg_options": [f"model.generator.label={label}"]}
    by_name, by_number, estimated = (
        ImageRestorer(config, weights, device="cpu", notify=lambda notice: None, **given).restore(image)
        for given in ({"label": "food"}, options, {})
    )
    assert np.array_equal(by_name, by_number) and not np.array_equal(by_name, estimated)
    assert "label" not in config["model"]["generator"]
    assert fault(lambda: make(home, label=1)) == (
        "label has no effect: this network has a bank without classes. Leave it out."
    )


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_is_an_error(home, value):
    network = make(home).network

    def spoil(module, inputs, output):
        output = output.clone()
        output[0, 0, 0, 0] = value
        return output

    network.net.register_forward_hook(spoil)
    with pytest.raises(InputError, match=r"^the network's output is not finite\."):
        network(to_floats(noise()))


# ---------------------------------------------------------------- too little memory


class SmallGpu:
    """Repeats pixels; images of more than ``most`` pixels are too much for its memory, which nothing says before."""

    colorizes = gated = False
    max_references = 0

    def __init__(self, most: int, any_size: bool = True):
        self.takes, self.most = SizeRequirements((8, 8), 4, any_size), most
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, lq):
        self.sizes.append(lq.shape[2:])
        if lq.shape[0] * lq.shape[2] * lq.shape[3] > self.most:
            raise OutOfMemory("The GPU has too little memory for it.", "device", "Use {device=cpu}.")
        return lq.repeat(4, 2).repeat(4, 3)

    def restore(self, images):
        return [from_floats(one, images[0].dtype) for one in self(np.concatenate([to_floats(x) for x in images]))]

    def with_references(self, references):
        return self

    def memory(self):
        return Memory(per_pixel=1.0, ram=10**12, gpu=10**12)


@pytest.mark.parametrize("policy", [SizePolicy(), SizePolicy(tile_size=90)])
def test_too_little_gpu_memory_means_smaller_tiles(policy):
    gpu, notices, sizes = SmallGpu(45 * 45), [], TileSizes()
    restorer = ImageRestorer(gpu, size_policy=policy, notify=notices.append, tile_sizes=sizes)
    image = noise(100, 120)
    np.testing.assert_array_equal(restorer.restore(image, "a.png"), image.repeat(4, 0).repeat(4, 1))
    assert str(notices[-1]).startswith("a.png: the GPU has too little memory for it as planned; it is restored in ")
    ((size, tile),) = sizes.as_list()
    assert size == [100, 120] and tile[0] <= 45 and 1 <= len(notices) <= 2
    gpu.sizes.clear()
    restorer.restore(image, "b.png")  # the next frame of a video is cut like that at once
    assert max(height * width for height, width in gpu.sizes) <= 45 * 45


def test_too_little_gpu_memory_for_the_smallest_tiles():
    for backend, policy in (SmallGpu(5), "auto"), (SmallGpu(5, any_size=False), "tile"), (SmallGpu(5), "error"):
        (outcome,) = (restorer := ImageRestorer(backend, size_policy=policy)).try_batch(
            [restorer.prepare(noise(100, 120) if policy == "auto" else noise(8, 8), "a.png")]
        )
        assert str(outcome.error) == "a.png: The GPU has too little memory for it. Use device='cpu'."


def test_a_batch_that_is_too_much_goes_one_by_one():
    notices = []
    restorer = ImageRestorer(SmallGpu(100), notify=notices.append)
    images = [noise(seed=1), noise(seed=2)]
    for image, result in zip(images, restorer.restore_batch(images), strict=True):
        np.testing.assert_array_equal(result, image.repeat(4, 0).repeat(4, 1))
    assert list(map(str, notices)) == ["2 images did not go through the network together; they go one by one."]


def test_torchs_error_is_one_of_memory(home, monkeypatch):
    network = make(home).network

    def full(lq):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(network, "_network", full)
    with pytest.raises(OutOfMemory, match=r"^The GPU has too little memory for it\. Use device='cpu'\.$"):
        network(to_floats(noise()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_uploaded_and_become_the_same_floats(monkeypatch, dtype):
    """On a device that is called another one, as the CPU's own way has no upload."""
    images = [noise(3, 5, dtype, seed) for seed in (1, 2)]
    moved, to = [], torch.Tensor.to

    def record(tensor, target, *args, **kwargs):
        moved.append((tensor.dtype, target))
        return tensor if target == "accelerator" else to(tensor, target, *args, **kwargs)

    class Device(str):
        type = "accelerator"

    monkeypatch.setattr(torch.Tensor, "to", record)
    uploaded = upload(images, Device("accelerator"))
    assert {(str(dtype), target) for dtype, target in moved if target == "accelerator"} == {
        ("torch.uint8" if dtype == np.uint8 else "torch.int16", "accelerator")
    }
    monkeypatch.undo()
    assert uploaded.is_contiguous() and uploaded.shape == (2, 3, 3, 5)
    np.testing.assert_array_equal(uploaded, np.concatenate([to_floats(image) for image in images]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_results_become_the_same_integers_on_a_device_as_on_the_cpu(dtype):
    class OnGPU(FakeGPUTensor):
        device = property(lambda tensor: torch.device("cuda"))

    half = np.iinfo(dtype).max / 2
    between = (np.arange(1000, dtype=np.float32) + np.float32(0.5)) / np.float32(half) - 1  # two integers each
    values = np.concatenate([between, np.linspace(-1.5, 1.5, 800, dtype=np.float32)]).reshape(1, 3, 20, 30)
    expected = from_floats(values, dtype)
    result = from_tensor(torch.from_numpy(values).as_subclass(OnGPU), dtype)
    assert result.dtype == dtype and result.flags.c_contiguous and {0, np.iinfo(dtype).max} <= {*expected.flat}
    np.testing.assert_array_equal(result, expected)


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


def test_a_config_in_mixed_precision_is_run_in_the_dtype_that_is_reported(tmp_path, monkeypatch):
    """On a machine with bf16, or on a GPU, ``fp16_enabled`` makes a network open an autocast of its own."""
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    generator = TINY | {"bank": "absent", "fp16_enabled": True}
    net = randomize(build_network(generator)).eval()
    checkpoints.save(net.state_dict(), tmp_path / "net.safetensors")
    network = TorchBackend({"model": {"generator": generator}}, tmp_path / "net.safetensors", "cpu", dtype="float32")
    given = TorchBackend(net, device="cpu", dtype="float32")
    lq = torch.from_numpy(to_floats(noise()))
    with torch.inference_mode():
        half = net(lq).numpy()
        net.fp16_enabled = False
        single = net(lq).numpy()
        net.fp16_enabled = True
    assert np.abs(half - single).max() > 1e-3
    for backend in network, given:
        np.testing.assert_array_equal(backend(lq.numpy()), single)
    assert net.fp16_enabled, "the caller's network stays as it is"


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
