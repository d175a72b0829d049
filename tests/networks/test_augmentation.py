"""Augmentation of small sets: every change by hand, its gradients, its probability, and that nothing leaks."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from glean_ext.networks import StyleGAN2Discriminator
from glean_ext.networks.augment import Augmentation, colour_maps, move, recolour


def images(n: int, h: int = 16, w: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---------------------------------------------------------------- places


def test_places_are_computed_where_the_images_are():
    """Nothing as large as an image comes from the CPU: to a tensor on the meta device nothing else could be added."""
    augmentation = Augmentation()
    augmentation.p = 0.8
    assert augmentation(images(4).to("meta")).device.type == "meta"
    few = torch.zeros(4, dtype=torch.int64, device="meta")
    moved = move(images(4).to("meta"), few.bool(), few, torch.zeros(4, 2, dtype=torch.int64, device="meta"))
    assert moved.device.type == "meta" and moved.shape == (4, 3, 16, 16)


@pytest.mark.parametrize(("h", "w", "turns"), [(8, 8, [0, 1, 2, 3]), (6, 8, [0, 2, 0, 2])])
def test_images_are_mirrored_turned_and_shifted(h, w, turns):
    x = images(8, h, w)
    mirrored = torch.tensor([False, True] * 4)
    offsets = torch.tensor([[0, 0], [1, 0], [0, 2], [-2, 1], [2, -2], [0, -1], [-1, 0], [1, 1]])
    found = move(x, mirrored, torch.tensor(turns * 2), offsets)
    for image, flip, turn, (down, right), out in zip(x, mirrored, turns * 2, offsets.tolist(), found, strict=True):
        expected = image.permute(1, 2, 0).numpy()
        expected = np.rot90(expected[:, ::-1] if flip else expected, turn)
        padded = np.pad(expected, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        expected = padded[2 - down : 2 - down + h, 2 - right : 2 - right + w]
        np.testing.assert_array_equal(out.permute(1, 2, 0).numpy(), expected)


# ---------------------------------------------------------------- colours

NOTHING = {"brightness": 0.0, "contrast": 1.0, "inverted": False, "hue": 0.0, "saturation": 1.0}


def changed(rgb: tuple[float, float, float], **change: float) -> list[float]:
    maps = colour_maps(**{name: torch.tensor([value]) for name, value in {**NOTHING, **change}.items()})
    return recolour(torch.tensor(rgb).reshape(1, 3, 1, 1), maps).flatten().tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, [0.5, -0.1, 0.2]),
        ({"brightness": 0.1}, [0.6, 0.0, 0.3]),
        ({"contrast": 2.0}, [1.0, -0.2, 0.4]),
        ({"brightness": 0.1, "contrast": 2.0}, [1.2, 0.0, 0.6]),
        ({"inverted": True}, [0.1, -0.5, -0.2]),  # the mean 0.2 becomes -0.2
        ({"hue": 2 * math.pi / 3}, [0.2, 0.5, -0.1]),  # red's part goes to green
        ({"saturation": 0.0}, [0.2, 0.2, 0.2]),
        ({"saturation": 2.0}, [0.8, -0.4, 0.2]),
    ],
)
def test_colours_by_hand(change, expected):
    assert changed((0.5, -0.1, 0.2), **change) == pytest.approx(expected, abs=1e-6)


def test_a_turned_hue_is_the_hue_of_the_colour_wheel():
    for degrees in 60, 120, 180:
        red, green, blue = (value * 2 - 1 for value in colorsys.hsv_to_rgb(degrees / 360, 1, 1))
        turned = changed((1.0, -1.0, -1.0), hue=math.radians(degrees))
        middle = sum(turned) / 3
        order = [channel > middle for channel in turned]
        assert order == [channel > 0 for channel in (red, green, blue)]


# ---------------------------------------------------------------- together


def test_nothing_happens_at_probability_zero_or_in_evaluation():
    x = images(4)
    augmentation = Augmentation()
    state = torch.get_rng_state()
    assert augmentation(x) is x
    assert torch.equal(torch.get_rng_state(), state)
    plain = StyleGAN2Discriminator(16, channel_multiplier=0.125, max_channels=16)
    augmented = StyleGAN2Discriminator(16, channel_multiplier=0.125, max_channels=16, augment={})
    augmented.load_state_dict(plain.state_dict())  # the same keys
    assert torch.equal(augmented(x), plain(x))
    augmented.augmentation.p = 1.0
    assert not torch.equal(augmented(x), plain(x))
    assert torch.equal(augmented.eval()(x), plain(x))


def test_each_image_is_changed_with_the_probability():
    torch.manual_seed(0)
    augmentation = Augmentation()
    x = images(1).expand(2000, -1, -1, -1)
    shares = []
    for p in 0.1, 0.5:
        augmentation.p = p
        shares.append((augmentation(x) != x).flatten(1).any(1).float().mean().item())
    # of eight kinds of change: an image is mirrored or inverted half of the times, turned 3 of 4, shifted 24 of 25
    for p, share in zip((0.1, 0.5), shares, strict=True):
        untouched = (1 - p) ** 4 * (1 - p / 2) ** 2 * (1 - 3 / 4 * p) * (1 - 24 / 25 * p)
        assert share == pytest.approx(1 - untouched, abs=0.03)


def test_what_is_mirrored_and_turned_does_not_show_in_the_most_frequent_image():
    """As long as p is below 1 the upright image is the most frequent one, so the generator learns it."""
    torch.manual_seed(0)
    upright = torch.zeros(1, 3, 8, 8)
    upright[..., 0, 1] = 1.0  # one bright pixel near a corner
    augmentation = Augmentation()
    augmentation.p = 0.8
    turned = torch.where(augmentation._chosen(4000), torch.randint(4, (4000,)), 0)
    mirrored = augmentation._chosen(4000) & (torch.rand(4000) < 0.5)
    found = move(upright.expand(4000, -1, -1, -1), mirrored, turned, torch.zeros(4000, 2, dtype=torch.long))
    counts = found[:, 0].sum(0).flatten().sort(descending=True).values
    assert found[:, 0, 0, 1].sum() == counts[0]
    assert counts[0] / 4000 == pytest.approx((0.2 + 0.8 / 4) * 0.6, abs=0.03) and counts[0] > 1.4 * counts[1]


def test_gradients_of_gradients_pass():
    """R1 differentiates the gradient with respect to the images, before they are augmented."""
    torch.manual_seed(0)
    augmentation = Augmentation()
    augmentation.p = 1.0
    x = images(3, 8, 8).double().requires_grad_()

    def seeded(x: Tensor) -> Tensor:
        torch.manual_seed(1)
        return augmentation(x).pow(3)

    assert torch.autograd.gradcheck(seeded, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(seeded, x, fast_mode=True)


def test_the_probability_follows_the_sign():
    augmentation = Augmentation(target=0.6, ramp_images=1000)
    for sign, expected in (0.7, 0.064), (1.0, 0.128), (0.6, 0.128), (0.5, 0.064), (-1.0, 0.0), (0.0, 0.0):
        augmentation.adapt(sign, 64)
        assert augmentation.p == pytest.approx(expected)
    augmentation.adapt(1.0, 5000)
    assert augmentation.p == 0.8, "above, it could leak"
