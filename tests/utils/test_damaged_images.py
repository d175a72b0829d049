"""Whatever a decoder raises on a damaged file is its UnreadableImageError; what is no damage is a plain InputError."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.png_files import SRGB, chunk, png16

from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.image_io import FORMATS, Picture, decode_rgb, opened, pillow_rgb, read_picture, read_rgb

try:
    import pillow_heif
except ImportError:
    HEIF = {}
else:
    pillow_heif.register_heif_opener()
    HEIF = {"HEIF": ("RGB", "RGBA", "L")}
MODES = {
    "AVIF": ("RGB", "RGBA"),
    **HEIF,
    "BMP": ("RGB", "L", "P", "1"),
    "GIF": ("RGB", "L", "P"),
    "JPEG": ("RGB", "L", "CMYK"),
    "JPEG2000": ("RGB", "L", "RGBA", "LA"),
    "PNG": ("RGB", "L", "RGBA", "LA", "P", "1", "I;16"),
    "PPM": ("RGB", "L", "1", "I;16"),
    "TIFF": ("RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "LAB"),
    "WEBP": ("RGB", "RGBA"),
}


def originals(random: np.random.Generator) -> list[tuple[str, bytes]]:
    """(extension, content): small pictures of every format in its modes, with metadata, frames and 16-bit colours."""
    made = []
    for name, modes in MODES.items():
        for mode in modes:
            image = Image.fromarray(random.integers(0, 256, (9, 12, 4), dtype=np.uint8))
            if mode == "I;16":
                image = Image.fromarray(random.integers(0, 65536, (9, 12), dtype=np.uint16))
            elif mode == "LAB":
                image = Image.frombytes("LAB", (12, 9), image.convert("RGB").tobytes())
            else:
                image = image.convert(mode)
            for options in ({}, {"icc_profile": SRGB}, {"save_all": True, "append_images": [image, image]}):
                if "save_all" in options and name not in ("AVIF", "GIF", "HEIF", "TIFF", "WEBP", "PNG"):
                    continue
                stream = io.BytesIO()
                image.save(stream, name, **options)
                made.append((FORMATS[name][0], stream.getvalue()))
    deep = random.integers(0, 65536, (9, 12, 4), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    made += [(".png", png16(deep[..., :3], 2, chunk(b"eXIf", exif.tobytes()[6:]))), (".png", png16(deep, 6))]
    for compression in "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg":
        stream = io.BytesIO()
        Image.fromarray(deep[..., :3].astype(np.uint8)).save(stream, "TIFF", compression=compression)
        made.append((".tif", stream.getvalue()))
    return made


def mutated(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """Flipped bits, a part left out, doubled or cut off, another file's start, or a field of extreme value."""
    kind, data = random.integers(7), bytearray(content)
    start = int(random.integers(len(data)))
    length = int(random.integers(1, 40))
    if kind <= 1:
        end = len(data) if kind == 0 else min(len(data), 120)
        for _ in range(random.integers(1, 12)):
            data[random.integers(end)] ^= 1 << random.integers(8)
    elif kind == 2:
        del data[start:]
    elif kind == 3:
        del data[start : start + length]
    elif kind == 4:
        data[start:start] = data[start : start + length]
    elif kind == 5:
        data[:length] = other[:length]
    else:
        data[start : start + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"][random.integers(3)]
    return bytes(data)


@pytest.mark.parametrize("count", [120, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_of_all_formats(tmp_path, count):
    random = np.random.default_rng(20261130)
    sources = originals(random)
    assert {extension for extension, _ in sources} == {
        extensions[0] for format, extensions in FORMATS.items() if format in MODES
    }
    read, refused = 0, 0
    for index in range(count):
        (extension, content), (_, other) = (sources[i] for i in random.integers(len(sources), size=2))
        damaged = mutated(content, other, random) if index >= len(sources) else sources[index][1]
        path = tmp_path / f"{index}{extension}"
        path.write_bytes(damaged)
        outcomes = []
        for reader in read_picture, read_rgb, lambda path: decode_rgb(path.read_bytes(), str(path)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about metadata
                try:
                    outcomes.append(reader(path))
                except InputError as error:  # any other exception fails the test
                    assert str(error).startswith(str(path)) and "\n" not in str(error)
                    assert isinstance(error, UnreadableImageError) or re.search(
                        "too large|needs pillow_heif", str(error)
                    )
                    outcomes.append(None)
        picture, rgb, decoded = outcomes
        assert (picture is None) == (rgb is None) == (decoded is None)
        if isinstance(picture, Picture):
            read += 1
            assert picture.pixels.ndim == 3 and picture.pixels.shape[2] == 3
            np.testing.assert_array_equal(rgb, picture.flattened)
            np.testing.assert_array_equal(rgb, decoded)
        else:
            refused += 1
        path.unlink()
    assert read > count / 4 and (refused > count / 5 or count < 3000)


@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_a_palette_png_without_its_palette(tmp_path, options):
    image = Image.new("P", (4, 3))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.save(tmp_path / "a.png", **options)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    (tmp_path / "a.png").write_bytes(content[:start] + content[end:])
    expected = f"{tmp_path / 'a.png'} is truncated or damaged (its palette is missing). Get the file again."
    for read in read_picture, read_rgb:
        with pytest.raises(UnreadableImageError) as caught:
            read(tmp_path / "a.png")
        assert str(caught.value) == expected


class OddError(Exception):
    """As a library might raise."""


@pytest.mark.parametrize(
    "error",
    [OddError("no"), AssertionError(), RuntimeError("x"), RecursionError(), BufferError(), NotImplementedError()],
)
def test_any_exception_of_a_decoder(tmp_path, monkeypatch, error):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    reason = str(error) or type(error).__name__
    expected = f"{tmp_path / 'a.png'} is truncated or damaged ({reason}). Get the file again."
    for read in read_picture, read_rgb:
        with pytest.raises(UnreadableImageError) as caught:
            read(tmp_path / "a.png")
        assert str(caught.value) == expected
    with Image.open(tmp_path / "a.png") as image, pytest.raises(UnreadableImageError, match=r"^img is truncated or"):
        pillow_rgb(image, "img")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stop_is_no_damage(tmp_path, monkeypatch, error):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def stop(*args, **options):
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", stop)
    with pytest.raises(error):
        read_picture(tmp_path / "a.png")


def test_out_of_memory(tmp_path, monkeypatch):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(
        UnreadableImageError, match=r"is damaged, or too large for the memory\. Get the file again, or "
    ):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), r"cannot be read \(Permission denied\)\. Correct its rights\.$"),
        (OSError(5, "Input/output error"), r"cannot be read \(Input/output error\)\. Try again\.$"),
        (FileNotFoundError(2, "No such file or directory"), r"cannot be read \(No such file or directory\)\."),
    ],
)
def test_what_the_system_refuses_is_no_damage(tmp_path, monkeypatch, error, message):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")

    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=message) as caught:
        read_rgb(tmp_path / "a.png")
    assert not isinstance(caught.value, UnreadableImageError)


def test_which_errors_are_damage(tmp_path, monkeypatch):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image\n" * 99)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:90])
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    for name in "empty.png", "text.png", "cut.png", "float.tif":
        for read in read_rgb, read_picture, lambda path: decode_rgb(path.read_bytes(), str(path)):
            with pytest.raises(UnreadableImageError):
                read(tmp_path / name)
    Image.new("RGB", (9, 9)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80)
    for path in tmp_path / "missing.png", tmp_path, tmp_path / "large.png":
        for read in read_rgb, read_picture:
            with pytest.raises(InputError) as caught:
                read(path)
            assert not isinstance(caught.value, UnreadableImageError)
    with pytest.raises(InputError), opened(Path(tmp_path / "missing.png"), "x"):
        pass
