"""The networks that find faces: LiteRT's results beside mediapipe's, and their arithmetic by hand."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from skimage import data

from glean_ext.errors import InputError
from glean_ext.faces import face_networks
from glean_ext.faces.face_networks import (
    LiteRTNetworks,
    RawDetection,
    anchors,
    average_overlapping,
    load_face_networks,
)

pytest.importorskip("ai_edge_litert")


@pytest.fixture(scope="module")
def litert() -> LiteRTNetworks:
    return LiteRTNetworks()


def face(angle: float = 0.0, size: int = 256) -> np.ndarray:
    """The astronaut's face, turned about its middle: (size, size, 3) uint8."""
    matrix = cv2.getRotationMatrix2D((224.0, 110.0), angle, size / 256)
    matrix[:, 2] += size / 2 - np.array([224, 110])
    return cv2.warpAffine(data.astronaut(), matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("image", [face(), face(25), face(-40), face(10, 160), data.astronaut()], ids=range(5))
def test_litert_finds_what_mediapipe_finds(litert, image):
    mediapipe = pytest.importorskip("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        pytest.skip("this mediapipe has no solutions")
    theirs = face_networks.MediapipeNetworks()
    ours, reference = litert.detect(image), theirs.detect(image)
    assert len(ours) == len(reference) == 1
    assert ours[0].score == pytest.approx(reference[0].score, abs=0.05)
    side = np.ptp(reference[0].box, axis=0).mean()
    assert np.abs(ours[0].box - reference[0].box).max() < 0.05 * side
    assert np.abs(ours[0].keypoints - reference[0].keypoints).max() < 0.08 * side
    (mesh,), (reference_mesh,) = litert.meshes(image), theirs.meshes(image)
    assert mesh.shape == (468, 2)
    assert np.abs(mesh - reference_mesh[:468]).mean() < 0.02 * side  # its network for the eyes and lips is another


def test_an_image_without_faces(litert):
    assert litert.detect(data.coffee()[:200, :200].copy()) == []
    assert litert.meshes(np.zeros((64, 64, 3), np.uint8)) == []


def test_points_follow_the_image(litert):
    """A wide and a tall image, in which the face is not in the middle."""
    wide = np.zeros((256, 512, 3), np.uint8)
    wide[:, 256:] = face()
    alone = litert.detect(face())[0]
    placed = litert.detect(wide)[0]
    assert np.abs(placed.box - (alone.box * [0.5, 1] + [0.5, 0])).max() < 0.04  # at half the resolution
    tall = wide.transpose(1, 0, 2).copy()
    tall[256:] = face()
    assert np.abs(litert.detect(tall)[0].box - (alone.box * [1, 0.5] + [0, 0.5])).max() < 0.04


def test_anchors_by_hand():
    grid = anchors()
    assert grid.shape == (896, 2)
    assert grid[:3].tolist() == [[1 / 32, 1 / 32], [1 / 32, 1 / 32], [3 / 32, 1 / 32]]
    assert grid[32].tolist() == [1 / 32, 3 / 32]  # the second row of cells
    assert grid[512:518].tolist() == [[1 / 16, 1 / 16]] * 6 and grid[-1].tolist() == [15 / 16, 15 / 16]


def test_overlapping_detections_are_averaged_by_score():
    def detection(score: float, left: float) -> RawDetection:
        return RawDetection(score, np.array([[left, 0.0], [left + 0.4, 0.4]]), np.full((6, 2), left))

    first, second = average_overlapping([detection(0.6, 0.1), detection(0.9, 0.0), detection(0.7, 0.6)])
    assert first.score == 0.9 and second.score == 0.7
    assert first.box[0, 0] == pytest.approx(0.1 * 0.6 / 1.5) and first.keypoints[0, 0] == pytest.approx(0.04)
    assert second.box[0, 0] == pytest.approx(0.6)


def test_without_any_network_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(InputError, match=r"ai-edge-litert, which is not installed\. pip install 'glean-ext\[faces\]'"):
        load_face_networks()


def test_a_mediapipe_without_solutions_is_passed_over(monkeypatch):
    class Later:
        pass

    monkeypatch.setitem(sys.modules, "mediapipe", Later())
    assert load_face_networks().name == "LiteRT"
