"""Faces of videos: they are followed, and their landmarks, colours and restorations are smoothed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage import data
from support.faces import DEMO, MOVING_SIZE, Identity, face_region, head_motion, moving_head, warping_error

from glean_ext.errors import InputError
from glean_ext.faces.alignment import side, transform
from glean_ext.faces.detection import Face
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.faces.smooth_photos import SmoothPhotos
from glean_ext.faces.tracking import MAX_MISSED, FaceTracks
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.video.optical_flow import WEIGHT

FRAMES = 8


@pytest.fixture(scope="module")
def face(finder) -> Face:
    """In the first frame."""
    (found,) = finder.find(moving_head(0))
    return found


def detections(face: Face, jitter: float = 0) -> list[list[Face]]:
    """The face in each frame where it is, but for a seeded shift, in pixels, of each group of landmarks."""
    random, found = np.random.default_rng(0), []
    for number in range(FRAMES):
        shifts = np.kron(random.normal(0, jitter, (len(face.mesh) // 36, 2)), np.ones((36, 1)))
        found.append([replace(face, mesh=transform(head_motion(0, number), face.mesh) + shifts)])
    return found


class Detector:
    """Finds faces that are given for each frame."""

    about = "Faces are given."

    def __init__(self, found: Sequence[Sequence[Face]]):
        self.found = list(found)

    def find(self, photo: np.ndarray, min_face: float | None = None) -> list[Face]:
        return list(self.found.pop(0))


class Unsteady(Identity):
    """Changes colours and contrast from call to call, and adds a pattern."""

    def __init__(self, size: int, scale: int):
        super().__init__(size, scale)
        self.random = np.random.default_rng(0)

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        large = super().restore(rgb).astype(np.float32)
        noise = cv2.GaussianBlur(self.random.normal(0, 1, large.shape).astype(np.float32), (0, 0), 2)
        gains = 1 + self.random.normal(0, 0.1, 3)
        return np.clip(np.round(large * gains + 8 * noise / noise.std()), 0, 255).astype(np.uint8)


def fidelity(frames: Sequence[np.ndarray], face: Face) -> float:
    """PSNR (dB) of the face to the frames without noise, on average."""
    errors = [
        np.mean((rgb.astype(float) - moving_head(number))[face_region(face.oval, number)] ** 2)
        for number, rgb in enumerate(frames)
    ]
    return float(np.mean(10 * np.log10(255**2 / np.array(errors))))


def both(face: Face, make, noise: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The frames restored one by one, and smoothed."""
    frames = [moving_head(number, noise) for number in range(FRAMES)]
    found = detections(face, jitter=0.7)
    plain, smooth = (PhotoRestorer(make(), finder=Detector(found)) for _ in range(2))
    return [plain.restore(rgb).image for rgb in frames], SmoothPhotos(smooth)(frames)


def test_flicker_falls_and_fidelity_does_not(face):
    plain, smooth = both(face, lambda: Unsteady(128, 2), noise=4)
    assert warping_error(smooth, face.oval) < warping_error(plain, face.oval) / 2
    assert fidelity(smooth, face) > fidelity(plain, face) + 0.5


def test_the_demo_model_flickers_less(face):
    """Its restorations are cartoons: their distance to the photographs must not grow."""
    restorer = ImageRestorer(*DEMO, device="cpu", notify=lambda notice: None)
    plain, smooth = both(face, lambda: restorer, noise=2)
    assert warping_error(smooth, face.oval) < warping_error(plain, face.oval) / 2
    assert fidelity(smooth, face) > fidelity(plain, face) - 0.1


def test_the_mask_of_the_head_is_smoothed(face, monkeypatch):
    """It is taken whole in one frame, and empty in the next."""
    heads = [np.ones((256, 256), np.float32), np.zeros((256, 256), np.float32)]
    monkeypatch.setattr("glean_ext.faces.head_mask._head", lambda crop, face, mask: heads.pop(0))
    smooth = SmoothPhotos(PhotoRestorer(Identity(64, 4), finder=Detector([[face]] * 2)))
    smooth([moving_head(0)] * 2)
    np.testing.assert_allclose(smooth.state()["0.average head"], WEIGHT)


def test_aligned_faces_are_refused():
    with pytest.raises(InputError, match=r"^SmoothPhotos is for whole photographs\. Use restore_video"):
        SmoothPhotos(PhotoRestorer(Identity(64, 4), aligned=True))


def test_landmarks_follow_the_motion(face):
    """Most of the jitter is gone, and they do not lag behind a face that moves by 4 pixels a frame."""
    tracks, truth, jittery = FaceTracks(), detections(face), detections(face, jitter=2)
    before, after = [], []
    for number in range(FRAMES):
        (followed,) = tracks.follow(moving_head(number), jittery[number])
        place = truth[number][0].landmarks
        before.append(np.hypot(*(jittery[number][0].landmarks - place).T))
        after.append(np.hypot(*(followed.landmarks - place).T))
    assert np.mean(after[3:]) < 0.6 * np.mean(before[3:])


def test_what_stands_still_does_not_change(face):
    photos = PhotoRestorer(Identity(64, 4), finder=Detector([[face]] * 4))
    frame = moving_head(0)
    first = photos.restore(frame).image
    for result in SmoothPhotos(photos)([frame] * 3):
        np.testing.assert_array_equal(result, first)


def test_all_but_the_faces_is_the_frame(face):
    photos = PhotoRestorer(Identity(64, 4), finder=Detector(detections(face)))
    frames = [moving_head(number, noise=4) for number in range(2)]
    for rgb, result in zip(frames, SmoothPhotos(photos)(frames), strict=True):
        np.testing.assert_array_equal(result[:, 280:], rgb[:, 280:])


def test_a_cut_begins_new_faces(face):
    """The frame after it is restored as if it were the first one, though a face is in the same place."""
    other = cv2.resize(moving_head(0)[::-1], MOVING_SIZE)
    mirrored = replace(face, mesh=face.mesh * [1, -1] + [0, MOVING_SIZE[1]])
    moved = replace(mirrored, mesh=mirrored.mesh + face.box[:2] - mirrored.box[:2])  # where the face was
    shift = np.array([[1, 0, 0], [0, 1, face.box[1] - mirrored.box[1]]], np.float32)
    scene = cv2.warpAffine(other, shift, MOVING_SIZE)
    found = [[face], [moved]]
    results = SmoothPhotos(PhotoRestorer(Unsteady(64, 2), finder=Detector(found)))([moving_head(0), scene])
    plain = PhotoRestorer(Unsteady(64, 2), finder=Detector(found))
    np.testing.assert_array_equal(results, [plain.restore(rgb).image for rgb in (moving_head(0), scene)])


def test_faces_enter_and_leave(face):
    """Each is its own track; one that is gone is not restored any more, and one that the detector misses is."""
    frames = [moving_head(number) for number in range(5)]
    right = replace(face, mesh=face.mesh + np.array([180, 0]))
    frames[1][:, 190:] = frames[0][:, 10:200]  # a second face enters ...
    frames[2] = cv2.resize(data.coffee(), MOVING_SIZE, interpolation=cv2.INTER_AREA)  # ... and both leave
    places = detections(face)
    tracks = FaceTracks()
    assert len(tracks.follow(frames[0], [face])) == 1
    first, second = tracks.follow(frames[1], [*places[1], right])
    assert np.abs(first.mesh - places[1][0].mesh).max() < 1
    np.testing.assert_array_equal(second.mesh, right.mesh)  # new, so not smoothed
    assert tracks.follow(frames[2], []) == []


def test_a_missed_face_is_followed_for_some_frames(face):
    tracks, places = FaceTracks(), detections(face)
    tracks.follow(moving_head(0), places[0])
    for number in range(1, MAX_MISSED + 1):
        (followed,) = tracks.follow(moving_head(number), [])
        assert np.abs(followed.landmarks - places[number][0].landmarks).max() < 0.01 * side(face.quad)
    assert tracks.follow(moving_head(MAX_MISSED + 1), []) == []


def test_only_the_face_at_the_centre_is_followed(face):
    """One that was restored before is not kept besides."""
    away = replace(face, mesh=face.mesh + np.array([150, 0]))
    photos = PhotoRestorer(Identity(64, 2), only_center_face=True, finder=Detector([[face], [away]]))
    smooth = SmoothPhotos(photos)
    smooth([moving_head(0)] * 2)
    assert smooth.faces == 2


def test_the_state_continues_it(face):
    """Landmarks, colours, restorations and the background."""
    frames = [moving_head(number, noise=4) for number in range(4)]
    found = detections(face, jitter=0.7)

    def smooth(places):
        background = lambda rgb: rgb + np.uint8(1)  # noqa: E731
        photos = PhotoRestorer(Identity(64, 4), background=background, finder=Detector(places))
        return SmoothPhotos(photos)

    whole = smooth(found)(frames)
    first, second = smooth(found), smooth(found[2:])
    first(frames[:2])
    state = first.state()
    second.load(state)
    again = second.state()
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[name], array) for name, array in state.items())
    np.testing.assert_array_equal(second(frames[2:]), whole[2:])
    without = smooth(found[2:])
    assert not np.array_equal(without(frames[2:]), whole[2:])


def test_the_background_of_a_network_is_smoothed(face):
    random = np.random.default_rng(0)

    def flickering(rgb):
        return np.clip(rgb + random.normal(0, 8, rgb.shape), 0, 255).astype(np.uint8)

    photos = PhotoRestorer(Identity(64, 4), background=flickering, finder=Detector([[face]] * 5))
    results = SmoothPhotos(photos)([moving_head(0)] * 4)
    noise = [np.std(result[:, 280:].astype(float) - moving_head(0)[:, 280:]) for result in results]
    assert noise[3] < 0.6 * noise[0]
