import numpy as np
import pytest
import torch
from PIL import Image

from glean_ext.errors import InputError
from glean_ext.utils.array_conversion import to_tensor, to_uint8
from glean_ext.utils.image_io import EXTENSIONS, FORMATS, Picture, read_rgb, write_picture

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def pixels(path):
    return [tuple(map(int, pixel)) for row in read_rgb(path) for pixel in row]


def test_every_extension_of_the_formats_is_listed_and_read(tmp_path, noise):
    Image.init()
    known = {extension for extension, format in Image.registered_extensions().items() if format in FORMATS}
    others = {".apng", ".avifs", ".heics", ".heifs", ".pfm"}  # videos, and floating-point pixels
    assert known - others == set(EXTENSIONS) - {".mpo"} - {*(() if "HEIF" in Image.SAVE else FORMATS["HEIF"])}
    for format, extensions in FORMATS.items():
        if format == "HEIF" and format not in Image.SAVE:  # its package is not installed
            continue
        for extension in extensions:
            assert read_rgb(save(Image.fromarray(noise), tmp_path / f"a{extension}", format=format)).shape == (6, 5, 3)


@pytest.mark.parametrize("extension", [".gif", ".png", ".tif", ".webp"])
def test_further_frames_are_named_once(tmp_path, noise, caplog, extension):
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise), Image.fromarray(noise // 2)]
    path = save(frames[0], tmp_path / f"a{extension}", save_all=True, append_images=frames[1:])
    first = read_rgb(path)
    np.testing.assert_array_equal(read_rgb(path), first)
    whole = "pages of the file" if extension == ".tif" else "frames of the animation"
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: only the first image is used, not 2 more {whole}."
    ]
    if extension in (".png", ".tif"):
        np.testing.assert_array_equal(first, noise)


def test_rgb_png_is_read_as_it_is(tmp_path, noise):
    rgb = read_rgb(save(Image.fromarray(noise), tmp_path / "a.png"))
    assert rgb.dtype == np.uint8 and rgb.flags.writeable
    np.testing.assert_array_equal(rgb, noise)


def test_grayscale_is_repeated(tmp_path, noise):
    rgb = read_rgb(save(Image.fromarray(noise[..., 0]), tmp_path / "a.png"))
    np.testing.assert_array_equal(rgb, np.repeat(noise[..., :1], 3, 2))


def test_black_and_white(tmp_path):
    assert pixels(save(Image.new("1", (1, 1), 1), tmp_path / "a.png")) == [WHITE]


def test_transparency_is_laid_over_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 51)]):  # 51 is a fifth of black
        image.putpixel((x, 0), pixel)
    assert pixels(save(image, tmp_path / "a.png")) == [RED, WHITE, (204, 204, 204)]


def test_gray_with_alpha(tmp_path):
    assert pixels(save(Image.new("LA", (1, 1), (0, 0)), tmp_path / "a.png")) == [WHITE]


def palette_image():
    image = Image.new("P", (2, 1))
    image.putpalette([*BLUE, *GREEN])
    image.putpixel((1, 0), 1)
    return image


def test_palette(tmp_path):
    assert pixels(save(palette_image(), tmp_path / "a.png")) == [BLUE, GREEN]
    assert pixels(save(palette_image(), tmp_path / "a.gif")) == [BLUE, GREEN]


def test_palette_with_a_transparent_colour(tmp_path):
    assert pixels(save(palette_image(), tmp_path / "a.png", transparency=0)) == [WHITE, GREEN]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (2, 1), (0, 255, 255, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels(save(image, tmp_path / "a.tif")) == [RED, BLACK]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_to_8(tmp_path, name):
    gray = np.array([[0, 128, 129, 257 * 77, 65535]], np.uint16)
    rgb = read_rgb(save(Image.fromarray(gray), tmp_path / name))
    assert rgb[0, :, 0].tolist() == [0, 0, 1, 77, 255]
    assert rgb.shape == (1, 5, 3) and (rgb == rgb[..., :1]).all()


def test_16_bit_colour(tmp_path):
    import cv2

    colour = np.array([[[257 * 10, 257 * 20, 65535]]], np.uint16)  # BGR
    cv2.imwrite(str(tmp_path / "a.png"), colour)
    assert pixels(tmp_path / "a.png") == [(255, 20, 10)]


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (3, 2), BLUE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated by 90 degrees clockwise
    rgb = read_rgb(save(image, tmp_path / "a.png", exif=exif))
    assert rgb.shape == (3, 2, 3)
    assert tuple(rgb[0, 1]) == RED and (rgb.reshape(-1, 3) == BLUE).all(1).sum() == 5


def test_one_pixel(tmp_path):
    assert pixels(save(Image.new("RGB", (1, 1), GREEN), tmp_path / "a.png")) == [GREEN]


def test_content_counts_not_the_extension(tmp_path):
    assert pixels(save(Image.new("RGB", (1, 1), GREEN), tmp_path / "a.jpg", format="PNG")) == [GREEN]


def fault(path):
    with pytest.raises(InputError) as caught:
        read_rgb(path)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message.replace(str(path), "FILE")


def test_missing_file_and_folder(tmp_path):
    assert fault(tmp_path / "no.png") == "FILE: there is no such file. Give the path of an image."
    assert fault(tmp_path) == "FILE: is a folder, not an image. Give the path of an image."


def test_names_that_the_system_refuses(tmp_path):
    refused = "FILE cannot be read (File name too long). Correct its name or its rights."
    assert fault(tmp_path / f"{'a' * 300}.png") == refused
    (tmp_path / "file").touch()
    for path in "a\0b.png", tmp_path / "file" / "a.png":
        assert fault(path) == "FILE: there is no such file. Give the path of an image."


def test_text_named_png(tmp_path):
    (tmp_path / "a.png").write_text("no image\n" * 99)
    assert fault(tmp_path / "a.png") == (
        "FILE is no image, or of a format that is not read (AVIF, BMP, GIF, HEIF, JPEG, JPEG2000, PNG, PPM, TIFF, WEBP "
        "are). Save it as PNG."
    )


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    assert fault(tmp_path / "a.png") == "FILE is empty (0 bytes). Get the file again."


@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp", "gif", "webp", "ppm", "jp2"])
def test_truncated_at_any_length(tmp_path, extension):
    path = tmp_path / f"a.{extension}"
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for part in range(1, 10):
        path.write_bytes(whole[: len(whole) * part // 10])
        assert "is no image" in fault(path) or "is truncated or damaged (" in fault(path)


def test_damaged_png(tmp_path, noise):
    path = save(Image.fromarray(noise), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[60] ^= 255  # in the pixel data
    path.write_bytes(content)
    assert fault(path).startswith("FILE is truncated or damaged (")


def test_jp2_whose_header_says_it_is_huge(tmp_path, noise):
    path = save(Image.fromarray(noise), tmp_path / "a.jp2")
    content = bytearray(path.read_bytes())
    start = content.index(b"jp2h") - 4
    content[start : start + 16] = b"\0\0\0\1jp2h" + (2**62).to_bytes(8, "big")
    path.write_bytes(content)
    assert fault(path) == "FILE is damaged, or too large for the memory. Get the file again, or scale it down."


def test_decompression_bomb(tmp_path, monkeypatch, noise):
    path = save(Image.fromarray(noise), tmp_path / "a.png")  # 30 pixels
    for limit in (20, 10):  # Pillow warns above the limit, and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        size = f"Image size (30 pixels) exceeds limit of {limit} pixels"
        assert fault(path) == f"FILE is too large: {size}. Crop it or scale it down."
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    assert read_rgb(path).shape == (6, 5, 3)


def test_pixels_of_unknown_range(tmp_path):
    path = save(Image.fromarray(np.ones((2, 2), np.float32)), tmp_path / "a.tif")
    assert fault(path) == "FILE has floating-point pixels, whose range is unknown. Save it with 8 or 16 bits."
    path = save(Image.fromarray(np.full((2, 2), 70000, np.int32)), tmp_path / "b.tif")
    assert fault(path) == "FILE has 32-bit pixels, whose range is unknown. Save it with 8 or 16 bits."


def test_written_png_reads_back(tmp_path, noise):
    path = tmp_path / "new" / "folder" / "a.png"
    write_picture(Picture(noise), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    np.testing.assert_array_equal(read_rgb(path), noise)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, noise, monkeypatch):
    path = tmp_path / "a.png"
    write_picture(Picture(noise), path)
    before = path.read_bytes()

    def disk_full(self, file, **options):
        with open(file, "wb") as stream:
            stream.write(b"half an image")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", disk_full)
    with pytest.raises(InputError) as caught:
        write_picture(Picture(noise[:2]), path)
    assert str(caught.value) == f"{path} cannot be written (No space left on device). Choose another output."
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_write_refuses_other_names_and_arrays(tmp_path, noise):
    with pytest.raises(
        InputError, match=r"a\.bmp: images are written as \.png, \.jpg, \.jpeg, \.webp\. Name it .*a\.png\."
    ):
        write_picture(Picture(noise), tmp_path / "a.bmp")
    with pytest.raises(TypeError, match="float64"):
        write_picture(Picture(noise / 255), tmp_path / "a.png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_picture(Picture(noise), tmp_path / "file" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_tensor_has_range_order_and_values():
    tensor = to_tensor(np.array([[[0, 51, 255], [255, 0, 0]]], np.uint8))
    assert tensor.dtype == torch.float32 and tensor.shape == (1, 3, 1, 2)
    torch.testing.assert_close(tensor, torch.tensor([[[[-1.0, 1.0]], [[-0.6, -1.0]], [[1.0, -1.0]]]]))


def test_all_levels_survive_the_round_trip():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    np.testing.assert_array_equal(to_uint8(to_tensor(image)), image)


def test_to_uint8_rounds_and_clamps():
    levels = torch.tensor([-1.4, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.0, 3.0])
    assert to_uint8(levels.expand(3, 1, 6))[0, :, 1].tolist() == [0, 0, 0, 1, 255, 255]
    assert to_uint8(levels.bfloat16().expand(1, 3, 1, 6)).shape == (1, 6, 3)


def test_tensor_functions_refuse_other_shapes():
    with pytest.raises(TypeError, match=r"\(2, 3, 4, 4\)"):
        to_uint8(torch.zeros(2, 3, 4, 4))
    with pytest.raises(TypeError, match=r"\(4, 4\)"):
        to_tensor(np.zeros((4, 4), np.uint8))
