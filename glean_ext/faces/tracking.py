"""Faces of a video, followed from frame to frame: their landmarks, colours and restorations are smoothed.

Each face is looked at in its aligned crop. Between the crops of two frames little moves, so the optical flow is exact,
and takes the same time whatever the size of the frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from glean_ext.faces.alignment import align, from_crop, inverse, transform
from glean_ext.faces.detection import Face, overlap
from glean_ext.faces.face_mask import MASK_SIZE, cover
from glean_ext.video.optical_flow import WEIGHT, Moment, blend_along_flow, flow_between, trust

SAME_FACE_IOU = 0.2  # of the boxes in two frames, from which on they may be the same face
SAME_FACE_SHARE = 0.5  # of the face that must be found along the flow; else it is another one, or a cut
NEW_LANDMARKS = 0.25  # weight of detected landmarks; the others are those of the frame before, moved along the flow
MAX_MISSED = 3  # frames in which a face that is not detected is followed along the flow alone
AVERAGE = "average "  # before their names in states

Array = np.ndarray


@dataclass(eq=False)
class _Track:
    """A face in one frame.

    Attributes:
        face: With smoothed landmarks.
        guide: (256, 256) uint8, the luminance of its aligned crop.
        missed: Frames since it was detected.
        before: The same face in the frame before, whose own is None.
        restored: (S, S, 3), the smoothed result.
        averages: Smoothed arrays of any kind, by their names.
    """

    face: Face
    guide: Array
    missed: int = 0
    before: _Track | None = None
    restored: Array | None = None
    averages: dict[str, Array] = field(default_factory=dict)


class FaceTracks:
    """Follows the faces of a video.

    Args:
        most: Faces in a frame; more are not followed where the detector misses them.
    """

    def __init__(self, most: int | None = None):
        self.most = most
        self._tracks: list[_Track] = []

    def follow(self, rgb: Array, found: Sequence[Face]) -> list[Face]:
        """The faces of the next frame, (h, w, 3) uint8 RGB, from left to right.

        A face is the one in the frame before whose box it overlaps most, if the optical flow leads there. Its landmarks
        are smoothed. One that the detector misses is followed for some frames, as long as the flow finds it.
        """
        earlier, now = self._tracks, []
        for track in earlier:
            track.before = None
        matches = _match(found, [track.face for track in earlier])
        for index, face in enumerate(found):
            now.append(_continued(rgb, face, earlier[matches[index]] if index in matches else None))
        for index, track in enumerate(earlier):
            if index in matches.values() or len(now) == self.most:
                continue
            held = _held(rgb, track)
            if held is not None and not any(overlap(held.face.box, other.face.box) for other in now):
                now.append(held)
        self._tracks = sorted(now, key=lambda track: track.face.box[0])
        return [track.face for track in self._tracks]

    def average(self, face: Face, name: str, array: Array) -> Array:
        """An array, named, of one of the faces that :meth:`follow` returned last, smoothed as it is."""
        track = self._track(face)
        if track.before is not None and name in track.before.averages:
            array = array + WEIGHT * (track.before.averages[name] - array)
        track.averages[name] = array
        return array

    def smooth(self, face: Face, restored: Array) -> Array:
        """The restoration, (S, S, 3), of one of the faces that :meth:`follow` returned last, smoothed."""
        track = self._track(face)
        if track.before is not None and track.before.restored is not None:
            restored = blend_along_flow(Moment(track.before.guide, track.before.restored), track.guide, restored)
        track.restored = restored
        return restored

    def _track(self, face: Face) -> _Track:
        return next(track for track in self._tracks if track.face is face)

    def state(self) -> dict[str, Array]:
        """All that is known of the last frame."""
        found: dict[str, Array] = {}
        for number, track in enumerate(self._tracks):
            known = {"mesh": track.face.mesh, "score": np.array(track.face.score), "guide": track.guide}
            known["missed"] = np.array(track.missed)
            known |= {f"{AVERAGE}{name}": array for name, array in track.averages.items()}
            if track.restored is not None:
                known["restored"] = track.restored
            found |= {f"{number}.{name}": array for name, array in known.items()}
        return found

    def load(self, state: Mapping[str, Array]) -> None:
        """Continue after the frame that a :meth:`state` is from."""
        self._tracks = []
        for number in range(sum(name.endswith(".mesh") for name in state)):
            prefix = f"{number}."
            known = {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
            face = Face(known["mesh"], float(known["score"]))
            averages = {key.removeprefix(AVERAGE): known[key] for key in known if key.startswith(AVERAGE)}
            track = _Track(face, known["guide"], int(known["missed"]), None, known.get("restored"), averages)
            self._tracks.append(track)


def _match(found: Sequence[Face], earlier: Sequence[Face]) -> dict[int, int]:
    """From indices of ``found`` to those of ``earlier``, each used once, the largest overlaps first."""
    pairs = [(overlap(a.box, b.box), i, j) for i, a in enumerate(found) for j, b in enumerate(earlier)]
    matches: dict[int, int] = {}
    for iou, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if iou > SAME_FACE_IOU and i not in matches and j not in matches.values():
            matches[i] = j
    return matches


def _continued(rgb: Array, face: Face, before: _Track | None) -> _Track:
    """The track of a detected face, new where it is not the one before."""
    motion = None if before is None else _motion(rgb, before, face.quad)
    if before is None or motion is None or before.face.mesh.shape != face.mesh.shape:
        return _Track(face, _guide(rgb, face.quad))
    moved = transform(motion, before.face.mesh)
    mesh = moved + NEW_LANDMARKS * (face.mesh - moved)
    score = before.face.score + NEW_LANDMARKS * (face.score - before.face.score)
    smoothed = Face(mesh, score)
    return _Track(smoothed, _guide(rgb, smoothed.quad), 0, before)


def _held(rgb: Array, before: _Track) -> _Track | None:
    """The track of a face that was not detected; None where it is not found either, or for too long."""
    motion = _motion(rgb, before, before.face.quad) if before.missed < MAX_MISSED else None
    if motion is None:
        return None
    face = replace(before.face, mesh=transform(motion, before.face.mesh))
    return _Track(face, _guide(rgb, face.quad), before.missed + 1, before)


def _motion(rgb: Array, before: _Track, quad: Array) -> Array | None:
    """(2, 3): the similarity from points of the frame before to points of this one, for a face about in ``quad``.

    None where too little of the face is found along the flow.
    """
    guide = _guide(rgb, quad)
    flow = flow_between(before.guide, guide)
    face = cover(before.face, before.face.oval)
    weight = trust(before.guide, guide, flow, flow_between(guide, before.guide)) * face
    if weight.sum() < SAME_FACE_SHARE * face.sum():
        return None
    y, x = np.nonzero(weight)
    points = np.stack([x, y], axis=1) + 0.5
    return _chained(
        inverse(from_crop(before.face.quad, MASK_SIZE)),
        _similarity(points, points + flow[y, x], weight[y, x]),
        from_crop(quad, MASK_SIZE),
    )


def _similarity(points: Array, moved: Array, weight: Array) -> Array:
    """(2, 3): the similarity that takes (N, 2) points to others with the least squared error, weighted by (N,)."""
    z, moved_z = (each[:, 0] + 1j * each[:, 1] for each in (points, moved))
    centre, moved_centre = (np.average(each, weights=weight) for each in (z, moved_z))
    z = z - centre
    factor = (weight * z.conj() * (moved_z - moved_centre)).sum() / (weight * np.abs(z) ** 2).sum()
    shift = moved_centre - factor * centre
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _chained(*maps: Array) -> Array:
    """(2, 3): affine maps, one after the other."""
    whole = np.eye(3)
    for each in maps:
        whole = np.vstack([each, [0, 0, 1]]) @ whole
    return whole[:2]


def _guide(rgb: Array, quad: Array) -> Array:
    return cv2.cvtColor(align(rgb, quad, MASK_SIZE), cv2.COLOR_RGB2GRAY)
