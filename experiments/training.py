"""The training that all systems share: the paper's losses, an average of the weights, and checkpoints.

MSE + perceptual + adversarial loss (GLEAN, CVPR 2021, section 3.4), in two stages as in SRGAN and ESRGAN: first the MSE
alone, then all three. The discriminator starts from the bank's own, as in the paper, and for every system alike.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import domains, people, recipe
from experiments.experiment import Experiment
from experiments.systems import CLASSES, PIXEL_LOSS_ONLY, WITH_REFERENCES, build
from glean_ext.models.losses import label_losses, pyramid_loss, scaled_gradient
from glean_ext.networks import channels_last
from glean_ext.networks.fidelity import draw_fidelity, has_gate
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.references import max_references
from glean_ext.utils.files import atomic_path

SAVE_SECONDS = 20.0  # between checkpoints
REFERENCE_DROPOUT = 0.3  # of the batches, as in glean_ext.models.glean
LABEL_WEIGHT = 0.01  # of the classifier's loss, as there


class Training:
    """The state of a run: network, average, discriminator, optimisers, and the steps done."""

    def __init__(self, experiment: Experiment, domain: domains.Domain, device: torch.device):
        self.experiment, self.budget, self.device = experiment, experiment.budget, device
        self.network = build(experiment).to(device).train()
        self.parameters = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.optim = torch.optim.Adam(self.parameters.values(), self.budget.lr, (0.9, 0.99), fused=True)
        self.pixel_loss_only = experiment.system in PIXEL_LOSS_ONLY
        if not self.pixel_loss_only:
            self._build_losses()
        images = domain.parts["train"].images
        if experiment.pairs:
            chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[: experiment.pairs]
            images = images[chosen]
        self.gt, self.lq = images, domains.reduced(images, experiment.scale)
        self.classes = domain.parts["train"].classes if experiment.system in CLASSES else None
        self.rng = torch.Generator().manual_seed(experiment.seed)
        self.steps = 0
        self.seconds = 0.0
        self.candidates: dict[str, dict[str, Tensor]] = {}  # name -> averages kept for the selection

    def _build_losses(self) -> None:
        budget = self.budget
        self.perceptual = recipe.perceptual_loss(self.experiment).to(self.device)
        self.discriminator = recipe.discriminator(self.experiment).to(self.device)
        channels_last(self.perceptual)
        channels_last(self.discriminator)
        self.d_optim = torch.optim.Adam(
            self.discriminator.parameters(), budget.discriminator_lr, (0.0, 0.99), fused=True
        )

    @property
    def finished(self) -> bool:
        return self.steps >= self.budget.steps

    def step(self) -> dict[str, float]:
        """One step.

        Raises:
            FloatingPointError: A loss is not finite.
        """
        start = clock(self.device)
        lq, gt, given = self._batch()
        self.optim.param_groups[0]["lr"] = self.budget.lr * self._schedule()
        full = self.steps >= self.budget.pixel_steps and not self.pixel_loss_only
        image, losses = self._forward(lq, gt, given)
        seen = slice(self.budget.loss_images)  # by the other losses
        if full:
            judged = image[seen]
            if "fidelity" in given:  # these losses ask for detail that the input does not have
                judged = scaled_gradient(judged, 1 - given["fidelity"][seen])
            losses |= self._other_losses(judged, gt[seen])
        self.optim.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        self.optim.step()
        if full:
            losses["d"] = self._discriminator_step(image.detach()[seen])
        decay = 0.5 ** (1 / self.budget.ema_half_life)
        for name, value in self.parameters.items():
            self.average[name].lerp_(value.detach(), 1 - decay)
        self.steps += 1
        self._keep_candidate()
        values = {name: loss.item() for name, loss in losses.items()}
        if not all(map(math.isfinite, values.values())):
            raise FloatingPointError(f"{self.experiment.name}: the losses are not finite: {values}")
        self.seconds += clock(self.device) - start
        return values

    def _forward(self, lq: Tensor, gt: Tensor, given: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The restored images (N, 3, H, W), and the losses that every step has."""
        logits: Tensor | None = None
        with mixed_precision(self.device, True):
            if "label" in given:
                image, logits = self.network(lq, **given, with_logits=True)
            else:
                image = self.network(lq, **given)
        image = image.float()
        losses = {"mse": F.mse_loss(image, gt)}
        if logits is not None:
            losses["label"] = label_losses(logits, given["label"], LABEL_WEIGHT)["loss_label"]
        images: list[Tensor] = getattr(self.network, "pyramid_images", [])
        if images and self.steps < self.budget.pixel_steps:
            losses["pyramid"] = recipe.PYRAMID_WEIGHT * pyramid_loss(images, gt)
        return image, losses

    def _schedule(self) -> float:
        warmup = min(1.0, (self.steps + 1) / self.budget.warmup_steps)
        return warmup * 0.5 * (1 + math.cos(math.pi * self.steps / self.budget.steps))

    def _batch(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(N, 3, h, w) and (N, 3, H, W) in [-1, 1], half of them mirrored, and what else the network gets."""
        n = self.budget.batch_size
        index = torch.randint(len(self.gt), (n,), generator=self.rng)
        flip = torch.rand(n, 1, 1, 1, generator=self.rng) < 0.5
        lq, gt = (
            torch.where(flip, batch.flip(3), batch)
            for batch in (to_network(images[index], self.device) for images in (self.lq, self.gt))
        )
        if self.classes is not None:
            return lq, gt, {"label": self.classes[index].to(self.device)}
        if has_gate(self.network):
            return lq, gt, {"fidelity": draw_fidelity(n, self.device)}
        if self.experiment.system not in WITH_REFERENCES or torch.rand((), generator=self.rng) < REFERENCE_DROPOUT:
            return lq, gt, {}
        references = to_references(self.gt[people.drawn(index, self.rng)], self.network, self.device)
        return lq, gt, {"references": torch.where(flip[..., None].to(self.device), references.flip(4), references)}

    def _other_losses(self, image: Tensor, gt: Tensor) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)
        with mixed_precision(self.device, True):
            perceptual, _ = self.perceptual(image, gt)
            logits = self.discriminator(image)
        return {"perceptual": perceptual, "gan": self.budget.gan_weight * F.softplus(-logits.float()).mean()}

    def _discriminator_step(self, fakes: Tensor) -> Tensor:
        """Real images are other ones than those just restored."""
        self.discriminator.requires_grad_(True)
        index = torch.randint(len(self.gt), (len(fakes),), generator=self.rng)
        with mixed_precision(self.device, True):
            real_logits = self.discriminator(to_network(self.gt[index], self.device))
            fake_logits = self.discriminator(fakes)
        loss = F.softplus(-real_logits.float()).mean() + F.softplus(fake_logits.float()).mean()
        self.d_optim.zero_grad()
        loss.backward()
        self.d_optim.step()
        return loss.detach()

    def _keep_candidate(self) -> None:
        """Averages at the end of the first stage, and in the middle and at the end of the second."""
        budget = self.budget
        names = {budget.pixel_steps: "pixel", budget.pixel_steps + budget.full_steps // 2: "middle"}
        names[budget.steps] = "last"
        if name := names.get(self.steps):
            self.candidates[name] = {key: value.clone() for key, value in self.average.items()}

    def state_dict(self) -> dict:
        state = {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "average": self.average,
            "optim": self.optim.state_dict(),
            "rng": self.rng.get_state(),
            "torch_rng": torch.get_rng_state(),
            "steps": self.steps,
            "seconds": self.seconds,
            "candidates": self.candidates,
            "config": repr(self.experiment),
        }
        if not self.pixel_loss_only:
            state |= {"discriminator": self.discriminator.state_dict(), "d_optim": self.d_optim.state_dict()}
        return state

    def load_state_dict(self, state: dict) -> None:
        with torch.no_grad():
            for name, value in state["parameters"].items():
                self.parameters[name].copy_(value)
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        self.optim.load_state_dict(state["optim"])
        if not self.pixel_loss_only:
            self.discriminator.load_state_dict(state["discriminator"])
            self.d_optim.load_state_dict(state["d_optim"])
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["torch_rng"])
        self.steps, self.seconds, self.candidates = state["steps"], state["seconds"], state["candidates"]

    def averaged(self, candidate: str) -> nn.Module:
        """The network with the averages kept under a name."""
        with torch.no_grad():
            for name, value in self.candidates[candidate].items():
                self.parameters[name].copy_(value)
        return self.network.eval()


def clock(device: torch.device) -> float:
    """Seconds: of the process on a CPU, which other processes do not lengthen; of the clock on a GPU."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def to_network(images: Tensor, device: torch.device) -> Tensor:
    """uint8 -> float in [-1, 1], channels-last"""
    return (images.to(device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_references(images: Tensor, network: nn.Module, device: torch.device) -> Tensor:
    """(N, R, 3, H, W) uint8 -> float in [-1, 1], of at most as many references as the network takes"""
    return images[:, : max_references(network)].to(device).float() / 127.5 - 1


def train(
    experiment: Experiment, domain: domains.Domain, device: torch.device, report: Callable[[str], None]
) -> Training:
    """Train to the end of the budget, from the last checkpoint if there is one of the same experiment."""
    training = Training(experiment, domain, device)
    checkpoint = experiment.work_dir / "last.pth"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["config"] == repr(experiment):
            training.load_state_dict(state)
            report(f"{experiment.name}: continues after {training.steps} steps")
    saved = time.monotonic()
    while not training.finished:
        losses = training.step()
        if time.monotonic() - saved > SAVE_SECONDS or training.finished:
            saved = time.monotonic()
            with atomic_path(checkpoint) as partial:
                torch.save(training.state_dict(), partial)
            text = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
            report(f"{experiment.name}: {training.steps}/{training.budget.steps} {text}")
    return training
