"""tools/export.py: exported networks compute what the networks do, say what they are, and need no torch as ONNX.

Differences are shares of the value range [-1, 1]: 1 is black for white.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exports import KINDS, network
from support.tools import only_error, run_main

import glean_ext
from glean_ext.checkpoints import load_network_weights
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference import export as exporting
from glean_ext.inference.export import METADATA, largest_difference, load_torch
from glean_ext.inference.export_formats import PACKAGES, SUFFIXES
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import bytes_per_pixel
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.networks import build_network, precision
from glean_ext.utils.array_conversion import to_tensor, to_uint8
from glean_ext.utils.image_io import Picture, read_rgb, write_picture

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
import onnx

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "export.py"
ODD = [(1, 3, 8, 8), (3, 3, 9, 17), (1, 3, 40, 21), (2, 3, 8, 33)]  # smaller and larger than the traced one


@pytest.fixture
def call(tool, capsys):
    """Run the tool in this process: (exit code, stdout, stderr)."""
    return lambda *arguments: run_main(tool.main, capsys, *arguments)


@pytest.fixture
def fault(call):
    """Run the tool, expect exit code 2 and one line on stderr; the line."""
    return lambda *arguments: only_error(*call(*arguments))


def noise(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def through(model):
    return lambda lq: torch.from_numpy(model(lq.numpy()))


def outputs(net, run, lq):
    return net(lq), run(lq)


# What is written


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-6), pytest.param("float16", 2e-3, marks=pytest.mark.slow)])
def test_onnx_of_lightglean_takes_any_batch_and_size(exported, dtype, most):
    net, model = network("light"), OnnxBackend(exported("light", dtype=dtype))
    for shape in ODD:
        lq = noise(*shape)
        assert model(lq.numpy()).shape == (shape[0], 3, 2 * shape[2], 2 * shape[3])
        assert net(lq).std() > 0.05
        assert largest_difference(*outputs(net, through(model), lq)) <= most


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_onnx_of_glean_takes_any_batch(exported, dtype):
    net, model = network("glean"), OnnxBackend(exported("glean", dtype=dtype))
    for batch in 1, 3:
        lq = noise(batch, 3, 8, 8)
        assert model(lq.numpy()).shape == (batch, 3, 16, 16)
        assert largest_difference(*outputs(net, through(model), lq)) <= {"float32": 2e-6, "float16": 5e-3}[dtype]


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [pytest.param("glean", marks=pytest.mark.slow), "light"])
def test_torch_program(exported, kind, dtype):
    net, (run, facts) = network(kind), load_torch(exported(kind, "torch", dtype))
    for shape in ODD if kind == "light" else [(1, 3, 8, 8), (3, 3, 8, 8)]:
        assert largest_difference(*outputs(net, run, noise(*shape))) <= {"float32": 2e-6, "float16": 5e-3}[dtype]
    assert (facts.network, facts.dtype, facts.any_size) == (type(net).__name__, dtype, kind == "light")
    assert facts.others == {"checkpoint": f"{kind}.pth", "glean_ext": glean_ext.__version__, "torch": version("torch")}


@pytest.mark.slow  # an export takes seconds
def test_a_network_in_mixed_precision_is_written_in_fp32(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    net = network("glean")
    expected = net(noise(2, 3, 8, 8))
    net.fp16_enabled = True
    exporting.export_network(net, tmp_path / "net.pt2", "torch")
    run, facts = load_torch(tmp_path / "net.pt2")
    assert (run(noise(2, 3, 8, 8)) - expected).abs().max() < 2e-6 and facts.dtype == "float32"


@pytest.mark.slow  # an export to ONNX takes 7 s
def test_the_demo_model(call, tmp_path):
    config, weights, out = ROOT / "configs" / "demo_glean_x8.py", "glean-ext://demo_glean_x8.safetensors", "demo.onnx"
    code, stdout, _ = call(config, weights, tmp_path / out)
    assert code == 0
    net = build_network(load_config(config).model.generator).requires_grad_(False).eval()
    load_network_weights(net, weights)
    model = OnnxBackend(tmp_path / out)
    for batch in 1, 3:
        assert largest_difference(*outputs(net, through(model), noise(batch, 3, 8, 8))) <= 5e-6
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    restored = model.run(image)
    assert (restored.shape, restored.dtype) == ((64, 64, 3), np.uint8) and restored.std() > 10
    difference = np.abs(restored.astype(int) - to_uint8(net(to_tensor(image))))
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3  # of rounding
    line = stdout.splitlines()[-1]
    assert line.startswith(f"wrote {tmp_path / out}: results differ from the network's by at most ")
    assert float(line.split()[-4]) == pytest.approx(model.metadata.max_difference, rel=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out]


def test_metadata_interface_and_nothing_of_this_machine(exported, home):
    path = exported("light")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    versions = {key: metadata.pop(key) for key in ("glean_ext", "torch", "onnx", "onnxscript", "onnxruntime")}
    assert versions == {"glean_ext": glean_ext.__version__, **{key: version(key) for key in PACKAGES["onnx"]}}
    assert 0 < float(metadata.pop("max_difference")) < 1e-5
    assert float(metadata.pop("bytes_per_pixel")) == pytest.approx(bytes_per_pixel(network("light")), rel=1e-4)
    assert metadata == {
        "glean_ext_format": "2",
        "network": "LightGLEANStyleGANv2",
        "checkpoint": "light.pth",
        "dtype": "float32",
        "nominal_size": "8,8",
        "in_size": "any",
        "scale": "2",
        "value_range": "[-1, 1]",
        "channel_order": "RGB",
    }
    sizes = [
        (value.name, *(axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim))
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert sizes == [("lq", "batch", 3, "height", "width"), ("output", "batch", 3, "2*height", "2*width")]
    for content in path.read_bytes(), exported("light", "torch").read_bytes(), exported("glean", "torch").read_bytes():
        for private in str(ROOT), str(home), sys.prefix, "glean_ext/networks":
            assert private.encode() not in content


@pytest.mark.slow  # an export to ONNX takes 7 s
def test_float16_halves_the_file(exported):
    ratio = exported("light", dtype="float16").stat().st_size / exported("light").stat().st_size
    assert 0.45 < ratio < 0.6
    model = onnx.load(exported("light", dtype="float16"))
    floats = [value for value in model.graph.initializer if value.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(value.dims) <= 1 for value in floats)


@pytest.mark.slow  # an export to ONNX takes 7 s
def test_weights_too_large_for_one_file_lie_beside_it(home, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LARGEST_PROTOBUF", 10_000)
    facts = exporting.export(home / "light.py", home / "light.pth", tmp_path / "a.onnx", notify=lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data"]
    assert (tmp_path / "a.onnx.data").stat().st_size > (tmp_path / "a.onnx").stat().st_size
    assert OnnxBackend(tmp_path / "a.onnx").metadata.max_difference == pytest.approx(facts.max_difference, rel=0.01)
    lq = noise(1, 3, 9, 10).numpy()
    np.testing.assert_array_equal(OnnxBackend(tmp_path / "a.onnx")(lq), OnnxBackend(exported("light"))(lq))
    (tmp_path / "a.onnx.data").unlink()
    with pytest.raises(InputError, match=r"a\.onnx is damaged or no ONNX model \("):
        OnnxBackend(tmp_path / "a.onnx")


# In the network's place


def test_run_restores_as_the_network_does(exported):
    for kind, size in ("glean", (8, 8)), ("light", (11, 14)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
        restored = OnnxBackend(exported(kind), threads=1).run(image)
        assert restored.flags.c_contiguous
        difference = np.abs(restored.astype(int) - to_uint8(network(kind)(to_tensor(image))))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01


def test_its_sizes_are_known_as_a_networks(exported):
    for kind in KINDS:
        assert OnnxBackend(exported(kind)).takes == network(kind).size_requirements


def test_torch_is_not_imported(exported):
    code = (
        "import sys, numpy as np\n"
        "from glean_ext.inference.onnx_backend import OnnxBackend\n"
        f"print(OnnxBackend({str(exported('glean'))!r}).run(np.zeros((8, 8, 3), np.uint8)).shape)\n"
        "print([name for name in ('torch', 'mmagic', 'mmengine', 'onnx', 'cv2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(16, 16, 3)\n[]\n", "")


# Behind a ImageRestorer


def pixels(height=8, width=8, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype)


def test_a_restorer_gives_onnx_models_sizes_and_tiles(exported, home):
    onnx_model, torch_model = (exported("light"),), (home / "light.py", home / "light.pth", "cpu")
    for policy, size in ("auto", (8, 8)), ("auto", (11, 14)), ("resize", (30, 20)):
        result, expected = (
            ImageRestorer(*model, size_policy=policy, notify=lambda line: None).restore(pixels(*size)).astype(int)
            for model in (onnx_model, torch_model)
        )
        assert result.shape == expected.shape and np.abs(result - expected).max() <= 1
    seen = []
    policy = SizePolicy("tile", tile_size=40)
    tiled = ImageRestorer(*onnx_model, size_policy=policy, on_tile=lambda *counts: seen.append(counts))
    difference = np.abs(tiled.restore(pixels(60, 50)).astype(int) - OnnxBackend(*onnx_model).run(pixels(60, 50)))
    assert difference.max() <= 1 and seen[-1] == (12, 12)
    batch = tiled.restore_batch([pixels(), pixels(), pixels(dtype=np.uint16)])
    assert [image.dtype for image in batch] == [np.uint8, np.uint8, np.uint16]


def test_a_restorer_of_an_onnx_model_needs_no_torch(exported):
    code = (
        "import sys, numpy as np\n"
        "from glean_ext.inference.image_restorer import ImageRestorer\n"
        f"restorer = ImageRestorer({str(exported('light'))!r})\n"
        "print(restorer.restore(np.zeros((60, 70, 3), np.uint8)).shape)\n"
        "print([name for name in ('torch', 'mmagic', 'mmengine', 'onnx', 'cv2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(120, 140, 3)\n[]\n", "")


def test_the_command_runs_onnx_models_without_torch(exported, tmp_path):
    for size in (8, 8), (60, 70):
        write_picture(Picture(pixels(*size)), tmp_path / "in" / f"{size[0]}.png")
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "heavy = 'torch', 'mmagic', 'mmengine', 'onnx', 'cv2', 'mediapipe'\n"
        "found = lambda: open('imported', 'w').write(' '.join(name for name in heavy if name in sys.modules))\n"
        "atexit.register(found)\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, ROOT / "tools" / "infer.py", exported("light"), "in", "-o", "out", "--tile-size", "40"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "imported").read_text() == ""
    for path in (tmp_path / "in").iterdir():
        expected = OnnxBackend(exported("light")).run(read_rgb(path)).astype(int)
        assert np.abs(read_rgb(tmp_path / "out" / path.name) - expected).max() <= 1


@pytest.mark.parametrize(("name", "value"), [("device", "cuda"), ("dtype", "float16"), ("compile", "default")])
def test_choices_that_an_onnx_model_does_not_leave(exported, name, value):
    path = exported("light")
    with pytest.raises(InputError) as caught:
        ImageRestorer(path, **{name: value})
    assert str(caught.value) == (
        f"{path} is an ONNX model, in float32 on the CPU: {name} cannot be chosen. Leave it out, or give a config and "
        "a checkpoint."
    )
    assert ImageRestorer(path, device="cpu", dtype="float32").takes.any_size


# Bad input


def test_wrong_sizes(exported):
    path = exported("glean")
    with pytest.raises(InputError) as caught:
        OnnxBackend(path).run(np.zeros((8, 9, 3), np.uint8))
    assert str(caught.value) == (
        f"{path} takes 8x8 only, but the image has 9x8 pixels. Resize it, or export a model of that size."
    )
    with pytest.raises(InputError, match="takes any size from 8x8 on, but the image has 20x7 pixels"):
        OnnxBackend(exported("light")).run(np.zeros((7, 20, 3), np.uint8))


@pytest.mark.parametrize("lq", [np.zeros((1, 3, 8, 8)), np.zeros((1, 4, 8, 8), "f4"), np.zeros((3, 8, 8), "f4")])
def test_wrong_arrays(exported, lq):
    model = OnnxBackend(exported("glean"))
    with pytest.raises(TypeError, match=r"takes \(N, 3, h, w\) float32"):
        model(lq)
    with pytest.raises(TypeError, match=r"is \(H, W, 3\) uint8 or uint16"):
        model.run(lq)


def test_files_that_are_no_model(exported, tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(InputError, match=r"x\.onnx: there is no such file\."):
        OnnxBackend(path)
    with pytest.raises(InputError, match="is a folder, not a model"):
        OnnxBackend(tmp_path)
    whole = exported("glean").read_bytes()
    for content in b"", b"text", whole[:100], whole[: len(whole) // 2]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.onnx (is damaged or no ONNX model \(|was exported by another)"):
            OnnxBackend(path)


def test_models_of_others(exported, tmp_path):
    path, model = tmp_path / "x.onnx", onnx.load(exported("glean"))

    def message():
        onnx.save(model, path)
        with pytest.raises(InputError) as caught:
            OnnxBackend(path)
        return str(caught.value)

    entries = {entry.key: entry for entry in model.metadata_props}
    entries["scale"].value = "two"
    assert message().startswith(f"{path} has damaged metadata (")
    entries["glean_ext_format"].value = "1"
    assert message() == (
        f"{path} was exported by another version of glean_ext. Export the network again with tools/export.py."
    )
    del model.metadata_props[:]
    assert message() == f"{path} was exported by another program. Export the network again with tools/export.py."


def test_output_that_is_not_finite(exported):
    lq = np.full((1, 3, 8, 8), np.nan, np.float32)
    with pytest.raises(InputError, match=r"output is not finite\. Export another checkpoint"):
        OnnxBackend(exported("glean"))(lq)


def test_a_program_that_is_damaged_or_of_others(exported, tmp_path):
    path = tmp_path / "x.pt2"
    with pytest.raises(InputError, match="there is no such file"):
        load_torch(path)
    whole = exported("light", "torch").read_bytes()
    for content in b"", b"text", whole[: len(whole) // 2]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"x\.pt2 is damaged or no \.pt2 file \("):
            load_torch(path)
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), path, extra_files={METADATA: "{}"})
    with pytest.raises(InputError, match=r"x\.pt2 was exported by another program"):
        load_torch(path)


@pytest.mark.parametrize(("package", "extra"), [("onnxruntime", "onnx"), ("onnxscript", "export")])
def test_missing_package(fault, exported, home, tmp_path, monkeypatch, package, extra):
    path = exported("glean")
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, package, None)
    line = fault(home / "glean.py", home / "glean.pth", tmp_path / "o.onnx")
    assert line == f"{package} is not installed. pip install 'glean-ext[{extra}]'"
    if package == "onnxruntime":
        with pytest.raises(InputError) as caught:
            OnnxBackend(path)
        assert str(caught.value) == (
            f"{path} needs onnxruntime, which is not installed: pip install 'glean-ext[export]'"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AttributeError("module has no attribute 'x'"), "AttributeError: module has no attribute 'x'"),
        (ImportError("cannot import name 'x'"), None),
        (ModuleNotFoundError("No module named 'dependency'", name="dependency"), "ModuleNotFoundError: No module"),
    ],
)
@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_other_versions_of_packages_take_one_line(fault, home, tmp_path, monkeypatch, package, error, reason):
    real = importlib.import_module

    def broken(name, *rest):
        if name == package:
            raise error
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    message = fault(home / "glean.py", home / "glean.pth", tmp_path / "o.onnx")
    expected = f"--format onnx does not work with {package} {version(package)} ({reason}"
    assert message.startswith(expected if reason else f"--format onnx needs {package}, which is not installed: ")
    assert message.endswith("pip install 'glean-ext[export]'")


def test_an_exporter_that_fails_takes_one_line(fault, home, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise TypeError("export() got an unexpected keyword argument 'dynamo'\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    message = fault(home / "glean.py", home / "glean.pth", tmp_path / "o.onnx")
    assert message.startswith(
        f"--format onnx does not work with torch {version('torch')}, onnx {version('onnx')}, onnxs"
    )
    assert "(TypeError: export() got an unexpected keyword argument 'dynamo'). Install other versions: pip" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_of_an_onnx_model_that_is_not_finite_is_an_error(exported, monkeypatch, value):
    model = OnnxBackend(exported("glean"))

    class Session:
        def run(self, lq):
            output = np.zeros((1, 3, 16, 16), np.float32)
            output[0, 1, 2, 3] = value
            return output

    monkeypatch.setattr(model, "_session", Session())
    with pytest.raises(InputError, match=r"the network's output is not finite\. Export another checkpoint\."):
        model(np.zeros((1, 3, 8, 8), np.float32))


def test_an_onnxruntime_that_is_none(exported, monkeypatch):
    """A folder of that name in the folder at hand is imported as an empty package."""
    path = exported("glean")
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(
        InputError, match=r"glean_float32\.onnx does not work with onnxruntime .*no attribute 'SessionOp"
    ):
        OnnxBackend(path)


def test_bad_arguments(fault, home, tmp_path):
    config, weights, out = home / "glean.py", home / "glean.pth", tmp_path / "o.onnx"
    assert fault(config, weights, tmp_path / "o.pt2") == (
        f"{tmp_path}/o.pt2: --format onnx writes .onnx. Name it {out}."
    )
    assert fault(config, weights, out, "--format", "torch") == (
        f"{out}: --format torch writes .pt2. Name it {tmp_path}/o.pt2."
    )
    assert fault(home / "no.py", weights, out).startswith(f"{home}/no.py: there is no such file.")
    assert fault(config, home / "no.pth", out).startswith(f"{home}/no.pth: there is no such file.")
    assert fault(config, home / "light.pth", out).startswith(f"{home}/light.pth does not fit GLEANStyleGANv2: ")
    assert "invalid choice: 'int8'" in fault(config, weights, out, "--dtype", "int8")
    assert "there is no argument 'x'" in fault(config, weights, out, "--cfg-options", "model.generator.x=1")
    (home / "text").write_text("")
    assert "cannot be written" in fault(config, weights, home / "text" / "o.onnx")
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    assert fault(config, weights, out) == f"{out} is a folder. Give the name of a file."


@pytest.mark.parametrize("form", [pytest.param("onnx", marks=pytest.mark.slow), "torch"])
def test_results_that_differ_leave_no_file(fault, home, tmp_path, monkeypatch, form):
    monkeypatch.setitem(exporting.TOLERANCE, "float32", 0.0)
    monkeypatch.setattr(exporting, "largest_difference", lambda image, other: 0.25)
    out = tmp_path / f"o{SUFFIXES[form]}"
    message = fault(home / "light.py", home / "light.pth", out, "--format", form)
    assert message.startswith("The exported network differs from the network by 0.25 of the value range, more than 0;")
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['export.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit:\n"
        "    print(json_of([name for name in ('torch', 'numpy', 'onnx') if name in sys.modules]))\n"
    ).replace("json_of", "__import__('json').dumps")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: ") and json.loads(done.stdout.splitlines()[-1]) == []
