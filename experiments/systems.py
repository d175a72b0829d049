"""The systems that are compared: a name -> a network that takes (N, 3, 64/s, 64/s) in [-1, 1] to (N, 3, 64, 64)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from demo.train_bank import BANK, SIZE
from experiments import relatives, weights
from experiments.emoji_data import CLASS_NAMES as EMOJI_CLASSES
from experiments.experiment import OTHER_TIMESTEPS, TIMESTEP, WORK, Experiment
from glean_ext import checkpoints
from glean_ext.config import generator_config, load_config
from glean_ext.networks import (
    GLEANBigGAN,
    GLEANDiffusion,
    GLEANStyleGANv2,
    LightGLEANStyleGANv2,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
    channels_last,
)
from glean_ext.networks.banks.biggan_spec import BigGANSpec

TRUNK: dict[str, Any] = {"rrdb_channels": 32, "num_rrdbs": 1}  # of the encoder
SLIM: dict[str, Any] = {"decoder": "slim", "decoder_channels": 32}
EMOJI_WIDTHS: dict[str, Any] = {"channel_multiplier": 0.1875, "max_channels": 96}


@dataclass(frozen=True)
class Bank:
    """A trained StyleGAN2 with its discriminator."""

    file: str
    arguments: dict[str, Any]  # of the generator, without its size
    judges_features: bool = False  # the discriminator; else StyleGAN2's

    @property
    def widths(self) -> dict[str, Any]:
        return {name: self.arguments[name] for name in ("channel_multiplier", "max_channels")}

    def generator(self) -> StyleGAN2Generator:
        net = StyleGAN2Generator(SIZE, **self.arguments)
        checkpoints.load_pretrained(net, self.init_cfg("generator_ema"))
        channels_last(net)
        return net.requires_grad_(False).eval()

    def untrained_discriminator(self, augment: dict | None = None) -> nn.Module:
        if self.judges_features:
            return weights.alexnet_discriminator(augment)
        return StyleGAN2Discriminator(SIZE, **self.widths, augment=augment)

    def init_cfg(self, prefix: str) -> dict[str, str]:
        return {"type": "Pretrained", "checkpoint": self.file, "prefix": prefix}


BANKS = {  # the shipped one; experiments.train_banks trains the others
    **{name: Bank("glean-ext://demo_bank.safetensors", BANK) for name in ("cartoons", "people")},
    **{name: Bank(str(WORK / f"{name}_bank.safetensors"), BANK) for name in ("cartoons-30k", "cartoons-100k")},
    "emoji": Bank(
        str(WORK / "emoji_bank.safetensors"),
        {**BANK, "style_channels": EMOJI_WIDTHS["max_channels"], **EMOJI_WIDTHS},
        judges_features=True,
    ),
}


@dataclass(frozen=True)
class BigGANBank:
    """A trained BigGAN of a domain's classes, with its discriminator."""

    file: str
    sizes: BigGANSpec

    def untrained_discriminator(self, augment: dict | None = None) -> nn.Module:
        return weights.alexnet_discriminator(augment)

    def init_cfg(self, prefix: str) -> dict[str, str]:
        return {"type": "Pretrained", "checkpoint": self.file, "prefix": prefix}


BIGGAN_BANKS = {  # the shipped one, of experiments.train_banks
    "emoji-classes": BigGANBank(
        "glean-ext://demo_biggan_bank.safetensors",
        BigGANSpec(SIZE, len(EMOJI_CLASSES), base_channels=8, noise_size=60, shared_dim=32, attention_at=()),
    )
}

# GLEAN and its ablations: what differs from the paper's network with a frozen bank. The slim decoder, LightGLEAN's, is
# cheaper to train on a CPU; "glean-full" has the paper's. All start warm but for those that are named cold.
WARM: dict[str, Any] = {**SLIM, "warm_start": True}
SKIP: dict[str, Any] = {  # of the third protocol: the paper's decoder, and two parts of SRResNet
    "decoder": "full",
    "warm_start": True,
    "global_skip": True,
    "trunk": "residual",
    "rrdb_channels": 64,
    "num_rrdbs": 16,
}
GLEAN: dict[str, dict[str, Any]] = {
    "glean": WARM,
    "glean-random": {**WARM, "bank_init": "random"},
    "glean-no-bank": {**SLIM, "bank": "absent"},
    "glean-tuned": {**WARM, "bank": "tuned"},
    "glean-cold": SLIM,
    "glean-random-cold": {**SLIM, "bank_init": "random"},
    "glean-full": {**WARM, "decoder": "full"},
    "glean-skip": SKIP,
    "glean-skip-random": {**SKIP, "bank_init": "random"},
    "glean-skip-no-bank": {**SKIP, "bank": "absent", "warm_start": False, "num_rrdbs": 36},
    "glean-references": {**WARM, "references": True},
    **dict.fromkeys(("glean-lpips", "glean-unet", "glean-features"), WARM),  # of experiments.recipe, as the next two
    "glean-pyramid": {**WARM, "pyramid": True},
    "glean-gate": {**WARM, "fidelity_gate": True},
    "glean-no-decoder": {"decoder": "none", "warm_start": True},
    **{
        f"bank-{name}": {"decoder": "none", "warm_start": True, "inject_at": resolutions}
        for name, resolutions in {"none": (), "4": (4,), "4-8": (4, 8), "4-8-16": (4, 8, 16)}.items()
    },
}
# The trunk of the network without bank is larger, so that its trainable parameters are as many, within 10%.
MATCHED_TRUNK: dict[int, dict[str, Any]] = {
    8: {"rrdb_channels": 32, "num_rrdbs": 4},
    16: {"rrdb_channels": 36, "num_rrdbs": 3},
}
LIGHT: dict[str, dict[str, Any]] = {"lightglean": {"num_rrdbs": 3, "decoder_channels": 48}}
WITH_BANK = {**GLEAN, **LIGHT}  # of StyleGAN2
INVERSIONS = ("pulse", "pulse-z")  # of such a bank alone
# GLEAN on a BigGAN of many classes.
CLASSES: dict[str, dict[str, Any]] = {"biggan": SLIM, "biggan-random": {**SLIM, "bank_init": "random"}}
CLASS_BANK = "emoji-classes"
# GLEAN on a small diffusion model; its encoder is wider, for the same reason.
DIFFUSION: dict[str, dict[str, Any]] = {
    "diffusion": {},
    "diffusion-random": {"bank_init": "random"},
    "diffusion-lora": {"bank": "lora"},
    "diffusion-references": {},
    "diffusion-no-decoder": {"decoder": "none"},
    **{f"diffusion-t{timestep}": {"timestep": timestep} for timestep in OTHER_TIMESTEPS},
}
PIPELINE = generator_config(load_config("demo_glean_diffusion_x8"), "demo_glean_diffusion_x8")["pipeline"]
DIFFUSION_BANKS = {  # the shipped one; experiments.train_diffusion trains the other
    **dict.fromkeys(("cartoons", "people"), "glean-ext://demo_diffusion_bank.safetensors"),
    "emoji": str(WORK / "emoji_diffusion_bank.safetensors"),
}
DIFFUSION_ENCODER: dict[int, dict[str, Any]] = {
    8: {"encoder_channels": 144, "rrdb_channels": 32, "num_rrdbs": 2},
    16: {"encoder_channels": 160, "rrdb_channels": 32, "num_rrdbs": 2},
}
WITH_REFERENCES = (  # trained and tested with them
    *("glean-references", "diffusion-references"),
    *relatives.WITH_REFERENCES,
)
PIXEL_LOSS_ONLY = ("srcnn",)  # trained with the MSE throughout, as its paper does
SCRATCH = ("srcnn", "srgan", "esrgan")


class Enlarged(nn.Module):
    """One of MMagic's x4 networks for a larger scale: the input is enlarged first, bicubically."""

    def __init__(self, net: nn.Module, factor: int):
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, 3, 4 f h, 4 f w)"""
        return self.net(F.interpolate(lq, scale_factor=self.factor, mode="bicubic", align_corners=False))


def bank_of(experiment: Experiment) -> Bank:
    return BANKS[experiment.bank or experiment.domain]


def trained_discriminator(bank: Bank | BigGANBank) -> nn.Module:
    """That of the bank's own training."""
    net = bank.untrained_discriminator()
    checkpoints.load_pretrained(net, bank.init_cfg("discriminator"))
    channels_last(net)
    return net


def discriminator_bank(experiment: Experiment) -> Bank | BigGANBank:
    """The bank whose discriminator a training starts from."""
    return BIGGAN_BANKS[CLASS_BANK] if experiment.system in CLASSES else BANKS[experiment.domain]


def bank_file(experiment: Experiment) -> str | None:
    """The weights of the bank; None for a system without a bank, or with a random one."""
    name = experiment.system
    if name in INVERSIONS:
        return bank_of(experiment).file
    changes = {**WITH_BANK, **CLASSES, **DIFFUSION}.get(name)
    if changes is None or not loads_bank(changes):
        return None
    if name in DIFFUSION:
        return DIFFUSION_BANKS[experiment.domain]
    return discriminator_bank(experiment).file if name in CLASSES else bank_of(experiment).file


def loads_bank(changes: dict[str, Any]) -> bool:
    """Whether a network with a bank, by what differs from the paper's, starts from the bank's weights."""
    return changes.get("bank_init") != "random" and changes.get("bank") != "absent"


def build(experiment: Experiment) -> nn.Module:
    """The network of an experiment before training; its random weights follow from the seed.

    Raises:
        ValueError: An unknown system.
    """
    torch.manual_seed(experiment.seed)
    name = experiment.system
    if name in SCRATCH:
        net = from_scratch(name, experiment.scale)
    elif name in relatives.RELATIVES:
        net = relatives.build(name, experiment.scale, experiment.domain)
    elif name in DIFFUSION:
        init_cfg = {"type": "Pretrained", "checkpoint": DIFFUSION_BANKS[experiment.domain]}
        changes = {"timestep": TIMESTEP, **DIFFUSION_ENCODER[experiment.scale], **DIFFUSION[name]}
        net = GLEANDiffusion(SIZE // experiment.scale, SIZE, PIPELINE, init_cfg=init_cfg, **changes)
        net.init_weights()
    elif name in CLASSES:
        net = of_classes(name, experiment.scale, BIGGAN_BANKS[CLASS_BANK])
    elif name in WITH_BANK:
        net = with_bank(name, experiment.scale, bank_of(experiment))
    else:
        raise ValueError(f"There is no system {name!r}.")
    channels_last(net)
    return net


def with_bank(name: str, scale: int, bank: Bank) -> nn.Module:
    """GLEAN, LightGLEAN or an ablation, with the bank's weights where it has any."""
    changes = WITH_BANK[name]
    trunk = MATCHED_TRUNK[scale] if changes.get("bank") == "absent" else TRUNK
    kind = GLEANStyleGANv2 if name in GLEAN else LightGLEANStyleGANv2
    init_cfg = bank.init_cfg("generator_ema") if loads_bank(changes) else None
    net = kind(SIZE // scale, SIZE, init_cfg=init_cfg, **{**bank.arguments, **trunk, **changes})
    net.init_weights()
    return net


def of_classes(name: str, scale: int, bank: BigGANBank) -> nn.Module:
    """GLEAN on a BigGAN, with its weights or random ones."""
    sizes = {key: value for key, value in vars(bank.sizes).items() if key != "out_size"}
    init_cfg = bank.init_cfg("generator_ema") if loads_bank(CLASSES[name]) else None
    net = GLEANBigGAN(SIZE // scale, SIZE, init_cfg=init_cfg, **{**sizes, **TRUNK, **CLASSES[name]})
    net.init_weights()
    return net


def from_scratch(name: str, scale: int) -> nn.Module:
    """MMagic's own networks, at sizes that suit 64 pixels; SRResNet and RRDB have about as many parameters as GLEAN."""
    if name == "srcnn":
        from mmagic.models.editors.srcnn.srcnn_net import SRCNNNet

        return SRCNNNet(upscale_factor=scale)
    if name == "srgan":
        from mmagic.models.editors.srgan.sr_resnet import MSRResNet

        return Enlarged(MSRResNet(3, 3, mid_channels=64, num_blocks=18, upscale_factor=4), scale // 4)
    from mmagic.models.editors.esrgan.rrdb_net import RRDBNet

    net = RRDBNet(3, 3, mid_channels=32, num_blocks=4, growth_channels=32, upscale_factor=4)
    net.init_weights()  # type: ignore[operator]
    return Enlarged(net, scale // 4)


def trainable(net: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
