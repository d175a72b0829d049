"""The default overlap of LightGLEAN's tiles, and the measurement that chose it."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.tile_seams import LIMIT, measure_seams, patterns, seams
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import LIGHT_OVERLAP
from glean_ext.utils.image_io import Picture, read_rgb, write_picture
from glean_ext.utils.imresize import imresize

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "demo_lightglean_x8.py"
WEIGHTS = "glean-ext://demo_lightglean_x8.safetensors"


@pytest.fixture(scope="module")
def demo() -> ImageRestorer:
    return ImageRestorer(DEMO, WEIGHTS, "cpu", dtype="float32")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def faces(shrink: int) -> np.ndarray:
    """Faces, side by side, 40x64."""
    sheet = read_rgb(ROOT / "docs" / "demo_bank_samples.png")
    return np.ascontiguousarray(imresize(sheet, scale=1 / shrink)[:40, :64])


def test_the_default_overlap_hides_seams(demo):
    found = seams(demo, patterns((40, 64))["squares"], [2, LIGHT_OVERLAP])
    assert found[LIGHT_OVERLAP] < LIMIT < found[2]


def test_measuring_seams(demo, tmp_path):
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for rgb, path in zip((faces(8)[:16, :50], noise(40, 9)), paths, strict=True):
        write_picture(Picture(np.ascontiguousarray(rgb)), path)
    console = Console(file=StringIO(), width=300)
    worst = measure_seams(DEMO, WEIGHTS, paths, [0, 10], "cpu", console, size=(10, 20))
    images = patterns((10, 52)) | {str(path): read_rgb(path) for path in paths}  # a tile has 26 pixels
    found = [seams(demo, rgb, [0, 10]) for rgb in images.values()]
    assert worst == {overlap: max(one[overlap] for one in found) for overlap in (0, 10)}
    assert worst[0] > 10 * LIMIT and worst[0] > worst[10]
    lines = console.file.getvalue().splitlines()
    for name, one in zip(images, found, strict=True):
        (line,) = (line for line in lines if line[1:].split()[:1] == [name])
        assert f"{one[0] * 255:.2f}" in line and f"{one[10] * 255:.2f}" in line
    smallest = "10" if worst[10] < LIMIT else "larger than these"
    assert lines[-1] == f"Smallest overlap under 1/255: {smallest}."


def test_seams_cannot_be_measured_without_two_tiles_or_a_whole(demo):
    with pytest.raises(InputError) as error:
        seams(demo, noise(20, 20), [10], "a.png")
    assert str(error.value) == "a.png has 20x20 pixels, which is one tile (26x26). Take a larger one."
    glean = ImageRestorer(DEMO.with_name("demo_glean_x8.py"), "glean-ext://demo_glean_x8.safetensors", "cpu")
    with pytest.raises(InputError, match="against the whole image, but this model takes 8x8 only"):
        seams(glean, noise(20, 20), [2])


@pytest.mark.slow
def test_the_default_overlap_is_the_smallest_that_does(demo):
    found = seams(demo, patterns((96, 160))["squares"], [LIGHT_OVERLAP - 1, LIGHT_OVERLAP])
    assert found[LIGHT_OVERLAP] < LIMIT <= found[LIGHT_OVERLAP - 1]
    for rgb in *patterns((48, 96)).values(), faces(1), faces(4), faces(8), noise(40, 64):
        assert seams(demo, rgb, [LIGHT_OVERLAP])[LIGHT_OVERLAP] < LIMIT
