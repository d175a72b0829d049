"""Experiments with GAN inversion (PULSE) on the first images of the test part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from experiments import domains, measure
from experiments.domains import Domain
from experiments.experiment import Experiment
from experiments.restorer_run import SUBSET
from experiments.systems import BANKS
from experiments.training import clock, to_network
from experiments.weights import sha256
from glean_ext.inversion import Inversion, InversionOptions, invert
from glean_ext.utils.files import atomic_path

OPTIONS = {
    "pulse": InversionOptions(space="w+", steps=200, restarts=4),
    "pulse-z": InversionOptions(space="z", steps=100, restarts=2),
}


def pulse(experiment: Experiment, domain: Domain, device: torch.device, report: Callable[[str], None]) -> dict:
    """Invert image by image, from the last finished one on."""
    lq = domains.reduced(domain.parts["test"].images[:SUBSET], experiment.scale)
    bank = BANKS[experiment.bank or experiment.domain]
    generator, options = bank.generator().to(device), OPTIONS[experiment.system]
    checkpoint = experiment.work_dir / "last.pth"
    found = torch.load(checkpoint, weights_only=True) if checkpoint.exists() else []
    for image in to_network(lq, device)[len(found) :]:
        start = clock(device)
        result = invert(generator, image, options)
        found.append({**as_record(result), "seconds": clock(device) - start})
        if len(found) % 8 == 0:
            with atomic_path(checkpoint) as partial:
                torch.save(found, partial)
            report(f"{experiment.name}: {len(found)}/{len(lq)}")
    images = torch.stack([record["image"] for record in found])
    metrics, distances = measure.judge(domain.name).measure(images, experiment.scale)
    return {
        "images": images,
        "metrics": metrics,
        "LPIPS_of_each": [round(value, 4) for value in distances],
        "options": vars(options),
        "seconds_per_image": round(mean(found, "seconds"), 4),
        "steps_per_image": mean(found, "steps"),
        "distance": round(mean(found, "distance"), 6),
        "stopped_by": dict(Counter(record["reason"] for record in found)),
        "peak_memory_MiB": round(measure.peak_memory()),
        "weights": {"bank": sha256(bank.file)},
    }


def as_record(found: Inversion) -> dict:
    pixels = ((found.image.cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return {"image": pixels, "distance": found.distance, "reason": found.reason, "steps": found.steps}


def mean(records: list[dict], field: str) -> float:
    return sum(record[field] for record in records) / len(records)
