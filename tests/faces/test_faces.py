"""Faces in photographs: where they are found, where not, and the alignment, whose numbers are worked out by hand."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage import data
from support.faces import GROUP, group_photo, head_map

from glean_ext.faces.alignment import align, ffhq_quad, from_crop, inverse, side, transform, warp
from glean_ext.faces.detection import FaceFinder, overlap, suppress, unturned, views
from glean_ext.faces.face_networks import LiteRTNetworks, MediapipeNetworks, RawDetection
from glean_ext.utils.imresize import imresize

# Read off the enlarged photograph by eye, to about 2 pixels: eyes, nose tip, corners of the mouth.
ASTRONAUT = np.array([[203, 101], [246.5, 103.5], [223.5, 127], [203, 140], [244.5, 141]])


@pytest.fixture(scope="module", params=["mediapipe", "LiteRT"])
def finder(request) -> FaceFinder:
    """With each of what may run the networks; values and bounds are the same for both."""
    if request.param == "LiteRT":
        return FaceFinder(LiteRTNetworks())
    if not hasattr(pytest.importorskip("mediapipe"), "solutions"):
        pytest.skip("this mediapipe has no solutions")
    return FaceFinder(MediapipeNetworks())


# --- alignment ---


def test_ffhq_quad_of_an_upright_face_worked_by_hand():
    # Eyes 40 apart, mouth 50 below: 1.8 * 50 = 90 is more than 2 * 40. Centre: (60, 50) + (0, 5).
    landmarks = [[40, 50], [80, 50], [60, 75], [45, 100], [75, 100]]
    np.testing.assert_allclose(ffhq_quad(landmarks), [[-30, -35], [-30, 145], [150, 145], [150, -35]])
    # Mouth 40 below: 1.8 * 40 = 72 is less than 80. Centre: (60, 50) + (0, 4).
    landmarks = [[40, 50], [80, 50], [0, 0], [45, 90], [75, 90]]
    np.testing.assert_allclose(ffhq_quad(landmarks), [[-20, -26], [-20, 134], [140, 134], [140, -26]])


def test_ffhq_quad_of_a_skew_face_worked_by_hand():
    # Eyes (0, 0) and (30, 0), mouth (25, 40): eye_to_mouth = (10, 40), its turn (-40, 10), x along (70, -10).
    # Half side: max(60, 1.8 * sqrt(1700)) = 74.2159; x = (70, -10) / sqrt(5000) * 74.2159. Centre: (15, 0) + (1, 4).
    quad = ffhq_quad([[0, 0], [30, 0], [9, 9], [20, 40], [30, 40]])
    x, y = np.array([73.4700, -10.4957]), np.array([10.4957, 73.4700])
    centre = np.array([16, 4])
    np.testing.assert_allclose(quad, [centre - x - y, centre - x + y, centre + x + y, centre + x - y], atol=1e-3)


def test_ffhq_quad_moves_with_the_face():
    matrix = head_map(31, 47, 1.7, 33)
    expected = transform(matrix, ffhq_quad(ASTRONAUT))
    np.testing.assert_allclose(ffhq_quad(transform(matrix, ASTRONAUT)), expected)
    assert side(expected) == pytest.approx(1.7 * side(ffhq_quad(ASTRONAUT)))


def test_crop_maps():
    quad = np.array([[10, 20], [10, 60], [50, 60], [50, 20]])
    points = np.array([[0, 0], [8, 0], [0, 8], [4, 2]])
    there = transform(from_crop(quad, 8), points)
    np.testing.assert_allclose(there, [[10, 20], [50, 20], [10, 60], [30, 30]])
    np.testing.assert_allclose(transform(inverse(from_crop(quad, 8)), there), points)


def square(left: float, top: float, length: float) -> np.ndarray:
    return np.array([[left, top], [left, top + length], [left + length, top + length], [left + length, top]])


def test_align_of_whole_pixels_copies_them():
    photo = data.astronaut()
    np.testing.assert_array_equal(align(photo, square(40, 30, 64), 64), photo[30:94, 40:104])
    lying = square(40, 30, 64)[[1, 2, 3, 0]]  # its top is the photograph's left
    np.testing.assert_array_equal(align(photo, lying, 64), np.rot90(photo[30:94, 40:104], -1))


def test_align_shrinks_as_the_training_images_were():
    photo = data.astronaut()
    expected = imresize(photo[30:286, 40:296], size=(64, 64))
    np.testing.assert_array_equal(align(photo, square(40, 30, 256), 64), expected)


@pytest.mark.parametrize("offset", [(-20, -30), (490, 470), (-600, 5)])
def test_align_mirrors_at_the_border(offset):
    photo = data.astronaut()
    padded = np.pad(photo, ((700, 700), (700, 700), (0, 0)), mode="reflect")
    left, top = offset
    expected = padded[top + 700 : top + 764, left + 700 : left + 764]
    np.testing.assert_array_equal(align(photo, square(left, top, 64), 64), expected)


def test_warp_takes_float_and_one_channel():
    image = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
    np.testing.assert_array_equal(warp(image, np.array([[1.0, 0, 1], [0, 1, 2]]), (2, 3)), image[2:4, 1:4])


# --- detection ---


def test_astronaut(finder):
    (face,) = finder.find(data.astronaut())
    assert np.abs(face.landmarks - ASTRONAUT).max() < 3
    assert face.mesh.shape == (478 if finder.networks.name == "mediapipe" else 468, 2)
    assert face.score > 0.8
    np.testing.assert_allclose(face.box, [179, 71, 272, 177], atol=3)
    outline = face.oval.astype(np.float32)
    assert cv2.contourArea(outline) == pytest.approx(np.pi / 4 * 93 * 106, rel=0.07)  # about the ellipse in the box
    assert all(cv2.pointPolygonTest(outline, point, False) > 0 for point in face.landmarks.tolist())


def test_group_with_turned_scaled_and_cut_faces(finder):
    (original,) = finder.find(data.astronaut())
    faces = finder.find(group_photo())
    assert len(faces) == len(GROUP)
    assert [face.box[0] for face in faces] == sorted(face.box[0] for face in faces)
    for spot in GROUP:
        expected = transform(head_map(*spot), original.landmarks)
        errors = [np.hypot(*(face.landmarks - expected).T).mean() / side(face.quad) for face in faces]
        assert min(errors) < 0.015, spot


def test_landmarks_follow_a_turned_gray_photo(finder):
    photo = np.repeat(data.astronaut()[:256, 100:356].mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    (upright,) = finder.find(photo)
    for turns in 1, 2, 3:
        (turned,) = finder.find(np.ascontiguousarray(np.rot90(photo, turns)))
        back = transform(unturned(turns, 256, 256), turned.landmarks / 256)
        assert np.abs(back - upright.landmarks).max() < 2


@pytest.mark.parametrize("name", ["coffee", "cell", "motorcycle", "moon"])
def test_no_face_where_there_is_none(finder, name):
    """The detector alone takes the cell (0.78) and the motorcycle's lamp (0.82) for faces."""
    photo = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    photo = photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=-1)
    assert finder.find(photo) == []


def test_what_turns_with_its_crop_is_no_face():
    """The mesh network fits a mesh to any round object, upright in the crop that it gets, however that is turned."""
    upright = FaceFinder(LiteRTNetworks()).find(data.astronaut()[:256, 100:356], min_face=64)[0].mesh
    low, high = upright.min(axis=0), upright.max(axis=0)

    class AnyObject:
        name, landmarks = "none", 468

        def detect(self, image: np.ndarray) -> list[RawDetection]:
            eyes = np.array([[0.4, 0.4], [0.6, 0.4], *[[0.5, 0.5]] * 4])
            return [RawDetection(0.9, np.array([[0.25, 0.25], [0.75, 0.75]]), eyes)]

        def meshes(self, image: np.ndarray) -> list[np.ndarray]:
            return [0.25 + (upright - low) / (high - low) / 2]

    assert FaceFinder(AnyObject()).find(np.zeros((64, 64, 3), np.uint8)) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (40, 2), (64, 64)])
def test_no_face_in_tiny_images(finder, size):
    assert finder.find(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)) == []


def test_smaller_faces_than_asked_for_are_left_out(finder):
    photo = data.astronaut()[:256, 100:356]
    (face,) = finder.find(photo, min_face=30)
    assert 95 < face.size < 105
    assert len(finder.find(photo, min_face=face.size - 5)) == 1
    assert finder.find(photo, min_face=face.size + 5) == []


# --- parts ---


@pytest.mark.parametrize("size", [(100, 100), (480, 640), (3000, 700)])
def test_views_show_every_face_whole(size):
    shown = list(views(size, 128))
    assert shown[0] == (0, 0, *size, range(4))
    rng = np.random.default_rng(0)
    for length in 32, 60, 150:
        if length > min(size):
            continue
        for top, left in zip(rng.integers(0, size[0] - length, 50), rng.integers(0, size[1] - length, 50), strict=True):
            whole = [
                v for v in shown if v[0] <= top and v[1] <= left and v[2] >= top + length and v[3] >= left + length
            ]
            assert min(max(v[2] - v[0], v[3] - v[1]) for v in whole) <= max(length / 0.15, 128)


def test_overlap_and_suppress(finder):
    a, b, c = np.array([0, 0, 2, 2]), np.array([1, 0, 3, 2]), np.array([2, 0, 4, 2])
    assert overlap(a, a) == 1
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, c) == 0
    everywhere = finder._detect(data.astronaut(), range(4))
    found = [one for one in everywhere if overlap(one.box, np.array([179, 71, 272, 177])) > 0]  # the face
    assert len(found) > 1
    (best,) = suppress(found)
    assert best.score == max(one.score for one in found)


def test_mediapipe_is_imported_late_and_says_nothing():
    code = (
        "import sys; from glean_ext.faces.detection import FaceFinder; assert 'mediapipe' not in sys.modules;"
        "from skimage import data; print(len(FaceFinder().find(data.astronaut()[:256, 100:356])))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("1\n", "")
