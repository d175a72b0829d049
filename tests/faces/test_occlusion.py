"""Faces that hide each other: each is restored where it is visible, and nothing of the one behind lies on the other."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.faces import Identity, paste_head

from glean_ext.faces.alignment import transform
from glean_ext.faces.colour_matching import to_gray
from glean_ext.faces.detection import Face, FaceFinder
from glean_ext.faces.face_mask import face_mask, paste
from glean_ext.faces.occlusion import by_depth, head_outline, is_nearer, visible_mask
from glean_ext.faces.photo_restorer import PhotoRestorer

SIZE = (600, 420)  # width, height
BEHIND = (220, 190, 1.0, 0)  # centre, scale and degrees of the astronaut's head
# Whose head and hair hide some of the face behind, from a fifth of it to more than a half.
IN_FRONT = {
    "right": (315, 230, 1.4, -10),
    "far right": (340, 230, 1.4, -10),
    "half": (290, 230, 1.4, -10),
    "above": (310, 120, 1.4, 15),
    "left": (125, 230, 1.35, 10),
    "same size": (315, 230, 1.0, -10),
}


class Green(Identity):
    """Paints everything green, which the photograph has nowhere; with ``then_blue`` only the first crop."""

    def __init__(self, size: int, scale: int, then_blue: bool = False):
        super().__init__(size, scale)
        self.then_blue = then_blue

    def restore(self, rgb: np.ndarray) -> np.ndarray:
        colour = (0, 0, 255) if self.then_blue and self.inputs else (0, 255, 0)
        self.inputs.append(rgb)
        side = self.takes.nominal[0] * self.takes.scale
        return np.full((side, side, 3), colour, np.uint8)


def scene(*spots: tuple[float, float, float, float]) -> tuple[np.ndarray, list[np.ndarray]]:
    """A photo of heads, each in front of those before it, and the masks of the heads with their hair."""
    picture, heads = np.full((SIZE[1], SIZE[0], 3), (90, 110, 130), np.float32), []
    for spot in spots:
        picture, mask = paste_head(picture, spot, blur=2)
        heads.append(mask > 0.99)
    return np.clip(np.round(picture), 0, 255).astype(np.uint8), heads


def oval(face: Face, grow: float) -> np.ndarray:
    """(h, w) bool: the face's outline, grown by a share of the aligned crop's side."""
    mask, outline = np.zeros(SIZE[::-1], np.uint8), [np.round(face.oval - 0.5).astype(np.int32)]
    cv2.fillPoly(mask, outline, (1,))
    side = np.hypot(*(face.quad[3] - face.quad[0]))
    cv2.polylines(mask, outline, True, (1 if grow > 0 else 0,), max(1, 2 * round(abs(grow) * side)))
    return mask > 0


@pytest.fixture(scope="module")
def alone(finder) -> Face:
    """The face behind, as it is found when nothing hides it."""
    (face,) = finder.find(scene(BEHIND)[0])
    return face


def painted(finder: FaceFinder, photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Face]]:
    """(h, w) bool each, what was painted, and what of it with the face behind another one; and the faces."""
    result = PhotoRestorer(Green(64, 2, then_blue=True), match_colours=False, finder=finder).restore(photo)
    green, before = (image[..., 1].astype(int) - image[..., 2] for image in (result.image, photo))
    behind = (green > before) & (len(result.faces) > 1)  # the farthest face is pasted first
    return (result.image != photo).any(axis=2), behind, [item.face for item in result.faces]


@pytest.mark.parametrize("colours", ["colour", "gray"])
@pytest.mark.parametrize("where", IN_FRONT)
def test_the_face_behind_does_not_spill_onto_the_one_in_front(finder, alone, where, colours):
    photo, (_, head) = scene(BEHIND, IN_FRONT[where])
    photo = photo if colours == "colour" else to_gray(photo)
    changed, behind, faces = painted(finder, photo)
    found = len(faces)
    assert found == 2 or (where == "half" and found == 1)  # then too little is left of the face behind
    assert faces == sorted(faces, key=lambda face: face.box[0])  # from left to right, whichever is in front
    centre = np.array(IN_FRONT[where][:2])
    front = min(faces, key=lambda face: np.hypot(*(face.oval.mean(axis=0) - centre)))
    hair = head & ~oval(front, 0.06)
    assert behind[hair].mean() < 0.004
    assert changed[oval(front, -0.04)].all()  # all of the face in front
    visible = oval(alone, -0.04) & ~head
    # Most of what is seen of the face behind.
    assert found == 1 or (visible.sum() > 1000 and changed[visible].mean() > 0.55)


@pytest.mark.parametrize(
    ("behind", "front"),
    [(BEHIND, (300, 220, 0.75, -15)), ((170, 200, 1.5, 5), (288, 234, 1.1, -20))],
    ids=["small", "large"],
)
def test_a_smaller_face_in_front(finder, behind, front):
    """A child before an adult: the colours show who is in front."""
    photo, (_, head) = scene(behind, front)
    smaller, larger = sorted(finder.find(photo), key=lambda face: face.size)
    spills = {}
    for face in smaller, larger:
        image = photo.copy()
        paste(image, Green(64, 2).restore(photo), face, visible_mask(face, [smaller, larger], photo), 1)
        spills[face is larger] = (image != photo).any(axis=2)
    assert spills[True][head].mean() < 0.004 < face_mask(larger).mean()
    assert spills[False][oval(smaller, -0.03)].all() and spills[True][oval(larger, -0.04) & ~head].mean() > 0.95


def test_without_cutting_it_would_spill(finder):
    photo, (_, head) = scene(BEHIND, IN_FRONT["right"])
    behind, front = sorted(finder.find(photo), key=lambda face: face.size)
    plain, image = photo.copy(), photo.copy()
    paste(plain, Green(64, 2).restore(photo), behind, face_mask(behind), 1)
    paste(image, Green(64, 2).restore(photo), behind, visible_mask(behind, [behind, front], photo), 1)
    assert (plain != photo).any(axis=2)[head].sum() > 10 * max(1, (image != photo).any(axis=2)[head].sum()) > 0


def test_faces_side_by_side_are_restored_as_a_whole(finder, alone):
    """The heads touch, and nothing is hidden."""
    photo, _ = scene(BEHIND, (385, 200, 1.0, 0))
    changed, _, faces = painted(finder, photo)
    assert len(faces) == 2
    for face in faces:
        np.testing.assert_array_equal(visible_mask(face, faces, photo), face_mask(face))
        assert changed[oval(face, -0.03)].all()


def test_16_bits_are_cut_in_the_same_way(finder):
    photo, _ = scene(BEHIND, IN_FRONT["right"])
    faces = finder.find(photo)
    for face in faces:
        deep = visible_mask(face, faces, photo.astype(np.uint16) * 257)
        np.testing.assert_array_equal(deep, visible_mask(face, faces, photo))


def test_a_face_that_is_hidden_altogether(alone):
    """As two detections of one face would be: the better one is restored."""
    photo, _ = scene(BEHIND)
    nearer = replace(alone, mesh=transform(head_map_about(alone, 1.3), alone.mesh))
    mask = visible_mask(alone, [alone, nearer], photo)
    assert not mask.any()
    image = photo.copy()
    paste(image, Green(64, 2).restore(photo), alone, mask, 1)
    np.testing.assert_array_equal(image, photo)


def head_map_about(face: Face, scale: float) -> np.ndarray:
    """(2, 3): enlargement about the face's centre."""
    centre = face.oval.mean(axis=0)
    return np.column_stack([scale * np.eye(2), centre - scale * centre])


def test_nearer_is_larger_or_seen_better(alone):
    larger = replace(alone, mesh=alone.mesh * 1.2, score=0.5)
    similar = replace(alone, mesh=alone.mesh * 1.05, score=alone.score - 0.1)
    assert is_nearer(larger, alone) and not is_nearer(alone, larger)
    assert is_nearer(alone, similar) and not is_nearer(similar, alone)
    assert not is_nearer(alone, alone)
    assert by_depth([larger, alone, similar]) == [1, 2, 0]


def test_head_outline_worked_by_hand(alone):
    """In the face's own directions: 1.6 times as wide, 1.8 times as far up, and 1.5 times down."""
    x, y = ((corner - alone.quad[0]) / np.hypot(*(corner - alone.quad[0])) for corner in (alone.quad[3], alone.quad[1]))
    centre = alone.oval.mean(axis=0)
    for outline, face in (head_outline(alone), alone.oval), (head_outline(turned(alone)), turned(alone).oval):
        assert outline.shape == face.shape == (36, 2)
    before, after = ((points - centre) @ np.stack([x, y], 1) for points in (alone.oval, head_outline(alone)))
    np.testing.assert_allclose(after[:, 0], 1.6 * before[:, 0])
    np.testing.assert_allclose(after[:, 1], np.where(before[:, 1] < 0, 1.8, 1.5) * before[:, 1])


def turned(face: Face) -> Face:
    return replace(face, mesh=face.mesh[:, ::-1] * [1, -1])


@pytest.mark.parametrize("shift", [(-220, 0), (0, -190), (380, 0), (-220, 230)])
def test_a_face_across_the_border_is_pasted_where_it_is(alone, shift):
    """As in a photo with a margin, which is then cut off."""
    moved, margin = replace(alone, mesh=alone.mesh + shift), 150
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    wide = np.zeros((SIZE[1] + 2 * margin, SIZE[0] + 2 * margin, 3), np.uint8)
    green = np.full((128, 128, 3), (0, 255, 0), np.uint8)
    paste(image, green, moved, face_mask(moved), 1)
    paste(wide, green, replace(moved, mesh=moved.mesh + margin), face_mask(moved), 1)
    expected = wide[margin:-margin, margin:-margin]
    assert (expected[..., 1] > 200).sum() > 500
    assert np.abs(image.astype(int) - expected).max() <= 2
