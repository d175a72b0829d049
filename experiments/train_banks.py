"""Train the banks that the experiments need beside the shipped one. A killed run continues.

emoji: a wider StyleGAN2. Emoji are fewer (3,000) and more various than the cartoon faces: the discriminator judges
AlexNet's features (Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021). It could learn the images by heart,
so it sees augmented ones (Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020).
emoji-classes: the shipped BigGAN of all nine classes of the emoji, with such a discriminator.
cartoons-30k, cartoons-100k: banks of cartoon faces that were shown so many images, with the shipped bank's recipe in
short, to measure what a bank's quality is worth.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

import demo.train_bank as demo_bank
from demo import assets
from demo.train_bank import Pair, Recipe, StyleGAN2Pair
from experiments import domains
from experiments.biggan_pair import BigGANPair, l1_and_lpips
from experiments.experiment import WORK
from experiments.systems import BANKS, BIGGAN_BANKS, Bank, BigGANBank
from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.networks.augment import Augmentation
from glean_ext.utils.files import atomic_path

ADAPT_EVERY = 4  # steps
MEASUREMENTS = 16  # of the discriminator's signs, that are averaged
SHIPPED = {"emoji-classes": "demo_biggan_bank.safetensors"}  # in glean_ext/assets


@dataclass(frozen=True)
class Plan:
    """How a bank is trained."""

    domain: str
    recipe: Recipe
    augment: dict | None = None  # arguments of the augmentation of what the discriminator sees
    lpips: bool = False  # LPIPS beside the L1 loss where images are drawn


PLANS = {
    "emoji": Plan(
        "emoji",
        Recipe(24_000, 48_000, 16_000, r1_gamma=0.0, ema_half_life=2_000),
        {"target": 0.6, "ramp_images": 30_000},
        lpips=True,
    ),
    "emoji-classes": Plan(
        "emoji",
        Recipe(40_000, 40_000, 8_000, lr=1e-3, final_lr=1e-4, r1_gamma=0.0, ema_half_life=2_000),
        {"target": 0.6, "ramp_images": 30_000},
        lpips=True,
    ),
    "cartoons-30k": Plan("cartoons", Recipe(8_000, 9_000, 13_000)),
    "cartoons-100k": Plan("cartoons", Recipe(27_000, 30_000, 43_000)),
}


class BankTraining(demo_bank.BankTraining):
    """The demo's training; where the discriminator sees augmented images, the strength of that is adapted."""

    def __init__(self, images: Tensor, plan: Plan, bank: Bank | BigGANBank, labels: Tensor | None = None):
        loss = l1_and_lpips() if plan.lpips else F.l1_loss
        super().__init__(images, plan.recipe, lambda: pair_of(bank, plan.augment), labels, loss)
        self.augmentation = cast(Augmentation | None, self.discriminator.augmentation)
        self.signs: list[float] = []  # the last measurements

    def step(self) -> dict[str, float]:
        losses = super().step()
        if self.augmentation is None:
            return losses
        adversarial = self.images_shown >= self.recipe.drawing_images
        if adversarial and self.images_shown // self.recipe.batch_size % ADAPT_EVERY == 0:
            with torch.no_grad():
                signs = self.pair.logits(*self._reals(self.recipe.batch_size)).sign()
            self.signs = [*self.signs, signs.mean().item()][-MEASUREMENTS:]
            self.augmentation.adapt(sum(self.signs) / len(self.signs), ADAPT_EVERY * self.recipe.batch_size)
        return {**losses, "p": self.augmentation.p}

    def state_dict(self) -> dict:
        return {**super().state_dict(), "augment_p": self.augmentation.p if self.augmentation else 0.0}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        if self.augmentation:
            self.augmentation.p = state["augment_p"]


def pair_of(bank: Bank | BigGANBank, augment: dict | None) -> Pair:
    """The networks with random weights."""
    discriminator = partial(bank.untrained_discriminator, augment)
    if isinstance(bank, BigGANBank):
        return BigGANPair(bank.sizes, discriminator)
    return StyleGAN2Pair(bank.arguments, discriminator)


def save(training: demo_bank.BankTraining, target: Path, domain: str) -> None:
    """Write the averaged generator and the discriminator as a bank file, and a sheet of samples beside it."""
    sheet = training.pair.sheet(training.ema)
    tensors = {
        f"{prefix}.{key}": value
        for prefix, net in (("generator_ema", training.ema), ("discriminator", training.discriminator))
        for key, value in net.state_dict().items()
    }
    facts = {"images_shown": str(training.images_shown), "recipe": json.dumps(vars(training.recipe))}
    assets.save_half(tensors, target, facts, domain)
    with atomic_path(target.with_suffix(".png")) as partial:
        sheet.save(partial, "PNG")


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("banks", nargs="+", choices=list(PLANS), metavar="BANK")
    parser.add_argument("--ship", action="store_true", help="emoji-classes only: write it to glean_ext/assets, too")
    parser.add_argument("--threads", type=int, help="default: all cores")
    args = parser.parse_args()
    if args.ship and not set(args.banks) <= set(SHIPPED):
        raise InputError("{ship} is for emoji-classes: the package ships that bank.", "ship", "Leave it out.")
    if args.threads:
        torch.set_num_threads(args.threads)
    known: dict[str, Bank | BigGANBank] = {**BANKS, **BIGGAN_BANKS}
    for name in args.banks:
        plan = PLANS[name]
        bank = known[name]
        part = domains.load(plan.domain).parts["train"]
        training = BankTraining(part.images, plan, bank, part.classes if isinstance(bank, BigGANBank) else None)
        demo_bank.run_training(training, Path("work_dirs") / f"{name}_bank")
        save(training, target := WORK / f"{name}_bank.safetensors", plan.domain)
        if args.ship:
            assets.record(Path(shutil.copy(target, assets.ASSETS / SHIPPED[name])))


if __name__ == "__main__":
    cli.run(main)
