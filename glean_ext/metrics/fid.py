"""Fréchet Inception distance (Heusel et al., NeurIPS 2017) between the outputs and the ground truth."""

from __future__ import annotations

import io

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.metrics.base import NetworkMetric, optional_package

ASSET = "torch-fidelity://inception"
WEIGHT_FILE = "weights-inception-2015-12-05-6726825d.pth"  # pytorch-fid's pt_inception-… is the same file


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Fréchet distance of two Gaussians fitted to samples: ``|mu_a - mu_b|² + tr(A + B - 2 √(A B))``.

    With the centred samples as rows of X and Y, ``tr √(A B)`` is the sum of the singular values of ``X Yᵀ`` divided by
    ``√((n - 1) (m - 1))``. Unlike a root of the product, this is real, and exact for fewer samples than features.

    Args:
        a: (n, d) features, n > 1.
        b: (m, d) features, m > 1.
    """
    means, triangles = [], []
    for features in (a.double(), b.double()):
        means.append(features.mean(0))
        centred = (features - means[-1]) / (len(features) - 1) ** 0.5  # whose Gram matrix is the covariance
        triangles.append(torch.linalg.qr(centred, mode="r").R)  # (min(n, d), d), the same Gram matrix
    cross = torch.linalg.svdvals(triangles[0] @ triangles[1].T).sum()
    trace = sum(triangle.square().sum() for triangle in triangles)
    return float((means[0] - means[1]).square().sum() + trace - 2 * cross)


class InceptionFeatures(nn.Module):
    """The 2048 features of FID's Inception by torch-fidelity, which agrees with the original in TensorFlow.

    Args:
        pretrained: ``'torch-fidelity://inception'`` (downloaded once), or the path or URL of
            ``weights-inception-2015-12-05-6726825d.pth``, the original weights converted by torch-fidelity.

    Raises:
        InputError: torch-fidelity is not installed, there is no ``pretrained``, or the file does not fit.
    """

    def __init__(self, pretrained: str | None):
        super().__init__()
        package = optional_package("torch_fidelity.feature_extractor_inceptionv3", "FID", "torch-fidelity")
        if not pretrained:
            raise InputError(
                f"FID needs Inception's weights. Set pretrained={ASSET!r} to download them, or the path of the file "
                f"{WEIGHT_FILE}."
            )
        source = package.URL_INCEPTION_V3 if pretrained == ASSET else pretrained
        # torch-fidelity would let a file run code, so it gets weights that have been read safely.
        weights = io.BytesIO()
        torch.save(checkpoints.read(source), weights)
        weights.seek(0)
        try:
            self.inception = package.FeatureExtractorInceptionV3(
                "inception", ["2048"], feature_extractor_weights_path=weights
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{source} is not FID's Inception ({reason} …). Get {WEIGHT_FILE}.") from error

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 RGB of any size -> (N, 2048)."""
        return self.inception(images)[0]


class RestorationFID(NetworkMetric):
    """``FID`` between all outputs and all ground truths of the set; lower is better.

    FID depends on the number of images, strongly below some thousands: compare values for the same images only.
    MMagic's own FID draws images from noise and cannot evaluate a restorer.

    Args:
        pretrained: Inception's weights, see :class:`InceptionFeatures`.
        prefix: As in :class:`~glean_ext.metrics.base.SavedImageMetric`; so is ``collect_device``.

    Raises:
        InputError: As :class:`InceptionFeatures`; in an evaluation: a set of one image.
    """

    metric = "FID"

    def __init__(self, pretrained: str | None = None, prefix: str | None = None, collect_device: str = "cpu"):
        super().__init__(prefix, collect_device)
        self.network = InceptionFeatures(pretrained)

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Called once before the first evaluation."""
        super().prepare(module, dataloader)
        self.check_count(self.size)

    def check_count(self, images: int) -> None:
        """Raise InputError for a data set with too few images."""
        if images < 2:
            raise InputError(f"FID needs at least 2 images, but the dataset has {images}. Remove RestorationFID.")

    def measure(self, output: Tensor, sample: dict) -> Tensor:
        """(2, 2048): the features of one output and of its ground truth."""
        with torch.no_grad():
            return torch.cat([self.network(x[None]) for x in (output, self.image(sample, "gt_img"))]).cpu()

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """FID of the set."""
        outputs, truths = torch.stack(results, dim=1)  # each (images, 2048)
        return {self.metric: frechet_distance(outputs, truths)}
