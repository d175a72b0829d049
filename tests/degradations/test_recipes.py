"""Recipes and presets: seeds, sizes, and the step of the data pipeline."""

from __future__ import annotations

import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from support.training import environment

from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.degradations import PRESETS, BlindDegradation, Recipe
from glean_ext.degradations.stages import JPEG, Bicubic
from glean_ext.errors import InputError

DIGESTS = """
import zlib
from test_recipes import picture
from glean_ext.degradations import PRESETS, Recipe
print({name: zlib.crc32(Recipe.preset(name).degrade(picture(), (16, 16), 3).tobytes()) for name in PRESETS})
"""


def picture(side: int = 64) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)


def sample(name: str = "a", scale: int = 4, **more) -> dict:
    return {"gt": picture(), "gt_path": f"GT/{name}.png", "key": name, "scale": scale, **more}


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name):
    gt, recipe = picture(), Recipe.preset(name)
    results = [recipe.degrade(gt, (16, 16), seed) for seed in range(12)]
    assert all(result.shape == (16, 16, 3) and result.dtype == np.uint8 for result in results)
    assert np.array_equal(gt, picture()), "the input was changed"
    distinct = {result.tobytes() for result in results}
    assert len(distinct) == (1 if name in ("bicubic", "gray") else 12)
    assert np.array_equal(recipe.degrade(gt, (16, 16), 5), results[5])
    clean = Recipe.preset("bicubic").degrade(gt, (16, 16), 0).astype(float)
    assert np.mean([np.abs(result - clean).mean() for result in results]) < 70, "nothing of the image is left"
    assert recipe.degrade(gt[:8, :8], (1, 1), 0).shape == (1, 1, 3)


def test_the_same_in_another_process():
    here = {n: zlib.crc32(Recipe.preset(n).degrade(picture(), (16, 16), 3).tobytes()) for n in PRESETS}
    command = [sys.executable, "-c", DIGESTS]
    path = environment(PYTHONPATH=":".join(sys.path))
    there = subprocess.run(command, env=path, capture_output=True, text=True, check=True, timeout=120).stdout
    assert there.strip() == str(here)


def test_a_stage_does_not_depend_on_those_before_it():
    noise = {"type": "Noise", "sigma": (10, 10)}
    blurred = Recipe([{"type": "Blur", "kinds": {"iso": 1.0}, "sigma": (0.001, 0.001)}, noise])
    plain = Recipe([{"type": "Gray", "prob": 0.0}, noise])
    results = [recipe.degrade(picture(), (64, 64), 1) for recipe in (blurred, plain)]
    assert np.array_equal(*results)


def test_stages_of_one_kind_draw_other_numbers():
    """Two stages with the same noise would double its deviation."""
    stages = [{"type": "Noise", "sigma": (10, 10)}] * 2
    gray = np.full((64, 64, 3), 128, np.uint8)
    once, twice = (Recipe(stages[:count]).degrade(gray, (64, 64), 1).astype(float).std() for count in (1, 2))
    assert twice / once == pytest.approx(2**0.5, rel=0.05)


def test_one_of():
    choices = [[{"type": "JPEG", "quality": (5, 5)}], [{"type": "Bicubic"}, {"type": "Gray"}]]
    recipe = Recipe([{"type": "OneOf", "choices": choices}])
    assert [type(stage) for choice in recipe.stages[0].choices for stage in choice][:2] == [JPEG, Bicubic]
    gray = [np.ptp(recipe.degrade(picture(), (16, 16), seed), axis=2).max() == 0 for seed in range(60)]
    assert 15 < sum(gray) < 45


# ---------------------------------------------------------------- the step of the pipeline


def test_training_follows_the_seed_of_the_sample():
    transform = BlindDegradation(preset="glean")
    images = []
    for seed in 1, 2, 1:
        with seeded(seed):
            images.append(transform(sample())["img"])
    assert np.array_equal(images[0], images[2]) and not np.array_equal(images[0], images[1])


def test_validation_depends_on_the_image_only():
    first, second = (BlindDegradation(preset="glean", seed=0)(sample())["img"] for _ in range(2))
    elsewhere = BlindDegradation(preset="glean", seed=0)(sample() | {"gt_path": "/another/folder/a.png"})["img"]
    assert np.array_equal(first, second) and np.array_equal(first, elsewhere)
    for other in (
        BlindDegradation(preset="glean", seed=1)(sample()),
        BlindDegradation(preset="glean", seed=0)(sample("b")),
    ):
        assert not np.array_equal(first, other["img"])


def test_bicubic_is_what_other_models_are_trained_on(mmagic_models):
    from glean_ext.datasets import LoadOrMakeLQ

    made, expected = BlindDegradation(preset="bicubic")(sample()), LoadOrMakeLQ()(sample())
    assert made.keys() == expected.keys() and np.array_equal(made["img"], expected["img"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "BlindDegradation takes one of preset and recipe. Give preset='glean', for example."),
        ({"preset": "gfpgen"}, "There is no preset 'gfpgen' of degradations. Did you mean gfpgan or glean?"),
        (
            {"preset": "x"},
            "There is no preset 'x' of degradations. Give one of bicubic, gray, glean, gfpgan, codeformer, "
            "codeformer_large, realesrgan, old_photo.",
        ),
        (
            {"preset": "glean", "seed": -1},
            "BlindDegradation.seed is -1, but it must be None or a whole number from 0 on.",
        ),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError) as error:
        BlindDegradation(**arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"img_path": "LR/a.png"}, "makes the low-resolution image of GT/a.png, but the dataset has LR/a.png for it"),
        ({"gt_channel_order": "bgr"}, "works in RGB, but gt was loaded as BGR"),
        ({"scale": 5}, "GT/a.png has 64x64 pixels, which 5 does not divide"),
    ],
)
def test_samples_that_cannot_be_degraded(given, message):
    with pytest.raises(InputError) as error:
        BlindDegradation(preset="glean")(sample() | given)
    assert message in str(error.value)
    with pytest.raises(InputError, match="there is none"):
        BlindDegradation(preset="glean")({"img": picture()})
