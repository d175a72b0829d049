"""Identity similarity: the cosine similarity of face embeddings (GLEAN, CVPR 2021)."""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.metrics.base import SavedImageMetric, optional_package

PACKAGES = "dlib-bin face-recognition-models"
CHIP_SIZE, CHIP_PADDING = 150, 0.25  # the aligned face that dlib's network was trained with
NO_FACE = math.nan, math.nan  # not None, which mmengine drops
SEARCHED_SIDE = 400  # pixels; smaller images are enlarged, since the detector finds faces from 80 pixels on


class FaceEmbedder:
    """dlib's detector, five landmarks and face recognition network (King, JMLR 2009; 99.38% on LFW), on the CPU.

    The weights come with the package face-recognition-models; nothing is downloaded.

    Raises:
        InputError: dlib or face-recognition-models is not installed.
    """

    def __init__(self) -> None:
        dlib = self._dlib = optional_package("dlib", "Identity similarity", PACKAGES)
        models = find_spec("face_recognition_models")  # an import would need pkg_resources
        if models is None or models.origin is None:
            raise InputError(f"Identity similarity needs a package that is not installed: pip install {PACKAGES}")
        folder = Path(models.origin).with_name("models")
        self._detect = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))
        self._network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))

    def find(self, rgb: np.ndarray) -> Any | None:
        """The landmarks of the largest face in an image (H, W, 3) uint8 RGB; None when no face is found."""
        doublings = max(0, math.ceil(math.log2(SEARCHED_SIDE / max(rgb.shape[:2]))))
        rgb = np.ascontiguousarray(rgb)  # as dlib requires
        boxes = self._detect(rgb, doublings)
        return self._landmarks(rgb, max(boxes, key=lambda box: box.area())) if boxes else None

    def embed(self, rgb: np.ndarray, landmarks: Any) -> np.ndarray:
        """The embedding (128,) float64, not normalised, of the face at ``landmarks`` in (H, W, 3) uint8 RGB."""
        chip = self._dlib.get_face_chip(np.ascontiguousarray(rgb), landmarks, size=CHIP_SIZE, padding=CHIP_PADDING)
        return np.array(self._network.compute_face_descriptor(chip))


class IdentitySimilarity(SavedImageMetric):
    """``Identity``: the mean cosine similarity between the faces of output and ground truth, at most 1.

    The face is detected in the ground truth and cropped at the same place in the output, so an output without a
    recognisable face gets a low similarity instead of being left out. Two more values: ``Identity_distance``, the mean
    Euclidean distance of the embeddings (dlib's threshold for the same person is 0.6), and ``Identity_missing``, the
    number of ground truths in which no face was found, which the means leave out.

    The paper used ArcFace. dlib's embeddings lie closer together: two different people, or a face and noise, have a
    cosine of about 0.87. So do not compare values with those of the paper, and look at the distance, too.

    Args:
        prefix: As in :class:`~glean_ext.metrics.base.SavedImageMetric`; so is ``collect_device``.

    Raises:
        InputError: A package is not installed.
    """

    metric = "Identity"
    names = ("Identity", "Identity_distance", "Identity_missing")

    def __init__(self, prefix: str | None = None, collect_device: str = "cpu"):
        super().__init__(prefix, collect_device)
        self.embedder = FaceEmbedder()

    def measure(self, output: Tensor, sample: dict) -> tuple[float, float]:
        """Cosine similarity and Euclidean distance of one image; NaN where the ground truth has no face."""
        restored, gt = (x.permute(1, 2, 0).cpu().numpy() for x in (output, self.image(sample, "gt_img")))  # (H, W, 3)
        landmarks = self.embedder.find(gt)
        if landmarks is None:
            return NO_FACE
        a, b = (self.embedder.embed(image, landmarks) for image in (restored, gt))
        return float(a @ b / np.sqrt((a @ a) * (b @ b))), float(np.linalg.norm(a - b))

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        """Means over the images that have a face; NaN when none has."""
        found = [result for result in results if not math.isnan(result[0])]
        if missing := len(results) - len(found):
            message = f"Identity: no face in {missing} of {len(results)} ground truths; the means leave them out."
            print_log(message, logger="current", level=logging.WARNING)
        cosine, distance = np.mean(found, axis=0) if found else NO_FACE
        return {"Identity": float(cosine), "Identity_distance": float(distance), "Identity_missing": missing}
