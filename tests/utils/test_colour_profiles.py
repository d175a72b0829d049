"""Colour profiles: pixels become what a viewer shows. The profiles are made here, so the right values are known."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.png_files import SRGB, chunk, noise, png16

from glean_ext.utils.colour_profiles import convert_to_srgb, is_rgb_profile, is_srgb
from glean_ext.utils.image_io import decode_rgb, pillow_rgb, read_picture, read_rgb
from glean_ext.utils.picture import Picture

UNUSED = "the colour profile, which is damaged or of other colours"
D50 = np.array([0.9642, 1, 0.8249])
# sRGB's primaries (IEC 61966-2.1), adapted to D50: columns are R, G and B.
PRIMARIES = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def profile(space: bytes, kind: bytes, connection: bytes, **tags: bytes) -> bytes:
    """An ICC profile, version 2.4."""
    parts = {b"wtpt": b"XYZ " + bytes(4) + fixed(*D50), **{name.encode(): data for name, data in tags.items()}}
    table, content, offset = b"", b"", 128 + 4 + 12 * len(parts)
    for name, data in parts.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(content), len(data))
        content += data
    size = offset + len(content)
    header = struct.pack(">I4xI", size, 0x02400000) + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    header += fixed(*D50) + bytes(48)
    assert len(header) == 128
    return header + struct.pack(">I", len(parts)) + table + content


def gamma(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def rgb_profile(order: str = "rgb", exponent: float = 2.2) -> bytes:
    """sRGB's primaries in another order: ``bgr`` shows red pixels in blue."""
    columns = [PRIMARIES[:, "rgb".index(name)] for name in order]
    tags = {f"{n}XYZ": b"XYZ " + bytes(4) + fixed(*column) for n, column in zip("rgb", columns, strict=True)}
    return profile(b"RGB ", b"mntr", b"XYZ ", **tags, **{f"{n}TRC": gamma(exponent) for n in "rgb"})


def gray_profile(exponent: float) -> bytes:
    return profile(b"GRAY", b"mntr", b"XYZ ", kTRC=gamma(exponent))


def lab_of(corner: tuple[int, ...]) -> tuple[int, int, int]:
    """A made press: L, a and b of inks at 0 or 1."""
    c, m, y, k = corner
    light = 100 - 20 * c - 24 * m - 4 * y
    light = light * (1 - k)
    return (
        round(light * 255 / 100),
        128 + round((-18 * c + 28 * m) * (1 - k)),
        128 + round((-12 * c + 30 * y) * (1 - k)),
    )


def cmyk_profile() -> bytes:
    """Linear between the colours of its sixteen corners."""
    curve = bytes(range(256))
    grid = b"".join(bytes(lab_of(corner)) for corner in product((0, 1), repeat=4))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + 4 * curve + grid + 3 * curve
    return profile(b"CMYK", b"prtr", b"Lab ", A2B0=table)


def encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB's curve: linear light in [0, 1] -> 0 .. 255."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def srgb_of_lab(lab: tuple[int, int, int]) -> np.ndarray:
    light, a, b = lab[0] * 100 / 255, lab[1] - 128, lab[2] - 128
    f = (light + 16) / 116 + np.array([a / 500, 0, -b / 200])
    xyz = D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return encoded(np.linalg.inv(PRIMARIES) @ xyz)


def both(path) -> np.ndarray:
    """The pixels that ``read_rgb`` and ``read_picture`` agree on."""
    picture = read_picture(path)
    assert picture.icc is None and picture.not_carried == ()
    np.testing.assert_array_equal(picture.pixels, read_rgb(path))
    np.testing.assert_array_equal(picture.pixels, decode_rgb(path.read_bytes(), "a"))
    return picture.pixels


# ---------------------------------------------------------------- CMYK, gray, Lab


@pytest.mark.parametrize("extension", [".tif", ".jpg"])
@pytest.mark.parametrize("corner", list(product((0, 1), repeat=4)))
def test_cmyk_is_converted_by_its_profile(tmp_path, extension, corner):
    image = Image.new("CMYK", (16, 16), tuple(255 * ink for ink in corner))
    options = {"quality": 100} if extension == ".jpg" else {}  # whose CMYK is inverted, as Adobe's
    image.save(tmp_path / f"a{extension}", icc_profile=cmyk_profile(), **options)
    expected = srgb_of_lab(lab_of(corner))
    assert np.abs(both(tmp_path / f"a{extension}") - expected).max() < 2.5
    naive = np.array(image.convert("RGB"))
    assert (any(corner) and not corner[3]) == (
        np.abs(naive - expected).max() > 10
    )  # what ignoring the profile would give


def test_cmyk_equals_what_the_colour_engine_makes_of_it(tmp_path):
    image = Image.fromarray(noise(32, 32, 4, dtype=np.uint8), "CMYK")
    image.save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    source = ImageCms.ImageCmsProfile(io.BytesIO(cmyk_profile()))
    expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    np.testing.assert_array_equal(both(tmp_path / "a.tif"), np.array(expected))


def test_cmyk_without_a_profile_of_adobe_is_not_inverted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(both(tmp_path / "a.jpg") - np.array([255, 0, 0.0])).max() < 4


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.6])
def test_gray_is_converted_by_its_profile(tmp_path, exponent):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = encoded((levels / 255) ** (round(exponent * 256) / 256))[..., None]
    icc = gray_profile(exponent)
    Image.fromarray(levels).save(tmp_path / "a.png", icc_profile=icc)
    assert np.abs(both(tmp_path / "a.png") - expected).max() < 1.6
    alpha = np.full_like(levels, 99)
    Image.fromarray(np.dstack([levels, alpha]), "LA").save(tmp_path / "b.png", icc_profile=icc)
    picture = read_picture(tmp_path / "b.png")
    assert np.abs(picture.pixels - expected).max() < 1.6 and (picture.alpha == 99).all()
    profile_chunk = chunk(b"iCCP", b"p\0\0" + zlib.compress(icc))
    deep = levels.astype(np.uint16)[..., None] * 257
    (tmp_path / "deep.png").write_bytes(png16(deep, 0, profile_chunk))
    picture = read_picture(tmp_path / "deep.png")
    assert picture.pixels.dtype == np.uint16 and picture.icc is None and picture.not_carried == ()
    assert np.abs(picture.pixels / 257 - expected).max() < 1.6


def test_16_bit_gray_keeps_its_levels_through_a_profile(tmp_path):
    deep = np.arange(30000, 30256, dtype=np.uint16).reshape(16, 16, 1)
    profile_chunk = chunk(b"iCCP", b"p\0\0" + zlib.compress(gray_profile(1.8)))
    (tmp_path / "a.png").write_bytes(png16(deep, 0, profile_chunk))
    pixels = read_picture(tmp_path / "a.png").pixels[..., 0].ravel().astype(int)
    assert len(np.unique(pixels)) > 200 and (np.diff(pixels) >= 0).all()


def test_lab(tmp_path):
    rgb = np.array([[[200, 50, 60], [20, 120, 220], [128, 128, 128], [250, 240, 90]]], np.uint8)
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.fromarray(rgb), transform).save(tmp_path / "a.tif")
    assert np.abs(both(tmp_path / "a.tif").astype(int) - rgb).max() <= 5  # a and b have whole numbers


# ---------------------------------------------------------------- RGB


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_rgb_profiles_stay_with_pictures_and_are_applied_to_rgb(tmp_path, mode):
    image = Image.new("RGB", (4, 3), (255, 0, 0) if mode != "L" else (90, 90, 90)).convert(mode)
    icc = rgb_profile("bgr")
    image.save(tmp_path / "a.png", icc_profile=icc)
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, np.array(image.convert("RGB")))
    assert picture.icc == icc and picture.not_carried == ()
    expected = [0, 0, 255] if mode != "L" else [90, 90, 90]
    assert np.abs(read_rgb(tmp_path / "a.png") - np.array(expected, float)).max() <= 3
    assert np.abs(pillow_rgb(Image.open(tmp_path / "a.png"), "a") - np.array(expected, float)).max() <= 3


def test_16_bit_colours_with_a_profile(tmp_path):
    red = np.zeros((3, 4, 3), np.uint16)
    red[..., 0] = 65535
    icc = rgb_profile("bgr")
    (tmp_path / "a.png").write_bytes(png16(red, 2, chunk(b"iCCP", b"p\0\0" + zlib.compress(icc))))
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, red)
    assert picture.icc == icc
    assert np.abs(read_rgb(tmp_path / "a.png") - np.array([0, 0, 255.0])).max() <= 3


def test_transparency_is_laid_over_white_before_the_profile_is_applied():
    pixels, alpha = np.full((1, 2, 3), (255, 0, 0), np.uint8), np.array([[255, 0]], np.uint8)
    flat = Picture(pixels, alpha, rgb_profile("bgr")).flattened[0].astype(int)
    assert np.abs(flat - [[0, 0, 255], [255, 255, 255]]).max() <= 3


def test_pixels_of_srgb_are_not_touched(tmp_path, monkeypatch):
    is_srgb(SRGB)  # is remembered
    monkeypatch.setattr("glean_ext.utils.picture.convert_to_srgb", None)
    pixels = noise(16, 16, 3, dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=SRGB)
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png"), pixels)
    assert is_srgb(SRGB) and is_rgb_profile(SRGB)
    assert is_rgb_profile(rgb_profile("bgr")) and not is_srgb(rgb_profile("bgr")) and not is_srgb(rgb_profile("rgb", 1))


# ---------------------------------------------------------------- profiles that cannot be used


@pytest.mark.parametrize(
    ("mode", "icc"),
    [
        ("RGB", SRGB[:200]),
        ("RGB", b"junk" * 50),
        ("RGB", SRGB[:16] + b"RGB " + bytes(len(SRGB) - 20)),
        ("RGB", cmyk_profile()),
        ("RGB", gray_profile(1.8)),
        ("RGBA", gray_profile(1.8)),
        ("P", cmyk_profile()),
        ("L", cmyk_profile()),
        ("L", b"junk" * 50),
        ("LA", cmyk_profile()[:300]),
        ("CMYK", SRGB),
        ("CMYK", cmyk_profile()[:300]),
        ("CMYK", SRGB[:16] + b"CMYK" + SRGB[20:]),
        ("I;16", SRGB[:16] + b"GRAY" + SRGB[20:]),
    ],
)
def test_profiles_that_cannot_be_used_are_named(tmp_path, mode, icc):
    pixels = noise(4, 5, 4, dtype=np.uint8)
    image = Image.fromarray(noise(4, 5)) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    if mode == "CMYK":
        image = Image.fromarray(pixels, "CMYK")
    path = tmp_path / "a.tif"
    image.save(path)
    plain = read_picture(path)
    image.save(path, icc_profile=icc)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, plain.pixels)
    np.testing.assert_array_equal(picture.alpha, plain.alpha)
    assert picture.icc is None and picture.not_carried == (UNUSED,) and plain.not_carried == ()
    assert read_rgb(path).shape == (4, 5, 3)


def test_conversion_says_what_it_cannot_do():
    assert convert_to_srgb(Image.new("RGB", (2, 2)), b"") is None
    assert convert_to_srgb(Image.new("L", (2, 2)), cmyk_profile()) is None
    assert not is_rgb_profile(b"") and not is_rgb_profile(cmyk_profile())
