"""A network of a config and a checkpoint, run by an engine: its ONNX model is made once and cached."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from glean_ext.errors import InputError, Notice
from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_cache import EngineCache
from glean_ext.inference.engines import EXTRAS, OPTIMIZED, PACKAGES, optimize_model
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.utils.files import temporary_folder_beside
from glean_ext.utils.optional_packages import import_optional, installed_version

MAKERS = ("onnx", "onnxscript")  # packages that write ONNX


def load_engine(
    source: NetworkSource, engine: str, options: NetworkOptions, notify: Callable[[Notice], None]
) -> OnnxBackend:
    """The network, run by an engine; its model comes from the cache, or is made now.

    Raises:
        InputError: The network or the engine cannot be used, or a package that makes the model is missing.
    """
    import_optional(PACKAGES[engine], f"{{backend={engine}}}", EXTRAS[engine], "backend")

    def make(path: Path) -> None:
        make_model(source, path, engine, notify)

    def load(path: Path) -> OnnxBackend:
        return OnnxBackend(path, engine=engine, dtype=options.dtype, weights=source.weights.name)

    if not options.cache:
        folder = tempfile.TemporaryDirectory(prefix="glean-ext-")  # lives as long as the backend: engines map the file
        name = f"model{OPTIMIZED}" if engine == "onnxruntime" else "model.onnx"
        make(path := Path(folder.name, name))
        backend = load(path)
        backend.keep_alive = folder
        return backend
    cache, key = EngineCache(), engine_key(source, engine)
    known = cache.has(key)
    try:
        return load(cache.get(key, make))
    except InputError:
        if not known:
            raise
    cache.remove(key)  # damaged
    return load(cache.get(key, make))


def engine_key(source: NetworkSource, engine: str) -> str:
    """What names the model of a network in the cache: onnxruntime has one of its own, for this version of it."""
    if engine != "onnxruntime":
        return source.key
    return f"{source.key}-{installed_version(engine)}{OPTIMIZED.removesuffix('.onnx')}"


def is_cached(source: NetworkSource, engine: str) -> bool:
    """Whether the model of this network is there already."""
    return EngineCache().has(engine_key(source, engine))


def can_make() -> bool:
    """Whether the packages that make models are installed; none is imported."""
    return all(find_spec(name) is not None for name in MAKERS)


def make_model(source: NetworkSource, path: Path, engine: str, notify: Callable[[Notice], None]) -> None:
    """Write the network as the ONNX model that an engine runs.

    Raises:
        InputError: The network cannot be used, a package is missing, or the results differ from the network's.
    """
    for package in MAKERS:
        import_optional(package, f"{{backend={engine}}}", EXTRAS[engine], "backend")
    from glean_ext.inference.export import export_network
    from glean_ext.inference.torch_backend import load_network

    notify(Notice(f"making the model for {engine}, which takes a minute or more; later runs find it in a cache"))
    net = load_network(source.config, source.checkpoint, source.cfg_options)
    others = {"checkpoint": Path(source.checkpoint).name}
    if not path.name.endswith(OPTIMIZED):
        export_network(net, path, others=others, notify=notify, engine=engine)
        return
    with temporary_folder_beside(path) as folder:
        export_network(net, plain := folder / "plain.onnx", others=others, notify=notify, engine=engine)
        optimize_model(plain, path)
