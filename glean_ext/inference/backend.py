"""What runs a network behind an :class:`~glean_ext.inference.image_restorer.ImageRestorer`, and how it is chosen."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from glean_ext.errors import InputError, Notice, require_at_least, require_one_of
from glean_ext.inference.engine_cache import model_key
from glean_ext.inference.engines import DTYPES as ENGINE_DTYPES
from glean_ext.inference.engines import ENGINES, installed
from glean_ext.inference.memory_budget import Memory
from glean_ext.network_settings import LABEL, max_references, require_number_of_references
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.dtypes import DTYPES
from glean_ext.utils.messages import log_notice
from glean_ext.utils.weight_files import local_path
from glean_ext.zoo import find_model, has_model

if TYPE_CHECKING:  # takes seconds to load
    import torch

Array = np.ndarray
ONNX = ".onnx"
REALESRGAN = "realesrgan"  # a model without config and checkpoint: Real-ESRGAN x4plus, from the extra [background]
BACKENDS = ("auto", "torch", *ENGINES)


class OutOfMemory(InputError):
    """The device has too little memory for images of this size."""


@runtime_checkable
class Backend(Protocol):
    """What restores images of sizes it takes: a ``TorchBackend`` or an ``OnnxBackend``.

    What it raises as InputError does not name the image.
    """

    takes: SizeRequirements
    colorizes: bool  # it gives gray images colours; of colour images only the luminance counts
    gated: bool  # it was trained with the fidelity gate
    max_references: int  # reference images that it takes at most; 0: none

    def __call__(self, lq: Array) -> Array:
        """(N, 3, h, w) float32, RGB in [-1, 1] -> (N, 3, H, W) float32, about [-1, 1]."""

    def restore(self, images: Sequence[Array]) -> list[Array]:
        """Images of one size, (h, w, 3) uint8 or uint16 RGB, together: each as (H, W, 3) of its dtype."""

    def memory(self) -> Memory:
        """What a forward takes, and what there is. Any thread may ask."""

    def with_references(self, references: Sequence[Array]) -> Backend:
        """The same network, to which every image has these references: (H, W, 3) uint8 RGB, of the output's size."""


@dataclass(frozen=True)
class NetworkSource:
    """A network by its config and its weights, as :func:`resolve_model` gives them."""

    config: str | os.PathLike | Mapping
    checkpoint: str | os.PathLike
    cfg_options: tuple[str, ...] = ()

    def generator(self) -> Mapping:
        """``model.generator`` of the config: the network's type and arguments.

        Raises:
            InputError: The config cannot be used.
        """
        from glean_ext.config import generator_config, load_config, with_options

        if isinstance(self.config, Mapping):
            return generator_config(with_options(self.config, self.cfg_options), "config")
        return generator_config(load_config(self.config, self.cfg_options), self.config)

    @cached_property
    def weights(self) -> Path:
        """The file of the weights, which is downloaded where it is not there.

        Raises:
            InputError: There is no such file, or the download failed.
        """
        return local_path(str(self.checkpoint))

    @cached_property
    def key(self) -> str:
        """What names the network's model in the cache of engines."""
        return model_key(self.generator(), self.weights)


def resolve_model(
    config: str | os.PathLike | Mapping, checkpoint: str | os.PathLike | None
) -> tuple[str | os.PathLike | Mapping, str | os.PathLike]:
    """Config and checkpoint of a model: its weights are those of the zoo where it is named without a checkpoint.

    Raises:
        InputError: There is no checkpoint, and ``config`` is no model's name.
    """
    if checkpoint is not None:
        return config, checkpoint
    if isinstance(config, str) and (has_model(config) or not (Path(config).suffix or Path(config).exists())):
        card = find_model(config)
        return card.config, card.weights
    source = "The config" if isinstance(config, Mapping) else config
    raise InputError(
        f"{source} is no ONNX model: it needs a checkpoint, too.",
        parameter=("checkpoint", "config"),
        hint="Give {config} and {checkpoint}, or an .onnx file.",
    )


@dataclass(frozen=True)
class NetworkOptions:
    """How a network is run, as :class:`~glean_ext.inference.image_restorer.ImageRestorer` explains it.

    Raises:
        InputError: Options that exclude each other, or an unknown backend or dtype.
    """

    device: str | torch.device | None = None
    cfg_options: Sequence[str] = ()
    dtype: str | None = None
    compile: str | None = None
    seed: int | None = None
    fidelity: float | None = None
    backend: str = "auto"
    cache: bool = True
    images: int = 1
    references: int = 0  # how many there are

    def __post_init__(self) -> None:
        require_one_of("backend", self.backend, BACKENDS)
        if self.dtype is not None:
            require_one_of("dtype", self.dtype, DTYPES)
        require_at_least("images", self.images, 1)
        if self.backend in ENGINES:
            self._require_engine_options()

    def _require_engine_options(self) -> None:
        device = "cuda" if self.backend == "tensorrt" else "cpu"
        for name, holds in {
            "device": self.device is None or str(self.device).partition(":")[0] == device,
            "dtype": self.dtype in (None, *ENGINE_DTYPES[self.backend]),
            "compile": self.compile is None,
            "seed": self.seed is None,
            "fidelity": self.fidelity is None,
            "references": not self.references,
        }.items():
            if not holds:
                value = True if name == "references" else getattr(self, name)
                raise InputError(
                    f"{{{name}={value}}} has no effect with {{backend={self.backend}}}, which runs on the {device}, in "
                    f"{' or '.join(ENGINE_DTYPES[self.backend])}.",
                    parameter=(name, "backend"),
                    hint=f"Leave {{{name}}} out, or give {{backend=torch}}.",
                )

    def changes(self) -> list[str]:
        """The names of the options that are not the default, of those that change what is computed."""
        defaults = NetworkOptions()
        names = ("device", "cfg_options", "dtype", "compile", "seed", "fidelity", "backend")
        changed = [name for name in names if getattr(self, name) not in (getattr(defaults, name), [], "")]
        if self.cfg_options and all(option.startswith(f"{LABEL}=") for option in self.cfg_options):
            return ["label" if name == "cfg_options" else name for name in changed]
        return changed


def load_backend(
    config: str | os.PathLike | Mapping | Backend,
    checkpoint: str | os.PathLike | None = None,
    options: NetworkOptions | None = None,
    notify: Callable[[Notice], None] = log_notice,
) -> Backend:
    """What the arguments of :class:`~glean_ext.inference.image_restorer.ImageRestorer` name.

    Raises:
        InputError: It cannot be used.
    """
    options = options or NetworkOptions()
    given = ["checkpoint"] if checkpoint else []
    if isinstance(config, Backend):
        if useless := given + options.changes():
            raise InputError(f"The network is loaded already, so {', '.join(useless)} cannot be chosen. Leave it out.")
        require_number_of_references(options.references, config.max_references)
        return config
    if not isinstance(config, Mapping) and str(config).lower().endswith(ONNX):
        return _load_onnx(config, given, options)
    if config == REALESRGAN and checkpoint is None:
        return _load_realesrgan(options)
    from glean_ext.inference.backend_choice import choose

    source = NetworkSource(*resolve_model(config, checkpoint), tuple(options.cfg_options))
    most = max_references(source.generator())
    require_number_of_references(options.references, most)
    backend = options.backend
    if backend == "auto":
        backend = "torch" if most else choose(source, options)  # engines take no references, which may come later
    if backend in ENGINES:
        from glean_ext.inference.engine_models import load_engine

        try:
            return load_engine(source, backend, options, notify)
        except InputError as error:
            if options.backend != "auto":
                raise
            notify(Notice(f"PyTorch runs the network instead of {backend}: {error.message}", error.parameter))
    from glean_ext.inference.torch_backend import TorchBackend

    return TorchBackend(
        source.config,
        source.checkpoint,
        options.device,
        source.cfg_options,
        options.dtype,
        options.compile,
        options.seed,
        options.fidelity,
    )


def _load_onnx(path: str | os.PathLike, given: list[str], options: NetworkOptions) -> Backend:
    """An exported model, on the CPU or with TensorRT."""
    from glean_ext.inference.onnx_backend import OnnxBackend

    require_number_of_references(options.references, 0)
    if options.backend == "torch":
        raise InputError(
            f"{path} is an ONNX model, which {{backend=torch}} does not run.", "backend", "Leave {backend} out."
        )
    if options.backend == "auto":  # see glean_ext.inference.backend_choice
        faster = installed("openvino")
        onnx = OnnxBackend(path, engine="openvino", dtype="float32") if faster else OnnxBackend(path)
    else:
        onnx = OnnxBackend(path, engine=options.backend, dtype=options.dtype)
    useful = {"backend"} | ({"device"} if options.backend == "tensorrt" or str(options.device) == "cpu" else set())
    if options.backend in ("openvino", "tensorrt") or options.dtype == onnx.metadata.dtype:
        useful.add("dtype")
    if useless := given + [name for name in options.changes() if name not in useful]:
        raise InputError(
            f"{path} is an ONNX model, in {onnx.metadata.dtype} on the CPU: "
            f"{', '.join(f'{{{name}}}' for name in useless)} cannot be chosen.",
            parameter=useless,
            hint="Leave it out, or give a config and a checkpoint.",
        )
    return onnx


def _load_realesrgan(options: NetworkOptions) -> Backend:
    """Real-ESRGAN x4plus, run by PyTorch."""
    from glean_ext.inference.ncnn_weights import load_realesrgan
    from glean_ext.inference.torch_backend import TorchBackend

    require_number_of_references(options.references, 0)
    if useless := [name for name in options.changes() if name not in ("device", "dtype", "compile")]:
        raise InputError(
            f"{REALESRGAN} runs with PyTorch: {', '.join(f'{{{name}}}' for name in useless)} cannot be chosen.",
            parameter=useless,
            hint="Leave it out.",
        )
    return TorchBackend(load_realesrgan(), None, options.device, (), options.dtype, options.compile)
