"""A network of a config and a checkpoint, run by an engine: its ONNX model is made once and cached."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from glean_ext.errors import InputError, Notice, first_line
from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_cache import EngineCache
from glean_ext.inference.engines import EXTRAS, OPTIMIZED, PACKAGES
from glean_ext.inference.model_maker import MAKERS, make_model
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.utils.optional_packages import import_optional, installed_version


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

    def load(path: Path, compiled: Path | None = None) -> OnnxBackend:
        return OnnxBackend(path, None, engine, options.dtype, source.weights.name, compiled)

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
        return load(cache.get(key, make), cache.compiled(key))
    except InputError:
        if not known:
            raise
    try:
        cache.remove(key)  # damaged
    except OSError as error:
        raise InputError(
            f"{cache.path(key)} is damaged, and cannot be removed ({first_line(error)}).", hint="Remove it."
        ) from error
    return load(cache.get(key, make), cache.compiled(key))


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
