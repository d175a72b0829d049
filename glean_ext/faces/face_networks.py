"""The two networks that find faces, by whatever runs them here.

BlazeFace (arXiv 1907.05047) finds faces, the face mesh (arXiv 1907.06724) fits landmarks to one. Both are Google's,
Apache-2.0, from mediapipe. Where mediapipe still has its ``solutions`` (0.10.21 and before, up to Python 3.12) it runs
them, with 478 landmarks. Elsewhere LiteRT runs the files that this package ships, with the first 468 of these.

Points are (x, y) in shares of the image's width and height.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from glean_ext.errors import InputError, first_line
from glean_ext.utils.stderr_filter import MEDIAPIPE, filter_stderr

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1] / "assets"
DETECTOR, MESH = "face_detection_short_range.tflite", "face_landmark.tflite"
MIN_SCORE = 0.5  # of detections, and of a mesh being that of a face
MAX_FACES = 3  # meshes of one image
DETECTOR_SIDE, MESH_SIDE = 128, 192  # pixels of the networks' inputs
MESH_MARGIN = 1.5  # side of the square that the mesh network sees, in the longer sides of the detection's box
NMS_IOU = 0.3  # detections that overlap more are averaged
EYE_KEYPOINTS = [0, 1]  # of BlazeFace's six: the person's right eye and left eye
DRAWING_SIDE = 256  # pixels
INSTALL = "pip install 'glean-ext[faces]'"


class RawDetection(NamedTuple):
    """A face in an image.

    Attributes:
        score: In [0, 1].
        box: (2, 2): the upper left and the lower right corner.
        keypoints: (6, 2): right eye, left eye, nose tip, mouth, right ear, left ear, of the person.
    """

    score: float
    box: np.ndarray
    keypoints: np.ndarray


class FaceNetworks(Protocol):
    """What finds faces and fits meshes; takes one image at a time, (h, w, 3) uint8 RGB.

    Attributes:
        name: Of the library that runs them.
        landmarks: Of a mesh.
    """

    name: str
    landmarks: int

    def detect(self, image: np.ndarray) -> list[RawDetection]:
        """The faces of an image."""

    def meshes(self, image: np.ndarray) -> list[np.ndarray]:
        """(landmarks, 2): the mesh of each of the most likely faces."""


def load_face_networks() -> FaceNetworks:
    """mediapipe's where it has them, else LiteRT's.

    Raises:
        InputError: Neither is installed, or neither works.
    """
    reasons = []
    for kind in MediapipeNetworks, LiteRTNetworks:
        try:
            return kind()
        except Exception as error:  # other versions raise errors of several types, on import or when they are made
            reasons.append(f"{kind.name}: {first_line(error)}")
            logger.debug("%s cannot be used: %s", kind.name, first_line(error))
    raise InputError(f"nothing that finds faces works here ({'; '.join(reasons)}). {INSTALL}")


def require_installed() -> None:
    """Check for a package that can run the networks, without loading it.

    Raises:
        InputError: There is none.
    """
    if not any(find_spec(package) for package in ("mediapipe", "ai_edge_litert")):
        raise InputError(f"finding faces needs ai-edge-litert, which is not installed. {INSTALL}")


class MediapipeNetworks:
    """Run by mediapipe's own graphs."""

    name = "mediapipe"
    landmarks = 478

    def __init__(self) -> None:
        with filter_stderr(MEDIAPIPE):
            import mediapipe

            solutions: Any = mediapipe.solutions
            self._detector = solutions.face_detection.FaceDetection(MIN_SCORE, model_selection=0)
            self._mesher = solutions.face_mesh.FaceMesh(
                static_image_mode=True,
                max_num_faces=MAX_FACES,
                refine_landmarks=True,
                min_detection_confidence=MIN_SCORE,
            )
            self.meshes(drawing := _drawn_face())  # the networks also log at their first face
            self.detect(drawing)

    def detect(self, image: np.ndarray) -> list[RawDetection]:
        return [_from_mediapipe(found) for found in self._detector.process(image).detections or ()]

    def meshes(self, image: np.ndarray) -> list[np.ndarray]:
        found = self._mesher.process(image).multi_face_landmarks or ()
        return [np.array([(point.x, point.y) for point in face.landmark]) for face in found]


def _from_mediapipe(found: Any) -> RawDetection:
    box, keypoints = found.location_data.relative_bounding_box, found.location_data.relative_keypoints
    corners = np.array([(box.xmin, box.ymin), (box.xmin + box.width, box.ymin + box.height)])
    return RawDetection(found.score[0], corners, np.array([(point.x, point.y) for point in keypoints]))


class LiteRTNetworks:
    """Run by LiteRT, from the files that this package ships."""

    name = "LiteRT"
    landmarks = 468

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with filter_stderr(MEDIAPIPE):
            self._detector = _Model(Interpreter, DETECTOR)
            self._mesher = _Model(Interpreter, MESH)
        self._anchors = anchors()

    def detect(self, image: np.ndarray) -> list[RawDetection]:
        height, width = image.shape[:2]
        side = max(height, width)
        square = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.float32)  # the image in the middle of black
        h, w = max(1, round(height / side * DETECTOR_SIDE)), max(1, round(width / side * DETECTOR_SIDE))
        top, left = (DETECTOR_SIDE - h) // 2, (DETECTOR_SIDE - w) // 2
        square[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        boxes, logits = self._detector(square / 127.5 - 1)  # (1, 896, 16), (1, 896, 1)
        scores = _sigmoid(logits[0, :, 0])
        likely = scores >= MIN_SCORE
        found = [
            RawDetection(float(score), *_decoded(values, anchor))
            for score, values, anchor in zip(scores[likely], boxes[0, likely], self._anchors[likely], strict=True)
        ]
        offset, scale = np.array([left, top]) / DETECTOR_SIDE, DETECTOR_SIDE / np.array([w, h])
        return [
            one._replace(box=(one.box - offset) * scale, keypoints=(one.keypoints - offset) * scale)
            for one in average_overlapping(found)
        ]

    def meshes(self, image: np.ndarray) -> list[np.ndarray]:
        size = np.array(image.shape[1::-1])
        found = sorted(self.detect(image), key=lambda one: -one.score)[:MAX_FACES]
        meshes = []
        for one in found:
            to_crop = _mesh_crop(one.box * size, one.keypoints[EYE_KEYPOINTS] * size)
            crop = cv2.warpAffine(image, to_crop, (MESH_SIDE, MESH_SIDE), borderMode=cv2.BORDER_REPLICATE)
            points, logit = self._mesher(crop.astype(np.float32) / 255)  # (1, 1, 1, 1404), (1, 1, 1, 1)
            if _sigmoid(logit).item() >= MIN_SCORE:
                mesh = points.reshape(-1, 3)[:, :2]  # in pixels of the crop, whose first pixel's centre is (0, 0)
                back = cv2.invertAffineTransform(to_crop)
                meshes.append((mesh @ back[:, :2].T + back[:, 2]) / size)
        return meshes


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -80, 80)))  # exp of more overflows in float32


class _Model:
    """A LiteRT model as a function of one image."""

    def __init__(self, interpreter: Any, file: str):
        self._interpreter = interpreter(model_path=str(ASSETS / file), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """(h, w, 3) float32 -> the outputs."""
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def anchors() -> np.ndarray:
    """(896, 2): the points that BlazeFace's boxes are relative to: 2 in each cell of 16x16, then 6 in each of 8x8."""
    grids = []
    for cells, each in (16, 2), (8, 6):
        centres = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(centres, centres)
        grids.append(np.repeat(np.stack([x, y], axis=2).reshape(-1, 2), each, axis=0))
    return np.concatenate(grids)


def _decoded(values: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(16,) in pixels of the input: centre, size and six key points; centre and key points relative to the anchor."""
    points = values.reshape(8, 2) / DETECTOR_SIDE
    centre, half = points[0] + anchor, points[1] / 2
    return np.stack([centre - half, centre + half]), points[2:] + anchor


def average_overlapping(found: list[RawDetection]) -> list[RawDetection]:
    """Each group of overlapping detections as one: their mean by score, with the best score."""
    left = sorted(found, key=lambda one: -one.score)
    kept = []
    while left:
        best = left[0]
        group = [one for one in left if one is best or _iou(one.box, best.box) > NMS_IOU]
        left = [one for one in left if all(one is not other for other in group)]
        weights = [one.score for one in group]
        box = np.average([one.box for one in group], axis=0, weights=weights)
        kept.append(
            RawDetection(best.score, box, np.average([one.keypoints for one in group], axis=0, weights=weights))
        )
    return kept


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    common = np.prod(np.clip(np.minimum(a[1], b[1]) - np.maximum(a[0], b[0]), 0, None))
    return float(common / max(np.prod(a[1] - a[0]) + np.prod(b[1] - b[0]) - common, 1e-12))


def _mesh_crop(box: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """(2, 3): from pixels of the image to those of the square, turned so that the eyes are level, for the mesh."""
    centre, side = box.mean(axis=0), MESH_MARGIN * (box[1] - box[0]).max()
    x, y = eyes[1] - eyes[0]
    angle = np.degrees(np.arctan2(y, x))
    matrix = cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, MESH_SIDE / side)
    return np.column_stack([matrix[:, :2], matrix[:, 2] + MESH_SIDE / 2 - centre])


def _drawn_face() -> np.ndarray:
    """A drawing that both networks detect as a face."""
    drawing = np.full((DRAWING_SIDE, DRAWING_SIDE, 3), 30, np.uint8)
    middle = DRAWING_SIDE // 2
    cv2.ellipse(drawing, (middle, middle), (55, 70), 0, 0, 360, (200, 160, 140), -1)
    for x in middle - 25, middle + 25:
        cv2.circle(drawing, (x, middle - 15), 8, (40, 30, 30), -1)
    cv2.ellipse(drawing, (middle, middle + 35), (22, 7), 0, 0, 360, (140, 60, 60), -1)
    return cv2.GaussianBlur(drawing, (0, 0), 3)
