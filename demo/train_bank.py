"""Train the demo bank: a narrow StyleGAN2 on the cartoon faces, on a CPU.

Training has three stages. In the first, the generator learns to draw each training image from its PCA coordinates,
scaled to unit variance, which replace the latent code (and from its class, where there are classes). An L1 loss teaches
it the domain at a quarter of the cost of adversarial steps (the idea of Bojanowski et al., "Optimizing the Latent Space
of Generative Networks", ICML 2018, with fixed codes). The other two are StyleGAN2's training, which makes images from
random codes realistic: non-saturating loss, lazy R1, style mixing, an average of the weights (Karras et al., CVPR
2020). In the second stage the L1 loss applies to half of each batch, which keeps the variety; in the third all images
come from random codes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.errors import InputError
from glean_ext.models.stylegan2_trainer_bank import mixed_codes
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator, channels_last
from glean_ext.networks.precision import mixed_precision
from glean_ext.utils.files import atomic_path
from glean_ext.utils.progress import ProgressBar

# Arguments of the shipped bank, which every config that uses it has, too.
SIZE = 64
WIDTHS: dict[str, Any] = {"channel_multiplier": 0.125, "max_channels": 80}
BANK: dict[str, Any] = {"style_channels": 64, "num_mlps": 4, **WIDTHS}


@dataclass(frozen=True)
class Recipe:
    """The settings of a run; a resumed run must have the same."""

    drawing_images: int = 100_000  # shown in the first stage
    mixed_images: int = 110_000  # shown in the second stage, half drawn from PCA codes, half from random codes
    adversarial_images: int = 160_000  # shown in the third stage
    batch_size: int = 16
    lr: float = 2e-3
    final_lr: float = 2e-4  # reached linearly over the last half of the third stage
    drawing_weight: float = 1.0  # of the L1 loss in the second stage
    r1_gamma: float = 1.0
    r1_interval: int = 16
    mixing_prob: float = 0.5  # of style mixing
    ema_half_life: int = 5_000  # images
    seed: int = 0

    @property
    def total(self) -> int:
        return self.drawing_images + self.mixed_images + self.adversarial_images


class PCACodes:
    """The first principal coordinates of images, with unit variance: a linear substitute for an inverse generator.

    With classes, mean and variance are those of the images of each class: a code says what distinguishes an image from
    others of its class, and the generator has to take from the class what they have in common.
    """

    def __init__(self, images: Tensor, dimensions: int, labels: Tensor | None = None):
        """``images``: (M, 3, H, W) in [-1, 1]; their mirror images are included. ``labels``: (M,), their classes."""
        flat = torch.cat([images, images.flip(3)]).flatten(1)  # (2M, 3HW)
        self.mean = flat.mean(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, _, basis = torch.pca_lowrank(flat - self.mean, dimensions, center=False, niter=4)  # (3HW, S)
        codes = (flat - self.mean) @ basis  # (2M, S)
        self.project = basis / codes.std(0)
        self.of_classes: list[tuple[Tensor, Tensor]] = []  # mean and deviation of each class
        if labels is not None:
            both = torch.cat([labels, labels])
            parts = [codes[both == label] / codes.std(0) for label in range(int(labels.max()) + 1)]
            self.of_classes = [(part.mean(0), part.std(0)) for part in parts]

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] and their classes (N,) -> (N, S)"""
        codes = (images.flatten(1) - self.mean) @ self.project
        if labels is None or not len(labels):
            return codes
        means, deviations = (torch.stack([self.of_classes[label][i] for label in labels.tolist()]) for i in (0, 1))
        return (codes - means) / deviations


class Pair(Protocol):
    """A generator and its discriminator, as the training uses them. Labels are None where there are no classes."""

    latent_channels: int

    @property
    def generator(self) -> nn.Module: ...

    @property
    def discriminator(self) -> nn.Module: ...

    def codes(self, latents: Tensor) -> Tensor:
        """Latent codes (N, S) -> what :meth:`images` takes, of which batches can be joined."""
        ...

    def random_codes(self, n: int, mixing_prob: float, rng: torch.Generator) -> Tensor: ...

    def images(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        """(N, ...), (N,) -> (N, 3, H, W) about [-1, 1], of the generator in training"""
        ...

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """(N, 3, H, W), (N,) -> (N, 1)"""
        ...

    def sheet(self, ema: nn.Module) -> Image.Image:
        """Samples of the averaged generator, which is then ready for use."""
        ...


class StyleGAN2Pair:
    """StyleGAN2 without classes.

    Args:
        bank: Arguments of the generator; those of the shipped one.
        discriminator: Makes it; None: StyleGAN2's, of the same widths.
    """

    def __init__(self, bank: dict[str, Any] = BANK, discriminator: Callable[[], nn.Module] | None = None):
        self.generator = StyleGAN2Generator(SIZE, **bank)
        widths = {name: bank[name] for name in WIDTHS}
        self.discriminator = discriminator() if discriminator else StyleGAN2Discriminator(SIZE, **widths)
        self.latent_channels = bank["style_channels"]

    def codes(self, latents: Tensor) -> Tensor:
        """(N, S) -> (N, K, S)"""
        return self.generator.style_mapping(latents)[:, None].expand(-1, self.generator.num_latents, -1)

    def random_codes(self, n: int, mixing_prob: float, rng: torch.Generator) -> Tensor:
        """Style codes of random latents, some mixed from two: (n, K, S)"""
        latents = torch.randn(2 * n, self.latent_channels, generator=rng)
        return mixed_codes(self.generator, latents[:n], latents[n:], mixing_prob, rng)

    def images(self, codes: Tensor, labels: Tensor | None) -> Tensor:
        return self.generator.synthesis(codes, fresh_noise=True)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminator(images)

    def sheet(self, ema: nn.Module) -> Image.Image:
        return sample_sheet(cast(StyleGAN2Generator, ema))


class BankTraining:
    """The state of a run: both networks, the average of the weights, both optimisers, and the images shown so far."""

    def __init__(
        self,
        images: Tensor,
        recipe: Recipe,
        pair: Callable[[], Pair] = StyleGAN2Pair,
        labels: Tensor | None = None,
        drawing_loss: Callable[[Tensor, Tensor], Tensor] = F.l1_loss,
    ):
        """Start with random weights.

        Args:
            images: (M, 3, 64, 64), uint8, RGB.
            recipe: The settings of the run.
            pair: Makes the networks.
            labels: (M,), the class of each image. Each class is then shown in proportion to the root of its images, so
                that large ones do not displace small ones.
            drawing_loss: Of drawn images and those of the training, both (N, 3, 64, 64) in [-1, 1].
        """
        self.recipe = recipe
        self.images, self.labels, self.drawing_loss = images, labels, drawing_loss
        if labels is not None:
            self.shares = labels.bincount().float().rsqrt()[labels]  # (M,)
        self.rng = torch.Generator().manual_seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.pair = pair()
        self.generator, self.discriminator = self.pair.generator, self.pair.discriminator
        self.latents = PCACodes(images.float() / 127.5 - 1, self.pair.latent_channels, labels)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False)
        for net in self.generator, self.discriminator, self.ema:
            channels_last(net)
        self.g_optim = torch.optim.Adam(self.generator.parameters(), recipe.lr, (0.0, 0.99))
        self.d_optim = torch.optim.Adam(self.discriminator.parameters(), recipe.lr, (0.0, 0.99))
        self.images_shown = 0
        self.init = ""  # metadata of the weights it started from; empty for random weights

    @property
    def finished(self) -> bool:
        return self.images_shown >= self.recipe.total

    def step(self) -> dict[str, float]:
        """Train one step and return the losses.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        ramp = self.recipe.adversarial_images / 2
        left = min(1.0, (self.recipe.total - self.images_shown) / ramp)
        for optim in self.g_optim, self.d_optim:
            optim.param_groups[0]["lr"] = self.recipe.final_lr + (self.recipe.lr - self.recipe.final_lr) * left
        if self.images_shown < self.recipe.drawing_images:
            losses = self._drawing_step(*self._reals(self.recipe.batch_size))
        else:
            losses = self._adversarial_step()
        decay = 0.5 ** (self.recipe.batch_size / self.recipe.ema_half_life)
        for average, value in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(value.detach(), 1 - decay)
        self.images_shown += self.recipe.batch_size
        if not all(np.isfinite(list(losses.values()))):
            raise FloatingPointError(f"the losses are not finite after {self.images_shown} images: {losses}")
        return losses

    def _drawing_step(self, reals: Tensor, labels: Tensor | None) -> dict[str, float]:
        with mixed_precision(torch.device("cpu"), True):
            drawn = self.pair.images(self.pair.codes(self.latents(reals, labels)), labels)
        loss = self.drawing_loss(drawn, reals)
        _update(self.g_optim, loss)
        return {"drawing": loss.item()}

    def _adversarial_step(self) -> dict[str, float]:
        recipe, n = self.recipe, self.recipe.batch_size
        self.discriminator.requires_grad_(False)
        mixed = self.images_shown < recipe.drawing_images + recipe.mixed_images
        drawn, labels = self._reals(n // 2 if mixed else 0)
        latents = self.latents(drawn, labels)
        if labels is not None and self.labels is not None:
            labels = torch.cat([labels, self.labels[self._chosen(n - len(drawn))]])
        with mixed_precision(torch.device("cpu"), True):
            codes = self.pair.codes(latents)
            codes = torch.cat([codes, self.pair.random_codes(n - len(drawn), recipe.mixing_prob, self.rng)])
            fakes = self.pair.images(codes, labels)
            g_loss = F.softplus(-self.pair.logits(fakes, labels)).mean()
        loss = g_loss
        if len(drawn):
            loss = loss + recipe.drawing_weight * self.drawing_loss(fakes[: len(drawn)], drawn)
        _update(self.g_optim, loss)

        self.discriminator.requires_grad_(True)
        regularize = self.images_shown // recipe.batch_size % recipe.r1_interval == 0
        # other images than those just drawn: identical ones would make real and generated batches easy to tell apart
        reals, real_labels = self._reals(n)
        reals.requires_grad_(regularize)
        with mixed_precision(torch.device("cpu"), True):
            real_logits = self.pair.logits(reals, real_labels)
            fake_logits = self.pair.logits(fakes.detach(), labels)
        d_loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        penalty = torch.zeros(())
        if regularize:
            (gradient,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
        _update(self.d_optim, d_loss + penalty * (recipe.r1_gamma / 2 * recipe.r1_interval))
        return {"g": g_loss.item(), "d": d_loss.item(), "r1": penalty.item()}

    def _reals(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Images of the training, half of them mirrored, (n, 3, H, W) in [-1, 1], and their classes (n,)."""
        index = self._chosen(n)
        flip = torch.rand(n, 1, 1, 1, generator=self.rng) < 0.5
        batch = self.images[index].float() / 127.5 - 1
        batch = torch.where(flip, batch.flip(3), batch).contiguous(memory_format=torch.channels_last)
        return batch, None if self.labels is None else self.labels[index]

    def _chosen(self, n: int) -> Tensor:
        if self.labels is None or not n:
            return torch.randint(len(self.images), (n,), generator=self.rng)
        return torch.multinomial(self.shares, n, replacement=True, generator=self.rng)

    def start_from(self, shipped: str) -> None:
        """Take over a shipped bank's weights and its number of images shown; the optimisers start from zero."""
        state = checkpoints.read(shipped)
        generator = checkpoints.with_prefix(state, "generator_ema", shipped)
        checkpoints.load_strict(self.generator, generator, shipped)
        checkpoints.load_strict(self.ema, generator, shipped)
        discriminator = checkpoints.with_prefix(state, "discriminator", shipped)
        checkpoints.load_strict(self.discriminator, discriminator, shipped)
        facts = checkpoints.metadata(shipped)
        self.images_shown = int(facts["images_shown"])
        self.init = json.dumps(facts)

    def state_dict(self) -> dict:
        parts = ("generator", "ema", "discriminator", "g_optim", "d_optim")
        state = {name: getattr(self, name).state_dict() for name in parts}
        rng = {"rng": self.rng.get_state(), "torch_rng": torch.get_rng_state()}
        return {**state, **rng, "recipe": asdict(self.recipe), "shown": self.images_shown, "init": self.init}

    def load_state_dict(self, state: dict) -> None:
        if state["recipe"] != asdict(self.recipe):
            raise InputError(
                f"The checkpoint has another recipe, {state['recipe']}. Delete it or choose another --work-dir."
            )
        for name in "generator", "ema", "discriminator", "g_optim", "d_optim":
            getattr(self, name).load_state_dict(state[name])
        self.images_shown = state["shown"]
        self.init = state["init"]
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])


def _update(optim: torch.optim.Optimizer, loss: Tensor) -> None:
    optim.zero_grad()
    loss.backward()
    optim.step()


def load_images(folder: Path) -> Tensor:
    """All PNG files of ``folder``: (M, 3, H, W), uint8, RGB."""
    arrays = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def train_bank(
    data: Path, work_dir: Path, recipe: Recipe, save_every: int = 400, init: str | None = None
) -> BankTraining:
    """Train to the end of ``recipe``, continuing from ``work_dir/last.pth`` if it exists, otherwise from ``init``."""
    training = BankTraining(load_images(data / "train" / "GT"), recipe)
    if init and not (work_dir / "last.pth").exists():
        training.start_from(init)
    run_training(training, work_dir, save_every)
    return training


def run_training(training: BankTraining, work_dir: Path, save_every: int = 400) -> None:
    """Train to the end of the recipe, continuing from ``work_dir/last.pth`` if it exists.

    Every ``save_every`` steps the checkpoint, a sheet of samples and a line of ``log.txt`` are written. The steps since
    then are lost when the run is interrupted.
    """
    recipe = training.recipe
    work_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = work_dir / "last.pth"
    if checkpoint.exists():
        training.load_state_dict(torch.load(checkpoint, weights_only=True))

    with ProgressBar(details=True) as bar:
        task = bar.add_task("training the bank", total=recipe.total, completed=training.images_shown, details="")
        averages: dict[str, float] = {}
        while not training.finished:
            losses = training.step()
            averages = {k: 0.98 * averages.get(k, v) + 0.02 * v for k, v in losses.items()}
            text = " ".join(f"{k} {v:.3f}" for k, v in averages.items())
            bar.update(task, completed=training.images_shown, details=text)
            if training.images_shown // recipe.batch_size % save_every == 0 or training.finished:
                with atomic_path(checkpoint) as partial:
                    torch.save(training.state_dict(), partial)
                training.pair.sheet(training.ema).save(work_dir / f"samples_{training.images_shown:07d}.png")
                with (work_dir / "log.txt").open("a") as log:
                    log.write(f"{training.images_shown} {text}\n")
