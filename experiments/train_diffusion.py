"""Train a small diffusion model of images, which the experiments use as a bank. A killed run continues.

DOMAIN: cartoons or emoji. The U-Net is that of configs/demo_glean_diffusion_x8.py. The result is a file as the shipped
one, work_dirs/evidence/DOMAIN_diffusion_bank.safetensors, with a sheet of samples beside it.
Denoising by v-prediction (Salimans and Ho, ICLR 2022) with the cosine schedule (Nichol and Dhariwal, ICML 2021).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from demo import assets
from experiments import domains
from experiments.experiment import WORK
from experiments.systems import PIPELINE
from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path
from glean_ext.utils.optional_packages import import_optional
from glean_ext.utils.progress import ProgressBar

diffusers: Any = import_optional("diffusers", "The diffusion bank", "pip install 'glean-ext[diffusion]'")

BATCH = 8
LR = 4e-4  # reached in WARMUP steps, then half a cosine to zero
WARMUP = 200
EMA_DECAY = 0.999
SAVE_EVERY = 500  # steps
SAMPLES, SAMPLE_STEPS = 32, 50


class DiffusionTraining:
    """The state of a training run.

    Args:
        images: (M, 3, 64, 64) uint8.
        total: Images to show.
    """

    def __init__(self, images: Tensor, total: int):
        from diffusers.training_utils import EMAModel

        torch.manual_seed(0)
        self.images, self.steps = images, math.ceil(total / BATCH)
        self.unet: Any = diffusers.UNet2DModel.from_config(PIPELINE["unet"])
        self.scheduler: Any = diffusers.DDPMScheduler.from_config(PIPELINE["scheduler"])
        self.ema: Any = EMAModel(self.unet.parameters(), decay=EMA_DECAY)
        self.optim = torch.optim.AdamW(self.unet.parameters(), LR, weight_decay=1e-4)
        self.rng = torch.Generator().manual_seed(1)
        self.done = 0

    @property
    def images_shown(self) -> int:
        return self.done * BATCH

    def step(self) -> float:
        """One batch; returns its loss."""
        for group in self.optim.param_groups:
            share = min(1, (self.done + 1) / WARMUP)
            group["lr"] = LR * share * (1 + math.cos(math.pi * self.done / self.steps)) / 2
        chosen = torch.randint(len(self.images), (BATCH,), generator=self.rng)
        x = self.images[chosen].float() / 127.5 - 1
        flipped = torch.rand(BATCH, generator=self.rng) < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        t = torch.randint(self.scheduler.config.num_train_timesteps, (BATCH,), generator=self.rng)
        noise = torch.randn(x.shape, generator=self.rng)
        prediction = self.unet(self.scheduler.add_noise(x, noise, t), t).sample
        loss = F.mse_loss(prediction, self.scheduler.get_velocity(x, noise, t))
        self.optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optim.step()
        self.ema.step(self.unet.parameters())
        self.done += 1
        return loss.item()

    def state_dict(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("unet", "ema", "optim")}
        return {**parts, "rng": self.rng.get_state(), "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in "unet", "ema", "optim":
            getattr(self, name).load_state_dict(state[name])
        self.rng.set_state(state["rng"])
        self.done = state["done"]

    def bank(self) -> dict[str, Tensor]:
        """The average of the weights, as the tensors of a bank's file."""
        self.ema.copy_to(self.unet.parameters())
        return {f"unet.{name}": value for name, value in self.unet.state_dict().items()}

    def sheet(self) -> Image.Image:
        """Samples of the network as it is."""
        pipeline: Any = diffusers.DDIMPipeline(self.unet, diffusers.DDIMScheduler.from_config(self.scheduler.config))
        rng = torch.Generator().manual_seed(0)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline(SAMPLES, rng, num_inference_steps=SAMPLE_STEPS, output_type="np").images  # (32, 64, 64, 3)
        rows = np.concatenate(np.split(images, 8, axis=0), axis=2)  # 4 rows of 8
        return Image.fromarray((np.concatenate(list(rows), axis=0) * 255).round().astype(np.uint8))


def run_training(training: DiffusionTraining, folder: Path) -> None:
    """Train to the end, from ``folder/last.pth`` on if there is one.

    Raises:
        InputError: It has more steps, or is of another U-Net.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, average = folder / "last.pth", 0.0
    if checkpoint.exists():
        resume(training, checkpoint)
    with ProgressBar(details=True) as bar:
        task = bar.add_task("training", total=training.steps, completed=training.done, details="")
        while training.done < training.steps:
            loss = training.step()
            average = 0.98 * (average or loss) + 0.02 * loss
            bar.update(task, completed=training.done, details=f"loss {average:.4f}")
            if training.done % SAVE_EVERY == 0 or training.done == training.steps:
                with atomic_path(checkpoint) as partial:
                    torch.save(training.state_dict(), partial)


def export(training: DiffusionTraining, domain: str) -> None:
    """Write the bank's file, and a sheet of samples beside it."""
    target = WORK / f"{domain}_diffusion_bank.safetensors"
    assets.save_half(training.bank(), target, {"images_shown": str(training.images_shown)}, domain)
    with atomic_path(target.with_suffix(".png")) as partial:
        training.sheet().save(partial, "PNG")


def resume(training: DiffusionTraining, checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    if state["done"] > training.steps:
        raise InputError(
            f"{checkpoint} has {state['done'] * BATCH} images behind it, more than {training.steps * BATCH}.",
            hint="Show more images, or move it away.",
        )
    try:
        training.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{checkpoint} is of another U-Net than that of configs/demo_glean_diffusion_x8.py.",
            hint="Move it away to train this one.",
        ) from error


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domain", choices=("cartoons", "emoji"), metavar="DOMAIN")
    parser.add_argument("--images", type=int, default=200_000, help="to show (default: %(default)s)")
    parser.add_argument("--ship", action="store_true", help="write glean_ext/assets/demo_diffusion_bank.safetensors")
    parser.add_argument("--threads", type=int, help="default: all cores")
    args = parser.parse_args()
    if args.ship and args.domain != "cartoons":
        raise InputError("{ship} is for the cartoons: the package ships their bank.", "ship", "Leave it out.")
    if args.threads:
        torch.set_num_threads(args.threads)
    images = domains.load(args.domain).parts["train"].images
    training = DiffusionTraining(images, args.images)
    run_training(training, Path("work_dirs") / f"{args.domain}_diffusion")
    export(training, args.domain)
    if args.ship:
        assets.ship(training.bank(), "demo_diffusion_bank", {"images_shown": str(training.images_shown)})


if __name__ == "__main__":
    cli.run(main)
