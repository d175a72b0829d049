"""The tables: which experiments belong to each."""

from __future__ import annotations

from experiments.experiment import Budget, Experiment

SEEDS = (0, 1, 2)
COMPARED = ("glean", "glean-random", "glean-no-bank", "esrgan", "glean-tuned", "srgan", "srcnn")
# Tried when the bank does not help, beside a warm start: more steps, and no adversarial loss.
REMEDIES = {"4_times_the_steps": Budget(pixel_steps=800, full_steps=240), "no_gan": Budget(gan_weight=0.0)}
NEED_BANKS = ("quality", "category")  # tables that need experiments.train_banks


def headline(scale: int) -> list[Experiment]:
    """Every system with seed 0 first, so that an unfinished table has all systems."""
    systems = [*COMPARED, *["lightglean"] * (scale == 8)]
    runs = [Experiment(system, scale=scale, seed=seed) for seed in SEEDS for system in systems]
    return [Experiment("bicubic", scale=scale), *runs]


TABLES: dict[str, list[Experiment]] = {
    "headline-x8": headline(8),
    "headline-x16": headline(16),
    "encoder": [Experiment(system, scale=4) for system in ("bank-none", "bank-4", "bank-4-8", "bank-4-8-16")],
    "decoder": [
        Experiment(system, seed=seed) for seed in SEEDS for system in ("glean-no-decoder", "glean", "glean-full")
    ],
    "pairs": [
        Experiment(system, pairs=200, seed=seed)
        for seed in SEEDS
        for system in ("glean", "glean-random", "glean-no-bank", "esrgan")
    ],
    "inversion": [Experiment("pulse"), Experiment("pulse-z")],
    "warm": [Experiment(system, seed=seed) for seed in SEEDS for system in ("glean-warm", "glean-random-warm")],
    "remedies": [
        Experiment(system, budget=budget, variant=variant)
        for variant, budget in REMEDIES.items()
        for system in ("glean", "glean-random", "srgan", "esrgan", "glean-no-bank")
    ],
    "rates": [Experiment(system, budget=Budget(lr=5e-4), variant="lr_5e-4") for system in ("esrgan", "srgan", "glean")],
    "quality": [
        Experiment("glean", bank=bank, seed=seed) for seed in SEEDS for bank in ("cartoons-30k", "cartoons-100k")
    ],
    "category": [
        *(Experiment(system, "emoji") for system in ("bicubic", "glean", "glean-random")),
        Experiment("glean", "emoji", bank="cartoons"),
        Experiment("glean", "cartoons", bank="emoji"),
    ],
}
