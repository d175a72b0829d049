"""Models for engines, made once from a config and a checkpoint and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import glean_ext
from glean_ext.utils.downloads import cache_folder, file_hash
from glean_ext.utils.hardware import processor
from glean_ext.utils.optional_packages import installed_version

logger = logging.getLogger(__name__)

LIMIT = 6 * 2**30  # bytes of all models; GLEAN at 1024x1024 has 0.7e9
VERSIONS = ("torch", "onnx", "onnxscript")  # of what makes the models


@dataclass(frozen=True)
class EngineCache:
    """A folder of ONNX models: a file each, perhaps its weights in ``<model>*.data``, and what an engine compiled.

    A model appears whole or not at all (:func:`~glean_ext.inference.export.export_network`). Those that were not used
    for longest are removed when all take more than ``limit`` bytes; a process that has one open may still read it.

    Args:
        folder: Default: beside the downloaded weights.
        limit: Bytes of all models.
    """

    folder: Path = field(default_factory=lambda: cache_folder() / "engines")
    limit: int = LIMIT

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.onnx"

    def compiled(self, key: str) -> Path:
        """The folder where an engine may keep what it compiled of a model."""
        return self.folder / f"{key}.onnx.compiled"

    def has(self, key: str) -> bool:
        return self.path(key).is_file()

    def get(self, key: str, make: Callable[[Path], object]) -> Path:
        """The model with this key, which ``make`` writes to the path that it is given where it is not there yet.

        One process or thread makes it; the others wait for it.
        """
        path = self.path(key)
        if path.is_file():
            with suppress(OSError):  # a folder that may only be read
                path.with_name(f"{path.name}.used").touch()  # what was compiled is of a model of its own time
            return path
        with self._locked(key):
            if not path.is_file():
                make(path)
                self._trim(key)
        return path

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Nothing where the folder cannot be written to: ``make`` says so."""
        from filelock import FileLock, Timeout  # torch needs it, too

        lock = FileLock(self.folder / f".{key}.lock")
        with suppress(OSError, NotImplementedError):  # the latter: a file system without locks
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                logger.warning("another process makes this engine's model; this one waits for it")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def remove(self, key: str) -> None:
        shutil.rmtree(self.compiled(key), ignore_errors=True)
        for path in self.folder.glob(f"{key}.onnx*"):  # the model and its weights
            if path != self.compiled(key):
                path.unlink(missing_ok=True)

    def _trim(self, kept: str) -> None:
        sizes: dict[str, int] = {}
        used: dict[str, float] = {}
        # without those that processes are writing
        for file in [*self.folder.glob("[!.]*.onnx*"), *self.folder.glob("[!.]*.onnx.compiled/*")]:
            with suppress(OSError):  # another process removed it
                stat, key = file.stat(), file.relative_to(self.folder).parts[0].partition(".onnx")[0]
                sizes[key] = sizes.get(key, 0) + stat.st_size
                used[key] = max(used.get(key, 0), stat.st_mtime)
        size = sum(sizes.values())
        for key in sorted(sizes.keys() - {kept}, key=lambda key: used[key]):
            if size <= self.limit:
                return
            size -= sizes[key]
            with suppress(OSError):  # on Windows: it is in use
                self.remove(key)


def model_key(generator: Mapping, weights: Path) -> str:
    """What a model for engines depends on, as hex digits: network, weights, versions, and the processor.

    Args:
        generator: ``model.generator`` of the config.
        weights: The checkpoint's file.
    """
    parts = {
        "network": generator,
        "weights": file_hash(weights),
        "versions": {"glean_ext": glean_ext.__version__, **{name: installed_version(name) for name in VERSIONS}},
        "processor": processor(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
