"""Experiments with one forward pass an image: trained networks, and bicubic enlargement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import attributes, domains, measure, people, recipe, training, weights
from experiments.domains import Domain, Part
from experiments.emoji_data import CLASS_NAMES
from experiments.experiment import Experiment
from experiments.relatives import dictionary
from experiments.systems import (
    CLASSES,
    DIFFUSION,
    DIFFUSION_BANKS,
    WITH_REFERENCES,
    bank_file,
    discriminator_bank,
    trainable,
)
from glean_ext import checkpoints

SUBSET = 48  # first test images, which GAN inversion restores, too
Report = Callable[[str], None]


def trained(experiment: Experiment, domain: Domain, device: torch.device, report: Report) -> dict:
    """Train a network, select its weights on the validation part, and measure it on the test part."""
    done = training.train(experiment, domain, device, report)
    judge, scale = measure.judge(domain.name), experiment.scale
    validation, test = (domain.parts[name] for name in ("val", "test"))
    lq = domains.reduced(validation.images, scale)
    scores = {}
    right = given(experiment, validation, "right")
    for candidate in done.candidates:
        images = measure.restore(done.averaged(candidate), lq, device, **right)
        distances = judge.lpips_distance(images, validation.images)
        scores[candidate] = round(sum(distances) / len(distances), 5)
    lq = domains.reduced(test.images, scale)
    right = given(experiment, test, "right")
    pixel, _ = judge.measure(measure.restore(done.averaged("pixel"), lq, device, **right), scale)
    selected = min((name for name in scores if name != "pixel" or done.pixel_loss_only), key=lambda name: scores[name])
    network = done.averaged(selected)
    images = measure.restore(network, lq, device, **right)
    metrics, distances = judge.measure(images, scale)
    others: dict[str, Any] = {"other_images": {}}
    for which in ("none", "wrong") if right else ():
        restored = measure.restore(network, lq, device, **given(experiment, test, which))
        others[f"metrics_{which}"] = judge.measure(restored, scale)[0]
        others["other_images"][which] = restored
    if experiment.system in CLASSES and test.classes is not None:
        others["top1"] = round(measure.top1(network, lq, test.classes, device), 5)
    return {
        **others,
        **bank_training(experiment),
        "images": images,
        "metrics": metrics,
        "metrics_pixel_stage": pixel,
        "metrics_subset": judge.measure(images[:SUBSET], scale)[0],
        "LPIPS_of_each": [round(value, 4) for value in distances],
        "validation_LPIPS": scores,
        "selected": selected,
        "steps": done.steps,
        "images_seen": experiment.budget.images_seen,
        "train_seconds": round(done.seconds, 1),
        "seconds_per_image": round(measure.seconds_per_image(network, lq, device), 4),
        "peak_memory_MiB": round(measure.peak_memory()),
        "parameters": sum(p.numel() for p in network.parameters()),
        "trainable_parameters": trainable(network),
        "weights": hashes(experiment),
    }


def bank_training(experiment: Experiment) -> dict[str, int]:
    """How many images the training of a diffusion bank showed."""
    if experiment.system not in DIFFUSION or bank_file(experiment) is None:
        return {}
    return {"images_shown": int(checkpoints.metadata(DIFFUSION_BANKS[experiment.domain])["images_shown"])}


def given(experiment: Experiment, part: Part, which: str) -> dict[str, Any]:
    """What a network gets beside a part's images, the ``"right"`` or the ``"wrong"`` or none: references or labels."""
    if experiment.system in WITH_REFERENCES:
        return {"references": pictures(part, which)}
    if experiment.system in CLASSES and part.classes is not None:
        return {"labels": labels(part.classes, which)}
    return {}


def labels(classes: Tensor, which: str) -> Tensor | None:
    """Classes (M,), or wrong ones, all of which come up equally often; None: the network estimates them."""
    count = len(CLASS_NAMES)
    wrong = (classes + 1 + torch.arange(len(classes)) % (count - 1)) % count
    return {"right": classes, "wrong": wrong, "none": None}[which]


def pictures(part: Part, which: str) -> Tensor | None:
    """The references of a part's images, of the ``"right"`` or the ``"wrong"`` person, or none: (M, R, 3, 64, 64)"""
    if which == "none":
        return None
    return part.images[{"right": people.right, "wrong": people.wrong}[which](len(part.images))]


def bicubic(experiment: Experiment, domain: Domain, device: torch.device, report: Report) -> dict:
    """The images enlarged bicubically."""
    test = domain.parts["test"].images
    images = domains.enlarged(domains.reduced(test, experiment.scale), experiment.scale)
    metrics, distances = measure.judge(domain.name).measure(images, experiment.scale)
    return {"images": images, "metrics": metrics, "LPIPS_of_each": [round(value, 4) for value in distances]}


def hashes(experiment: Experiment) -> dict[str, str]:
    """SHA-256 of the weights that a run started from or was judged by."""
    files: dict[str, str | Path] = {"frechet": weights.lite0()}
    if experiment.system != recipe.WITH_LPIPS:
        files["perceptual"] = weights.vgg16()
    if experiment.system not in recipe.OTHER_DISCRIMINATORS:
        files["discriminator"] = discriminator_bank(experiment).file
    if experiment.domain in attributes.FILES and (file := attributes.FILES[experiment.domain][0]).exists():
        files["attributes"] = file
    if experiment.system == "dfdnet":
        files["dictionary"] = dictionary.FILE
    if bank := bank_file(experiment):
        files["bank"] = bank
    return {name: weights.sha256(file) for name, file in files.items()}
