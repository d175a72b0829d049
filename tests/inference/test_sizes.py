"""The size policy, the memory it asks for, and LightGLEAN in tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import TINY, randomize

from benchmarks.tile_seams import LIMIT
from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import RESERVE, USABLE, Memory, bytes_per_pixel
from glean_ext.inference.size_policy import LIGHT_OVERLAP, Resize, SizePolicy
from glean_ext.inference.tiling import Tiling, largest_difference
from glean_ext.networks import build_network, prepare_for_inference
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import from_floats, to_floats
from glean_ext.utils.imresize import imresize

LIGHT = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 32, "decoder_channels": 8}
GLEAN_8 = SizeRequirements((8, 8), 2, any_size=False)
LIGHT_8 = SizeRequirements((8, 8), 4, any_size=True)
MIB = 2**20


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plenty() -> Memory:
    return Memory(1.0, 10**9)


def never() -> Memory:
    raise AssertionError("the memory does not matter here")


def plan(policy: SizePolicy, takes: SizeRequirements, *size: int, memory=never):
    return policy.plan(size, takes, memory, "a.png")


@pytest.fixture(scope="module")
def light_weights(tmp_path_factory) -> Path:
    """A small 8 -> 32 LightGLEAN with nothing at its initial value, so that its noise counts, too."""
    torch.manual_seed(0)
    net = randomize(build_network(LIGHT))
    torch.nn.init.normal_(net.style_codes)
    path = tmp_path_factory.mktemp("weights") / "light.safetensors"
    checkpoints.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def glean_weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "glean.safetensors"
    checkpoints.save(build_network(TINY).state_dict(), path)
    return path


def restorer(generator: dict, weights: Path, *policy, **arguments) -> ImageRestorer:
    network = {"model": {"generator": generator}}
    return ImageRestorer(network, weights, "cpu", SizePolicy(*policy), dtype="float32", **arguments)


def whole(restorer: ImageRestorer, rgb: np.ndarray) -> np.ndarray:
    return from_floats(restorer.network(to_floats(rgb)))


# ---------------------------------------------------------------- what networks take


def test_requirements_are_read_off_the_network():
    assert build_network(TINY).size_requirements == GLEAN_8
    light = build_network(LIGHT)
    assert light.size_requirements == prepare_for_inference(light).size_requirements == LIGHT_8
    wide = build_network({**TINY, "in_size": (6, 8), "out_size": (24, 32)})
    assert wide.size_requirements == SizeRequirements((6, 8), 4, any_size=False)
    assert (str(GLEAN_8), str(LIGHT_8)) == ("8x8 only", "any size from 8x8 on")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("crop",), "size_policy is 'crop', but it must be one of auto, error, resize, tile."),
        (("resize", "stretch"), "fit is 'stretch', but it must be one of pad, crop."),
        (("tile", None, 0), "tile_size is 0, but it must be at least 1."),
        (("tile", None, None, -1), "tile_overlap is -1, but it must be at least 0."),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(InputError) as error:
        SizePolicy(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("takes", "arguments", "message"),
    [
        (
            LIGHT_8,
            ("auto", "crop"),
            "fit has no effect with size_policy='tile'. Leave it out, or give size_policy='resize'.",
        ),
        (
            GLEAN_8,
            ("auto", None, None, 2),
            "tile_overlap has no effect with size_policy='resize'. Leave it out, or give size_policy='tile'.",
        ),
        (
            GLEAN_8,
            ("error", None, 64),
            "tile_size has no effect with size_policy='error'. Leave it out, or give size_policy='tile'.",
        ),
        (
            GLEAN_8,
            ("tile", None, 64),
            "tile_size has no effect: this model takes 8x8 only, so its tiles are that. Leave tile_size out.",
        ),
        (GLEAN_8, ("tile", None, None, 8), "tile_overlap is 8, but tiles are 8x8. Take less."),
        (
            LIGHT_8,
            ("auto", None, 27, 20),
            "tile_size is 27, but it must be at least 28: tiles start at multiples of 8 and share 20 pixels "
            "(tile_overlap).",
        ),
    ],
)
def test_options_that_do_not_fit_the_network(takes, arguments, message):
    with pytest.raises(InputError) as error:
        SizePolicy(*arguments).for_network(takes)
    assert str(error.value) == message


def test_options_are_checked_before_an_image_is_read(light_weights):
    with pytest.raises(InputError, match="fit has no effect"):
        restorer(LIGHT, light_weights, "tile", "pad")


# ---------------------------------------------------------------- what is done with an image


@pytest.mark.parametrize("policy", ["auto", "error", "resize", "tile"])
def test_an_image_of_the_nominal_size_is_restored_as_it_is(policy):
    for takes in GLEAN_8, LIGHT_8:
        tiling, notice = plan(SizePolicy(policy), takes, 8, 8)
        assert tiling.count((8, 8)) == 1 and notice is None


def test_defaults():
    resize, notice = plan(SizePolicy(), GLEAN_8, 6, 5)
    assert resize == Resize((8, 8), "pad")
    assert str(notice) == (
        "a.png has 5x6 pixels; it was padded and resized to the model's 8x8. See size_policy and fit."
    )
    tiling, notice = plan(SizePolicy(), LIGHT_8, 30, 50, memory=plenty)
    assert tiling.tile == (30, 50) and tiling.count((30, 50)) == 1 and notice is None


def test_explicit_policies():
    resize, notice = plan(SizePolicy("resize", "crop"), LIGHT_8, 60, 5)
    assert resize == Resize((8, 8), "crop")
    assert "it was cropped and resized" in str(notice)
    assert plan(SizePolicy("resize"), LIGHT_8, 60, 60)[1].message.startswith(
        "a.png has 60x60 pixels; it was resized to"
    )
    assert plan(SizePolicy("tile"), GLEAN_8, 30, 30) == (Tiling((8, 8), 4, 2, 1, (8, 8), 1.0), None)
    assert plan(SizePolicy("tile", tile_overlap=5), GLEAN_8, 30, 30)[0].overlap == 5
    light = SizePolicy("auto", tile_size=40, tile_overlap=3)
    assert plan(light, LIGHT_8, 300, 30) == (Tiling((40, 40), 3, 4, 8, (8, 8), 0.25), None)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (8, 0)])
@pytest.mark.parametrize("policy", ["auto", "error", "resize", "tile"])
@pytest.mark.parametrize("takes", [GLEAN_8, LIGHT_8])
def test_empty_images_are_refused(takes, policy, size):
    with pytest.raises(InputError) as error:
        plan(SizePolicy(policy), takes, *size)
    assert str(error.value) == f"a.png has {size[1]}x{size[0]} pixels: it is empty. Give another image."


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (7, 100), (100, 7)])
@pytest.mark.parametrize("policy", ["auto", "error", "tile"])
def test_lightglean_needs_8_pixels(policy, size):
    with pytest.raises(InputError) as error:
        plan(SizePolicy(policy), LIGHT_8, *size)
    assert str(error.value) == (
        f"a.png has {size[1]}x{size[0]} pixels, but the model takes any size from 8x8 on. Resize it (MATLAB's "
        "antialiased bicubic is what models are trained with). size_policy='resize' does that."
    )
    assert plan(SizePolicy("resize"), LIGHT_8, *size)[0] == Resize((8, 8), "pad")


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 9), (100, 8)])
def test_policy_error_refuses_what_glean_does_not_take(size):
    with pytest.raises(
        InputError, match=f"^a.png has {size[1]}x{size[0]} pixels, but the model takes 8x8 only. Resize"
    ):
        plan(SizePolicy("error"), GLEAN_8, *size)


# ---------------------------------------------------------------- resizing


@pytest.mark.parametrize(
    ("fit", "target", "size", "frame"),
    [
        ("pad", (8, 8), (20, 10), (20, 20)),
        ("crop", (8, 8), (20, 10), (10, 10)),
        ("pad", (24, 32), (24, 64), (48, 64)),
        ("crop", (24, 32), (24, 64), (24, 32)),
        ("pad", (24, 32), (30, 40), (30, 40)),
        ("crop", (8, 8), (1, 3000), (1, 1)),
        ("crop", (24, 32), (3000, 1), (1, 1)),
    ],
)
def test_frame_by_hand(fit, target, size, frame):
    assert Resize(target, fit).frame(size) == frame


def test_crop_takes_the_middle_and_resizes_as_matlab():
    rgb = noise(21, 40)
    np.testing.assert_array_equal(Resize((8, 8), "crop").prepare(rgb), imresize(rgb[:, 9:30], size=(8, 8)))
    np.testing.assert_array_equal(Resize((8, 16), "crop").prepare(rgb), imresize(rgb[:20], size=(8, 16)))


@pytest.mark.parametrize(("size", "axis"), [((16, 7), 1), ((7, 16), 0)])
def test_what_is_cut_off_is_the_padding(size, axis):
    """Of 9 lines 4 come before the image: 32 pixels of 128, and 40 after it."""
    result = np.moveaxis(np.tile(np.arange(128)[:, None, None], (1, 128, 3)), 0, axis)
    kept = np.moveaxis(Resize((8, 8), "pad").finish(result, size), axis, 0)
    assert kept.shape == (56, 128, 3) and (kept[0, 0, 0], kept[-1, 0, 0]) == (32, 87)


def test_padding_has_the_aspect_of_the_network():
    rgb = np.full((24, 64, 3), 200, np.uint8)
    rgb[0], rgb[-1] = 10, 90
    resize = Resize((24, 32), "pad")
    prepared = resize.prepare(rgb)  # 24x64 within 48x64, then 24x32
    assert prepared.shape == (24, 32, 3)
    assert (prepared[:5] == 10).all() and (prepared[-5:] == 90).all() and (prepared[10:14] == 200).all()
    result = np.arange(96)[:, None, None].repeat(128, 1)
    assert resize.finish(result, (24, 64))[:, 0, 0].tolist() == list(range(24, 72))


@pytest.mark.parametrize(("fit", "shape"), [("pad", (16, 8, 3)), ("crop", (16, 16, 3))])
def test_sizes_of_resized_results(glean_weights, fit, shape):
    notices = []
    glean = restorer(TINY, glean_weights, "resize", fit, notify=notices.append)
    assert glean.restore(noise(20, 10)).shape == shape and len(notices) == 1


def test_a_narrow_image_does_not_become_a_huge_square(glean_weights):
    glean = restorer(TINY, glean_weights, notify=lambda message: None)
    assert glean.restore(np.zeros((1, 300_000, 3), np.uint8)).shape == (1, 16, 3)  # squared it would be 270 GB


# ---------------------------------------------------------------- GLEAN in tiles


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (8, 9), (20, 13)])
def test_glean_in_tiles_returns_scale_times_the_size(glean_weights, size):
    glean = restorer(TINY, glean_weights, "tile")
    given = []
    net = glean.network.net
    forward = net.forward
    net.forward = lambda lq: given.append(tuple(lq.shape[2:])) or forward(lq)
    result = glean.restore(noise(*size))
    assert result.shape == (2 * size[0], 2 * size[1], 3) and result.std() > 1
    assert set(given) == {(8, 8)}


def test_glean_tiles_that_share_nothing_are_what_glean_makes_of_each(glean_weights):
    rgb, glean = noise(8, 16), restorer(TINY, glean_weights, "tile", None, None, 0)
    expected = [whole(glean, np.ascontiguousarray(part)) for part in (rgb[:, :8], rgb[:, 8:])]
    np.testing.assert_array_equal(glean.restore(rgb), np.concatenate(expected, 1))


# ---------------------------------------------------------------- LightGLEAN in tiles


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (31, 8), (60, 50)])
def test_lightglean_returns_scale_times_the_size(light_weights, size):
    rgb = noise(*size)
    light = restorer(LIGHT, light_weights)
    result = light.restore(rgb)
    assert result.shape == (4 * size[0], 4 * size[1], 3)
    np.testing.assert_array_equal(result, whole(light, rgb))
    np.testing.assert_array_equal(light.restore(rgb), result)
    tiled = restorer(LIGHT, light_weights, "tile", None, 32, 16).restore(rgb)
    assert tiled.shape == result.shape


@torch.inference_mode()
def test_an_overlap_beyond_the_receptive_field_changes_nothing(light_weights):
    """The trunk of one RRDB sees 18 pixels around, the bank and the decoder 3; 21 are 3/8 of an overlap of 56."""
    light = restorer(LIGHT, light_weights)
    for name, weight in light.network.net.encoder.named_parameters():
        if ".rdb" in name and name.endswith("weight"):
            weight *= 20  # so that all of the field counts, which is not so in any trained network
    image = to_floats(noise(16, 170))
    differences = {}
    for overlap in (16, 56):
        tiling = SizePolicy(tile_overlap=overlap).tiling(light.takes, (80, 80))
        assert tiling.count((16, 170)) > 2
        differences[overlap] = largest_difference(light.network, image, tiling)
    assert differences[56] < 1e-5 and differences[16] > LIMIT


def test_tiles_must_start_at_multiples_of_the_noise_period(light_weights):
    light = restorer(LIGHT, light_weights)
    image = to_floats(noise(16, 170))
    shifted = Tiling((80, 80), 57, 4, 1, (8, 8), 0.25)  # tiles start at 23, 46, ...
    assert largest_difference(light.network, image, shifted) > 5 * LIMIT


def test_tiles_are_counted_for_progress(light_weights):
    seen = []
    light = restorer(LIGHT, light_weights, "tile", None, 32, 16, on_tile=lambda *counts: seen.append(counts))
    light.restore(noise(40, 60))
    assert seen == [(i, 6) for i in range(1, 7)]
    light.restore(noise(8, 8))
    assert seen[6:] == [(1, 1)]


# ---------------------------------------------------------------- memory


def test_too_large_for_the_memory_means_tiles_and_a_notice():
    there = Memory(40_000, RESERVE + 95 * MIB)
    assert there.suffices((43, 43), (43, 43), 4) and not there.suffices((50, 50), (50, 50), 4)
    tiling, notice = plan(SizePolicy(), LIGHT_8, 50, 50, memory=lambda: there)
    assert tiling == Tiling((43, 43), LIGHT_OVERLAP, 4, 8, (8, 8), 0.25)
    assert str(notice) == (
        "a.png has 50x50 pixels, which takes about 0.4 GiB of memory, and 0.3 GiB are free; it is restored in 4 tiles "
        "of 43x43."
    )
    larger = Tiling((51, 51), LIGHT_OVERLAP, 4, 8, (8, 8), 0.25)
    assert there.suffices(tiling.tile, (50, 50), 4) and not there.suffices(larger.tile, (50, 50), 4)
    with pytest.raises(InputError, match=r"0\.3 GiB are free\. size_policy='tile' cuts it into tiles\."):
        plan(SizePolicy("error"), LIGHT_8, 50, 50, memory=lambda: there)


def test_a_tile_size_is_taken_at_its_word():
    assert plan(SizePolicy(tile_size=4000), LIGHT_8, 3000, 3000)[0].count((3000, 3000)) == 1


def test_gpu_memory_is_what_counts_on_a_gpu():
    tiling, notice = plan(
        SizePolicy(), LIGHT_8, 2000, 2000, memory=lambda: Memory(40_000, 10 * 1024 * MIB, RESERVE + 1024 * MIB)
    )
    assert str(notice).startswith(
        "a.png has 2000x2000 pixels, which takes about 186.5 GiB on the GPU, and 1.2 GiB are free;"
    )
    assert tiling.tile == (139, 139)
    assert 40_000 * 139**2 / USABLE <= 1024 * MIB < 40_000 * 147**2 / USABLE


def test_no_tile_is_small_enough():
    with pytest.raises(InputError) as error:
        plan(SizePolicy(tile_overlap=2), LIGHT_8, 500, 500, memory=lambda: Memory(2**30, 2**30))
    assert str(error.value).startswith("a.png has 500x500 pixels, which takes about ")
    assert "; tiles of 18x18, the smallest, take 405.3 GiB of memory, and 1.0 GiB are free. Free" in str(error.value)


def test_restorer_asks_for_the_memory_there_is(light_weights, monkeypatch):
    notices = []
    light = restorer(LIGHT, light_weights, notify=notices.append)
    rgb = noise(60, 50)
    free = [2**40]
    monkeypatch.setattr("glean_ext.inference.torch_backend.at_hand", lambda device: (free[0], None))
    light.restore(rgb)
    assert notices == []
    takes = light.takes
    free[0] = int(Memory(bytes_per_pixel(light.network.net), 0).needs((43, 43), (60, 50), 4)[0]) + 1
    result = light.restore(rgb)
    assert len(notices) == 1 and str(notices[0]).endswith(" GiB are free; it is restored in 6 tiles of 43x43.")
    explicit = restorer(LIGHT, light_weights, "tile", None, 43).restore(rgb)
    np.testing.assert_array_equal(result, explicit)
    assert takes == LIGHT_8
