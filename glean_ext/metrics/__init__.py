"""Metrics for ``val_evaluator`` and ``test_evaluator`` that MMagic lacks; PSNR, SSIM and MAE are MMagic's own."""

from .consistency import LRConsistency
from .fid import InceptionFeatures, RestorationFID, frechet_distance
from .identity import FaceEmbedder, IdentitySimilarity
from .niqe import NIQE
from .perceptual import LPIPS

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
