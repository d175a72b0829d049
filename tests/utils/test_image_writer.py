"""JPEG and WebP results: quality, what they keep of the picture, and that what they have no place for is named."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, JpegImagePlugin
from support.png_files import SRGB, noise
from test_image_metadata import ARTIST, MAKE, ORIENTATION, XMP, exif_of_a_camera, save_all

from glean_ext.errors import InputError, Notice
from glean_ext.utils.image_io import Picture, read_picture, write_picture
from glean_ext.utils.image_writer import QUALITY

OUTPUTS = "a.jpg", "b.JPEG", "c.webp"


def smooth(*shape: int, dtype=np.uint8) -> np.ndarray:
    """Gray in x, which every format keeps well."""
    levels = np.linspace(0.1, 0.9, shape[1]) * np.iinfo(dtype).max
    return np.broadcast_to(levels[None, :, None] if len(shape) == 3 else levels, shape).astype(dtype)


def written(picture: Picture, path: Path) -> tuple[Picture, list[str]]:
    """The picture as it is read again, and what is said about it."""
    notices: list[Notice] = []
    write_picture(picture, path, notices.append)
    assert all(notice.level == logging.WARNING for notice in notices)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return read_picture(path), [str(notice) for notice in notices]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("source", [".jpg", ".png", ".tif"])
def test_metadata_is_carried(tmp_path, source, name):
    save_all(tmp_path / f"a{source}")
    picture = read_picture(tmp_path / f"a{source}")
    pixels = np.repeat(np.repeat(picture.pixels, 2, 0), 2, 1)
    again, lost = written(picture.with_pixels(pixels), tmp_path / "out" / name)
    assert again.pixels.shape == (6, 4, 3) and lost == []
    assert again.icc == SRGB and again.dpi == pytest.approx((300, 300), abs=0.02)
    assert again.xmp == picture.xmp and (again.xmp is None) == (source == ".tif" and picture.xmp is None)
    with Image.open(tmp_path / "out" / name) as image:
        exif = image.getexif()
        assert (exif[MAKE], exif[ARTIST], exif.get(ORIENTATION, 1)) == ("Ernst", "Ada", 1)
        if source != ".tif":  # Pillow does not write these parts of a TIFF
            assert exif.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.ISOSpeedRatings: 400}
            assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
            assert again.xmp == XMP.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"')


def test_jpeg_has_quality_95_and_all_colours(tmp_path):
    pixels = noise(16, 16, 3, dtype=np.uint8)
    write_picture(Picture(pixels), tmp_path / "a.jpg")
    Image.fromarray(pixels).save(tmp_path / "b.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image, Image.open(tmp_path / "b.jpg") as reference:
        assert image.quantization == reference.quantization
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
    assert QUALITY == 95


@pytest.mark.parametrize("name", OUTPUTS)
def test_pixels_stay_what_they_are(tmp_path, name):
    pixels = smooth(32, 48, 3)
    again, lost = written(Picture(pixels), tmp_path / name)
    assert lost == [] and np.abs(again.pixels.astype(int) - pixels).max() <= 3


def test_what_a_format_has_no_place_for_is_named(tmp_path):
    pixels, alpha = smooth(32, 48, 3, dtype=np.uint16), smooth(32, 48, dtype=np.uint16)
    over_white = 255 - (255 - pixels / 257) * (alpha / 65535)[..., None]
    path = tmp_path / "jpg" / "a.jpg"
    jpeg, lost = written(Picture(pixels, alpha), path)
    assert jpeg.alpha is None and np.abs(jpeg.pixels - over_white).max() <= 4
    assert lost == [f"{path}: JPEG has no place for 16 bits and transparency (it is laid over white); PNG has."]
    path = tmp_path / "webp" / "a.webp"
    webp, lost = written(Picture(pixels, alpha), path)
    assert np.abs(webp.pixels - pixels / 257.0).max() <= 4 and np.abs(webp.alpha - alpha / 257.0).max() <= 1
    assert lost == [f"{path}: WebP has no place for 16 bits; PNG has."]
    assert written(Picture(pixels, alpha), tmp_path / "png" / "a.png")[1] == []


def test_metadata_too_long_for_a_jpeg_is_named(tmp_path):
    exif = Image.Exif()
    exif[MAKE], exif[ExifTags.Base.ImageDescription] = "Ernst", "a" * 70_000
    picture = Picture(smooth(8, 8, 3), exif=exif.tobytes(), xmp=b"<x>" + b"a" * 65_600)
    path = tmp_path / "jpg" / "a.jpg"
    again, lost = written(picture, path)
    assert (again.exif, again.xmp) == (None, None)
    assert lost == [f"{path}: JPEG has no place for so much EXIF metadata and so much XMP metadata; PNG has."]
    assert written(picture, tmp_path / "webp" / "a.webp")[0].xmp == picture.xmp


@pytest.mark.parametrize(("name", "side", "format"), [("a.jpg", 65500, "JPEG"), ("a.webp", 16383, "WebP")])
def test_sides_longer_than_a_format_has_place_for(tmp_path, name, side, format):
    write_picture(Picture(np.zeros((1, side, 3), np.uint8)), tmp_path / name)
    with pytest.raises(InputError) as caught:
        write_picture(Picture(np.zeros((1, side + 1, 3), np.uint8)), tmp_path / "new" / name)
    assert str(caught.value) == (
        f"{tmp_path}/new/{name}: {format} has place for {side} pixels a side, but the result has {side + 1}x1. Name it "
        f"{tmp_path}/new/a.png."
    )
    assert not (tmp_path / "new").exists()


def test_resolution_in_exif_only(tmp_path):
    """In pixels per centimetre, as some scanners write it; a WebP has no other place for it."""
    exif = Image.Exif()
    exif[282], exif[283], exif[296] = 118.11, 118.11, 3
    Image.fromarray(smooth(8, 8, 3)).save(tmp_path / "a.webp", exif=exif.tobytes())
    assert read_picture(tmp_path / "a.webp").dpi == pytest.approx((300, 300), abs=0.01)
    exif[296] = 1  # no unit
    Image.fromarray(smooth(8, 8, 3)).save(tmp_path / "b.webp", exif=exif.tobytes())
    assert read_picture(tmp_path / "b.webp").dpi is None


# ---------------------------------------------------------------- AVIF and HEIC


def check_turned(path: Path) -> None:
    """A picture whose left third is dark, saved with the orientation 6, is read with a dark top."""
    picture = read_picture(path)
    assert picture.pixels.shape == (48, 32, 3)
    assert picture.pixels[:14].max() < 60 < 190 < picture.pixels[18:].min()
    exif = Image.Exif()
    exif.load(picture.exif)
    assert exif[MAKE] == "Ernst" and ORIENTATION not in exif and picture.icc == SRGB


def turned(path: Path) -> Path:
    pixels = np.full((32, 48, 3), 220, np.uint8)
    pixels[:, :16] = 30
    Image.fromarray(pixels).save(path, exif=exif_of_a_camera().tobytes(), icc_profile=SRGB)
    return path


def test_avif(tmp_path):
    check_turned(turned(tmp_path / "a.avif"))


def test_heic(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    check_turned(turned(tmp_path / "a.heic"))
    images = [Image.new("RGB", (16, 16), (90 * i, 0, 0)) for i in range(3)]
    images[0].save(tmp_path / "b.heic", save_all=True, append_images=images[1:])
    assert read_picture(tmp_path / "b.heic").not_carried == ("2 more images of the file",)
    deep = noise(16, 16, 3) >> 6 << 6
    pillow_heif.encode("RGB;16", (16, 16), deep.tobytes(), tmp_path / "d.heic", quality=-1)
    picture = read_picture(tmp_path / "d.heic")
    assert picture.not_carried == ("the 10 bits of its colours",) and picture.pixels.dtype == np.uint8
    (tmp_path / "c.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"c\.heic is (truncated|no image)"):
        read_picture(tmp_path / "c.heic")


@pytest.mark.parametrize("brands", [b"heic\0\0\0\0mif1heic", b"mif1\0\0\0\0mif1heic", b"heix\0\0\0\0"])
def test_a_heic_without_its_package_names_the_extra(tmp_path, monkeypatch, brands):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_1.JPG"  # the content counts, not the name
    path.write_bytes((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(100))
    with pytest.raises(InputError) as caught:
        read_picture(path)
    assert str(caught.value) == f"{path} needs pillow_heif, which is not installed: pip install 'glean-ext[heic]'"


def test_other_files_of_the_same_container_are_no_images(tmp_path):
    path = tmp_path / "film.heic"
    path.write_bytes((24).to_bytes(4, "big") + b"ftypisom\0\0\0\0isommp41" + bytes(100))
    with pytest.raises(InputError, match=r"film\.heic is no image, or of a format that is not read"):
        read_picture(path)
