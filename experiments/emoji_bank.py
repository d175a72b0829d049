"""Train the emoji bank: the demo's recipe with wider networks and adaptive augmentation. A killed run continues.

Emoji are fewer (3,000) and more various than the cartoon faces, so the discriminator would learn them by heart: it sees
augmented images (Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import demo.train_bank as demo_bank
from experiments.domains import EMOJI
from experiments.systems import BANKS
from glean_ext import checkpoints, cli
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.utils.files import atomic_path

RECIPE = demo_bank.Recipe(drawing_images=24_000, mixed_images=40_000, adversarial_images=336_000)
AUGMENT = {"target": 0.6, "ramp_images": 100_000}
ADAPT_EVERY = 4  # steps
SOURCE = "Derived from @lobehub/fluent-emoji-3d 1.1.0, MIT"


class EmojiBankTraining(demo_bank.BankTraining):
    """The demo's training with an augmented discriminator."""

    def __init__(self, images: Tensor, recipe: demo_bank.Recipe):
        super().__init__(images, recipe, BANKS["emoji"].arguments, AUGMENT)
        assert self.discriminator.augmentation is not None
        self.augmentation = self.discriminator.augmentation
        self.signs: list[float] = []  # of the last measurements

    def step(self) -> dict[str, float]:
        losses = super().step()
        adversarial = self.images_shown >= self.recipe.drawing_images
        if adversarial and self.images_shown // self.recipe.batch_size % ADAPT_EVERY == 0:
            with torch.no_grad():
                signs = self.discriminator(self._reals(self.recipe.batch_size)).sign()
            self.signs = [*self.signs[-15:], signs.mean().item()]
            self.augmentation.adapt(sum(self.signs) / len(self.signs), ADAPT_EVERY * self.recipe.batch_size)
        return {**losses, "p": self.augmentation.p}

    def state_dict(self) -> dict:
        return {**super().state_dict(), "augment_p": self.augmentation.p}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.augmentation.p = state["augment_p"]


def export(training: demo_bank.BankTraining, target: Path) -> None:
    """Write the averaged generator and the discriminator as a bank file, with the number of images shown."""
    tensors = {
        f"{prefix}.{key}": value.half()
        for prefix, net in (("generator_ema", training.ema), ("discriminator", training.discriminator))
        for key, value in net.state_dict().items()
    }
    facts = {"source": SOURCE, "images_shown": str(training.images_shown), "recipe": json.dumps(vars(training.recipe))}
    checkpoints.save(tensors, target, facts)


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/emoji_bank"))
    parser.add_argument("--export-only", action="store_true", help="write the bank file of the last checkpoint")
    args = parser.parse_args()
    training = EmojiBankTraining(demo_bank.load_images(EMOJI / "train" / "GT"), RECIPE)
    if args.export_only:
        training.load_state_dict(torch.load(args.work_dir / "last.pth", weights_only=True))
    else:
        demo_bank.run_training(training, args.work_dir)
    target = Path(BANKS["emoji"].file)
    export(training, target)
    with atomic_path(target.with_suffix(".png")) as partial:
        sample_sheet(training.ema).save(partial, "PNG")


if __name__ == "__main__":
    cli.run(main)
