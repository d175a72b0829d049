"""What image files contain beside pixels is carried into the PNG that is written, or named."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin
from PIL.PngImagePlugin import PngInfo
from support.png_files import SRGB, chunk, noise, png16

from glean_ext.utils.image_io import Picture, read_picture, write_picture

MAKE, ARTIST, ORIENTATION = ExifTags.Base.Make, ExifTags.Base.Artist, ExifTags.Base.Orientation
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6">'
    b"<tiff:Artist>J\xc3\xb6rg</tiff:Artist></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def exif_of_a_camera() -> Image.Exif:
    exif = Image.Exif()
    exif[MAKE], exif[ARTIST], exif[ORIENTATION] = "Ernst", "Ada", 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ISOSpeedRatings: 400, ExifTags.Base.ExifImageWidth: 3}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N"}
    return exif


def save_all(path: Path) -> None:
    """A 3x2 photo that is shown as 2x3, with EXIF, XMP, resolution and a profile."""
    options = {"exif": exif_of_a_camera(), "icc_profile": SRGB, "dpi": (300, 300)}
    image = Image.fromarray(noise(2, 3, 3, dtype=np.uint8))
    if path.suffix == ".png":
        texts = PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", XMP.decode())
        image.save(path, pnginfo=texts, **options)
    elif path.suffix == ".tif":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[700] = XMP
        tags[TiffImagePlugin.IMAGEDESCRIPTION] = "a wall"
        for tag, value in exif_of_a_camera().items():
            if tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                tags[tag] = value
        image.save(path, tiffinfo=tags, icc_profile=SRGB, dpi=(300, 300))
    else:
        image.save(path, xmp=XMP, **options)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".tif"])
def test_metadata_is_carried_into_the_result(tmp_path, extension, bits):
    save_all(tmp_path / f"a{extension}")
    picture = read_picture(tmp_path / f"a{extension}")
    assert picture.pixels.shape == (3, 2, 3) and picture.not_carried == ()
    pixels = np.repeat(np.repeat(picture.pixels, 2, 0), 2, 1)
    pixels = pixels if bits == 8 else pixels.astype(np.uint16) * 257
    write_picture(picture.with_pixels(pixels), tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as image:
        image.load()
        exif = image.getexif()
        assert (exif[MAKE], exif[ARTIST], exif.get(ORIENTATION, 1)) == ("Ernst", "Ada", 1)
        if extension != ".tif":  # Pillow does not write these parts of a TIFF
            assert exif.get_ifd(ExifTags.IFD.Exif) == {ExifTags.Base.ISOSpeedRatings: 400}
            assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: "N"}
        assert image.size == (4, 6) and image.info["icc_profile"] == SRGB
        upright = b"" if extension == ".tif" else b'tiff:Orientation="1"'  # Pillow removes it from TIFF
        assert image.info["xmp"] == XMP.replace(b'tiff:Orientation="6"', upright)
        if extension != ".webp":  # which has no resolution of its own
            assert image.info["dpi"] == pytest.approx((300, 300), abs=0.02)
    again = read_picture(tmp_path / "result.png")
    np.testing.assert_array_equal(again.pixels, pixels)
    assert (again.exif, again.xmp, again.icc) == (picture.exif, again.xmp, SRGB) and again.not_carried == ()


def test_tags_of_the_stored_pixels_are_not_carried(tmp_path):
    save_all(tmp_path / "a.tif")
    exif = Image.Exif()
    exif.load(read_picture(tmp_path / "a.tif").exif)
    assert dict(exif) == {MAKE: "Ernst", ARTIST: "Ada", TiffImagePlugin.IMAGEDESCRIPTION: "a wall"}


def test_16_bit_files_carry_metadata(tmp_path):
    exif = exif_of_a_camera().tobytes()[6:]
    parts = chunk(b"eXIf", exif), chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    (tmp_path / "a.png").write_bytes(png16(noise(2, 3, 3), 2, *parts))
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.shape == (3, 2, 3) and picture.pixels.dtype == np.uint16
    assert picture.dpi == pytest.approx((300, 300), abs=0.01) and b"Ernst" in picture.exif


def test_no_metadata_is_none(tmp_path):
    write_picture(Picture(noise(2, 3, 3)), tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.exif, picture.xmp, picture.dpi, picture.icc, picture.not_carried) == (None, None, None, None, ())


# ---------------------------------------------------------------- what is named


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize(
    ("extension", "name"),
    [
        (".gif", "{} more frame{} of the animation"),
        (".webp", "{} more frame{} of the animation"),
        (".png", "{} more frame{} of the animation"),
        (".tif", "{} more page{} of the file"),
    ],
)
def test_further_frames_and_pages(tmp_path, extension, name, count):
    images = [Image.new("RGB", (4, 3), (40 * i, 0, 0)) for i in range(count)]
    images[0].save(tmp_path / f"a{extension}", save_all=True, append_images=images[1:])
    picture = read_picture(tmp_path / f"a{extension}")
    assert picture.not_carried == (name.format(count - 1, "s" if count > 2 else ""),)
    assert picture.pixels.shape == (3, 4, 3) and (picture.pixels == 0).all()  # the first one


def test_further_images_of_a_stereo_camera(tmp_path):
    images = [Image.new("RGB", (16, 16), (90 * i, 0, 0)) for i in range(2)]
    images[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=images[1:])
    assert read_picture(tmp_path / "a.jpg").not_carried == ("1 more image of the file",)


def test_damaged_further_frames_do_not_spoil_the_first(tmp_path):
    images = [Image.fromarray(noise(20, 20, dtype=np.uint8)) for _ in range(3)]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    content = (tmp_path / "a.tif").read_bytes()
    second = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[second : second + 2])[0]
    end = second + 2 + 12 * count
    (tmp_path / "a.tif").write_bytes(content[:end] + struct.pack("<I", len(content) + 9) + content[end + 4 :])
    picture = read_picture(tmp_path / "a.tif")
    np.testing.assert_array_equal(picture.pixels[..., 0], noise(20, 20, dtype=np.uint8))
    assert picture.not_carried == ("further frames or pages, which are damaged",)


def test_texts_comments_and_other_programs_data(tmp_path):
    texts = PngInfo()
    texts.add_text("Title", "a wall")
    texts.add_text("Author", "Ada")
    image = Image.new("RGB", (3, 2))
    image.save(tmp_path / "a.png", pnginfo=texts)
    image.save(tmp_path / "a.gif", comment=b"hello")
    image.save(tmp_path / "a.jpg", comment=b"hello")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33723], tags[37724] = b"iptc", b"layers"
    image.save(tmp_path / "a.tif", tiffinfo=tags)
    assert read_picture(tmp_path / "a.png").not_carried == ("the text entries Title, Author",)
    assert read_picture(tmp_path / "a.gif").not_carried == ("the comment",)
    assert read_picture(tmp_path / "a.jpg").not_carried == ("the comment",)
    assert read_picture(tmp_path / "a.tif").not_carried == ("the IPTC metadata", "the Photoshop layers")


@pytest.mark.parametrize(
    ("gamma", "more", "names"),
    [(100_000, {}, ("the gamma of 1.00",)), (45455, {}, ()), (100_000, {"icc_profile": SRGB}, ())],
)
def test_the_gamma_of_a_png(tmp_path, gamma, more, names):
    info = PngInfo()
    info.add(b"gAMA", struct.pack(">I", gamma))
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", pnginfo=info, **more)
    assert read_picture(tmp_path / "a.png").not_carried == names


def test_iptc_of_a_jpeg(tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    record = b"8BIM" + struct.pack(">HHI", 0x0404, 0, 4) + b"iptc"
    segment = b"Photoshop 3.0\0" + record
    marker = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    content = stream.getvalue()
    (tmp_path / "a.jpg").write_bytes(content[:2] + marker + content[2:])
    assert read_picture(tmp_path / "a.jpg").not_carried == ("the Photoshop and IPTC metadata",)


def test_metadata_of_jpeg2000(tmp_path):
    """They come before and after the image, whose last box may have no size."""
    stream, pixels = io.BytesIO(), noise(9, 8, 3, dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False)
    content, boxes = stream.getvalue(), []
    for start in b"JpgTiffExif->JP2", bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), bytes(16):
        boxes.append(struct.pack(">I", 32) + b"uuid" + start + bytes(8))
    large = struct.pack(">I4sQ", 1, b"uuid", 40) + b"JpgTiffExif->JP2" + bytes(8)
    image = content.index(b"jp2c") - 4
    endless = content[:image] + boxes[1] + bytes(4) + content[image + 4 :]
    for name, file, found in (
        ("without", content, ()),
        ("after", content + b"".join(boxes), ("the EXIF metadata", "the XMP metadata")),
        ("large", content + large, ("the EXIF metadata",)),
        ("before", endless, ("the XMP metadata",)),
    ):
        (tmp_path / f"{name}.jp2").write_bytes(file)
        picture = read_picture(tmp_path / f"{name}.jp2")
        np.testing.assert_array_equal(picture.pixels, pixels)
        named = tuple(one for one in picture.not_carried if one != "the comment")  # which OpenJPEG writes
        assert named == found, name


def test_damaged_metadata_is_named_and_the_pixels_are_read(tmp_path):
    pixels = noise(2, 3, 3, dtype=np.uint8)
    for number, exif in enumerate((b"Exif\0\0junk", b"Exif\0\0MM\0*\0\0\xff\xff")):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png", exif=exif)
        picture = read_picture(tmp_path / f"{number}.png")
        np.testing.assert_array_equal(picture.pixels, pixels)
        assert picture.exif is None
    assert read_picture(tmp_path / "0.png").not_carried == ("the EXIF metadata, which is damaged",)
    Image.fromarray(pixels).save(tmp_path / "x.webp", lossless=True, xmp=b"<x:xmpmeta \xff>")
    picture = read_picture(tmp_path / "x.webp")
    assert picture.xmp is None and picture.not_carried == ("the XMP metadata, which is damaged",)
    np.testing.assert_array_equal(picture.pixels, pixels)
