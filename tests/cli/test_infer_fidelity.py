"""``--fidelity`` with models that have the fidelity gate, and with those that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import TINY, randomize

from glean_ext import checkpoints
from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.cli import restore
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks import build_network

GATED = {**TINY, "fidelity_gate": True}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """gated.py, ungated.py, their weights, and face.png."""
    monkeypatch.chdir(tmp_path)
    for name, generator in ("gated", GATED), ("ungated", TINY):
        torch.manual_seed(0)
        checkpoints.save(randomize(build_network(generator)).state_dict(), f"{name}.safetensors")
        Path(f"{name}.py").write_text(f"model = dict(type='GLEAN', generator={generator})\n")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save("face.png")
    return tmp_path


def restored(model: str, output: str, *options: str) -> np.ndarray:
    arguments = [f"{model}.py", f"{model}.safetensors", "face.png", "-o", output, "--device", "cpu", *options]
    assert restore.main(arguments) == 0
    return np.asarray(Image.open(output))


def test_the_gate_is_set(home, capsys):
    results = {w: restored("gated", f"{w}.png", "--fidelity", w) for w in ("0", "0.5", "1")}
    assert np.array_equal(results["0"], restored("gated", "plain.png"))
    assert not np.array_equal(results["0"], results["0.5"]) and not np.array_equal(results["0.5"], results["1"])
    for w, result in results.items():
        expected = ImageRestorer("gated.py", "gated.safetensors", device="cpu", fidelity=float(w)).restore("face.png")
        assert np.array_equal(result, expected.pixels)
    aligned = restored("gated", "aligned.png", "--photo", "--aligned", "--fidelity", "1")
    as_is = restored("gated", "as_is.png", "--photo", "--aligned")
    assert not np.array_equal(aligned, as_is) and np.abs(aligned.astype(int) - results["1"]).mean() < 40


def test_without_a_gate(home):
    with pytest.raises(InputError) as error:
        restored("ungated", "out.png", "--fidelity", "0.5")
    assert str(error.value) == (
        "fidelity has no effect without photo: the model was trained without the fidelity gate. Leave fidelity out."
    )
    with pytest.raises(InputError, match=r"^This model was trained without the gate that fidelity sets"):
        ImageRestorer("ungated.py", "ungated.safetensors", device="cpu", fidelity=0.5)
    mixed = restored("ungated", "mixed.png", "--photo", "--aligned", "--fidelity", "1")
    assert np.array_equal(mixed, restored("ungated", "kept.png", "--photo", "--aligned", "--fidelity", "1"))


def test_which_weight_goes_where():
    source = ModelSource("demo_glean_x8", "glean-ext://demo_glean_x8.safetensors")
    options = RestoreOptions(source, ("in",), "out", photo=PhotoOptions(fidelity=0.5))
    assert options.gate_weight() is None, "its pixels are mixed"
    with pytest.raises(InputError, match=r"^fidelity of photographs is that of PhotoOptions"):
        RestoreOptions(source, ("in",), "out", photo=PhotoOptions(), fidelity=0.5)
    with pytest.raises(InputError, match=r"^fidelity is 1.5, but it must be between 0"):
        RestoreOptions(source, ("in",), "out", fidelity=1.5)
