"""What is measured on restored images."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from functools import cache, cached_property
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from experiments import attributes, domains, lite0, people, weights
from experiments.domains import Domain, reduced
from experiments.training import clock, to_network, to_references
from glean_ext.metrics import frechet_distance
from glean_ext.metrics.perceptual import load_lpips


@dataclass
class Judge:
    """The networks that judge the images of one domain; each is loaded when it is first used."""

    domain: Domain

    @cached_property
    def lpips(self) -> nn.Module:
        return load_lpips("alex", weights.ALEXNET)

    @cached_property
    def lite0(self) -> lite0.EfficientNetLite0:
        return lite0.load()

    @cached_property
    def classifier(self) -> attributes.Classifier:
        return attributes.classifier(self.domain)

    @cached_property
    def test_features(self) -> Tensor:
        """Of the Fréchet distance, for the original test images: (M, 1280)."""
        return lite0.features(self.lite0, self.domain.parts["test"].images)

    def prepare(self) -> None:
        """Load all, and train the classifier if there is none."""
        _ = self.lpips, self.test_features
        if self.domain.attributes:
            _ = self.classifier

    @torch.no_grad()
    def lpips_distance(self, images: Tensor, gt: Tensor) -> list[float]:
        """Of each pair; both (N, 3, H, W) uint8 RGB."""
        pairs = zip(images.split(32), gt.split(32), strict=True)
        distances = [self.lpips(a.float() / 127.5 - 1, b.float() / 127.5 - 1).flatten() for a, b in pairs]
        return torch.cat(distances).tolist()

    def measure(self, images: Tensor, scale: int) -> tuple[dict[str, float], list[float]]:
        """The metrics of the restored test images, or of the first ones, and the LPIPS of each.

        ``LR_PSNR`` is computed from the mean error over all images, so that one exact image does not make it infinite.
        """
        from mmagic.evaluation.metrics.psnr import psnr
        from mmagic.evaluation.metrics.ssim import ssim

        gt = self.domain.parts["test"].images[: len(images)]
        pairs = [(a.permute(1, 2, 0).numpy(), b.permute(1, 2, 0).numpy()) for a, b in zip(images, gt, strict=True)]
        lpips = self.lpips_distance(images, gt)
        lr_error = (reduced(images, scale).double() - reduced(gt, scale).double()).square().mean()
        values = {
            "PSNR": float(np.mean([psnr(a, b) for a, b in pairs])),
            "SSIM": float(np.mean([ssim(a, b) for a, b in pairs])),
            "LPIPS": float(np.mean(lpips)),
            "Frechet": frechet_distance(lite0.features(self.lite0, images), self.test_features[: len(images)]),
            "LR_PSNR": 10 * math.log10(255**2 / max(float(lr_error), 1e-12)),
        }
        if self.domain.attributes:
            shares = attributes.accuracies(self.classifier, self.domain, images, "test")
            values["attributes"] = shares["mean"]
            if self.domain.name == "people":
                values["identity"] = float(np.mean([shares[name] for name in people.OF_IDENTITY]))
        return {name: round(value, 5) for name, value in values.items()}, lpips


@cache
def judge(domain: str) -> Judge:
    """The judge of a domain, once for all experiments of a process and of those forked from it."""
    return Judge(domains.load(domain))


@torch.no_grad()
def restore(
    network: nn.Module,
    lq: Tensor,
    device: torch.device,
    batch: int = 32,
    references: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    """(M, 3, h, w) uint8 -> (M, 3, H, W) uint8, rounded as in a file

    References are (M, R, 3, H, W) uint8, labels the classes (M,).
    """
    outputs = []
    for start in range(0, len(lq), batch):
        part = slice(start, start + batch)
        given = {} if references is None else {"references": to_references(references[part], network, device)}
        if labels is not None:
            given["label"] = labels[part].to(device)
        outputs.append(network(to_network(lq[part], device), **given).float().cpu())
    return ((torch.cat(outputs) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@torch.no_grad()
def top1(network: nn.Module, lq: Tensor, classes: Tensor, device: torch.device) -> float:
    """The share of images (M, 3, h, w) uint8 whose class (M,) the network's classifier has right."""
    _, logits = network(to_network(lq, device), with_logits=True)
    return (logits.argmax(1).cpu() == classes).float().mean().item()


def seconds_per_image(network: nn.Module, lq: Tensor, device: torch.device, repeats: int = 20) -> float:
    """The median time of one forward pass of one image."""
    times = []
    for _ in range(repeats):
        start = clock(device)
        restore(network, lq[:1], device)
        times.append(clock(device) - start)
    return median(times)


def peak_memory() -> float:
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
