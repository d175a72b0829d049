"""Hair and ears are restored with the face, the background and the neck are not, and no seam is seen."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.faces import Identity

from glean_ext.faces import photo_restorer
from glean_ext.faces.alignment import align, from_crop, inverse, transform
from glean_ext.faces.colour_matching import to_gray
from glean_ext.faces.detection import OVAL, Face
from glean_ext.faces.face_mask import MASK_SIZE, cover, face_mask, scaled_oval
from glean_ext.faces.head_mask import with_hair_and_ears
from glean_ext.faces.photo_restorer import PhotoRestorer

# (x, y) in the portrait.
HAIR, EARS = [(128, 45), (128, 65), (80, 80), (178, 80)], [(78, 120), (172, 126)]
BACKGROUND, NECK = [(60, 40), (200, 50), (56, 140), (200, 130)], [(110, 180), (150, 180)]


class Tinting(Identity):
    """Makes the right side warmer and the left one cooler, by up to 20 levels."""

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        large = super().restore(rgb).astype(float)
        ramp, top = np.linspace(-0.08, 0.08, large.shape[1])[:, None] * [1, 0, -1], np.iinfo(rgb.dtype).max
        return np.clip(large + ramp * top, 0, top).astype(rgb.dtype)


@pytest.fixture(scope="module")
def face(finder, portrait) -> Face:
    (found,) = finder.find(portrait)
    return found


def at(mask: np.ndarray, face: Face, points: list[tuple[int, int]]) -> np.ndarray:
    """The mask at points of the photograph."""
    x, y = transform(inverse(from_crop(face.quad, MASK_SIZE)), np.array(points, float)).astype(int).T
    return mask[y, x]


@pytest.mark.parametrize("colours", ["colour", "gray"])
def test_the_mask_has_hair_and_ears(face, portrait, colours):
    photo = portrait if colours == "colour" else to_gray(portrait)
    mask = with_hair_and_ears(face_mask(face), face, [face], photo)
    assert mask.dtype == np.float32 and (mask >= face_mask(face)).all()
    assert at(face_mask(face), face, HAIR).max() < 0.1  # the mesh has none
    assert at(mask, face, HAIR).min() > 0.8 and at(mask, face, EARS).min() > 0.5
    assert at(mask, face, BACKGROUND).max() < 0.02 and at(mask, face, NECK).max() < 0.1
    assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
    assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.16  # soft


def test_a_face_larger_than_its_crop_ends_softly_at_the_border(face, portrait):
    mesh, centre = face.mesh.copy(), face.oval.mean(axis=0)
    mesh[list(OVAL)] = centre + 3 * (face.oval - centre)
    large = replace(face, mesh=mesh)
    for mask in face_mask(large), with_hair_and_ears(face_mask(large), large, [large], portrait):
        assert mask.dtype == np.float32 and mask.max() == 1 and (mask > 0.5).mean() > 0.8
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any()
        assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.16


def painted(portrait: np.ndarray, face: Face, head: str, background: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The face on a plain background, bald or under a hat instead of its hair, and where its head is: (h, w) bool."""
    rng = np.random.default_rng(0)

    def area(polygon: np.ndarray) -> np.ndarray:
        filled = np.zeros(portrait.shape[:2], np.uint8)
        cv2.fillPoly(filled, [np.round(polygon).astype(np.int32)], (1,))
        return filled > 0

    def colour(values: tuple) -> np.ndarray:
        return np.clip(rng.normal(values, 4, portrait.shape), 0, 255)

    oval, forehead = area(face.oval), np.quantile(face.oval[:, 1], 0.12)
    photo, rows = colour(background), np.arange(len(portrait))[:, None]
    photo[(rows > forehead + 60) & ~area(scaled_oval(face, 1.6, 2, 1))] = 90  # shoulders
    if head == "bald":
        top, tone = area(scaled_oval(face, 1.12, 1.35, 1)), colour(portrait[oval].mean(axis=0))
    else:
        top, tone = area(scaled_oval(face, 1.3, 1.7, 0)) & (rows < forehead + 6), colour((150, 30, 35))
    photo[top] = tone[top]
    shown = oval & ~top if head == "hat" else oval
    photo[shown] = portrait[shown]
    return cv2.GaussianBlur(photo, (0, 0), 0.8).astype(np.uint8), top | oval


@pytest.mark.parametrize("background", [(70, 100, 150), (200, 200, 200), (35, 30, 30)], ids=["blue", "white", "dark"])
@pytest.mark.parametrize("head", ["bald", "hat"])
def test_bald_heads_and_hats(face, portrait, head, background):
    photo, truth = painted(portrait, face, head, background)
    mask = with_hair_and_ears(face_mask(face), face, [face], photo)
    truth = align(np.repeat(truth[..., None] * np.uint8(255), 3, axis=2), face.quad, MASK_SIZE)[..., 0] > 127
    above_chin = np.arange(MASK_SIZE)[:, None] < np.nonzero(cover(face, face.oval))[0].max()
    found, truth = (mask > 0.5) & above_chin, truth & above_chin
    assert (found & truth).sum() > 0.9 * (found | truth).sum()
    beyond = truth & (face_mask(face) == 0)
    assert mask[beyond].mean() > 0.7 and (mask * ~truth * above_chin).sum() < 0.1 * truth.sum()


def test_16_bits_have_the_same_mask(face, portrait):
    coarse, fine = (with_hair_and_ears(face_mask(face), face, [face], p) for p in (portrait, portrait * np.uint16(257)))
    np.testing.assert_array_equal(fine, coarse)


def test_without_a_background_the_outline_of_the_head_decides(face, portrait):
    """A photograph of one colour says nothing: the mask is the head of landmarks, softly."""
    mask = with_hair_and_ears(face_mask(face), face, [face], np.full_like(portrait, 120))
    assert at(mask, face, HAIR).min() > 0.5 and at(mask, face, BACKGROUND).max() < 0.02


def test_the_head_of_another_face_is_left_to_it(face, portrait):
    other = replace(face, mesh=face.mesh + np.array([75, 0]))
    alone, beside = (with_hair_and_ears(face_mask(face), face, faces, portrait) for faces in ([face], [face, other]))
    right, left = [(175, 80)], [(80, 80)]
    assert at(alone, face, right) > 0.8 and at(beside, face, right) == at(face_mask(face), face, right)
    assert at(beside, face, left) == pytest.approx(at(alone, face, left), abs=1e-3)


def test_what_has_the_head_s_colours_may_be_smoothed(face, portrait):
    """With nothing in place of it, the mask is that of the face."""
    seen = []
    mask = with_hair_and_ears(
        face_mask(face), face, [face], portrait, lambda head: seen.append(head) or np.zeros_like(head)
    )
    np.testing.assert_array_equal(mask, face_mask(face))
    assert at(seen[0], face, HAIR).min() > 0.8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_colour_shift_at_the_seam(finder, face, portrait, dtype, monkeypatch):
    """Local colours at the edge of the hair are those of the photograph; without the step they are not."""
    photo = portrait if dtype == np.uint8 else portrait * np.uint16(257)
    level = np.iinfo(dtype).max / 255
    seam = np.zeros(portrait.shape[:2], bool)
    seam[45:100, 70:85] = seam[45:100, 170:185] = True  # in the hair

    def shift() -> float:
        restored = PhotoRestorer(Tinting(64, 2), finder=finder).restore(photo).image
        difference = cv2.GaussianBlur((restored.astype(np.float32) - photo) / level, (0, 0), 4)
        return float(np.abs(difference[seam]).mean())

    assert shift() < 1.5
    monkeypatch.setattr(photo_restorer, "with_local_colours", lambda restored, crop, mask: restored)
    assert shift() > 4
