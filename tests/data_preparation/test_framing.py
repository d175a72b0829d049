"""How a raw image becomes one of a given size: every pixel by hand."""

from __future__ import annotations

import numpy as np
import pytest
from support.preparation import fault, picture

from glean_ext.data_preparation.crop_resize import RejectedImageError, crop_and_resize
from glean_ext.data_preparation.options import PRESETS, PreparationOptions
from glean_ext.utils.imresize import imresize


def test_center_crop_takes_the_middle_and_resizes_as_matlab():
    wide, tall = picture(1, 40, 90), picture(2, 90, 40)
    options = PreparationOptions((20, 20))
    np.testing.assert_array_equal(
        crop_and_resize(wide, options), imresize(np.ascontiguousarray(wide[:, 25:65]), size=(20, 20))
    )
    np.testing.assert_array_equal(
        crop_and_resize(tall, options), imresize(np.ascontiguousarray(tall[25:65]), size=(20, 20))
    )
    cars = PreparationOptions((16, 12))
    middle = np.ascontiguousarray(wide[:, 18:71])  # 53 is 4/3 of 40
    np.testing.assert_array_equal(crop_and_resize(wide, cars), imresize(middle, size=(12, 16)))


def test_an_image_of_the_right_size_stays_as_it_is():
    image = picture(1, 24)
    for crop in "center", "none":
        np.testing.assert_array_equal(crop_and_resize(image, PreparationOptions((24, 24), crop=crop)), image)


def test_letterbox_lays_the_image_on_a_black_square():
    framed = crop_and_resize(picture(1, 48, 64), PreparationOptions((32, 24), letterbox=True))
    assert framed.shape == (32, 32, 3)
    assert not framed[:4].any() and not framed[28:].any()
    np.testing.assert_array_equal(framed[4:28], imresize(picture(1, 48, 64), size=(24, 32)))


@pytest.mark.parametrize("fit", ["black", "white", "edge", "reflect"])
def test_whole_images_are_filled_up(fit):
    image = picture(1, 20, 40)
    framed = crop_and_resize(image, PreparationOptions((20, 20), crop="none", fit=fit))
    small = imresize(image, size=(10, 20))
    np.testing.assert_array_equal(framed[5:15], small)
    expected = {"black": 0, "white": 255, "edge": small[0], "reflect": small[0]}[fit]
    np.testing.assert_array_equal(framed[4], np.broadcast_to(expected, (20, 3)))
    if fit == "reflect":
        np.testing.assert_array_equal(framed[0], small[4])


def test_whole_images_are_stretched_or_rejected():
    image = picture(1, 20, 40)
    framed = crop_and_resize(image, PreparationOptions((16, 16), crop="none", fit="stretch"))
    np.testing.assert_array_equal(framed, imresize(image, size=(16, 16)))
    with pytest.raises(RejectedImageError) as error:
        crop_and_resize(image, PreparationOptions((16, 16), crop="none"))
    assert error.value.args == (
        "other shape",
        "it is 40x20, not of the shape 16x16; crop='center' crops it, and fit pads it",
    )


def test_nothing_is_enlarged_unless_requested():
    image = picture(1, 20, 40)
    with pytest.raises(RejectedImageError) as error:
        crop_and_resize(image, PreparationOptions((24, 24)))
    assert error.value.args == ("too small", "the middle is 20x20, smaller than 24x24")
    with pytest.raises(RejectedImageError, match="too small"):
        crop_and_resize(image, PreparationOptions((24, 24), crop="none", fit="stretch"))
    assert crop_and_resize(image, PreparationOptions((24, 24), crop="none", fit="black")).shape == (
        24,
        24,
        3,
    )  # 40 is reduced to 24
    middle = np.ascontiguousarray(image[:, 10:30])
    np.testing.assert_array_equal(
        crop_and_resize(image, PreparationOptions((24, 24), enlarge=True)), imresize(middle, size=(24, 24))
    )


def test_one_colour_is_no_image():
    with pytest.raises(RejectedImageError, match="all pixels have one colour"):
        crop_and_resize(np.full((9, 9, 3), 7, np.uint8), PreparationOptions((8, 8)))


def test_face_crop_is_used_and_its_size_counts():
    aligned = picture(3, 16)
    options = PreparationOptions((16, 16), crop="face")
    np.testing.assert_array_equal(crop_and_resize(picture(1), options, lambda image, size: (aligned, 16.2)), aligned)
    with pytest.raises(RejectedImageError, match="the face with its surroundings is 15x15, smaller than 16x16"):
        crop_and_resize(picture(1), options, lambda image, size: (aligned, 15.2))
    with pytest.raises(RejectedImageError, match="no face was found"):
        crop_and_resize(picture(1), options, lambda image, size: None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "top"}, "crop is 'top', but it must be one of center, face, none."),
        ({"fit": "black"}, "fit is for whole images, but crop is center. Leave fit out, or set crop='none'."),
        ({"split": 99.0}, "split is 99.0, but it is the share of training images, 0 to 1. Give 0.99, for example."),
        ({"size": (0, 4)}, "size is 0x4, but both sides must be positive."),
        ({"size": (8, 4), "crop": "face"}, "Aligned faces are square, but size is 8x4. Give one number."),
        (
            {"lr_scale": 3},
            "lr_scale is 3, which does not divide 16x16 into smaller whole pixels. Give a divisor of both sides.",
        ),
        (
            {"size": (16, 12), "lr_scale": 8},
            "lr_scale is 8, which does not divide 16x12 into smaller whole pixels. Give a divisor of both sides.",
        ),
    ],
)
def test_options_that_make_no_sense(values, message):
    assert fault(PreparationOptions, **({"size": (16, 16)} | values)) == message


def test_presets_are_valid_options():
    shapes = {name: PreparationOptions(**values).shape for name, values in PRESETS.items()}
    assert shapes == {
        "ffhq": (1024, 1024),
        "celebahq": (1024, 1024),
        "lsun-cat": (256, 256),
        "lsun-car": (512, 512),
        "cat": (256, 256),
    }
