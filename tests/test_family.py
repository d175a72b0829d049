"""Every config of a restorer, built at full size and trained for a step scaled down; images that are not square."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.registry import DefaultScope
from support.networks import TINY, randomize
from support.seeding import seed
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.engine.hooks.frozen_bank_hook import bank_digests
from glean_ext.errors import InputError
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator, build_network
from glean_ext.networks.shapes import SquarePadding

__all__ = ["seed"]  # a fixture that every test here uses
CONFIGS = Path(__file__).parents[1] / "configs"
FAMILY = sorted(
    {*CONFIGS.glob("*.py"), *CONFIGS.glob("ablations/*.py")}
    - {*CONFIGS.glob("bank_*.py"), *CONFIGS.glob("*_color*.py")}
    - {
        path
        for name in ("*_sd21", "*_sdturbo", "*_diffusion_*", "*_references_*")
        for path in CONFIGS.glob(f"{name}.py")
    }
)
OF_CLASSES = [path for path in FAMILY if "_biggan_" in path.name]  # tests/engine/test_biggan_training.py trains these
TITLES = [str(path.relative_to(CONFIGS).with_suffix("")) for path in FAMILY]

# What there must be, as (network, input, output); sizes are (height, width).
SIZES = {
    *((net, size, 1024) for net in ("GLEAN", "LightGLEAN") for size in (128, 64, 32, 16)),
    *((net, size, 256) for net in ("GLEAN", "LightGLEAN") for size in (32, 16)),
    *((net, (24, 32), (384, 512)) for net in ("GLEAN", "LightGLEAN")),
}
DOMAINS = {"cat", "car", "church", "tower", "bedroom", "horse"}

# Measured on MMagic's own class: millions of parameters, and of trainable ones.
PARAMETERS = {
    (64, 1024): (175.5, 145.1),
    (32, 256): (162.5, 132.4),
    (16, 256): (171.9, 141.9),
    (128, 1024): (174.2, 143.8),
}


@pytest.fixture(scope="module", autouse=True)
def registries(mmagic_models) -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmagic"):
        yield


@cache
def config(path: Path) -> Config:
    return Config.fromfile(path)


def build(model: dict) -> nn.Module:
    from mmagic.registry import MODELS

    return MODELS.build(model)


def millions(parameters: list[nn.Parameter]) -> float:
    return round(sum(p.numel() for p in parameters) / 1e6, 1)


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


# ---------------------------------------------------------------- all configs


def test_the_family_is_whole():
    sizes = set()
    for path in FAMILY:
        generator = config(path).model.generator
        sizes.add((generator.type.removesuffix("StyleGANv2"), generator.in_size, generator.out_size))
    assert sizes >= SIZES
    names = {word for title in TITLES for word in title.split("_")}
    assert names >= DOMAINS


@pytest.mark.parametrize("path", FAMILY, ids=TITLES)
def test_config_builds(path):
    from mmagic.registry import TRANSFORMS

    cfg = config(path)
    with torch.device("meta"):
        model = build(cfg.model)
    generator = cfg.model.generator
    loaders = cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader
    (scale,) = {loader.dataset.scale for loader in loaders}
    assert pair(generator.out_size) == tuple(scale * side for side in pair(generator.in_size))
    for loader in loaders:
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    kind = "GLEANBigGAN" if path in OF_CLASSES else "Light" * ("lightglean" in path.name) + "GLEANStyleGANv2"
    assert type(model.generator).__name__ == kind
    assert (generator.init_cfg is None) == (model.generator.bank == "absent" or model.generator.bank_init == "random")
    for part, prefix in (model.generator, "generator_ema"), (model.discriminator, "discriminator"):
        assert part.init_cfg is None or part.init_cfg["prefix"] == prefix
    measured = PARAMETERS.get((generator.in_size, generator.out_size))
    if measured and generator.type == "GLEANStyleGANv2":
        net = model.generator
        # MMagic's class trains fusion_skip, which has no part in its output.
        trained = [p for p in net.parameters() if p.requires_grad] + list(net.fusion_skip.parameters())
        assert (millions(list(net.parameters())), millions(trained)) == measured


@cache
def published(out_size: int, folder: Path) -> str:
    """A bank file like the published ones, but narrow."""
    bank = randomize(StyleGAN2Generator(out_size, 8, 2, max_channels=8))
    critic = randomize(StyleGAN2Discriminator(out_size, max_channels=8))
    parts = {"generator_ema": bank, "discriminator": critic}
    state = {f"{prefix}.{name}": tensor for prefix, net in parts.items() for name, tensor in net.state_dict().items()}
    checkpoints.save(state, folder / f"{out_size}.safetensors")
    return str(folder / f"{out_size}.safetensors")


def scale_down(cfg: Config, folder: Path) -> None:
    """The same networks, narrow, with inputs from 8x8 on; the scale and the aspect stay."""
    generator, discriminator = cfg.model.generator, cfg.model.discriminator
    factor = 1 << (min(pair(generator.in_size)) // 8).bit_length() - 1
    smaller: Callable = lambda size: size // factor if isinstance(size, int) else tuple(s // factor for s in size)  # noqa: E731
    generator.update(in_size=smaller(generator.in_size), out_size=smaller(generator.out_size))
    generator.update(rrdb_channels=4, num_rrdbs=1, style_channels=8, num_mlps=2, channel_multiplier=2, max_channels=8)
    discriminator.update(in_size=smaller(discriminator.in_size), channel_multiplier=2, max_channels=8)
    for part in generator, discriminator:
        if part.init_cfg is not None:
            part.init_cfg.checkpoint = published(max(pair(generator.out_size)), folder)
    cfg.model.perceptual_loss = None  # VGG's weights would need a network
    cfg.model.pop("adversarial_from", None)  # everything trains in the first step


def batch(generator: dict, seed: int = 0) -> dict:
    """Two random images as the data pipeline packs them."""
    from mmagic.structures import DataSample

    random = torch.Generator().manual_seed(seed)
    lq, gt = (
        torch.randint(0, 256, (2, 3, *pair(generator[key])), dtype=torch.uint8, generator=random)
        for key in ("in_size", "out_size")
    )
    return {"inputs": list(lq), "data_samples": [DataSample(gt_img=image) for image in gt]}


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=title) for path, title in zip(FAMILY, TITLES, strict=True) if path not in OF_CLASSES]
)
def test_config_trains_a_step(path, tmp_path_factory, monkeypatch):
    from mmengine.optim import build_optim_wrapper

    # Of a network with the fidelity gate; two images that both draw 1 would not train what only the bank leads to.
    monkeypatch.setattr("glean_ext.models.glean.draw_fidelity", lambda images, device: torch.full((images,), 0.5))
    cfg = copy.deepcopy(config(path))
    scale_down(cfg, tmp_path_factory.getbasetemp())
    torch.manual_seed(0)
    model = build(cfg.model)
    model.init_weights()
    net = model.generator
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bank = bank_digests(model)
    losses = model.train_step(batch(cfg.model.generator), build_optim_wrapper(model, cfg.optim_wrapper))
    assert losses.keys() == {"loss_pix", "loss_gan", "loss_d_real", "loss_d_fake"}
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {f"generator.{name}" for name, p in net.named_parameters() if p.requires_grad}
    assert changed - trained == {name for name in changed if name.startswith("discriminator.")} != set()
    for name, part in net.named_children():
        parameters = any(p.requires_grad for p in part.parameters())
        assert any(key.startswith(f"generator.{name}.") for key in changed) == parameters, name
    assert (bank_digests(model) == bank) == (net.bank != "tuned")
    with torch.no_grad():
        restored = model(**model.data_preprocessor(batch(cfg.model.generator), False), mode="tensor")
    assert restored.shape[2:] == pair(cfg.model.generator.out_size)


# ---------------------------------------------------------------- images that are not square

WIDE = {**TINY, "in_size": (12, 16), "out_size": (48, 64), "bank_init": "random"}
SQUARE = {**WIDE, "in_size": 16, "out_size": 64}


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def framed(image: Tensor, bar: int) -> Tensor:
    """Black rows above and below."""
    rows = image.new_full((len(image), 3, bar, image.shape[3]), -1.0)
    return torch.cat([rows, image, rows], 2)


@torch.no_grad()
def test_the_bank_of_wide_images_sees_them_on_its_square():
    wide, square = randomize(build_network(WIDE)), build_network(SQUARE)
    square.load_state_dict(wide.state_dict(), strict=True)
    lq = noise(2, 3, 12, 16)
    expected = square(framed(lq, 2))[:, :, 8:56]
    output = wide(lq)
    assert output.shape == (2, 3, 48, 64) and output.std() > 0.01
    assert torch.equal(output, expected)


@torch.no_grad()
def test_the_discriminator_of_wide_images_sees_them_on_its_square():
    wide, square = (StyleGAN2Discriminator(size, max_channels=8) for size in ((48, 64), 64))
    square.load_state_dict(randomize(wide).state_dict(), strict=True)
    image = noise(2, 3, 48, 64)
    assert torch.equal(wide(image), square(framed(image, 8)))


def test_tall_images():
    padding = SquarePadding("in_size", (16, 8))
    image = noise(1, 3, 16, 8)
    padded = padding.pad(image)
    assert padded.shape == (1, 3, 16, 16) and (padded[..., :4] == -1).all() and (padded[..., 12:] == -1).all()
    assert torch.equal(padded[..., 4:12], image) and torch.equal(padding.crop(padded), image)
    assert (str(padding), padding.size, SquarePadding("in_size", (16, 16)).size) == ("8x16", (16, 8), 16)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 3, 16, 12), (3, 12, 16)])
def test_other_sizes_are_refused(shape):
    with pytest.raises(InputError) as error:
        build_network(WIDE)(torch.zeros(shape))
    assert str(error.value) == (
        f"This GLEAN takes images of 16x12 pixels, but got a tensor of shape {shape}. Resize the image to 16x12, or "
        "take a model of that size."
    )


# ---------------------------------------------------------------- sizes of the bank


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_size": 64}, "out_size is 32 in the file, 64 in the config"),
        ({"out_size": 16}, "out_size is 32 in the file, 16 in the config"),
        ({"style_channels": 8}, "style_channels is 16 in the file, 8 in the config"),
        ({"num_mlps": 8}, "num_mlps is 2 in the file, 8 in the config"),
        (
            {"channel_multiplier": 2, "max_channels": 512},
            "channels at 4x4 (channel_multiplier, max_channels) is 16 in the file, 512 in the config",
        ),
        (
            {"channel_multiplier": 0.015625},
            "channels at 32x32 (channel_multiplier, max_channels) is 16 in the file, 8 in the config",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["GLEANStyleGANv2", "LightGLEANStyleGANv2"])
def test_a_bank_of_other_sizes_is_refused_by_its_sizes(tmp_path, kind, changes, message):
    bank = StyleGAN2Generator(32, 16, 2, 0.125, 16)
    path = tmp_path / "bank.safetensors"
    checkpoints.save({f"generator_ema.{name}": tensor for name, tensor in bank.state_dict().items()}, path)
    init_cfg = {"type": "Pretrained", "checkpoint": str(path), "prefix": "generator_ema"}
    net = build_network({**TINY, "type": kind, "out_size": 32, "init_cfg": init_cfg, **changes})
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InputError) as error:
        net.init_weights()
    assert str(error.value) == (
        f"{path} holds a bank of other sizes: {message}. A bank must draw images as large as the output and be as wide "
        "as the config says: set the file's sizes, or take another file."
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
