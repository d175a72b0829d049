"""Backends: engines give the pixels of PyTorch, their models are made once, and ``auto`` follows its rule."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exports import KINDS
from support.tools import load_tool, only_error, run_main

from glean_ext.errors import InputError
from glean_ext.inference import backend_choice, engine_cache, engine_models, model_maker, torch_backend
from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_cache import EngineCache, model_key
from glean_ext.inference.engine_models import engine_key
from glean_ext.inference.engines import open_session, optimize_model
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.utils.image_io import Picture, read_rgb, write_picture
from glean_ext.utils.processes import thread_count

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
ENGINES = ["onnxruntime", pytest.param("openvino", marks=needs_openvino)]


def pixels(height: int = 8, width: int = 8, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, 3), dtype, endpoint=True)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> EngineCache:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return EngineCache()


@pytest.fixture
def cached(cache, home, exported):
    """Put the model of a network of ``home`` into the cache; its path there."""

    def put(kind: str, engine: str) -> Path:
        source = NetworkSource({"model": {"generator": KINDS[kind]}}, home / f"{kind}.pth")
        path = cache.path(engine_key(source, engine))
        path.parent.mkdir(parents=True, exist_ok=True)
        if engine == "onnxruntime":
            optimize_model(exported(kind), path)
        else:
            shutil.copy(exported(kind), path)
        return path

    return put


def restorer(home: Path, kind: str, backend: str, **arguments) -> ImageRestorer:
    arguments = {"notify": lambda line: None, "device": None if backend == "tensorrt" else "cpu", **arguments}
    return ImageRestorer(home / f"{kind}.py", home / f"{kind}.pth", backend=backend, **arguments)


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [pytest.param("glean", marks=pytest.mark.slow), "light"])
def test_engines_give_the_pixels_of_pytorch(home, cached, kind, engine):
    cached(kind, engine)
    fast, reference = restorer(home, kind, engine), restorer(home, kind, "torch", dtype="float32")
    assert fast.network.engine == engine and fast.takes == reference.takes
    images = [pixels(seed=seed) for seed in range(3)]
    images += [pixels(30, 21), pixels(9, 40)]  # resized, or at their size
    for result, expected in zip(fast.restore_batch(images), reference.restore_batch(images), strict=True):
        assert expected.std() > 5
        difference = np.abs(result.astype(int) - expected)
        assert difference.max() <= 1 and (difference > 0).mean() < 0.01
    fine = pixels(dtype=np.uint16)
    assert np.abs(fast.restore(fine).astype(int) - reference.restore(fine)).max() <= 4  # of 65535


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cached_model_needs_no_pytorch(home, cached, engine, monkeypatch):
    cached("light", engine)
    monkeypatch.setattr(torch_backend, "load_network", None)
    assert restorer(home, "light", engine).restore(pixels()).shape == (16, 16, 3)


WITHOUT_TORCH = """
import sys
import numpy as np
from glean_ext.inference.image_restorer import ImageRestorer

restorer = ImageRestorer(sys.argv[1], sys.argv[2], device="cpu", dtype="float32")
print(restorer.network.engine, restorer.restore(np.zeros((8, 8, 3), np.uint8)).shape, "torch" in sys.modules)
"""


@needs_openvino
def test_auto_takes_a_cached_model_without_loading_pytorch(home, cached):
    cached("light", "openvino")
    command = [sys.executable, "-c", WITHOUT_TORCH, str(home / "light.py"), str(home / "light.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "openvino (16, 16, 3) False\n")


def test_an_optimized_model_maps_its_weights_and_damaged_weights_are_made_again(home, cached, made):
    path = cached("light", "onnxruntime")
    (weights,) = path.parent.glob(f"{path.name}.*.data")  # named after what it was made from
    assert weights.stat().st_size > path.stat().st_size / 10 and made == []
    reference = restorer(home, "light", "onnxruntime").restore(pixels())
    weights.write_bytes(weights.read_bytes()[:100])
    assert np.abs(restorer(home, "light", "onnxruntime").restore(pixels()).astype(int) - reference).max() <= 1
    assert made == [path]


@needs_openvino
def test_openvino_runs_exported_files(exported):
    path = exported("light")
    result, expected = (ImageRestorer(path, backend=name).restore(pixels(20, 13)) for name in ("openvino", "auto"))
    assert np.abs(result.astype(int) - expected).max() <= 1


DROPPED_IN_A_THREAD = """
import signal, sys, threading
from pathlib import Path
from glean_ext.inference.engine_models import engine_key
from glean_ext.inference.engines import open_session, optimize_model

session = [open_session(Path(sys.argv[1]), "openvino")]
signal.signal(signal.SIGTERM, lambda number, frame: print("handled"))
thread = threading.Thread(target=session.clear)
thread.start()
thread.join()
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
def test_openvino_keeps_what_it_compiled(home, cache, tmp_path, monkeypatch):
    def compiled() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in cache.folder.glob("*.compiled/*")}

    first, image = restorer(home, "light", "openvino"), pixels()
    expected, (written,) = first.restore(image), compiled().items()
    again = restorer(home, "light", "openvino")
    np.testing.assert_array_equal(again.restore(image), expected)
    assert compiled() == dict([written])
    path = written[0]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:1000])  # damaged
    np.testing.assert_array_equal(restorer(home, "light", "openvino").restore(image), expected)
    assert path.stat().st_size > 1000
    for i in range(2):  # of other versions
        (path.parent / f"{i}.blob").write_bytes(b"")
        os.utime(path.parent / f"{i}.blob", (i, i))
    restorer(home, "light", "openvino")
    assert set(compiled()) == {path, path.parent / "1.blob"}
    cache.remove(path.parent.name.removesuffix(".onnx.compiled"))
    assert not list(cache.folder.glob("*.onnx*"))


@needs_openvino
def test_signals_are_handled_after_a_thread_has_dropped_the_model(exported):
    # OpenVINO's core frees the stack of signal handlers that it gave the main thread.
    command = [sys.executable, "-X", "faulthandler", "-c", DROPPED_IN_A_THREAD, str(exported("light"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled\n", "")


# ---------------------------------------------------------------- models, made once


@pytest.fixture
def made(exported, monkeypatch) -> list[Path]:
    """Where models were made: copies of an exported file, which are there in no time."""
    paths: list[Path] = []

    def make(source, path, engine, notify):
        paths.append(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(exported(Path(source.config).stem), path)

    monkeypatch.setattr(engine_models, "make_model", make)
    return paths


def test_a_model_is_made_once(home, cache, made):
    for _ in range(2):
        restorer(home, "light", "onnxruntime").restore(pixels())
    assert len(made) == 1 and made[0].parent == cache.folder and made[0].is_file()


def test_without_cache_nothing_stays(home, cache, made):
    network = restorer(home, "light", "onnxruntime", cache=False).network
    assert made[0].is_file() and not cache.folder.exists()
    del network
    assert not made[0].parent.exists()


def test_a_damaged_model_is_made_again(home, cached, made):
    path = cached("light", "onnxruntime")
    path.write_bytes(path.read_bytes()[:1000])
    assert restorer(home, "light", "onnxruntime").restore(pixels()).shape == (16, 16, 3)
    assert made == [path]


def test_what_a_model_depends_on(home, tmp_path, monkeypatch):
    def key(kind="light", weights=home / "light.pth"):
        return model_key(KINDS[kind], weights)

    first = key()
    copy = tmp_path / "other_name.pth"
    shutil.copy(home / "light.pth", copy)
    assert key(weights=copy) == first
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")
    others = {key(weights=copy), key("glean")}
    monkeypatch.setattr(engine_cache, "installed_version", lambda package: "9")
    others.add(key())
    monkeypatch.undo()
    monkeypatch.setattr(engine_cache, "processor", lambda: "another")
    others.add(key())
    assert len(others) == 4 and first not in others


def test_the_cache_has_a_limit(tmp_path):
    def make(path: Path) -> None:
        path.write_bytes(b"x" * 40)

    cache = EngineCache(tmp_path, limit=100)
    for age, key in enumerate("ab"):
        os.utime(cache.get(key, make), (age, age))
    cache.get("a", make)  # used again: now b is the one not used for longest
    cache.get("c", make)
    assert [cache.has(key) for key in "abc"] == [True, False, True]
    huge = EngineCache(tmp_path, limit=10).get("d", make)
    assert huge.is_file() and not any(map(cache.has, "ac"))


def test_the_limit_counts_weights_and_leaves_alone_what_is_being_written(tmp_path):
    def make(path: Path) -> None:
        path.write_bytes(b"x")
        path.with_name(f"{path.name}.data").write_bytes(b"x" * 60)

    (tmp_path / ".a.partial-0a1b2c3d.onnx").mkdir()  # another process makes a model
    (tmp_path / "killed.optimized.onnx.data").write_bytes(b"x" * 60)
    cache = EngineCache(tmp_path, limit=100)
    for key in "1.27-a", "1.27-b":
        cache.get(key, make)
        names = sorted(path.name for path in tmp_path.glob("[!.]*"))
        assert names == [f"{key}.onnx", f"{key}.onnx.data"]
    assert (tmp_path / ".a.partial-0a1b2c3d.onnx").is_dir()


def test_an_optimized_model_that_cannot_be_written(tmp_path, exported):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/x\.optimized\.onnx cannot be written \("):
        optimize_model(exported("light"), tmp_path / "file" / "x.optimized.onnx")
    (tmp_path / ".x.partial-0a1b2c3d.onnx").mkdir()  # of a killed process
    (damaged := tmp_path / "damaged.onnx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"^onnxruntime cannot make .*x\.optimized\.onnx \("):
        optimize_model(damaged, tmp_path / "x.optimized.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.onnx", "file"]


def test_a_model_that_fails_leaves_no_file(home, cache, monkeypatch):
    def fail(*_, **__):
        raise TypeError("no such argument")

    monkeypatch.setattr(torch.onnx, "export", fail)
    source = NetworkSource(home / "light.py", home / "light.pth")
    with pytest.raises(InputError, match="does not work with torch"):
        model_maker.write_model(source, cache.path("key"), "onnxruntime", lambda notice: None)
    assert not list(cache.folder.iterdir())


def test_several_threads_make_a_model_once(tmp_path):
    made = []

    def make(path: Path) -> None:
        made.append(path)
        time.sleep(0.1)
        path.touch()

    with ThreadPoolExecutor(4) as threads:
        paths = set(threads.map(lambda _: EngineCache(tmp_path).get("key", make), range(4)))
    assert paths == {tmp_path / "key.onnx"} and len(made) == 1


@pytest.mark.slow  # makes a model
@pytest.mark.parametrize("engine", ENGINES)
def test_the_command_makes_a_model_and_says_so(home, cache, tmp_path, capsys, engine):
    for seed in range(2):
        write_picture(Picture(pixels(seed=seed)), tmp_path / "in" / f"{seed}.png")
    arguments = [home / "light.py", home / "light.pth", tmp_path / "in", "--device", "cpu", "--dtype", "float32"]
    runs = [("--backend", engine), ("--backend", engine), ("--backend", engine, "--no-cache"), ("--backend", "torch")]
    said = []
    for number, options in enumerate(runs):
        output = ["-o", tmp_path / str(number), *options]
        code, out, _ = run_main(load_tool("infer").main, capsys, *arguments, *output)
        assert code == 0
        said.append(f"making the model for {engine}" in out and "converting it to ONNX" in out)
    assert said == [True, False, True, False] and len(list(cache.folder.glob("*.onnx"))) == 1
    for name in "0.png", "1.png":
        first, *others = (read_rgb(tmp_path / str(number) / name).astype(int) for number in range(len(runs)))
        assert all(np.abs(first - other).max() <= 1 for other in others)


# ---------------------------------------------------------------- auto


@pytest.mark.parametrize(
    ("options", "installed", "cached", "expected"),
    [
        ({}, True, True, "openvino"),
        ({"dtype": "float32", "device": "cpu"}, True, True, "openvino"),
        ({}, True, False, "torch"),
        ({"images": backend_choice.WORTH_MAKING}, True, False, "openvino"),
        ({"images": backend_choice.WORTH_MAKING - 1}, True, False, "torch"),
        ({}, False, True, "torch"),
        ({"cache": False}, True, True, "torch"),
        ({"dtype": "bfloat16"}, True, True, "torch"),
        ({"compile": "default"}, True, True, "torch"),
        ({"seed": 1}, True, True, "torch"),
        ({"fidelity": 0.0}, True, True, "torch"),
        ({"device": "cuda"}, True, True, "torch"),
    ],
)
def test_the_rule_of_auto(monkeypatch, tmp_path, options, installed, cached, expected):
    monkeypatch.setattr(backend_choice, "installed", lambda engine: installed and engine == "openvino")
    monkeypatch.setattr(backend_choice, "is_cached", lambda source, engine: cached)
    monkeypatch.setattr(backend_choice, "instructions", list)  # unknown: torch is asked
    monkeypatch.setattr(torch_backend, "default_dtype", lambda device: "float32")
    monkeypatch.setattr(torch_backend, "pick_device", lambda name: torch.device(name or "cpu"))
    weights = tmp_path / "x.pth"
    weights.write_bytes(b"")
    os.truncate(weights, backend_choice.LARGE)
    assert backend_choice.choose(NetworkSource("x.py", weights), NetworkOptions(**options)) == expected
    monkeypatch.setattr(backend_choice, "at_hand", lambda: (5 * backend_choice.LARGE, None))
    assert backend_choice.choose(NetworkSource("x.py", weights), NetworkOptions(**options)) == "torch"


@pytest.mark.parametrize(("sizes", "expected"), [(6, "openvino"), (5.9, "onnxruntime"), (2.9, "torch")])
def test_the_fastest_engine_for_which_memory_is_free(monkeypatch, tmp_path, sizes, expected):
    monkeypatch.setattr(backend_choice, "installed", lambda engine: True)
    monkeypatch.setattr(backend_choice, "is_cached", lambda source, engine: True)
    monkeypatch.setattr(backend_choice, "instructions", lambda: ["avx2"])
    monkeypatch.setattr(backend_choice, "at_hand", lambda: (sizes * 1000, None))
    (weights := tmp_path / "x.pth").write_bytes(bytes(1000))
    assert backend_choice.choose(NetworkSource("x.py", weights), NetworkOptions(device="cpu")) == expected


def test_small_networks_are_too_quick_to_make_a_model(home, cache, made):
    many = {"images": 10 * backend_choice.WORTH_MAKING}
    assert not hasattr(restorer(home, "light", "auto", **many).network, "engine") and made == []


def test_auto_takes_pytorch_where_the_cache_cannot_be_written(home, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(backend_choice, "choose", lambda source, options: "onnxruntime")
    lines = []
    network = restorer(home, "light", "auto", notify=lambda notice: lines.append(str(notice))).network
    assert not hasattr(network, "engine")
    assert lines[-1].startswith("PyTorch runs the network instead of onnxruntime: ")
    assert lines[-1].endswith(".optimized.onnx cannot be written (Not a directory). Choose another output.")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\)"):
        restorer(home, "light", "onnxruntime")


def test_auto_takes_pytorch_where_bfloat16_is_faster(monkeypatch, tmp_path):
    source = NetworkSource("x.py", tmp_path / "x.pth")
    Path(source.checkpoint).touch()
    monkeypatch.setattr(backend_choice, "installed", lambda engine: True)
    monkeypatch.setattr(backend_choice, "is_cached", lambda source, engine: True)
    monkeypatch.setattr(backend_choice, "instructions", lambda: ["avx2", "avx512_bf16"])
    options = NetworkOptions(device="cpu")
    assert backend_choice.choose(source, options) == "torch"
    fp32 = NetworkOptions(device="cpu", dtype="float32")
    assert backend_choice.choose(source, fp32) == "openvino"


def test_one_image_makes_no_model(home, cache, made):
    assert not hasattr(restorer(home, "light", "auto").network, "engine") and made == []


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("option", "value"), [("compile", "default"), ("seed", 3), ("device", "cuda"), ("dtype", "float16")]
)
def test_options_that_an_engine_does_not_have(option, value):
    with pytest.raises(
        InputError, match=rf"^{option}=.*has no effect with backend='onnxruntime', which runs on the cpu"
    ):
        NetworkOptions(backend="onnxruntime", **{option: value})


def test_unknown_backends(capsys):
    line = only_error(*run_main(load_tool("infer").main, capsys, "a.png", "-o", "b.png", "--backend", "tensorflow"))
    assert line == ("--backend is 'tensorflow', but it must be one of auto, torch, onnxruntime, openvino, tensorrt.")


def test_tensorrt_says_what_is_missing(home, cached):
    import onnxruntime

    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has TensorRT here")
    cached("light", "tensorrt")
    with pytest.raises(InputError) as caught:
        restorer(home, "light", "tensorrt")
    assert str(caught.value).startswith(
        "backend='tensorrt' needs an NVIDIA GPU, TensorRT, and onnxruntime-gpu in place of onnxruntime; the "
    )
    assert str(caught.value).endswith("Install them, or use backend='torch'.")


def test_an_engine_that_is_not_installed(home, cache, monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *rest):
        if name == "openvino":
            raise ModuleNotFoundError(name, name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(InputError) as caught:
        restorer(home, "light", "openvino")
    assert (
        str(caught.value)
        == "backend='openvino' needs openvino, which is not installed: pip install 'glean-ext[openvino]'"
    )


def test_an_onnx_file_is_not_run_by_torch(exported):
    with pytest.raises(InputError, match=r"is an ONNX model, which backend='torch' does not run\. Leave backend out"):
        ImageRestorer(exported("light"), backend="torch")


def test_threads(monkeypatch, exported):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() == len(os.sched_getaffinity(0))
    lq = np.zeros((1, 3, 8, 8), np.float32)
    assert open_session(exported("light"), threads=2).run(lq).shape == (1, 3, 16, 16)
