"""The tables: which experiments belong to each, in the order in which they run."""

from __future__ import annotations

from typing import Any

from experiments.experiment import FIRST, OTHER_TIMESTEPS, Budget, Experiment
from experiments.relatives import WITH_REFERENCES

SEEDS = (0, 1, 2)
# In the order of CLAIMS.md: what the first claim needs, then the others.
COMPARED = (("glean", "glean-random"), ("glean-no-bank",), ("esrgan",), ("lightglean", "srgan", "glean-tuned", "srcnn"))
REMEDIES = {"no_gan": Budget(gan_weight=0.0)}  # tried when the bank does not help
NO_EMA = Budget(ema_half_life=1e-3)  # steps: the weights as they are
RECIPE = ("glean-lpips", "glean-unet", "glean-features", "glean-pyramid", "glean-gate")
CLASSES = ("biggan", "biggan-random")
NEED_BANKS = ("quality", "category")  # of experiments.train_banks


def seeds(*systems: str, **settings: Any) -> list[Experiment]:
    """Runs of systems that are compared; all of a seed come before the next."""
    return [Experiment(system, seed=seed, **settings) for seed in SEEDS for system in systems]


def headline(scale: int) -> list[Experiment]:
    runs = [run for systems in COMPARED for run in seeds(*systems, scale=scale)]
    fit = [run for run in runs if run.system != "lightglean" or scale == 8]
    return [Experiment("bicubic", scale=scale), *fit]


def diffusion(scale: int) -> list[Experiment]:
    """What the seventh claim compares, and GLEAN."""
    return [
        run
        for pair in (("diffusion", "diffusion-random"), ("glean-no-bank", "glean"))
        for run in seeds(*pair, scale=scale)
    ]


TABLES: dict[str, list[Experiment]] = {
    "headline-x8": headline(8),
    "decoder": seeds("glean-no-decoder", "glean", "glean-full"),
    "headline-x16": headline(16),
    "pairs": seeds("glean", "glean-random", "glean-no-bank", "esrgan", pairs=200),
    "encoder": seeds("bank-none", "bank-4", "bank-4-8", "bank-4-8-16", scale=4),
    "start": seeds("glean", "glean-cold", "glean-random-cold"),
    "inversion": [Experiment("pulse", budget=FIRST), Experiment("pulse-z", budget=FIRST)],  # which has no training
    "remedies": [
        Experiment(system, budget=budget, variant=variant)
        for variant, budget in REMEDIES.items()
        for system in ("glean", "glean-random", "srgan", "esrgan", "glean-no-bank")
    ],
    "skip": [*seeds("glean-skip", "glean-skip-random", "glean-skip-no-bank"), *seeds("srgan")],
    "skip-x16": [*seeds("glean-skip", "glean-skip-random", "glean-skip-no-bank", scale=16), *seeds("srgan", scale=16)],
    "diffusion": diffusion(8) + seeds("diffusion-lora"),
    "diffusion-x16": diffusion(16),
    "diffusion-ablation": [
        Experiment(f"diffusion{change}")
        for change in ("", *(f"-t{timestep}" for timestep in OTHER_TIMESTEPS), "-no-decoder", "-lora")
    ],
    "recipe": [Experiment("glean"), Experiment("glean", budget=NO_EMA, variant="no_ema"), *map(Experiment, RECIPE)],
    "quality": [
        Experiment("glean", bank=bank, seed=seed) for seed in SEEDS for bank in ("cartoons-30k", "cartoons-100k")
    ],
    "dictionary": seeds("glean", "dfdnet", "dfdnet-no-dictionary"),
    "references": [
        run
        for scale in (16, 8)
        for run in (
            Experiment("bicubic", "people", scale),
            *seeds("glean-references", "diffusion-references", domain="people", scale=scale),
        )
    ]
    + seeds(*WITH_REFERENCES, domain="people"),
    "category": [
        *(Experiment(system, "emoji") for system in ("bicubic", "glean", "glean-random")),
        Experiment("glean", "emoji", bank="cartoons"),
        Experiment("glean", "cartoons", bank="emoji"),
    ],
    "classes": [Experiment(system, "emoji") for system in ("bicubic", *CLASSES)],
}
