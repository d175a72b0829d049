"""Pictures with 16 bits, transparency, orientation and colour profile: read, written, read again."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.png_files import SRGB, chunk, noise, png16

from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.image_io import Picture, read_picture, read_rgb, write_picture

# EXIF's orientation -> where the pixel at (row, column) of a stored 2x3 picture is shown, by the standard's table.
SHOWN = {
    1: lambda y, x: (y, x),
    2: lambda y, x: (y, 2 - x),
    3: lambda y, x: (1 - y, 2 - x),
    4: lambda y, x: (1 - y, x),
    5: lambda y, x: (x, y),
    6: lambda y, x: (x, 1 - y),
    7: lambda y, x: (2 - x, 1 - y),
    8: lambda y, x: (2 - x, y),
}


def tiff16(pixels: np.ndarray, orientation: int, photometric: int = 2, extra: int | None = None) -> bytes:
    """A TIFF by the standard: 16 bits in one strip, of RGB unless ``photometric`` says else; ``extra``: the fourth."""
    (height, width, n), data = pixels.shape, pixels.astype("<u2").tobytes()
    folder = 8 + len(data)
    short = {256: width, 257: height, 259: 1, 262: photometric, 274: orientation, 277: n, 278: height}
    short |= {} if extra is None else {338: extra}
    count = len(short) + 3
    entries = [(tag, struct.pack("<HHIHH", tag, 3, 1, value, 0)) for tag, value in short.items()]
    entries.append((258, struct.pack("<HHII", 258, 3, n, folder + 2 + 12 * count + 4)))
    entries += [(tag, struct.pack("<HHII", tag, 4, 1, value)) for tag, value in ((273, 8), (279, len(data)))]
    assert len(entries) == count
    directory = b"".join(entry for _, entry in sorted(entries))
    return (
        b"II*\0" + struct.pack("<I", folder) + data + struct.pack("<H", count) + directory + bytes(4)
        + struct.pack(f"<{n}H", *[16] * n)
    )  # fmt: skip


def shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    size = (2, 3) if orientation < 5 else (3, 2)
    upright = np.zeros((*size, *stored.shape[2:]), stored.dtype)
    for y in range(2):
        for x in range(3):
            upright[SHOWN[orientation](y, x)] = stored[y, x]
    return upright


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bits_of_colour_are_kept(tmp_path, extension, channels):
    stored = noise(6, 5, channels)
    cv2.imwrite(str(tmp_path / f"a{extension}"), stored[..., [2, 1, 0, 3][:channels]])
    picture = read_picture(tmp_path / f"a{extension}")
    assert picture.pixels.dtype == np.uint16 and picture.icc is None
    np.testing.assert_array_equal(picture.pixels, stored[..., :3])
    if channels == 4:
        np.testing.assert_array_equal(picture.alpha, stored[..., 3])
    else:
        assert picture.alpha is None


def test_16_bits_of_gray_are_kept(tmp_path):
    gray, both = noise(6, 5), noise(6, 5, 2)
    (tmp_path / "gray.png").write_bytes(png16(gray[..., None], 0))
    (tmp_path / "alpha.png").write_bytes(png16(both, 4))
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    for name in "gray.png", "gray.tif":
        picture = read_picture(tmp_path / name)
        np.testing.assert_array_equal(picture.pixels, np.repeat(gray[..., None], 3, 2))
        assert picture.alpha is None
    picture = read_picture(tmp_path / "alpha.png")
    np.testing.assert_array_equal(picture.pixels, np.repeat(both[..., :1], 3, 2))
    np.testing.assert_array_equal(picture.alpha, both[..., 1])


def tiff_gray(bits: int, photometric: int, data: bytes, sample_format: int = 1) -> bytes:
    """A TIFF by the standard, of one row of four pixels."""
    tags = {256: 4, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: 1, 279: len(data)}
    tags[339] = sample_format
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(tags.items()))
    return b"II" + struct.pack("<HIH", 42, 8, len(tags)) + entries + bytes(4) + data


def test_16_bits_of_gray_that_pillow_takes_at_their_word(tmp_path):
    """White may be zero, and 12 bits have a white of 4095."""
    levels, packed = struct.pack("<4H", 0, 1000, 30000, 65535), bytes([0x00, 0x01, 0x00, 0xFF, 0xF8, 0x00])
    for content, shown in (
        (tiff_gray(16, 1, levels), [0, 1000, 30000, 65535]),
        (tiff_gray(16, 0, levels), [65535, 64535, 35535, 0]),
        (tiff_gray(12, 1, packed), [0, 0x1001, 0xFFFF, 0x8008]),
    ):
        (tmp_path / "a.tif").write_bytes(content)
        assert read_picture(tmp_path / "a.tif").pixels.tolist() == [[[level] * 3 for level in shown]]
    (tmp_path / "a.tif").write_bytes(tiff_gray(16, 1, levels, sample_format=2))
    with pytest.raises(UnreadableImageError, match=r"a\.tif has signed pixels, whose range is unknown"):
        read_picture(tmp_path / "a.tif")


def test_bits_that_are_lost_are_named(tmp_path):
    pixels = noise(64, 64, 3)
    for name, array in (
        ("a.ppm", pixels), ("8.ppm", pixels.astype(np.uint8)),
        ("a.jp2", pixels), ("8.jp2", pixels.astype(np.uint8)), ("gray.jp2", pixels[..., 0]),
    ):  # fmt: skip
        cv2.imwrite(str(tmp_path / name), array)
        lost = "the 16 bits of its colours" in read_picture(tmp_path / name).not_carried
        assert lost == name.startswith("a."), name
    (tmp_path / "10.ppm").write_bytes(b"P6 1 1 1023\n" + bytes(6))
    assert read_picture(tmp_path / "10.ppm").not_carried == ("the 10 bits of its colours",)


def test_large_profiles(tmp_path):
    """Those of printers and scanners may have several megabytes."""
    icc = SRGB + np.random.default_rng(0).bytes(2 << 20)
    for name in "a.tif", "a.png":
        Image.fromarray(noise(4, 4, 3, dtype=np.uint8)).save(tmp_path / name, icc_profile=icc)
        picture = read_picture(tmp_path / name)
        assert picture.icc == icc
        write_picture(picture, tmp_path / "out.png")
        assert read_picture(tmp_path / "out.png").icc == icc


def test_16_bits_in_rarer_layouts(tmp_path):
    stored = noise(6, 5, 4)
    stored[..., :3] = np.minimum(stored[..., :3], stored[..., 3:])  # as colours times alpha are
    stored[0, 0] = 0
    path = tmp_path / "a.tif"
    path.write_bytes(tiff16(stored, 1, extra=0))  # unspecified
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, stored[..., :3])
    assert picture.alpha is None
    path.write_bytes(tiff16(stored, 1, extra=1))  # associated
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.alpha, stored[..., 3])
    share = picture.alpha[..., None] / 65535
    assert picture.pixels.dtype == np.uint16 and np.abs(picture.pixels * share - stored[..., :3]).max() <= 0.5
    path.write_bytes(tiff16(stored, 1, photometric=5))  # CMYK
    with pytest.raises(InputError, match=r"a\.tif has 16-bit colours in a way that is not read\. Save it as PNG\.$"):
        read_picture(path)


def test_a_gray_that_is_transparent(tmp_path):
    gray = noise(6, 5)
    gray[2, 3] = gray[4, 4] = 7
    (tmp_path / "a.png").write_bytes(png16(gray[..., None], 0, chunk(b"tRNS", struct.pack(">H", 7))))
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels[..., 0], gray)
    np.testing.assert_array_equal(picture.alpha, np.where(gray == 7, 0, 65535))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_in_8_and_16_bits(tmp_path, orientation):
    deep = noise(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "deep.png").write_bytes(png16(deep, 2, chunk(b"eXIf", exif.tobytes()[6:])))
    (tmp_path / "deep.tif").write_bytes(tiff16(deep, orientation))
    for name in "deep.png", "deep.tif":
        np.testing.assert_array_equal(read_picture(tmp_path / name).pixels, shown(deep, orientation))
    flat = noise(2, 3, 4, dtype=np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.png", exif=exif)
    picture = read_picture(tmp_path / "flat.png")
    np.testing.assert_array_equal(picture.pixels, shown(flat, orientation)[..., :3])
    np.testing.assert_array_equal(picture.alpha, shown(flat, orientation)[..., 3])


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK"])
def test_opaque_8_bit_images_are_those_of_read_rgb(tmp_path, mode):
    Image.fromarray(noise(6, 5, 3, dtype=np.uint8)).convert(mode).save(tmp_path / "a.tif")
    picture = read_picture(tmp_path / "a.tif")
    assert picture.alpha is None and picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, read_rgb(tmp_path / "a.tif"))


def test_transparency_of_every_kind(tmp_path):
    Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8), "LA").save(tmp_path / "la.png")
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 1, 2, 3])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.gif", transparency=0)
    Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)).save(tmp_path / "key.png", transparency=(9, 9, 9))
    for name in "la.png", "p.gif", "key.png":
        picture = read_picture(tmp_path / name)
        assert picture.alpha.tolist() == [[0, 255]] and picture.pixels[0, 0].tolist() == [9, 9, 9], name


def test_alpha_that_hides_nothing_is_none(tmp_path):
    Image.new("RGBA", (3, 2), (1, 2, 3, 255)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").alpha is None


def test_profiles_of_rgb_are_kept_and_of_other_colours_not(tmp_path):
    Image.new("RGB", (3, 2)).save(tmp_path / "rgb.jpg", icc_profile=SRGB)
    assert read_picture(tmp_path / "rgb.jpg").icc == SRGB
    cmyk = SRGB[:16] + b"CMYK" + SRGB[20:]
    Image.new("CMYK", (3, 2)).save(tmp_path / "cmyk.jpg", icc_profile=cmyk)
    assert read_picture(tmp_path / "cmyk.jpg").icc is None


def test_damaged_16_bit_files_are_refused(tmp_path):
    content = bytearray(png16(noise(20, 20, 3), 2))
    content[-60] ^= 255
    for name, part in ("broken.png", content), ("short.png", content[: len(content) // 2]):
        (tmp_path / name).write_bytes(part)
        with pytest.raises(InputError, match=rf"{name} is truncated or damaged \("):
            read_picture(tmp_path / name)


def test_bombs_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png16(noise(5, 6, 3), 2))
    for limit in (20, 10):  # Pillow's own check has two steps
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match=r"is too large: .*\(30 pixels\).*\. Crop it or scale it down\.$"):
            read_picture(tmp_path / "a.png")


# ---------------------------------------------------------------- under transparent pixels


def test_hidden_colours_become_those_of_the_nearest_pixel():
    pixels = np.array([[[1, 1, 1], [9, 9, 9], [9, 9, 9], [9, 9, 9], [5, 5, 5]]], np.uint8)
    picture = Picture(pixels, np.array([[255, 0, 7, 0, 8]], np.uint8))
    filled = picture.filled[0, :, 0].tolist()
    assert filled[:2] == [1, 1] and filled[3:] == [5, 5] and filled[2] in (1, 5)
    assert (picture.pixels == pixels).all()
    for same in Picture(pixels), Picture(pixels, np.zeros((1, 5), np.uint8)), Picture(pixels, pixels[..., 0] + 20):
        assert same.filled is same.pixels


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("icc", [None, SRGB])
def test_what_is_written_is_read_again(tmp_path, dtype, with_alpha, icc):
    alpha = noise(6, 5, dtype=dtype) if with_alpha else None
    path = tmp_path / "new" / "a.png"
    write_picture(Picture(noise(6, 5, 3, dtype=dtype), alpha, icc), path)
    picture = read_picture(path)
    assert picture.pixels.dtype == dtype and picture.icc == icc
    np.testing.assert_array_equal(picture.pixels, noise(6, 5, 3, dtype=dtype))
    np.testing.assert_array_equal(picture.alpha, alpha)
    with Image.open(io.BytesIO(path.read_bytes())) as image:  # each chunk's checksum is right, and Pillow reads it
        image.verify()
        assert image.info.get("icc_profile") == icc
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]


@pytest.mark.parametrize("with_alpha", [False, True])
def test_16_bits_of_many_rows(tmp_path, with_alpha):
    """More rows than are filtered, compressed and reordered at a time; OpenCV reads the same."""
    ramp = np.arange(150 * 7 * 4, dtype=np.uint16).reshape(150, 7, 4) * 13 + noise(150, 7, 4) // 64
    alpha = np.ascontiguousarray(ramp[..., 3]) if with_alpha else None
    path = tmp_path / "a.png"
    write_picture(Picture(np.ascontiguousarray(ramp[..., :3]), alpha), path)
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(stored, ramp[..., [2, 1, 0, 3][: 3 + with_alpha]])
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, ramp[..., :3])
    np.testing.assert_array_equal(picture.alpha, alpha)


def test_premultiplied_colours_of_many_rows(tmp_path):
    stored = np.full((150, 3, 4), 10000, np.uint16)
    stored[..., 3] = 20000
    (tmp_path / "a.tif").write_bytes(tiff16(stored, 1, extra=1))
    assert (read_picture(tmp_path / "a.tif").pixels == 32768).all()  # 10000 * 65535 / 20000


def test_what_cannot_be_written(tmp_path):
    picture = Picture(noise(2, 2, 3))
    with pytest.raises(InputError, match=r"a\.tif: images are written as \.png, .* Name it .*a\.png\."):
        write_picture(picture, tmp_path / "a.tif")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_picture(picture, tmp_path / "file" / "a.png")
    with pytest.raises(TypeError, match=r"alpha is \(H, W\) uint16"):
        write_picture(Picture(noise(2, 2, 3), noise(2, 2, dtype=np.uint8)), tmp_path / "a.png")
    with pytest.raises(TypeError, match="float64"):
        write_picture(Picture(noise(2, 2, 3) / 2), tmp_path / "a.png")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]
