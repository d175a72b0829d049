"""The engines that run ONNX models: onnxruntime, OpenVINO, and TensorRT by onnxruntime. Each is loaded when it is used.

They compute one batch at a time with as many threads as there are cores, or as ``OMP_NUM_THREADS`` says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glean_ext.errors import InputError, first_line
from glean_ext.utils.downloads import file_hash
from glean_ext.utils.files import temporary_folder_beside
from glean_ext.utils.optional_packages import import_optional, version_errors
from glean_ext.utils.processes import thread_count
from glean_ext.utils.stderr_filter import MEDIAPIPE, filter_stderr

ENGINES = ("onnxruntime", "openvino", "tensorrt")
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "onnxruntime"}
EXTRA = "pip install 'glean-ext[export]'"
EXTRAS = {"onnxruntime": EXTRA, "openvino": "pip install 'glean-ext[openvino]'", "tensorrt": EXTRA}
DTYPES = {
    "onnxruntime": ("float32",), "openvino": ("float32", "bfloat16"), "tensorrt": ("float32", "bfloat16", "float16"),
}  # fmt: skip
TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
INPUT, OUTPUT = "lq", "output"
COMPILED = 2  # files that are kept of a model that OpenVINO compiled: for one number of threads and one dtype each
OPTIMIZED = ".optimized.onnx"  # the end of the name of a model that optimize_model wrote


class Session(Protocol):
    """A model that an engine has loaded."""

    metadata: Mapping[str, str]  # of the file
    dtype: str | None  # what it computes in; None: as the file says
    names: list[str]  # of its inputs and outputs

    def run(self, lq: np.ndarray) -> np.ndarray:
        """(N, 3, h, w) float32 -> (N, 3, H, W) float32"""


def open_session(
    path: Path,
    engine: str = "onnxruntime",
    threads: int | None = None,
    dtype: str | None = None,
    compiled: Path | None = None,
) -> Session:
    """Load an ONNX model.

    Args:
        path: The file.
        engine: One of :data:`ENGINES`.
        threads: Of the computation; None: :func:`~glean_ext.utils.processes.thread_count`.
        dtype: What an fp32 model is computed in, of :data:`DTYPES`; None: with OpenVINO bfloat16 where the processor
            has instructions for it, else what the file says.
        compiled: A folder where OpenVINO keeps what it compiled, for later sessions; made if missing.

    Raises:
        InputError: The engine is not installed or lacks what it needs; the file is missing, damaged or no ONNX.
    """
    package = import_optional(PACKAGES[engine], _needed_by(path, engine), EXTRAS[engine], "backend")
    if not path.is_file():
        what = "is a folder, not a model" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}. Give the path of a model that tools/export.py wrote.")
    threads = threads or thread_count()
    if engine == "openvino":
        return _OpenVino(package, path, threads, dtype, compiled)
    return _OnnxRuntime(package, path, threads, dtype, tensorrt=engine == "tensorrt")


def installed(engine: str) -> bool:
    """Whether an engine's package is there; it is not loaded."""
    return find_spec(PACKAGES[engine]) is not None


def _needed_by(path: Path, engine: str) -> str:
    return str(path) if engine == "onnxruntime" else f"{{backend={engine}}}"


class _OnnxRuntime:
    def __init__(self, onnxruntime: Any, path: Path, threads: int, dtype: str | None, tensorrt: bool):
        with version_errors(("onnxruntime",), str(path), EXTRA):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # fatal: what fails is raised
            options.intra_op_num_threads = threads
            options.enable_cpu_mem_arena = False  # 64 -> 1024: 1.4 GiB in place of 2.5, in the same time
            if path.name.endswith(OPTIMIZED):
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
                options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay in the mapped file
            make = onnxruntime.InferenceSession
            providers = tensorrt_providers(onnxruntime, path, dtype) if tensorrt else [CPU]
        try:
            self._session = make(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's have no common base
            raise _damaged(path, error) from error
        if tensorrt and self._session.get_providers()[0] != TENSORRT:
            raise InputError(
                "{backend=tensorrt}: onnxruntime could not load TensorRT or CUDA, which it was built for.",
                "backend",
                "Install the versions that this onnxruntime needs, or use {backend=torch}.",
            )
        self.dtype = dtype
        self.metadata = self._session.get_modelmeta().custom_metadata_map
        self.names = [value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())]
        self._alone = self._session.get_inputs()[0].shape[0] == 1

    def run(self, lq: np.ndarray) -> np.ndarray:
        images = lq[:, None] if self._alone else [lq]  # (1, 3, h, w) each, or all
        return _joined([self._session.run([OUTPUT], {INPUT: image})[0] for image in images])


def optimize_model(model: Path, out: Path) -> None:
    """Write an ONNX model as onnxruntime runs it on this processor: it loads at once, and its weights are mapped.

    Args:
        model: The model, in fp32.
        out: A name that ends with :data:`OPTIMIZED`. The weights come beside it into ``<out>.<hash>.data``, of the hash
            of those of ``model``: while one pair of files replaces another, no process reads parts of both.

    Raises:
        InputError: It cannot be read or written.
    """
    import onnxruntime

    own = weights_of(model)
    hash_ = file_hash(own if own.exists() else model)[:8]
    with temporary_folder_beside(out) as folder:
        written, weights = folder / out.name, f"{out.name}.{hash_}.data"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(written)
        for name, value in {"file_name": weights, "min_size_in_bytes": "1024"}.items():
            options.add_session_config_entry(f"session.optimized_model_external_initializers_{name}", value)
        try:
            onnxruntime.InferenceSession(str(model), options, providers=[CPU])
        except Exception as error:  # onnxruntime's have no common base
            raise InputError(f"onnxruntime cannot make {out} ({first_line(error)}). Is the disk full?") from error
        if (folder / weights).exists():
            (folder / weights).replace(out.with_name(weights))
        written.replace(out)


def weights_of(model: Path) -> Path:
    """The file beside a model that has its weights, where it is there."""
    return model.with_name(f"{model.name}.data")


def tensorrt_providers(onnxruntime: Any, path: Path, dtype: str | None) -> list[Any]:
    """TensorRT, and CUDA for operations that it lacks. TensorRT keeps what it compiles beside the model.

    Raises:
        InputError: This onnxruntime has no TensorRT.
    """
    if TENSORRT not in (available := onnxruntime.get_available_providers()):
        raise InputError(
            f"{{backend=tensorrt}} needs an NVIDIA GPU, TensorRT, and onnxruntime-gpu in place of onnxruntime; the "
            f"onnxruntime here has {', '.join(available)} only.",
            "backend",
            "Install them, or use {backend=torch}.",
        )
    options = {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(path.parent),
        "trt_fp16_enable": dtype == "float16",
        "trt_bf16_enable": dtype == "bfloat16",
    }
    return [(TENSORRT, options), CUDA]


@cache
def _openvino_core(openvino: Any) -> Any:
    """The one core of this process, which is never deleted.

    It gives the thread that loads its CPU plugin a stack for signal handlers. Deleted in another thread, it would free
    that stack while it is in use, and the next signal (Ctrl-C, a child that ends) would be a segmentation fault.
    """
    return openvino.Core()


class _OpenVino:
    def __init__(self, openvino: Any, path: Path, threads: int, dtype: str | None, compiled: Path | None):
        with version_errors(("openvino",), str(path), EXTRAS["openvino"]):
            core = _openvino_core(openvino)
            if dtype is None:
                has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
                dtype = "bfloat16" if has_bf16 else "float32"
            precision = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[dtype]
            settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
            read, size = core.read_model, openvino.PartialShape
        try:
            model = _without_messages(read, path)
            self.names = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
            properties = model.get_rt_info("framework").value if model.has_rt_info("framework") else {}
            self.metadata: Mapping[str, str] = {key: str(value) for key, value in properties.items()}
            source, shape = model, list(model.input(0).get_partial_shape())
            if compiled is not None and shape[0].is_static and _can_use(compiled):
                source, settings = str(path), settings | {"CACHE_DIR": str(compiled)}
            else:
                model.reshape(size([1, *shape[1:]]))  # faster than any number of images
            net = core.compile_model(source, "CPU", settings | {"INFERENCE_PRECISION_HINT": precision})
        except InputError:
            raise
        except Exception as error:  # openvino's are RuntimeError and more
            raise _damaged(path, error) from error
        self.dtype: str | None = dtype
        self._request, self._busy = net.create_infer_request(), threading.Lock()

    def run(self, lq: np.ndarray) -> np.ndarray:
        with self._busy:  # the request owns its output
            return _joined([self._request.infer([image])[0].copy() for image in lq[:, None]])


def _can_use(folder: Path) -> bool:
    """Whether files can be kept there; those of other versions and numbers of threads are removed, but for a few."""
    try:
        folder.mkdir(exist_ok=True)
        newest_last = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for file in newest_last[:-COMPILED]:
            file.unlink(missing_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _joined(results: list[np.ndarray]) -> np.ndarray:
    return results[0] if len(results) == 1 else np.concatenate(results)


def _without_messages(read: Callable[[Path], Any], path: Path) -> Any:
    """What ``read`` makes of a file. OpenVINO's readers of other formats write to stderr that it is none of theirs."""
    with filter_stderr(MEDIAPIPE):
        try:
            return read(path)
        except Exception as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    lines = [line for line in str(error).splitlines() if not line.startswith("Exception from ")]  # OpenVINO's places
    reason = first_line(RuntimeError("\n".join(lines)))
    return InputError(f"{path} is damaged or no ONNX model ({reason}). Export the network again with tools/export.py.")
