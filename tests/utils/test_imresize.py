import runpy
from pathlib import Path

import numpy as np
import pytest

from glean_ext.utils.imresize import contributions, cubic, imresize


def test_cubic_has_the_values_of_keys_kernel_with_a_of_minus_half():
    assert cubic(np.array([0, 0.25, 0.5, 1, 1.5, 2, 2.5, -1.5])).tolist() == [
        1, 0.8671875, 0.5625, 0, -0.0625, 0, 0, -0.0625
    ]  # fmt: skip


def test_weights_of_one_half_are_the_kernel_at_odd_quarters():
    # Output pixel i lies between input pixels 2i and 2i + 1; taps lie at distances of 1/4, 3/4, 5/4, 7/4 after scaling.
    # cubic there: 111/128, 29/128, -9/128, -3/128; times 1/2 so that they sum to 1.
    indices, weights = contributions(16, 8, 0.5)
    used = weights[4] != 0
    assert indices[4][used].tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    assert (weights[4][used] * 256).tolist() == [-3, -9, 29, 111, 111, 29, -9, -3]


def test_border_is_mirrored_with_the_border_pixel_repeated():
    indices, weights = contributions(16, 8, 0.5)
    used = weights[0] != 0
    assert indices[0][used].tolist() == [2, 1, 0, 0, 1, 2, 3, 4]


def test_half_of_an_impulse_is_the_kernel():
    image = np.zeros((16, 16))
    image[8, 8] = 256 * 256
    row = np.array([0, 0, -3, 29, 111, -9, 0, 0])  # outputs 2, 3, 4, 5 see pixel 8 at distances 7/4, 3/4, -1/4, -5/4
    np.testing.assert_array_equal(imresize(image, scale=0.5), np.outer(row, row))


def test_enlarging_by_two_uses_the_kernel_at_quarters():
    # Output 2i + 1 lies 1/4 right of input i: cubic at 5/4, 1/4, 3/4, 7/4.
    line = np.zeros((1, 9))
    line[0, 4] = 128
    assert imresize(line, size=(1, 18))[0, 4:14].tolist() == [0, -3, -9, 29, 111, 111, 29, -9, -3, 0]


def test_uint8_is_rounded_half_up_and_clipped_after_each_axis():
    column = np.array([0, 0, 0, 128, 0, 0, 0, 0], np.uint8)[:, None]
    exact = imresize(column.astype(float), size=(4, 1))[:, 0]
    assert exact.tolist() == [-4.5, 55.5, 14.5, -1.5]  # half of the weights -9, 111, 29, -3
    assert imresize(column, size=(4, 1))[:, 0].tolist() == [0, 56, 15, 0]
    # The first axis is rounded before the second, as in MATLAB; rounding once at the end would give another image.
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    first = imresize(noise, size=(16, 32))
    np.testing.assert_array_equal(imresize(noise, size=(16, 16)), imresize(first, size=(16, 16)))
    once = np.floor(np.clip(imresize(noise.astype(float), size=(16, 16)), 0, 255) + 0.5)
    difference = np.abs(once - imresize(noise, size=(16, 16)))
    assert 0 < difference.max() <= 2


def test_the_axis_that_shrinks_most_goes_first():
    image = np.random.default_rng(1).integers(0, 256, (32, 64), dtype=np.uint8)
    columns_first = imresize(imresize(image, size=(32, 8)), size=(16, 8))
    np.testing.assert_array_equal(imresize(image, size=(16, 8)), columns_first)


def test_a_constant_stays_constant_and_the_dtype_stays():
    for dtype in (np.uint8, np.float32, np.float64):
        image = np.full((37, 50, 3), 77, dtype)
        for size in ((11, 80), (37, 50), (1, 1)):
            out = imresize(image, size=size)
            assert out.dtype == dtype and out.shape == (*size, 3)
            np.testing.assert_allclose(out, 77, rtol=1e-6)


def test_scale_rounds_the_size_up():
    assert imresize(np.zeros((33, 50)), scale=0.25).shape == (9, 13)


def test_scale_and_size_differ_when_the_size_was_rounded():
    image = np.random.default_rng(2).random((33, 33))
    assert np.abs(imresize(image, scale=0.25) - imresize(image, size=(9, 9))).max() > 0.01


def test_wrong_arguments_raise():
    image = np.zeros((4, 4))
    for arguments in ({}, {"scale": 2, "size": (2, 2)}, {"scale": 0}, {"size": (0, 2)}):
        with pytest.raises(ValueError, match="positive scale or a positive size"):
            imresize(image, **arguments)
    with pytest.raises(TypeError, match="int64"):
        imresize(np.zeros((4, 4), np.int64), scale=2)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        imresize(np.zeros(4), scale=2)


@pytest.fixture
def mmagic_resize(monkeypatch):
    """MMagic's transform. Its file is loaded alone: the package around it imports a dozen libraries more."""
    from glean_ext import compat

    compat.apply()
    import mmagic.registry

    monkeypatch.setattr(mmagic.registry.TRANSFORMS, "_module_dict", {})  # it registers itself; undone afterwards
    path = Path(mmagic.registry.__file__).parent / "datasets" / "transforms" / "matlab_like_resize.py"
    transform = runpy.run_path(str(path))["MATLABLikeResize"]

    def resize(image, scale=None, size=None):
        return transform(keys=["img"], scale=scale, output_shape=size).transform({"img": image})["img"]

    return resize


@pytest.mark.parametrize(
    ("shape", "scale", "size"),
    [
        ((64, 64, 3), 1 / 4, None),
        ((256, 128, 3), 1 / 16, None),
        ((37, 53, 3), 1 / 3, None),
        ((33, 50, 1), 0.25, None),
        ((40, 30, 3), 0.7, None),
        ((17, 23, 3), 2, None),
        ((16, 16, 3), 8, None),
        ((19, 11, 3), 1.7, None),
        ((128, 128, 3), None, (8, 8)),
        ((45, 61, 3), None, (20, 100)),
        ((45, 61, 3), None, (100, 7)),
        ((5, 7, 3), None, (2, 3)),
        ((2, 3, 3), None, (1, 1)),
        ((1, 1, 3), None, (4, 4)),
    ],
)
def test_equals_mmagics_matlab_like_resize(mmagic_resize, shape, scale, size):
    image = np.random.default_rng(3).uniform(0, 255, shape).astype(np.float32)
    expected = mmagic_resize(image, scale, size)
    # MMagic computes weights in float32; ours are in float64.
    np.testing.assert_allclose(imresize(image, scale, size), expected, rtol=0, atol=3e-3)
