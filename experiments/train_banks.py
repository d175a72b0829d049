"""Train the banks that the experiments need beside the shipped one. A killed run continues.

emoji: the demo's recipe with a wider network. Emoji are fewer (3,000) and more various than the cartoon faces, so the
discriminator would learn them by heart: it sees augmented images (Karras et al., "Training Generative Adversarial
Networks with Limited Data", NeurIPS 2020).
cartoons-30k, cartoons-100k: banks of cartoon faces that were shown so many images, with the shipped bank's recipe in
short, to measure what a bank's quality is worth.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import demo.train_bank as demo_bank
from demo.train_bank import Recipe
from experiments import domains
from experiments.systems import BANKS, Bank
from glean_ext import checkpoints, cli
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.utils.files import atomic_path

ADAPT_EVERY = 4  # steps
MEASUREMENTS = 16  # of the discriminator's signs, that are averaged
SOURCES = {
    "cartoons": "Derived from ToonHead by Johan Melin, CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "emoji": "Derived from @lobehub/fluent-emoji-3d 1.1.0, MIT",
}


@dataclass(frozen=True)
class Plan:
    """How a bank is trained."""

    domain: str
    recipe: Recipe
    augment: dict | None = None  # arguments of the discriminator's augmentation


PLANS = {
    "emoji": Plan("emoji", Recipe(24_000, 40_000, 336_000), {"target": 0.6, "ramp_images": 100_000}),
    "cartoons-30k": Plan("cartoons", Recipe(8_000, 9_000, 13_000)),
    "cartoons-100k": Plan("cartoons", Recipe(27_000, 30_000, 43_000)),
}


class BankTraining(demo_bank.BankTraining):
    """The demo's training; where the discriminator augments images, the strength of that is adapted."""

    def __init__(self, images: Tensor, plan: Plan, bank: Bank):
        super().__init__(images, plan.recipe, bank.arguments, plan.augment)
        self.augmentation = self.discriminator.augmentation
        self.signs: list[float] = []  # the last measurements

    def step(self) -> dict[str, float]:
        losses = super().step()
        if self.augmentation is None:
            return losses
        adversarial = self.images_shown >= self.recipe.drawing_images
        if adversarial and self.images_shown // self.recipe.batch_size % ADAPT_EVERY == 0:
            with torch.no_grad():
                signs = self.discriminator(self._reals(self.recipe.batch_size)).sign()
            self.signs = [*self.signs, signs.mean().item()][-MEASUREMENTS:]
            self.augmentation.adapt(sum(self.signs) / len(self.signs), ADAPT_EVERY * self.recipe.batch_size)
        return {**losses, "p": self.augmentation.p}

    def state_dict(self) -> dict:
        return {**super().state_dict(), "augment_p": self.augmentation.p if self.augmentation else 0.0}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if self.augmentation:
            self.augmentation.p = state["augment_p"]


def export(training: BankTraining, name: str) -> None:
    """Write the averaged generator and the discriminator as a bank file, and a sheet of samples beside it."""
    tensors = {
        f"{prefix}.{key}": value.half()
        for prefix, net in (("generator_ema", training.ema), ("discriminator", training.discriminator))
        for key, value in net.state_dict().items()
    }
    facts = {"source": SOURCES[PLANS[name].domain], "images_shown": str(training.images_shown)}
    target = Path(BANKS[name].file)
    checkpoints.save(tensors, target, {**facts, "recipe": json.dumps(vars(training.recipe))})
    with atomic_path(target.with_suffix(".png")) as partial:
        sample_sheet(training.ema).save(partial, "PNG")


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("banks", nargs="+", choices=list(PLANS), metavar="BANK")
    parser.add_argument("--threads", type=int, help="default: all cores")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for name in args.banks:
        plan = PLANS[name]
        training = BankTraining(domains.load(plan.domain).parts["train"].images, plan, BANKS[name])
        demo_bank.run_training(training, Path("work_dirs") / f"{name}_bank")
        export(training, name)


if __name__ == "__main__":
    cli.run(main)
