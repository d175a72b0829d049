"""Whole photographs: faces are put back where they were, and nothing else changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage import data
from support.faces import DEMO, Identity, group_photo, inside

from glean_ext.errors import InputError
from glean_ext.faces import photo_restorer as photo_module
from glean_ext.faces.alignment import align, from_crop, inverse, transform
from glean_ext.faces.colour_matching import match_colours
from glean_ext.faces.face_mask import face_mask
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.imresize import imresize


class Tinted(Identity):
    """Makes everything darker, redder and of less contrast."""

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        return np.clip(super().restore(rgb) * 0.7 + [20, -20, -30], 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def three(portrait) -> np.ndarray:
    """(256, 768, 3) with three faces."""
    return np.hstack([portrait, portrait[:, ::-1], portrait])


def psnr(image: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    error = np.mean((image.astype(float) - other)[where] ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


# --- an identity network gives the photograph back ---


@pytest.mark.parametrize(("name", "scale"), [("astronaut", 1), ("astronaut", 2), ("group", 2)])
def test_identity_gives_the_photo_back(finder, name, scale):
    """The faces' crops are 175 to 312 pixels wide: 512 loses nothing of them, as 64 or 128 would."""
    photo = data.astronaut() if name == "astronaut" else group_photo()
    result = PhotoRestorer(Identity(512, scale), finder=finder).restore(photo)
    assert len(result.faces) == {"astronaut": 1, "group": 6}[name]
    faces = inside(result, photo.shape)
    assert 0.03 < faces.mean() < 0.2
    assert psnr(result.image, photo, faces) >= 41
    assert psnr(result.image, photo, ~faces) >= 55
    far = ~inside(result, photo.shape, grow=0.05)
    np.testing.assert_array_equal(result.image[far], photo[far])


def test_a_shift_by_two_pixels_would_be_seen(finder, portrait):
    class Shifted(Identity):
        def restore(self, rgb: np.ndarray) -> np.ndarray:
            return np.roll(rgb, 6, axis=1)  # of 512 that stand for 175

    result = PhotoRestorer(Shifted(512, 1), finder=finder).restore(portrait)
    assert psnr(result.image, portrait, inside(result, portrait.shape)) < 32


def test_identity_in_a_larger_photo(finder, portrait):
    result = PhotoRestorer(Identity(256, 4), outscale=2.5, finder=finder).restore(portrait)
    expected = imresize(portrait, size=(640, 640))
    assert result.image.shape == expected.shape
    faces = cv2.resize(inside(result, portrait.shape).astype(np.uint8), (640, 640)) > 0
    assert psnr(result.image, expected, faces) >= 38
    far = cv2.resize(inside(result, portrait.shape, grow=0.06).astype(np.uint8), (640, 640)) == 0
    np.testing.assert_array_equal(result.image[far], expected[far])


def test_size_of_the_result(finder, portrait):
    def size(outscale):
        return PhotoRestorer(Identity(64, 3), outscale, finder=finder).restore(portrait[:, :251]).image.shape[:2]

    assert size(1) == (256, 251)
    assert size("model") == (768, 753)
    assert size(0.5) == (128, 126)


# --- options ---


def test_16_bits_are_8_bits_in_more_steps(finder, portrait):
    class Darker(Identity):
        def restore(self, rgb: np.ndarray) -> np.ndarray:
            return (super().restore(rgb) * 0.8).astype(rgb.dtype)

    restorer = PhotoRestorer(Darker(128, 2), outscale=1.5, finder=finder)
    coarse, fine = (restorer.restore(image).image for image in (portrait, portrait.astype(np.uint16) * 257))
    assert coarse.dtype == np.uint8 and fine.dtype == np.uint16 and fine.shape == coarse.shape == (384, 384, 3)
    difference = np.abs(fine / 257 - coarse)
    assert difference.max() < 3 and difference.mean() < 0.4 and len(np.unique(fine)) > 10_000


def test_more_faces_than_allowed(finder, three):
    with pytest.raises(InputError, match=r"^a\.png has 3 faces, more than 2\. Raise min_face, which"):
        PhotoRestorer(Identity(64, 2), max_faces=2, finder=finder).restore(three, "a.png")
    assert len(PhotoRestorer(Identity(64, 2), max_faces=3, finder=finder).restore(three).faces) == 3
    centre = PhotoRestorer(Identity(64, 2), max_faces=1, only_center_face=True, finder=finder)
    assert len(centre.restore(three).faces) == 1


def test_fidelity_blends(finder, portrait):
    def restored(fidelity):
        return PhotoRestorer(Tinted(64, 2), fidelity=fidelity, finder=finder).restore(portrait).image.astype(int)

    full, half = restored(0), restored(0.5)
    np.testing.assert_array_equal(restored(1), portrait)
    assert np.abs(full - portrait).max() > 20
    assert np.abs(half - (full + portrait) / 2).max() <= 1


def test_colours_are_matched(finder, portrait):
    def difference(match_colours):
        restorer = PhotoRestorer(Tinted(64, 2), match_colours=match_colours, finder=finder)
        result = restorer.restore(portrait)
        faces = inside(result, portrait.shape)
        return np.abs(result.image[faces].mean(axis=0) - portrait[faces].mean(axis=0))

    assert difference(True).max() < 2
    assert difference(False).max() > 30


def test_colour_matching_worked_by_hand():
    """Halves of 40 and 80 get mean and deviation of halves of 100 and 160: gain 1.5, shift 130 - 1.5 * 60."""
    halves = np.repeat([0, 1], 8)[None, :, None] * np.ones((16, 1, 3), int)
    restored, crop = (40 + 40 * halves).astype(np.uint8), (100 + 60 * halves).astype(np.uint8)
    np.testing.assert_array_equal(match_colours(restored, crop, np.ones((16, 16), np.float32)), crop)
    flat = np.full((16, 16, 3), 50, np.uint8)  # no contrast to be scaled
    np.testing.assert_array_equal(match_colours(flat, crop, np.ones((16, 16), np.float32)), np.full_like(flat, 130))
    np.testing.assert_array_equal(match_colours(flat, crop, np.zeros((16, 16), np.float32)), flat)


def test_only_the_face_at_the_centre(finder, three):
    result = PhotoRestorer(Identity(64, 2), only_center_face=True, finder=finder).restore(three)
    (one,) = result.faces
    assert one.face.box[0] > 256 and one.face.box[2] < 512
    assert (result.image[:, 256:512] != three[:, 256:512]).any()
    np.testing.assert_array_equal(result.image[:, :256], three[:, :256])


def test_min_face(finder, portrait):
    result = PhotoRestorer(Identity(64, 2), min_face=110, finder=finder).restore(portrait)
    assert result.faces == ()
    np.testing.assert_array_equal(result.image, portrait)


def test_saved_faces(finder, portrait):
    network = Identity(64, 4)
    kept = PhotoRestorer(network, save_faces=True, match_colours=False, finder=finder).restore(portrait).faces[0]
    np.testing.assert_array_equal(kept.crop, align(portrait, kept.face.quad, 64))
    np.testing.assert_array_equal(kept.crop, network.inputs[0])
    np.testing.assert_array_equal(kept.restored, imresize(kept.crop, scale=4))
    eyes = transform(inverse(from_crop(kept.face.quad, 64)), kept.face.landmarks[:2])
    assert abs(eyes[0, 1] - eyes[1, 1]) < 2  # upright
    not_kept = PhotoRestorer(network, finder=finder).restore(portrait).faces[0]
    assert not_kept.crop is None and not_kept.restored is None


def test_batches_and_progress(finder, three):
    sizes, seen = [], []

    def restore_batch(crops):
        sizes.append(len(crops))
        return [imresize(crop, scale=2) for crop in crops]

    network = Identity(64, 2)
    restorer = PhotoRestorer(network, batch=2, restore_batch=restore_batch, finder=finder)
    result = restorer.restore(three, progress=lambda done, total: seen.append((done, total)))
    assert sizes == [2, 1]
    assert seen == [(2, 3), (3, 3)]
    assert network.inputs == []
    np.testing.assert_array_equal(result.image, PhotoRestorer(network, finder=finder).restore(three).image)
    assert len(network.inputs) == 3


def test_background(finder, portrait):
    def twice_and_darker(rgb):
        return imresize(rgb // 2, scale=2)

    result = PhotoRestorer(Identity(64, 2), 2, background=twice_and_darker, finder=finder).restore(portrait)
    np.testing.assert_array_equal(result.image[400:], twice_and_darker(portrait)[400:])
    smaller = PhotoRestorer(Identity(64, 2), background=twice_and_darker, finder=finder).restore(portrait)
    assert smaller.image.shape == portrait.shape
    with pytest.raises(TypeError, match=r"background must return .* but made \(256, 256\) uint8"):
        PhotoRestorer(Identity(64, 2), background=lambda rgb: rgb[..., 0], finder=finder).restore(portrait)


def test_aligned_faces_are_not_searched(monkeypatch, portrait):
    monkeypatch.setattr(photo_module, "FaceFinder", None)
    network = Tinted(64, 4)
    face = portrait[60:124, 90:154]
    result = PhotoRestorer(network, aligned=True).restore(face)
    np.testing.assert_array_equal(result.image, network.restore(face))
    assert result.faces == () and result.notice is None
    kept = PhotoRestorer(network, aligned=True, fidelity=1).restore(face)
    np.testing.assert_array_equal(kept.image, imresize(face, scale=4))


# --- no face, bad input ---


def test_no_face(finder):
    photo = data.coffee()[:120, :160]
    network = Tinted(64, 2, any_size=True)
    kept = PhotoRestorer(network, outscale=2, finder=finder).restore(photo, "cup.png")
    np.testing.assert_array_equal(kept.image, imresize(photo, scale=2))
    assert kept.notice == "cup.png: no face was found; nothing was restored."
    assert kept.faces == () and network.inputs == []
    whole = PhotoRestorer(network, outscale=2, when_no_face="whole", finder=finder).restore(photo, "cup.png")
    np.testing.assert_array_equal(whole.image, network.restore(photo))
    assert whole.notice == "cup.png: no face was found; it was restored as a whole."
    with pytest.raises(
        InputError, match=r"^cup.png: no face was found\. Lower min_face if faces are small; an aligned"
    ):
        PhotoRestorer(network, when_no_face="error", finder=finder).restore(photo, "cup.png")


def test_tiny_images_have_no_face(finder):
    result = PhotoRestorer(Identity(64, 2), outscale=3, finder=finder).restore(np.full((2, 1, 3), 9, np.uint8))
    np.testing.assert_array_equal(result.image, np.full((6, 3, 3), 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fidelity": 1.5}, "fidelity is 1.5, but it must be between 0 (restores) and 1 (keeps the input)."),
        ({"outscale": 0}, "outscale is 0, but it must be a positive number, 'model' or 'auto'."),
        ({"outscale": "2"}, "outscale is '2', but it must be a positive number, 'model' or 'auto'."),
        ({"when_no_face": "skip"}, "when_no_face is 'skip', but it must be one of keep, whole, error."),
        ({"min_face": 0}, "min_face is 0, but it is the side of a face in pixels. Give a positive number."),
        ({"batch": 0}, "batch is 0, but it must be at least 1."),
        ({"face_size": 100}, "face_size is 100, but the model takes 64x64 only. Leave face_size out."),
    ],
)
def test_bad_arguments_are_reported(finder, arguments, message):
    with pytest.raises(InputError) as error:
        PhotoRestorer(Identity(64, 2), finder=finder, **arguments)
    assert str(error.value) == message


def test_models_of_oblong_images_are_refused(finder):
    network = Identity(64, 2)
    network.takes = SizeRequirements((48, 64), 2, any_size=False)
    with pytest.raises(InputError, match=r"^Aligned faces are square, but the model takes 64x48 only\. Use a model of"):
        PhotoRestorer(network, finder=finder)


def test_face_size_of_a_model_of_any_size(finder, portrait):
    network = Identity(64, 2, any_size=True)
    PhotoRestorer(network, finder=finder).restore(portrait)
    PhotoRestorer(network, face_size=100, finder=finder).restore(portrait)
    assert [crop.shape for crop in network.inputs] == [(64, 64, 3), (100, 100, 3)]


def test_bad_images_are_reported(finder, portrait):
    restorer = PhotoRestorer(Identity(64, 2), finder=finder)
    for bad in portrait[..., 0], portrait.astype(float), portrait[:0]:
        with pytest.raises(TypeError, match=r"restore takes \(h, w, 3\) uint8 or uint16 RGB, but got"):
            restorer.restore(bad)
    with pytest.raises(InputError, match=r"^a.png: with outscale 99 the result would have 25344x25344 pixels, but"):
        PhotoRestorer(Identity(64, 2), 99, finder=finder).restore(portrait, "a.png")
    with pytest.raises(InputError, match="result would have 0x0 pixels"):
        PhotoRestorer(Identity(64, 2), 0.001, finder=finder).restore(portrait)


# --- parts ---


def test_mask_has_the_shape_of_the_face(finder, portrait):
    (face,) = finder.find(portrait)
    mask = face_mask(face)
    outline = transform(inverse(from_crop(face.quad, 256)), face.oval).astype(np.float32)
    assert mask.shape == (256, 256) and mask.dtype == np.float32
    assert mask.sum() == pytest.approx(cv2.contourArea(outline), rel=0.03)  # half of the soft edge is outside
    assert (mask.min(), mask.max()) == (0, 1)
    assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
    assert np.abs(np.diff(mask, axis=0)).max() < 0.13  # 1.5 / (0.06 * 256) at the steepest
    x, y = np.round(outline.mean(axis=0)).astype(int)
    assert mask[y, x] == 1


# --- the real thing ---


def test_shipped_model_changes_the_face_alone(finder, portrait):
    restorer = ImageRestorer(*DEMO, device="cpu")
    result = PhotoRestorer(restorer, save_faces=True, finder=finder).restore(portrait)
    (one,) = result.faces
    assert one.crop is not None and one.crop.shape == (8, 8, 3)
    assert one.restored is not None and one.restored.shape == (64, 64, 3)
    far = ~inside(result, portrait.shape, grow=0.05)
    np.testing.assert_array_equal(result.image[far], portrait[far])
    faces = inside(result, portrait.shape)
    assert np.abs(result.image[faces].astype(int) - portrait[faces]).mean() > 5
    assert np.abs(result.image[faces].mean(axis=0) - portrait[faces].mean(axis=0)).max() < 3  # colours matched


@pytest.mark.slow
def test_two_hundred_faces(finder):
    """Real faces of 25x25 pixels, three times enlarged, and mirrored for the second hundred."""
    lfw = data.lfw_subset()[:100]
    photo = np.full((14 * 130, 15 * 130), 120, np.float32)
    for i, face in enumerate([*lfw, *lfw[:, :, ::-1]]):
        top, left = i // 15 * 130 + 27, i % 15 * 130 + 27
        photo[top : top + 75, left : left + 75] = cv2.resize(face * 255, None, fx=3, fy=3)
    rgb = np.repeat(np.clip(photo, 0, 255).astype(np.uint8)[..., None], 3, axis=-1)
    network = Identity(128, 4)
    result = PhotoRestorer(network, finder=finder).restore(rgb)
    assert 190 <= len(result.faces) == len(network.inputs) <= 200
    assert psnr(result.image, rgb, inside(result, rgb.shape)) > 38


def test_what_finds_the_faces_is_logged(finder, caplog):
    caplog.set_level("INFO", "glean_ext")
    PhotoRestorer(Identity(64, 2), aligned=True)
    assert caplog.messages == []
    PhotoRestorer(Identity(64, 2), finder=finder)
    assert caplog.messages == [finder.about]
    landmarks = {"mediapipe": 478, "LiteRT": 468}[finder.networks.name]
    assert finder.about == f"Faces are found by {finder.networks.name}, with {landmarks} landmarks each."
