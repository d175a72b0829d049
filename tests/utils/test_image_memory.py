"""Small files do not take large memory, and reading and writing take a few bytes a pixel."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.png_files import chunk, noise

from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.image_io import Picture, decode_rgb, read_picture, read_rgb, write_picture

ROOT = Path(__file__).parents[2]
COLOUR_TYPES = {"gray": 0, "RGB": 2, "palette": 3, "gray and alpha": 4, "RGBA": 6}
LIMITED = """
import resource, sys
import cv2, numpy
from glean_ext.utils.image_io import {imports}
{before}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {limit}, resource.RLIM_INFINITY))
try:
    {code}
except Exception as error:
    print(type(error).__name__, error)
else:
    print("done")
"""


def bomb(width: int, height: int, depth: int, colour_type: int, length: int = 4500) -> bytes:
    """A PNG whose compressed data ends properly, after much less than its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    random = np.random.default_rng(0).bytes(length - 150)
    palette = [chunk(b"PLTE", bytes(6))] if colour_type == 3 else []
    data = chunk(b"IDAT", zlib.compress(b"\0" + random))
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *palette, data, chunk(b"IEND", b"")])


def run_limited(folder: Path, code: str, megabytes: int, imports: str, before: str = "") -> str:
    """Stdout of code that may use so much more memory than its imports."""
    script = LIMITED.format(imports=imports, before=before, limit=megabytes << 20, code=code)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("depth", "kind"),
    [(16, "RGB"), (16, "RGBA"), (16, "gray"), (16, "gray and alpha"), (8, "RGB"), (8, "palette"), (8, "RGBA")],
)
@pytest.mark.parametrize("reader", ["read_picture('a.png')", "read_rgb('a.png')"])
def test_a_small_png_that_promises_many_pixels_takes_no_memory(tmp_path, depth, kind, reader):
    (tmp_path / "a.png").write_bytes(bomb(9400, 9400, depth, COLOUR_TYPES[kind]))
    size = (tmp_path / "a.png").stat().st_size
    assert 4300 < size < 4600
    assert run_limited(tmp_path, reader, 100, "read_picture, read_rgb") == (
        f"UnreadableImageError a.png is truncated or damaged ({size} bytes cannot hold 9400x9400 pixels). "
        "Get the file again."
    )


@pytest.mark.parametrize(("kind", "channels"), [("gray", 1), ("gray and alpha", 2), ("RGB", 3), ("RGBA", 4)])
def test_the_bound_is_the_highest_compression(kind, channels):
    content = bomb(1000, 1000, 16, COLOUR_TYPES[kind])
    rows = 1032 * len(content) // (1000 * 2 * channels)
    with pytest.raises(UnreadableImageError, match=rf"cannot hold 1000x{rows + 1} pixels"):
        decode_rgb(bomb(1000, rows + 1, 16, COLOUR_TYPES[kind]), "x")
    with pytest.raises(UnreadableImageError, match=r"^x is truncated or damaged \((?!.*cannot hold)"):  # by the decoder
        decode_rgb(bomb(1000, rows, 16, COLOUR_TYPES[kind]), "x")


def test_the_same_from_bytes():
    with pytest.raises(UnreadableImageError, match=r"^x is truncated or damaged \(\d+ bytes cannot hold 9400x9400"):
        decode_rgb(bomb(9400, 9400, 16, 2), "x")


@pytest.mark.parametrize(("depth", "kind"), [(16, "RGBA"), (16, "RGB"), (16, "gray"), (8, "RGB")])
def test_too_many_pixels_are_refused_whatever_the_depth(tmp_path, depth, kind):
    path = tmp_path / "a.png"
    path.write_bytes(bomb(20000, 20000, depth, COLOUR_TYPES[kind]))
    for read in read_picture, read_rgb:
        with pytest.raises(InputError, match=r"a\.png is too large: .*\(400000000 pixels\)") as caught:
            read(path)
        assert not isinstance(caught.value, UnreadableImageError)


def test_flat_images_compress_as_much_and_are_read(tmp_path):
    write_picture(Picture(np.zeros((3000, 3000, 3), np.uint16)), tmp_path / "deep.png")
    Image.new("1", (5000, 5000)).save(tmp_path / "bits.png", compress_level=9)
    Image.new("RGB", (3000, 3000)).save(tmp_path / "flat.png", compress_level=9)
    for name, side in ("deep", 3000), ("bits", 5000), ("flat", 3000):
        pixels = read_picture(tmp_path / f"{name}.png").pixels
        assert pixels.shape == (side, side, 3) and not pixels.any()


@pytest.mark.parametrize(
    ("dtype", "alpha", "bytes_a_pixel"), [("uint8", False, 12), ("uint16", False, 13), ("uint16", True, 18)]
)
def test_memory_of_reading(tmp_path, dtype, alpha, bytes_a_pixel):
    """Ten million pixels. What it returns has 3, 6 and 8 bytes a pixel."""
    pixels = np.zeros((2400, 4000, 3), dtype)
    pixels[::50] = noise(48, 4000, 3, dtype=np.dtype(dtype).type)
    write_picture(Picture(pixels, pixels[..., 0] if alpha else None), tmp_path / "a.png")
    megabytes = 10 * bytes_a_pixel + 30
    assert run_limited(tmp_path, "read_picture('a.png')", megabytes, "read_picture") == "done"


@pytest.mark.parametrize(
    ("dtype", "alpha", "bytes_a_pixel"), [("uint8", False, 5), ("uint16", False, 2), ("uint16", True, 3)]
)
def test_memory_of_writing(tmp_path, dtype, alpha, bytes_a_pixel):
    """Ten million pixels, besides the pixels themselves; blocks of rows and the compressor take what is added."""
    before = (
        f"pixels = numpy.zeros((2400, 4000, 3), '{dtype}'); pixels[::7] = 9;"
        f"alpha = numpy.ascontiguousarray(pixels[..., 0]) if {alpha} else None"
    )
    code = "write_picture(Picture(pixels, alpha), 'a.png')"
    assert run_limited(tmp_path, code, 10 * bytes_a_pixel + 30, "Picture, write_picture", before) == "done"
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (4000, 2400)


def test_out_of_memory_is_one_line(tmp_path):
    write_picture(Picture(np.zeros((2400, 4000, 3), np.uint8)), tmp_path / "a.png")
    message = run_limited(tmp_path, "read_picture('a.png')", 20, "read_picture")
    assert message == (
        "UnreadableImageError a.png is damaged, or too large for the memory. Get the file again, or scale it down."
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY  # of this process


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"comment": b"x" * 20_000}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_small_jpeg_that_promises_many_pixels_takes_no_memory(tmp_path, mode, options):
    """What libjpeg does not find it would make up, as gray."""
    whole = io.BytesIO()
    Image.new(mode, (3000, 2000), 255 if mode == "L" else "white").save(whole, "JPEG", **options)
    assert decode_rgb(whole.getvalue(), "whole").mean() == 255  # as small as a JPEG of that size can be
    content = bytearray(whole.getvalue())
    frame = content.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0", 2)
    content[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    small = bytes(content[: frame + 2000]) + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(small)
    found = run_limited(tmp_path, "read_picture('a.jpg')", 20, "read_picture")
    assert found == (
        f"UnreadableImageError a.jpg is truncated or damaged ({len(small)} bytes cannot hold 9000x9000 pixels). Get "
        "the file again."
    )


def encoded(format: str, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options: object) -> bytearray:
    content = io.BytesIO()
    Image.new(mode, size).save(content, format, **options)
    return bytearray(content.getvalue())


def liars(side: int) -> dict[str, bytes]:
    """Files of other formats with a hundred pixels or none, whose headers say ``side`` by ``side``."""
    jpeg2000, gif, bmp = encoded("JPEG2000"), encoded("GIF", "P"), encoded("BMP")
    for box, at in (b"ihdr", 4), (b"\xff\x51", 6), (b"\xff\x51", 22):  # of the container and of the codestream
        start = jpeg2000.index(box) + at
        jpeg2000[start : start + 8] = struct.pack(">II", side, side)
    gif[6:10] = struct.pack("<HH", side, side)
    bmp[18:26] = struct.pack("<ii", side, side)
    tiffs = {name: encoded("TIFF", compression=name) for name in (None, "tiff_lzw", "tiff_adobe_deflate")}
    for tiff in tiffs.values():
        start = struct.unpack("<I", tiff[4:8])[0] + 2
        for at in range(start, start + 12 * 2, 12):  # its first two tags are width and height
            assert struct.unpack("<H", tiff[at : at + 2])[0] in (256, 257)
            tiff[at + 2 : at + 12] = struct.pack("<HII", 4, 1, side)
    return {
        "jpeg2000": bytes(jpeg2000), "gif": bytes(gif), "bmp": bytes(bmp),
        "ppm": b"P6 %d %d 255\n" % (side, side) + bytes(100), "pgm": b"P2 %d %d 255\n1 2 3" % (side, side),
        **{f"tiff {name}": bytes(tiff) for name, tiff in tiffs.items()},
    }  # fmt: skip


def test_small_files_of_any_format_that_promise_many_pixels_are_refused():
    for name, content in liars(9000).items():
        exact = name in ("bmp", "ppm", "tiff None")
        with pytest.raises(UnreadableImageError) as caught:
            decode_rgb(content, name)
        assert str(caught.value) == (
            f"{name} is truncated or damaged ({len(content)} bytes cannot hold 9000x9000 pixels). Get the file again."
            if exact
            else f"{name} is truncated, damaged or of one colour ({len(content)} bytes for 9000x9000 pixels). Get "
            "the file again, or save it as PNG."
        )


@pytest.mark.parametrize(
    ("format", "mode", "size", "options"),
    [
        ("TIFF", "1", (9921, 7016), {"compression": "group4"}),
        ("WEBP", "RGB", (4000, 3000), {"lossless": True}),
        ("GIF", "P", (4000, 3000), {}),
    ],
)
def test_blank_images_are_read(format, mode, size, options):
    content = bytes(encoded(format, mode, size, **options))
    assert decode_rgb(content, "x").shape == (size[1], size[0], 3)
