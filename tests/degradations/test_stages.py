"""Each stage against a reference, or against values worked by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.random import Generator

from glean_ext.degradations import colours, stages
from glean_ext.degradations.recipes import make_stage
from glean_ext.degradations.stages import Array, Sizes
from glean_ext.errors import InputError
from glean_ext.utils.imresize import imresize

ANY = Sizes((32, 48), (8, 12))


def rng(seed: int = 0) -> Generator:
    return np.random.default_rng(seed)


def noise(height: int = 32, width: int = 48, seed: int = 0) -> Array:
    return rng(seed).integers(0, 256, (height, width, 3)).astype(np.float32)


def smooth(height: int = 64, width: int = 96) -> Array:
    """A colourful image without the sharp noise that JPEG loses."""
    return np.clip(cv2.resize(noise(8, 12), (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)


def test_blur_filters_by_its_kernel():
    blur = stages.Blur(kinds={"aniso": 1.0}, size=[9], sigma=(1, 3))
    expected = cv2.filter2D(noise(), -1, blur.kernel(rng(5)))
    np.testing.assert_allclose(blur.apply(noise(), ANY, rng(5)), expected, atol=0.01)


def test_blur_draws_all_kinds():
    blur = stages.Blur(kinds=dict.fromkeys(stages.KERNELS, 1 / 7), size=[7, 13], sigma=(0.5, 3))
    drawn = [blur.kernel(rng(seed)) for seed in range(100)]
    assert {len(kernel) for kernel in drawn} == {7, 13}
    assert all(kernel.sum() == pytest.approx(1) for kernel in drawn)
    assert any(kernel.min() < 0 for kernel in drawn), "no sinc"
    round_ones = [np.allclose(kernel, kernel.T, atol=1e-12) for kernel in drawn]
    assert 30 < sum(round_ones) < 70  # 4 of 7 are round


@pytest.mark.parametrize("kind", ["iso", "generalized_iso", "plateau_iso"])
def test_round_kernels_are_round(kind):
    kernel = stages.Blur(kinds={kind: 1.0}, size=[9], sigma=(1, 3)).kernel(rng())
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-12)


@pytest.mark.parametrize(("size", "lowest"), [(11, np.pi / 3), (13, np.pi / 5)])
def test_large_sinc_kernels_also_have_low_cutoffs(monkeypatch, size, lowest):
    cutoffs = []
    monkeypatch.setattr(stages.kernels, "sinc", lambda size, cutoff: cutoffs.append(cutoff))
    for seed in range(100):
        stages.Blur(kinds={"sinc": 1.0}, size=[size]).kernel(rng(seed))
    assert lowest <= min(cutoffs) < 1.1 * lowest and 0.95 * np.pi < max(cutoffs) <= np.pi


def scales(count: int = 300, **arguments) -> Array:
    resize = stages.Resize(**arguments)
    return np.array([resize.draw_scale(rng(seed)) for seed in range(count)])


def test_scales():
    drawn = scales(scale=(1 / 32, 1))
    assert drawn.min() >= 1 / 32 and drawn.max() <= 1 and drawn.mean() == pytest.approx(0.516, abs=0.05)
    drawn = scales(scale=(0.8, 8), divide=True)
    assert drawn.min() >= 1 / 8 and drawn.max() <= 1.25 and (1 / drawn).mean() == pytest.approx(4.4, abs=0.4)
    drawn = scales(scale=(0.15, 1.5), modes=(0.2, 0.7, 0.1))
    assert (drawn > 1).mean() == pytest.approx(0.2, abs=0.07) and (drawn == 1).mean() == pytest.approx(0.1, abs=0.06)


@pytest.mark.parametrize(("of", "expected"), [("image", (16, 24)), ("gt", (16, 24)), ("out", (4, 6))])
def test_resize_is_of(of, expected):
    half = stages.Resize(scale=(0.5, 0.5), of=of, interpolations=["area"])
    assert half.apply(noise(), ANY, rng()).shape[:2] == expected
    small = stages.Resize(scale=(0.001, 0.001), interpolations=["area"]).apply(noise(), ANY, rng())
    np.testing.assert_allclose(small[0, 0], noise().mean((0, 1)), atol=0.1)  # at least one pixel


def test_bicubic_is_matlabs():
    image = noise()
    expected = imresize(image.astype(np.uint8), size=ANY.out)
    np.testing.assert_array_equal(stages.Bicubic().apply(image, ANY, rng()), expected)


def test_gaussian_noise():
    gray = np.full((200, 200, 3), 128, np.float32)
    added = stages.Noise(sigma=(10, 10)).apply(gray, ANY, rng()) - gray
    assert added.std() == pytest.approx(10, rel=0.02) and abs(added.mean()) < 0.2
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02
    same = stages.Noise(sigma=(10, 10), gray_prob=1.0).apply(gray, ANY, rng()) - gray
    assert np.array_equal(same[..., 0], same[..., 2]) and same[..., 0].std() == pytest.approx(10, rel=0.02)


def test_poisson_noise():
    """Of an image with all 256 levels, 256 photons at white: the variance at level v is v * 255 / 256."""
    ramp = np.repeat(np.tile(np.arange(256, dtype=np.float32), (3000, 1))[..., None], 3, 2)
    added = stages.Noise(poisson=(1, 1), poisson_prob=1.0).apply(ramp, ANY, rng()) - ramp
    for level in 30, 128:
        assert added[:, level].var() == pytest.approx(level * 255 / 256, rel=0.06)
    stronger = stages.Noise(poisson=(2, 2), poisson_prob=1.0, gray_prob=1.0).apply(ramp, ANY, rng()) - ramp
    assert stronger[:, 30, 0].var() == pytest.approx(4 * 30 * 255 / 256, rel=0.1)
    assert np.array_equal(stronger[..., 0], stronger[..., 1])


@pytest.mark.parametrize("quality", [10, 75])
def test_jpeg_is_opencvs_in_the_right_channel_order(quality):
    image = np.rint(smooth()).astype(np.uint8)
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    expected = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
    compressed = stages.JPEG(quality=(quality, quality)).apply(image.astype(np.float32), ANY, rng())
    assert np.abs(compressed - expected).max() <= 2
    assert np.abs(compressed - image).max() > 2


def test_gray_is_luminance():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]], np.float32)
    gray = stages.Gray().apply(image, ANY, rng())
    np.testing.assert_allclose(gray[0, :, 0], [76.245, 149.685, 29.07, 18.15], atol=1e-3)
    assert np.array_equal(gray[..., 0], gray[..., 1]) and np.array_equal(gray[..., 0], gray[..., 2])


@pytest.mark.parametrize(
    ("name", "value"), [("brightness", 0.6), ("contrast", 1.4), ("saturation", 0.2), ("hue", -0.1), ("hue", 0.4)]
)
def test_colour_adjustments_are_torchvisions(name, value):
    from torchvision.transforms import functional

    image = noise() * np.array([1, 0.6, 0.2], np.float32)  # its luminance is not its mean
    tensor = torch.from_numpy(image / 255).permute(2, 0, 1)
    expected = getattr(functional, f"adjust_{name}")(tensor, value).permute(1, 2, 0).numpy() * 255
    adjusted = getattr(colours, f"adjust_{name}")(image, value)
    np.testing.assert_allclose(adjusted, expected, atol=0.2)  # torchvision's luminance has other digits


def test_colour_jitter_keeps_the_image_at_neutral_settings():
    neutral = colours.ColourJitter(brightness=(1, 1), contrast=(1, 1), saturation=(1, 1), hue=(0, 0))
    np.testing.assert_allclose(neutral.apply(noise(), ANY, rng()), noise(), atol=0.01)
    assert np.abs(colours.ColourJitter().apply(noise(), ANY, rng()) - noise()).max() > 5


def test_colour_shift():
    shifted = colours.ColourShift(shift=20).apply(np.full((4, 4, 3), 100, np.float32), ANY, rng(1))
    offsets = shifted[0, 0] - 100
    assert (shifted == shifted[0, 0]).all() and len(set(offsets)) == 3 and np.abs(offsets).max() <= 20


def test_fade():
    image = np.array([[[0, 0, 0], [255, 255, 255]]], np.float32)
    neutral = colours.Fade(black=(50, 50), white=(200, 200), yellow=(0, 0)).apply(image, ANY, rng())
    np.testing.assert_allclose(neutral, [[[50] * 3, [200] * 3]])
    brown = colours.Fade(black=(50, 50), white=(200, 200), yellow=(1, 1)).apply(image, ANY, rng())
    np.testing.assert_allclose(brown[0, 1], [200, 200 * 0.88, 200 * 0.55], rtol=1e-5)


def test_scratches():
    gray = np.full((100, 80, 3), 128, np.float32)
    clean = colours.Scratches(scratches=(0, 0), specks=(0, 0))
    assert np.array_equal(clean.apply(gray, ANY, rng()), gray)
    scratched = colours.Scratches(scratches=(6, 6)).apply(gray, ANY, rng())
    share = (scratched != gray).mean()
    assert 0.005 < share < 0.5
    assert scratched.min() < 100 and scratched.max() > 160 and scratched.min() >= 0 and scratched.max() <= 255


def test_prob():
    gray = stages.Gray(prob=0.3)
    changed = [not np.array_equal(gray(noise(2, 2), ANY, rng(seed)), noise(2, 2)) for seed in range(300)]
    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"type": "Blurr"}, "'Blurr' is no stage of a degradation. Did you mean Blur?"),
        (
            {},
            "None is no stage of a degradation. Give one of Bicubic, Blur, ColourJitter, ColourShift, Fade, Gray, "
            "JPEG, Noise, OneOf, Resize, Scratches.",
        ),
        ({"type": "Noise", "sigmas": (0, 1)}, "Noise has no argument 'sigmas'. Did you mean sigma?"),
        (
            {"type": "Noise", "sigma": (5, 1)},
            "Noise.sigma is (5, 1), but it must be between 0 and 255, the lowest first.",
        ),
        (
            {"type": "JPEG", "quality": (0, 5)},
            "JPEG.quality is (0, 5), but it must be between 1 and 100, the lowest first.",
        ),
        ({"type": "Gray", "prob": 1.5}, "Gray.prob is 1.5, but it must be between 0 and 1, the lowest first."),
        ({"type": "Blur", "kinds": {"iso": 1.0}, "size": [4]}, "Blur.size is [4], but it must be odd numbers."),
        (
            {"type": "Blur", "kinds": {"iso": 0.5}},
            "Blur.kinds is {'iso': 0.5}, but it must be 1 probabilities with the sum 1.",
        ),
        (
            {"type": "Resize", "interpolations": ["lanczos"]},
            "Resize.interpolations is ['lanczos'], but it must be of bilinear, area, bicubic.",
        ),
        ({"type": "Resize", "of": "input"}, "Resize.of is 'input', but it must be 'image', 'gt' or 'out'."),
    ],
)
def test_a_wrong_stage_is_one_line(stage, message):
    with pytest.raises(InputError) as error:
        make_stage(stage)
    assert str(error.value) == message


@pytest.mark.parametrize("stage", [{"type": "Blur"}, {"type": "JPEG", "quality": 50}, {"type": "Noise", "sigma": 5}])
def test_arguments_of_another_type_are_one_line(stage):
    with pytest.raises(InputError, match=f"^{stage['type']}: its arguments do not fit"):
        make_stage(stage)
