"""PULSE on the shipped bank, and its parts by hand."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import TINY, randomize

from demo.train_bank import BANK
from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.inversion import InversionOptions, invert
from glean_ext.inversion.images import load_config_bank, plan
from glean_ext.inversion.latent_space import InputSpace, LayerwiseSpace, geodesic_spread
from glean_ext.inversion.pulse import Reduction
from glean_ext.networks import StyleGAN2Generator
from glean_ext.utils.imresize import imresize

CONFIG = "configs/demo_glean_x8.py"


@pytest.fixture(scope="module")
def bank() -> StyleGAN2Generator:
    return load_config_bank(CONFIG, device="cpu")


@pytest.fixture
def tiny_bank() -> StyleGAN2Generator:
    sizes = {name: TINY[name] for name in ("style_channels", "num_mlps", "channel_multiplier", "max_channels")}
    return randomize(StyleGAN2Generator(16, **sizes)).requires_grad_(False)


def reduced_sample(bank: StyleGAN2Generator, seed: int, size: int) -> torch.Tensor:
    z = torch.randn(1, bank.style_channels, generator=torch.Generator().manual_seed(seed))
    image = bank(z)[0].permute(1, 2, 0).numpy()
    return torch.from_numpy(imresize(image, size=(size, size))).permute(2, 0, 1)


def test_bank_of_a_config_is_the_shipped_one(bank: StyleGAN2Generator) -> None:
    state = checkpoints.with_prefix(checkpoints.read("glean-ext://demo_bank.safetensors"), "generator_ema", "")
    assert bank.style_channels == BANK["style_channels"] and not any(p.requires_grad for p in bank.parameters())
    assert torch.equal(bank.conv1.activate.bias, state["conv1.activate.bias"].float())


def test_search_in_w_plus_reaches_epsilon_on_the_banks_own_image(bank: StyleGAN2Generator) -> None:
    lq = reduced_sample(bank, 3, 8)
    seen = []
    options = InversionOptions(steps=150, restarts=2, lr=0.2, epsilon=4e-3)
    found = invert(bank, lq, options, lambda step, distance: seen.append((step, distance)))
    assert found.reason == "epsilon" and found.distance < 4e-3 and found.steps == len(seen) < 150
    assert [step for step, _ in seen] == list(range(1, found.steps + 1))
    distances = [distance for _, distance in seen]
    assert distances == sorted(distances, reverse=True) and distances[0] > 2 * found.distance
    # what is returned is the image whose distance was reported
    again = imresize(found.image.permute(1, 2, 0).numpy(), size=(8, 8))
    target = lq.permute(1, 2, 0).numpy()
    assert np.mean(((again - target) / 2) ** 2) == pytest.approx(found.distance, rel=1e-3)
    assert torch.allclose(bank.synthesis(found.codes[None])[0], found.image)


def test_search_in_z_moves_on_the_sphere_and_stays_in_the_mapping_networks_range(tiny_bank: StyleGAN2Generator) -> None:
    found = invert(tiny_bank, torch.zeros(3, 4, 4), InversionOptions(space="z", steps=5, restarts=2))
    assert (found.codes == found.codes[0]).all()  # one code for all layers
    assert found.reason == "steps" and found.steps == 5


def test_a_search_without_gain_stops_and_says_so(tiny_bank: StyleGAN2Generator) -> None:
    options = InversionOptions(steps=100, restarts=1, lr=1e-7, patience=4)
    found = invert(tiny_bank, torch.zeros(3, 4, 4), options)
    assert found.reason == "stalled" and found.steps == 5


def test_the_same_seed_finds_the_same_and_another_does_not(tiny_bank: StyleGAN2Generator) -> None:
    lq = torch.zeros(3, 4, 4)
    a, b, c = (invert(tiny_bank, lq, InversionOptions(steps=2, restarts=1, seed=seed)).codes for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c, atol=1e-3)


@pytest.mark.parametrize("size", [8, 4, 5])
def test_reduction_is_imresize(size: int) -> None:
    image = torch.rand(3, 16, 16)
    reduced = Reduction((16, 16), (size, size), image.device)(image)
    expected = imresize(image.permute(1, 2, 0).numpy(), size=(size, size))
    assert np.allclose(reduced.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def test_latents_lie_on_the_sphere(tiny_bank: StyleGAN2Generator) -> None:
    for kind, count in (InputSpace, 1), (LayerwiseSpace, tiny_bank.num_latents):
        space = kind(tiny_bank)
        latents = space.draw(3, torch.Generator().manual_seed(0))
        assert latents.shape == (3, count, 16)
        assert torch.allclose(latents.norm(dim=-1), torch.tensor(4.0))  # √16
        assert space.styles(latents).shape == (3, tiny_bank.num_latents, 16)


def test_layerwise_codes_have_the_distribution_of_mapped_ones(bank: StyleGAN2Generator) -> None:
    space = LayerwiseSpace(bank)
    codes = space.styles(space.draw(400, torch.Generator().manual_seed(1))).flatten(0, 1)
    w = bank.style_mapping(torch.randn(4000, 64, generator=torch.Generator().manual_seed(2)))
    assert torch.corrcoef(torch.stack([codes.mean(0), w.mean(0)]))[0, 1] > 0.98
    assert 0.8 < (codes.std(0) / w.std(0)).mean() < 1.2


def test_geodesic_spread_by_hand() -> None:
    latents = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [2.0, 0.0]]])
    assert torch.allclose(geodesic_spread(latents), torch.tensor([(math.pi / 2) ** 2, 0.0]))
    assert geodesic_spread(latents[:, :1]).tolist() == [0.0, 0.0]


def test_wrong_settings_and_inputs_are_one_line(tiny_bank: StyleGAN2Generator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"space must be one of z, w\+, but it is 'w'"):
        InversionOptions(space="w")
    with pytest.raises(InputError, match="epsilon must be above 0, but it is nan"):
        InversionOptions(epsilon=math.nan)
    with pytest.raises(InputError, match=r"square images of 16 pixels.*\(3, 16, 16\)"):
        invert(tiny_bank, torch.zeros(3, 16, 16))
    with pytest.raises(InputError, match="no pre-trained StyleGAN2 generator"):
        load_config_bank("configs/demo_lightglean_x8.py")
    with pytest.raises(InputError, match="would both be written"):
        plan([Path("a/x.png"), Path("b/x.jpg")], tmp_path, False)
    (tmp_path / "x.png").touch()
    with pytest.raises(InputError, match="exists"):
        plan([Path("a/x.png")], tmp_path, False)
    assert plan([Path("a/x.png")], tmp_path, True) == [(Path("a/x.png"), tmp_path / "x.png")]


@pytest.mark.slow
def test_the_tool_writes_images_and_says_why_it_stopped(bank: StyleGAN2Generator, tmp_path: Path) -> None:
    pixels = (reduced_sample(bank, 0, 8).permute(1, 2, 0).numpy() + 1) * 127.5
    Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "face.png")
    command = [sys.executable, "tools/invert.py", CONFIG, str(tmp_path / "face.png"), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--steps", "2", "--restarts", "1"], capture_output=True, text=True, check=True)
    pattern = r"face\.png: stopped by steps after 2 steps, distance 0\.\d+, \d+\.\d s"
    assert re.search(pattern, done.stdout), done.stdout
    assert Image.open(tmp_path / "out" / "face.png").size == (64, 64)
