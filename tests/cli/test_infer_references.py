"""``--reference``: the library's results, and one line for each mistake, before the network is loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.networks import TINY
from support.references import save, save_network
from support.tools import load_tool, only_error, run_main

from glean_ext.inference.image_restorer import ImageRestorer


@pytest.fixture(scope="module")
def tool():
    return load_tool("infer")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_network(folder)
    (folder / "plain.py").write_text(f"model = dict(type='GLEAN', generator={TINY})\n")
    (folder / "damaged.safetensors").write_bytes(b"no weights")
    (folder / "text.png").write_text("no image")
    for number in range(9):
        save(folder / "nine" / f"{number}.png", seed=number)
    save(folder / "face.png", 8)
    return folder


@pytest.fixture
def infer(tool, home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    return lambda *arguments: run_main(tool.main, capsys, *arguments, "--device", "cpu")


def test_results_are_those_of_the_library(infer, home):
    net = "net.py", "net.safetensors"
    code, out, _ = infer(*net, "face.png", "-o", "out.png", "--reference", "nine/0.png", "nine/1.png")
    assert code == 0 and "Restored: out.png (32 × 32)" in out
    expected = ImageRestorer(*net, device="cpu", references=["nine/1.png", "nine/0.png"]).restore("face.png")
    result, plain = np.asarray(Image.open("out.png")).astype(int), ImageRestorer(*net, device="cpu").restore("face.png")
    assert np.abs(result - expected.pixels).max() <= 1, "whatever their order"
    assert np.abs(result - plain.pixels).max() > 5
    options = "--reference", "nine/0.png", "--reference", "nine/1.png", "--photo", "--aligned"
    assert infer(*net, "face.png", "-o", "aligned.png", *options)[0] == 0
    assert np.abs(np.asarray(Image.open("aligned.png")).astype(int) - plain.pixels).max() > 5


def test_mistakes(infer):
    """The weights are no weights, which nobody notices: the references are looked at first."""

    def fault(*options: str, net: str = "net.py") -> str:
        return only_error(*infer(net, "damaged.safetensors", "face.png", "-o", "no.png", *options))

    assert fault("--reference", "nine") == (
        "9 reference images are given, but this model takes at most 8. Give fewer with --reference."
    )
    none = "--reference has no effect: this model takes no reference images. Leave it out."
    assert fault("--reference", "nine/0.png", net="plain.py") == none
    assert fault("--reference", "text.png").startswith("text.png is no image")
    assert fault("--reference", "none.png").startswith("none.png: there is no such file")
    assert fault("--reference", "nine/0.png", "--photo") == (
        "nine/0.png: no face was found in this reference. Give others as --reference."
    )
    assert fault("--photo", "--embedder", "x.pth") == "--embedder has no effect without --reference."
    assert "x.pth" in fault("--photo", "--reference", "nine/0.png", "--embedder", "x.pth")
    assert not Path("no.png").exists()
