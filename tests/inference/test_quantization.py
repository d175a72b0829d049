"""``glean export --int8``: small, close to fp32, and with the costly layers in fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from support.networks import TINY
from support.tools import load_tool, only_error, run_main

from glean_ext.errors import InputError
from glean_ext.inference.engines import INPUT, OUTPUT
from glean_ext.inference.export import write_metadata
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.quantization import (
    LEAST_PSNR,
    Images,
    Quantizer,
    layers_to_keep,
    quantize,
    read_images,
    to_mse,
    to_psnr,
)
from glean_ext.inference.torch_backend import TorchBackend
from glean_ext.networks import build_network
from glean_ext.utils.image_io import Picture, read_rgb, write_picture

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Eight images of smooth colours, 16x16."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    ramp = np.linspace(0, 1, 16)
    for number in range(8):
        colours = random.uniform(0, 255, (3, 3))
        rows, columns = ramp[:, None, None], ramp[None, :, None]
        image = colours[0] + (colours[1] - colours[0]) * rows * columns + (colours[2] - colours[0]) * (1 - rows) / 2
        write_picture(Picture(image.clip(0, 255).astype(np.uint8)), folder / f"{number}.png")
    return str(folder)


def test_every_fourth_image_is_for_the_check_alone(folder):
    """And all of them at the network's size."""
    images = read_images(folder, TorchBackend(build_network(TINY), dtype="float32"))
    assert {lq.shape for lq in (*images.calibration, *images.check)} == {(1, 3, 8, 8)}
    calibration, check = ({lq.tobytes() for lq in part} for part in (images.calibration, images.check))
    assert (len(calibration), len(check)) == (6, 2) and not calibration & check


@pytest.mark.slow
def test_int8_is_close_to_fp32(exported, folder, tmp_path):
    model, out = exported("light"), tmp_path / "int8.onnx"
    report = quantize(model, out, folder, lambda notice: None)
    assert report.psnr >= LEAST_PSNR and len(report.kept) < report.layers / 2
    kinds = {value.name: value.data_type for value in onnx.load(out).graph.initializer}
    assert list(kinds.values()).count(onnx.TensorProto.INT8) >= report.layers - len(report.kept)
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    first, *kept = report.lines()
    assert first.startswith(f"{report.layers - len(report.kept)} of {report.layers} convolutions in int8: ")
    assert len(kept) == len(report.kept)

    write_metadata(out, OnnxBackend(model).metadata)
    image = read_rgb(Path(folder, "5.png"))
    result, expected = (ImageRestorer(path).restore(image).astype(float) for path in (out, model))
    error = np.mean((result - expected) ** 2)
    assert 0 < error <= 4 * 255**2 / 10 ** (LEAST_PSNR / 10)


@pytest.mark.parametrize(("instructions", "largest"), [("avx2", 64), ("avx512_vnni", 127)])
def test_weights_are_of_7_bits_where_sums_might_overflow(monkeypatch, tmp_path, instructions, largest):
    """Processors without VNNI add two products of 8 bits in 16 bits."""
    random = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(random.normal(size=(4, 3, 3, 3)).astype(np.float32), "weight")
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1, None, None, None]) for name in (INPUT, OUTPUT)]
    conv = onnx.helper.make_node("Conv", [INPUT, "weight"], [OUTPUT], name="conv", pads=[1, 1, 1, 1])
    graph = onnx.helper.make_graph([conv], "one layer", ends[:1], ends[1:], [weight])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "a"
    )
    monkeypatch.setattr("glean_ext.inference.quantization.processor", lambda: instructions)
    lq = [random.uniform(-1, 1, (1, 3, 8, 8)).astype(np.float32)]
    quantizer = Quantizer(tmp_path / "a", tmp_path, Images(lq, lq))
    quantizer.error(quantizer.layers)
    values = onnx.load(quantizer.trial).graph.initializer
    (quantized,) = (onnx.numpy_helper.to_array(value) for value in values if len(value.dims) == 4)
    assert quantized.dtype == np.int8 and np.abs(quantized.astype(int)).max() == largest


def test_layers_that_cost_much_are_found():
    cost = {f"layer{i}": 1e-6 for i in range(20)} | {"layer3": 3e-4, "layer11": 2e-3}
    asked = []

    def error(layers):
        asked.append(list(layers))
        return sum(cost[name] for name in layers)

    layers = [f"layer{i}" for i in range(20)]
    assert layers_to_keep(layers, error, to_mse(40)) == {"layer3": 3e-4, "layer11": 2e-3}
    assert len(asked) < 20
    assert layers_to_keep(layers, error, allowed=1) == {}


def test_errors_that_add_up_to_more_than_their_sum_stay_within_what_is_allowed():
    layers = [f"layer{i}" for i in range(4)]

    def error(chosen):
        return 0.2 * len(chosen) * (1.6 if len(chosen) == 4 else 1)

    kept = layers_to_keep(layers, error, allowed=1)
    assert error([name for name in layers if name not in kept]) <= 1


def test_psnr():
    assert to_psnr(to_mse(40)) == pytest.approx(40) and to_psnr(4) == 0 and to_psnr(0) == np.inf


@pytest.mark.slow
def test_too_few_images(exported, folder, tmp_path):
    for number in range(3):
        write_picture(Picture(read_rgb(Path(folder, f"{number}.png"))), tmp_path / "in" / f"{number}.png")
    with pytest.raises(InputError, match="has 3 images, but at least four are needed"):
        quantize(exported("light"), tmp_path / "out.onnx", str(tmp_path / "in"), lambda notice: None)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
def test_the_command(home, folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "int8.onnx"
    monkeypatch.chdir(Path(folder).parent)  # a relative path
    arguments = [home / "light.py", home / "light.pth", out, "--int8", "--calibrate", Path(folder).name]
    code, stdout, _ = run_main(load_tool("export").main, capsys, *arguments)
    assert code == 0 and f"wrote {out}\n" in stdout and "convolutions in int8: " in stdout
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    metadata = OnnxBackend(out).metadata
    assert metadata.dtype == "int8" and float(metadata.others["psnr"]) >= LEAST_PSNR


def test_options_that_do_not_go_together(capsys, home, folder, tmp_path):
    def fault(*options):
        arguments = [home / "light.py", home / "light.pth", tmp_path / "out.onnx", *options]
        return run_main(load_tool("export").main, capsys, *arguments)

    assert "--int8 and --calibrate FOLDER need each other" in fault("--int8")[2]
    assert "leave --format and --dtype out" in fault("--int8", "--calibrate", folder, "--dtype", "float16")[2]
    assert "no images" in only_error(*fault("--int8", "--calibrate", tmp_path))
