"""Metrics for ``val_evaluator`` and ``test_evaluator`` that MMagic lacks; PSNR, SSIM and MAE are MMagic's own."""

from glean_ext.metrics.consistency import LRConsistency
from glean_ext.metrics.fid import InceptionFeatures, RestorationFID, frechet_distance
from glean_ext.metrics.identity import FaceEmbedder, IdentitySimilarity
from glean_ext.metrics.niqe import NIQE
from glean_ext.metrics.perceptual import LPIPS

__all__ = [
    "LPIPS",
    "NIQE",
    "FaceEmbedder",
    "IdentitySimilarity",
    "InceptionFeatures",
    "LRConsistency",
    "RestorationFID",
    "frechet_distance",
]
