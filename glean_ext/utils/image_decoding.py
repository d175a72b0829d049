"""From an image that Pillow has opened to upright RGB pixels of 8 or 16 bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from glean_ext.errors import UnreadableImageError
from glean_ext.utils.array_conversion import ROWS
from glean_ext.utils.colour_profiles import convert_gray_to_srgb, convert_to_srgb, is_rgb_profile
from glean_ext.utils.image_metadata import orientation
from glean_ext.utils.picture import Picture
from glean_ext.utils.stderr_filter import CODECS, filter_stderr

# Pillow's names of pixel layouts in files.
LAYOUT_16_BITS = re.compile(r"(RGB[AaX]*|LA|CMYKX*);16")  # Pillow itself reduces these to 8 bits
LAYOUT_PREMULTIPLIED = re.compile("RGBa")
LAYOUT_WITHOUT_ALPHA = re.compile("RGBX+;")  # the fourth channel has no defined meaning
# Of TIFF: its tags, and the values of those that Pillow does not heed in 16-bit gray.
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2
CODESTREAM = b"\xff\x4f\xff\x51"  # how the image in a JPEG2000 file begins
MAX_BOXES = 1 << 16  # bytes before it that are looked through
UNUSED_PROFILE = "the colour profile, which is damaged or of other colours"
FLIPS_AND_ROTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF's orientation

Array = np.ndarray


def layout_of_16_bits(image: Image.Image) -> str | None:
    """Pillow's name of the layout where a file has 16-bit colours; None for others. Call it before loading."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in ("PNG", "TIFF"):
        return None
    layouts = (layout for tile in image.tile for layout in (tile.args if isinstance(tile.args, tuple) else [tile.args]))
    return next((str(layout) for layout in layouts if LAYOUT_16_BITS.match(str(layout))), None)


def reduced_depth(image: Image.Image) -> tuple[str, ...]:
    """The name of the bits of colours beyond 8 in PPM and JPEG2000, which Pillow drops; call it before loading."""
    if not isinstance(image, ImageFile.ImageFile) or image.mode not in ("RGB", "RGBA", "LA"):
        return ()
    maxima = [args[1] for codec, *_, args in image.tile if codec == "ppm" and isinstance(args, tuple)]
    bits = _bits_of_jpeg2000(image) if image.format == "JPEG2000" else max(maxima, default=0).bit_length()
    return (f"the {bits} bits of its colours",) if bits > 8 else ()


def _bits_of_jpeg2000(image: ImageFile.ImageFile) -> int:
    """Bits of the first component (ISO 15444-1, A.5.1); 8 where they are not found."""
    file = image.fp
    assert file is not None, "an image that is not loaded"
    position = file.tell()
    file.seek(0)
    head = file.read(MAX_BOXES)
    file.seek(position)
    start = head.find(CODESTREAM)
    at = start + 42  # after the markers, the sizes and the number of components
    return (head[at] & 127) + 1 if start >= 0 and at < len(head) else 8


def decode(image: Image.Image, name: str) -> Picture:
    """The pixels of an image, its transparency and its colour profile.

    Gray becomes RGB; palettes are looked up. Profiles of RGB colours stay with the pixels; pixels of other colours
    (CMYK, gray) are converted to sRGB by their profile, or as viewers do it without one.

    Args:
        image: 16-bit colours are reduced to 8 bits; 16-bit gray is not.
        name: The image's name in messages.

    Raises:
        UnreadableImageError: Pixels whose range is unknown (32 bits, float).
        Exception: Any error of Pillow's decoders.
    """
    icc, tags = _profile(image), getattr(image, "tag_v2", {})
    image.load()
    if image.mode in ("P", "PA") and image.palette is None:
        raise ValueError("its palette is missing")
    method = FLIPS_AND_ROTATIONS.get(orientation(image))
    if method is not None:
        image = image.transpose(method)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _decode_16_bit_gray(image, name, icc, tags)
    if image.mode == "F":
        raise UnreadableImageError(
            f"{name} has floating-point pixels, whose range is unknown. Save it with 8 or 16 bits."
        )
    if icc is not None and image.mode == "CMYK":
        rgb = convert_to_srgb(image, icc)
        return Picture(np.array(rgb or image.convert("RGB")), not_carried=() if rgb else (UNUSED_PROFILE,))
    if icc is not None and image.mode in ("L", "LA") and not is_rgb_profile(icc):
        return _convert_gray(image, icc)
    if image.has_transparency_data:
        rgba = np.array(image.convert("RGBA"))
        return _picture(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]), icc)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return _picture(np.array(rgb), None, None if image.mode == "LAB" else icc)


def _profile(image: Image.Image) -> bytes | None:
    icc = image.info.get("icc_profile")
    return icc if isinstance(icc, bytes) and icc else None


def _picture(pixels: Array, alpha: Array | None, icc: bytes | None, converted: bool = False) -> Picture:
    if alpha is not None and bool((alpha == np.iinfo(alpha.dtype).max).all()):
        alpha = None
    if icc is None or converted:
        return Picture(pixels, alpha)
    return Picture(pixels, alpha, icc) if is_rgb_profile(icc) else Picture(pixels, alpha, not_carried=(UNUSED_PROFILE,))


def _convert_gray(image: Image.Image, icc: bytes) -> Picture:
    """Modes L and LA, by a profile of gray."""
    alpha = None
    if image.has_transparency_data:
        image = image.convert("LA")
        alpha = np.array(image.getchannel("A"))
    gray = np.array(image.getchannel("L"))
    pixels = convert_gray_to_srgb(gray, icc)
    if pixels is not None:
        return _picture(pixels, alpha, icc, converted=True)
    return _picture(np.repeat(gray[..., None], 3, axis=2), alpha, icc)


def decode_16_bits(image: Image.Image, name: str, layout: str, content: Path | bytes) -> Picture:
    """As :func:`decode`, for colours of 16 bits, by OpenCV.

    Args:
        image: Pillow decodes it first, since Pillow refuses damaged files; it is closed then.
        name: The image's name in messages.
        layout: Of :func:`layout_of_16_bits`.
        content: The image file, or its bytes.

    Raises:
        UnreadableImageError: CMYK, or more than four channels.
        Exception: Any error of Pillow's and OpenCV's decoders.
    """
    import cv2

    icc = _profile(image)
    image.load()
    turn = orientation(image) if image.format == "PNG" else 1  # OpenCV applies the orientation of TIFF itself
    image.close()  # frees Pillow's pixels before OpenCV needs the memory
    encoded = np.fromfile(content, np.uint8) if isinstance(content, Path) else np.frombuffer(content, np.uint8)
    try:
        with filter_stderr(CODECS):
            decoded = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MemoryError if error.code == cv2.Error.StsNoMem else error from error
    if decoded is None or decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        raise UnreadableImageError(f"{name} has 16-bit colours in a way that is not read. Save it as PNG.")
    _swap_red_and_blue(decoded)  # from BGR
    upright = _upright(decoded, turn)
    pixels = np.ascontiguousarray(upright[..., :3])
    has_alpha = upright.shape[2] == 4 and not LAYOUT_WITHOUT_ALPHA.match(layout)
    alpha = np.ascontiguousarray(upright[..., 3]) if has_alpha else None
    if LAYOUT_PREMULTIPLIED.match(layout) and alpha is not None:
        _divide_by_alpha(pixels, alpha)
    return _picture(pixels, alpha, icc)


def _swap_red_and_blue(pixels: Array) -> None:
    """In place, and in blocks of rows to save memory, as below."""
    for top in range(0, len(pixels), ROWS):
        block = pixels[top : top + ROWS]
        block[..., [0, 2]] = block[..., [2, 0]]


def _divide_by_alpha(pixels: Array, alpha: Array) -> None:
    for top in range(0, len(pixels), ROWS):
        block, opacity = pixels[top : top + ROWS], alpha[top : top + ROWS]
        block[:] = np.rint(block * (65535 / np.maximum(opacity, 1)[..., None])).clip(0, 65535)


def _upright(pixels: Array, turn: int) -> Array:
    """Apply EXIF's orientation to (H, W, C): mirrored for 2, 4, 5 and 7, then rotated by quarters."""
    quarters = {3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}.get(turn, 0)
    mirrored = pixels[:, ::-1] if turn in (2, 4, 5, 7) else pixels
    return np.rot90(mirrored, quarters)


def _decode_16_bit_gray(image: Image.Image, name: str, icc: bytes | None, tags: Mapping[int, Any]) -> Picture:
    """Modes I and I;16; ``tags`` are those of a TIFF file."""
    gray, transparent = np.asarray(image), image.info.get("transparency")  # the latter is a gray level
    if tags.get(BITS) == (16,) and tags.get(SAMPLE_FORMAT) == (SIGNED,):
        raise UnreadableImageError(f"{name} has signed pixels, whose range is unknown. Save it with 8 or 16 bits.")
    if gray.dtype != np.uint16:
        if gray.min() < 0 or gray.max() > 65535:
            raise UnreadableImageError(f"{name} has 32-bit pixels, whose range is unknown. Save it with 8 or 16 bits.")
        gray = gray.astype(np.uint16)
    if tags.get(BITS) == (12,):
        gray = gray << 4 | gray >> 8
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        gray = 65535 - gray
    alpha = np.where(gray == transparent, 0, 65535).astype(np.uint16) if isinstance(transparent, int) else None
    pixels = None if icc is None or is_rgb_profile(icc) else convert_gray_to_srgb(gray, icc)
    if pixels is not None:
        return _picture(pixels, alpha, icc, converted=True)
    return _picture(np.repeat(gray[..., None], 3, axis=2), alpha, icc)
