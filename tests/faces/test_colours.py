"""Restored photographs keep their colours: gray stays gray, toned stays toned, and no colour grows without a bound."""

from __future__ import annotations

import io
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from support.faces import DEMO, Identity, inside
from support.networks import randomize

from glean_ext.faces.colour_matching import TO_YCBCR, Tone, is_gray, match_colours, to_gray
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks import GLEANStyleGANv2
from glean_ext.utils.array_conversion import from_tensor, to_tensor
from glean_ext.utils.imresize import imresize

SEPIA = np.array([1.06, 0.98, 0.8])  # R, G and B of a tone, over luminance
WHOLE = np.ones((16, 16), np.float32)


class Tinting(Identity):
    """Adds coloured patches with a deviation of 25 levels, and a cast."""

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        image, level = super().restore(rgb).astype(float), np.iinfo(rgb.dtype).max / 255
        patches = imresize(np.random.default_rng(0).normal(0, 25, (9, 9, 3)), size=image.shape[:2])
        cast = np.array([20, -10, -15])
        return np.clip(image + level * (patches + cast), 0, 255 * level).round().astype(rgb.dtype)


class FFHQShape:
    """A randomised GLEAN of 64 -> 1024 with a few channels."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        narrow = {"rrdb_channels": 8, "num_rrdbs": 1, "style_channels": 16, "num_mlps": 2}
        self.net = randomize(GLEANStyleGANv2(64, 1024, channel_multiplier=0.125, max_channels=16, **narrow)).eval()
        self.takes = self.net.size_requirements

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            made = self.net(to_tensor(rgb))
        made = made / made.abs().amax(dim=(2, 3), keepdim=True)  # each channel has its own range: strong tints
        return from_tensor(made, rgb.dtype)


@pytest.fixture(scope="module")
def gray(portrait) -> np.ndarray:
    return to_gray(portrait)


def deepened(image: np.ndarray) -> np.ndarray:
    """The same picture in 16 bits, with luminances between those of 8 bits."""
    noise = np.random.default_rng(0).integers(-128, 129, image.shape[:2])[..., None]
    return (image.astype(int) * 257 + noise).clip(0, 65535).astype(np.uint16)


def ycbcr(image: np.ndarray) -> np.ndarray:
    return image @ TO_YCBCR.T / (np.iinfo(image.dtype).max / 255)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.array(Image.open(stream))


def toned(gray: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(gray * SEPIA), 0, 255).astype(np.uint8)


# ---------------------------------------------------------------- gray


@cache
def network(name: str) -> object:
    return {
        "tinting": lambda: Tinting(64, 4),
        "demo": lambda: ImageRestorer(*DEMO, device="cpu"),
        "ffhq": FFHQShape,
    }[name]()


@pytest.mark.parametrize("fidelity", [0, 0.5])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["tinting", "demo", "ffhq"])
def test_gray_stays_gray_in_every_pixel(finder, gray, name, bits, fidelity):
    photo = gray if bits == 8 else deepened(gray)
    restorer = PhotoRestorer(network(name), fidelity=fidelity, save_faces=True, finder=finder)
    result = restorer.restore(photo)
    (face,) = result.faces
    assert all(is_gray(image) for image in (result.image, face.crop, face.restored))
    changed = (result.image != photo).any(axis=2)
    assert 0.02 < changed.mean() < 0.3 and not changed[:10].any()  # the head is restored, and nothing else


@pytest.mark.parametrize("outscale", [0.7, 1, 2.5])
@pytest.mark.parametrize("bits", [8, 16])
def test_gray_stays_gray_at_any_size_and_behind_any_background(finder, gray, outscale, bits):
    photo = gray if bits == 8 else deepened(gray)
    tinting = Tinting(64, 2, any_size=True)
    for background in None, tinting.restore:
        result = PhotoRestorer(tinting, outscale, background=background, finder=finder).restore(photo)
        assert len(result.faces) == 1 and is_gray(result.image)


def test_gray_without_faces_and_of_aligned_faces(finder, gray):
    tinting = Tinting(64, 2, any_size=True)
    wall = np.ascontiguousarray(gray[:60, :60])
    whole = PhotoRestorer(tinting, when_no_face="whole", fidelity=0.3, finder=finder).restore(wall)
    assert whole.notice is not None and is_gray(whole.image)
    for fidelity in 0, 0.5:
        assert is_gray(PhotoRestorer(tinting, aligned=True, fidelity=fidelity).restore(gray[60:124, 90:154]).image)


def test_a_gray_face_in_a_photo_with_another_colour_stays_gray(finder, gray):
    photo = gray.copy()
    photo[-20:, -60:] = 200, 30, 40  # a stamp
    result = PhotoRestorer(Tinting(64, 4), finder=finder).restore(photo)
    assert is_gray(result.image[:-20]) and (result.image[-20:, -60:] == [200, 30, 40]).all()


def test_colours_of_a_gray_photo_are_possible(finder, gray):
    result = PhotoRestorer(Tinting(64, 4), match_colours=False, finder=finder).restore(gray)
    assert not is_gray(result.image)


def test_to_gray_worked_by_hand():
    for dtype, level in (np.uint8, 1), (np.uint16, 257):
        image = np.array([[[200, 100, 50], [7, 7, 7], [255, 255, 255]]]) * level
        expected = np.round(np.array([0.299 * 200 + 0.587 * 100 + 0.114 * 50, 7, 255]) * level)
        made = to_gray(image.astype(dtype))[0]
        np.testing.assert_allclose(made, np.repeat(expected[:, None], 3, axis=1), atol=level // 257)
        assert is_gray(made[None])
    every = np.repeat(np.arange(65536, dtype=np.uint16).reshape(256, 256, 1), 3, axis=2)
    np.testing.assert_array_equal(to_gray(every), every)


# ---------------------------------------------------------------- toned


def tone_error(result: np.ndarray, photo: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Distance of the result's Cb and Cr from the sepia tone, in levels."""
    pixels = ycbcr(result)[where]
    expected = pixels[:, :1] * (TO_YCBCR @ (SEPIA / (TO_YCBCR[0] @ SEPIA)))[1:]
    return np.abs(pixels[:, 1:] - expected)


@pytest.mark.parametrize("fidelity", [0, 0.5])
@pytest.mark.parametrize("bits", [8, 16])
def test_sepia_keeps_its_tone(finder, gray, bits, fidelity):
    photo = toned((gray * 0.9).astype(np.uint8))  # nothing is clipped
    photo = photo if bits == 8 else photo.astype(np.uint16) * 257
    result = PhotoRestorer(Tinting(64, 4), fidelity=fidelity, finder=finder).restore(photo)
    faces = inside(result, photo.shape)
    assert tone_error(result.image, photo, faces).max() < 2
    assert np.abs(ycbcr(result.image)[faces].mean(axis=0) - ycbcr(photo)[faces].mean(axis=0)).max() < 2


@pytest.mark.parametrize("quality", [95, 75, 50])
def test_sepia_from_a_jpeg_file_keeps_its_tone(finder, gray, quality):
    photo = jpeg(toned((gray * 0.9).astype(np.uint8)), quality)
    result = PhotoRestorer(Tinting(64, 4), finder=finder).restore(photo)
    faces = inside(result, photo.shape)
    before, after = (tone_error(image, photo, faces) for image in (photo, result.image))
    assert after.max() < 5 and after.mean() < before.mean() + 0.5


def test_tone_of_a_background_network_and_of_whole_photos(finder, gray):
    tinting = Tinting(64, 2, any_size=True)
    photo = toned((gray * 0.9).astype(np.uint8))
    result = PhotoRestorer(tinting, background=tinting.restore, finder=finder).restore(photo)
    assert tone_error(result.image, photo, np.ones(photo.shape[:2], bool)).max() < 3
    wall = np.ascontiguousarray(photo[:60, :60])
    whole = PhotoRestorer(tinting, when_no_face="whole", finder=finder).restore(wall)
    assert tone_error(whole.image, wall, np.ones(wall.shape[:2], bool)).max() < 3


def test_curved_tones(portrait, gray):
    """A duotone from blue shadows over red to yellow lights: chroma bends with luminance."""
    ramp = [np.interp(np.arange(256), [0, 128, 255], values) for values in ([10, 200, 255], [0, 90, 250], [90, 60, 80])]
    duotone = np.rint(np.stack(ramp, axis=1)).astype(np.uint8)[gray[..., 0]]
    tone = Tone.of(duotone)
    assert tone is not None and not tone.gray
    noise = np.random.default_rng(0).normal(0, 15, duotone.shape)
    tinted = (duotone + noise - noise @ TO_YCBCR[0][:, None]).clip(0, 255).astype(np.uint8)  # the luminance stays
    error = np.abs(tone.apply(tinted).astype(int) - duotone)
    assert error.mean() < 1.5 and np.quantile(error, 0.95) < 6 < np.quantile(np.abs(tinted.astype(int) - duotone), 0.5)


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea"])
def test_colour_photographs_have_no_tone(name):
    photo = getattr(data, name)()
    assert Tone.of(photo) is None
    luminance = to_gray(photo).astype(float)
    assert Tone.of(np.rint(luminance + 0.3 * (photo - luminance)).astype(np.uint8)) is None  # faded
    tone = Tone.of(to_gray(photo))
    assert tone is not None and tone.gray
    assert Tone.of(jpeg(toned(to_gray(photo)), 75)) is not None


# ---------------------------------------------------------------- little and much colour


@pytest.mark.parametrize("saturation", [0.15, 0.3, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_as_much_colour_as_the_photo_has(finder, portrait, saturation, bits):
    luminance = to_gray(portrait).astype(float)
    photo = np.rint(luminance + saturation * (portrait - luminance)).clip(0, 255).astype(np.uint8)
    photo = photo if bits == 8 else photo.astype(np.uint16) * 257
    result = PhotoRestorer(Tinting(64, 4), finder=finder).restore(photo)
    faces = inside(result, photo.shape)
    before, after = ycbcr(photo)[faces], ycbcr(result.image)[faces]
    assert np.abs(after.mean(axis=0) - before.mean(axis=0)).max() < 1
    assert (after.std(axis=0)[1:] < 1.3 * before.std(axis=0)[1:] + 0.3).all()


def test_gains_are_bounded():
    """A nearly flat restoration of a crop with strong contrast and colours: the factor is 2, of rounding errors 1."""
    rows, columns = np.mgrid[:16, :16]
    signs = np.stack([(-1) ** rows, (-1) ** columns, (-1) ** (rows // 2)], axis=-1)  # Y, Cb and Cr are independent

    def image(amplitude, dtype):
        pixels = 128 + amplitude * signs @ np.linalg.inv(TO_YCBCR).T
        return np.rint(pixels * np.iinfo(dtype).max / 255).astype(dtype)

    for dtype, amplitude, gain in (np.uint8, 8, 2), (np.uint16, 8, 2), (np.uint16, 0.4, 1):
        matched = match_colours(image(amplitude, dtype), image(40, dtype), WHOLE)
        ratio = ycbcr(matched).std(axis=(0, 1)) / ycbcr(image(amplitude, dtype)).std(axis=(0, 1))
        np.testing.assert_allclose(ratio, gain, rtol=0.1)


@pytest.mark.parametrize("rest", [0, 10])
def test_chroma_follows_luminance_as_in_the_photo(rest):
    """Crop: luminance 100 +- 40 and Cb = luminance / 4 - 25. Restored: the same luminance, and Cb of the other sign.

    Cb also changes by ``rest`` from row to row, in both.
    """
    luminance = np.repeat([60.0, 140.0], 8)[None, :].repeat(16, 0)
    rows = np.where(np.arange(16) % 2, rest, -rest)[:, None]

    def image(slope):
        chroma = slope * (luminance - 100) + rows
        pixels = np.stack([luminance, chroma, np.zeros_like(chroma)], -1) @ np.linalg.inv(TO_YCBCR).T
        return np.rint(pixels * 257).astype(np.uint16)

    np.testing.assert_allclose(match_colours(image(-0.25), image(0.25), WHOLE), image(0.25), atol=150)  # of 65535


def test_the_mask_decides_what_is_compared():
    crop, restored = np.full((16, 16, 3), 60, np.uint8), np.full((16, 16, 3), 90, np.uint8)
    crop[:, 8:] = 200, 10, 10
    mask = WHOLE.copy()
    mask[:, 6:] = 0
    np.testing.assert_array_equal(match_colours(restored, crop, mask)[:, :4], 60)
    assert cv2.norm(match_colours(restored, crop, WHOLE), np.full_like(crop, 60), cv2.NORM_INF) > 20
