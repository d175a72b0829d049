"""Train the demo bank: a narrow StyleGAN2 on the cartoon faces, on a CPU.

The loss is StyleGAN2's (Karras et al., CVPR 2020): non-saturating, lazy R1, style mixing, an average of the weights.
The resolution grows once, as in Karras et al., ICLR 2018, but without a blend: the first stage trains at 32x32, where a
step costs a third; then both networks get their 64x64 block and go on.
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from glean_ext.networks.discriminator import StyleGAN2Discriminator
from glean_ext.networks.stylegan2 import StyleGAN2Generator

# What the shipped bank is built with, and every config that uses it.
BANK = {"style_channels": 128, "num_mlps": 4, "channel_multiplier": 0.125, "max_channels": 128}


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run; a resumed run must have the same."""

    stages: tuple[tuple[int, int], ...] = ((32, 150_000), (64, 104_000))  # (resolution, images shown)
    batch_size: int = 32
    lr: float = 2e-3
    final_lr: float = 2e-4  # reached linearly over the last half of the last stage
    r1_gamma: float = 1.0
    r1_interval: int = 16
    mixing_prob: float = 0.5
    ema_half_life: int = 10_000  # images
    seed: int = 0


class BankTraining:
    """The state of a run: both networks, the average, both optimisers, how far it is."""

    def __init__(self, images: Tensor, recipe: Recipe):
        """``images``: (M, 3, 64, 64), uint8, RGB."""
        self.recipe = recipe
        self.images = images
        self.rng = torch.Generator().manual_seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        self.shown = 0  # images shown in all stages
        self.stage = -1
        self._next_stage()

    def _next_stage(self) -> None:
        self.stage += 1
        res = self.recipe.stages[self.stage][0]
        shape = {k: BANK[k] for k in ("channel_multiplier", "max_channels")}
        generator = StyleGAN2Generator(res, **BANK)
        discriminator = StyleGAN2Discriminator(res, **shape)
        ema = copy.deepcopy(generator)
        if self.stage > 0:
            grow_generator(self.generator, generator)
            grow_generator(self.ema, ema)
            grow_discriminator(self.discriminator, discriminator)
        self.generator, self.discriminator, self.ema = generator, discriminator, ema.requires_grad_(False)
        for net in generator, discriminator, ema:
            channels_last(net)
        self.g_optim = torch.optim.Adam(generator.parameters(), self.recipe.lr, (0.0, 0.99))
        self.d_optim = torch.optim.Adam(discriminator.parameters(), self.recipe.lr, (0.0, 0.99))
        factor = self.images.shape[-1] // res
        small = F.avg_pool2d(self.images.float(), factor).round().to(torch.uint8)
        self.reals = small.contiguous(memory_format=torch.channels_last)

    @property
    def total(self) -> int:
        return sum(count for _, count in self.recipe.stages)

    @property
    def finished(self) -> bool:
        return self.shown >= self.total

    def _learning_rate(self) -> float:
        ramp = self.recipe.stages[-1][1] / 2
        left = min(1.0, (self.total - self.shown) / ramp)
        return self.recipe.final_lr + (self.recipe.lr - self.recipe.final_lr) * left

    def _batch(self) -> Tensor:
        index = torch.randint(len(self.reals), (self.recipe.batch_size,), generator=self.rng)
        flip = torch.rand(self.recipe.batch_size, 1, 1, 1, generator=self.rng) < 0.5
        batch = self.reals[index].float() / 127.5 - 1  # (N, 3, H, W) in [-1, 1]
        return torch.where(flip, batch.flip(3), batch)

    def _fakes(self) -> Tensor:
        n, net = self.recipe.batch_size, self.generator
        w = net.style_mapping(torch.randn(2 * n, net.style_channels, generator=self.rng)).reshape(2, n, 1, -1)
        cut = torch.randint(1, net.num_latents, (n, 1, 1), generator=self.rng)
        unmixed = torch.rand(n, 1, 1, generator=self.rng) >= self.recipe.mixing_prob
        first = (torch.arange(net.num_latents)[None, :, None] < cut) | unmixed  # (N, K, 1)
        return net.synthesis(torch.where(first, w[0], w[1]), fresh_noise=True)

    def step(self) -> dict[str, float]:
        """One step of both networks; returns their losses."""
        if self.shown >= sum(count for _, count in self.recipe.stages[: self.stage + 1]):
            self._next_stage()
        for optim in self.g_optim, self.d_optim:
            for group in optim.param_groups:
                group["lr"] = self._learning_rate()

        self.discriminator.requires_grad_(False)
        with torch.autocast("cpu", torch.bfloat16):
            fakes = self._fakes()
            g_loss = F.softplus(-self.discriminator(fakes)).mean()
        self.g_optim.zero_grad()
        g_loss.backward()
        self.g_optim.step()

        self.discriminator.requires_grad_(True)
        recipe, step = self.recipe, self.shown // self.recipe.batch_size
        regularize = step % recipe.r1_interval == 0
        reals = self._batch().requires_grad_(regularize)
        with torch.autocast("cpu", torch.bfloat16):
            real_logits = self.discriminator(reals)
            fake_logits = self.discriminator(fakes.detach())
        d_loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        penalty = torch.zeros(())
        if regularize:
            (gradient,) = torch.autograd.grad(real_logits.sum(), reals, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
        self.d_optim.zero_grad()
        (d_loss + penalty * (recipe.r1_gamma / 2 * recipe.r1_interval)).backward()
        self.d_optim.step()

        decay = 0.5 ** (recipe.batch_size / recipe.ema_half_life)
        for average, value in zip(self.ema.parameters(), self.generator.parameters(), strict=True):
            average.lerp_(value.detach(), 1 - decay)
        self.shown += recipe.batch_size
        if not torch.isfinite(g_loss + d_loss):
            raise FloatingPointError(f"the losses are not finite after {self.shown} images")
        return {"g": g_loss.item(), "d": d_loss.item(), "r1": penalty.item()}

    def state_dict(self) -> dict:
        nets = {name: getattr(self, name).state_dict() for name in ("generator", "ema", "discriminator")}
        optims = {name: getattr(self, name).state_dict() for name in ("g_optim", "d_optim")}
        rng = {"rng": self.rng.get_state(), "torch_rng": torch.get_rng_state()}
        return {**nets, **optims, **rng, "recipe": asdict(self.recipe), "stage": self.stage, "shown": self.shown}

    def load_state_dict(self, state: dict) -> None:
        if state["recipe"] != asdict(self.recipe):
            raise ValueError(f"the checkpoint was made with another recipe: {state['recipe']}. Delete it to start anew.")
        while self.stage < state["stage"]:
            self._next_stage()
        for name in "generator", "ema", "discriminator", "g_optim", "d_optim":
            getattr(self, name).load_state_dict(state[name])
        self.shown = state["shown"]
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])


def channels_last(net: nn.Module) -> None:
    """Store the convolution weights of ``net`` channels-last; activations follow them."""
    for param in net.parameters():
        if param.ndim == 4:
            param.data = param.data.contiguous(memory_format=torch.channels_last)


def grow_generator(small: nn.Module, large: StyleGAN2Generator) -> None:
    """Copy what both have. The new RGB layers start at zero, so the first images are the small ones upsampled."""
    known = small.state_dict()
    for name, param in large.state_dict().items():
        if name in known:
            param.copy_(known[name])
        elif name.startswith("to_rgbs.") and name.endswith("conv.weight_orig"):
            param.zero_()


def grow_discriminator(small: nn.Module, large: nn.Module) -> None:
    """Copy what both have; the blocks of the small network come after the new ones of the large one."""
    shift = len(large.convs) - len(small.convs)  # type: ignore[arg-type]
    target = large.state_dict()
    for name, param in small.state_dict().items():
        parts = name.split(".")
        if parts[0] == "convs":
            if parts[1] == "0":
                continue  # reads RGB at the small resolution
            parts[1] = str(int(parts[1]) + shift)
        target[".".join(parts)].copy_(param)


def load_images(folder: Path) -> Tensor:
    """All PNG files of ``folder``: (M, 3, H, W), uint8, RGB."""
    arrays = [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@torch.no_grad()
def sample_sheet(bank: StyleGAN2Generator, rows: int = 8, columns: int = 16, seed: int = 0) -> Image.Image:
    """``rows * columns`` images from seeded latents, without truncation."""
    z = torch.randn(rows * columns, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    images = (bank(z).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)  # (N, 3, H, W)
    n, c, h, w = images.shape
    sheet = images.reshape(rows, columns, c, h, w).permute(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return Image.fromarray(sheet.numpy())


def train_bank(data: Path, work_dir: Path, recipe: Recipe, save_every: int = 200) -> BankTraining:
    """Train to the end of ``recipe``, going on from ``work_dir/last.pth`` when it is there.

    Every ``save_every`` steps it writes the checkpoint and a sheet of samples; Ctrl-C loses the steps since then.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = work_dir / "last.pth"
    training = BankTraining(load_images(data / "train" / "GT"), recipe)
    if checkpoint.exists():
        training.load_state_dict(torch.load(checkpoint, weights_only=True))

    def save() -> None:
        partial = checkpoint.with_suffix(".part")
        torch.save(training.state_dict(), partial)
        partial.replace(checkpoint)
        sample_sheet(training.ema).save(work_dir / f"samples_{training.shown:07d}.png")

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task("bank", total=training.total, completed=training.shown)
        averages: dict[str, float] = {}
        while not training.finished:
            losses = training.step()
            averages = {k: 0.98 * averages.get(k, v) + 0.02 * v for k, v in losses.items()}
            text = " ".join(f"{k} {v:.2f}" for k, v in averages.items())
            progress.update(task, completed=training.shown, description=f"bank: {text}")
            step = training.shown // recipe.batch_size
            if step % save_every == 0 or training.finished:
                save()
                with (work_dir / "log.txt").open("a") as log:
                    log.write(f"{training.shown} {text}\n")
    return training
