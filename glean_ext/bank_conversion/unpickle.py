"""Reading NVIDIA's network pickles without running any code of theirs.

A pickle is a program: it may call whatever it can name. The only names allowed here rebuild tensors and plain
containers. A network is pickled as a call of ``torch_utils.persistence._reconstruct_persistent_obj`` with its class
name, source code and state (NVlabs/stylegan2-ada-pytorch, ``torch_utils/persistence.py``); here that call only records
the class name and the state.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from glean_ext.errors import InputError, first_line


@dataclass
class Module:
    """A pickled network or layer: attributes, and below it the tensors and modules."""

    class_name: str
    attributes: dict[str, Any]
    own_tensors: dict[str, Any] = field(default_factory=dict)
    children: dict[str, Module] = field(default_factory=dict)

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it changes a {self.class_name}")

    def modules(self, path: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted paths; its own path is empty."""
        yield path, self
        for name, child in self.children.items():
            yield from child.modules(f"{path}.{name}".lstrip("."))

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by dotted path, as ``state_dict`` names them."""
        return {
            f"{path}.{name}".lstrip("."): tensor
            for path, module in self.modules()
            for name, tensor in module.own_tensors.items()
        }


def read_pickle(path: Path) -> Any:
    """What a pickle holds: tensors, plain containers and :class:`Module`.

    Raises:
        InputError: The file is damaged, or names anything that could run code.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, path).load()
    except InputError:
        raise
    except Exception as error:  # the bytes of a damaged file lead anywhere
        reason = first_line(error)
        raise InputError(f"{path} is truncated or damaged ({reason}). Get it anew.") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader, path: Path):
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get(f"{module}.{name}")
        if found is not None:
            return found
        if (module, name) == ("dnnlib.tflib.network", "Network"):
            raise InputError(
                f"{self.path} holds TensorFlow networks. Make a PyTorch pickle of it with legacy.py of NVIDIA's "
                "stylegan2-ada-pytorch, then convert that."
            )
        raise InputError(
            f"{self.path} names {module}.{name}, which is neither a tensor nor a plain container: reading it could "
            "run code, so it was not read. Take the pickle that NVIDIA's training wrote."
        )

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to data outside the file")


class _Call:
    """A function under a name that a pickle may call. A pickle can set attributes of what it names; not of this."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it sets {name} of a function")


def _module(meta: dict) -> Module:
    state = meta["state"]
    if meta["type"] != "class" or not isinstance(meta["class_name"], str):
        raise pickle.UnpicklingError("it holds a persistent object that is no class")
    own_tensors, children = {}, {}
    for name, tensor in {**state.pop("_parameters", {}), **state.pop("_buffers", {})}.items():
        if isinstance(tensor, Tensor):
            own_tensors[name] = tensor
        elif tensor is not None:
            raise pickle.UnpicklingError(f"{name} of {meta['class_name']} is no tensor")
    for name, child in state.pop("_modules", {}).items():
        if isinstance(child, Module):
            children[name] = child
        elif child is not None:
            raise pickle.UnpicklingError(f"{name} of {meta['class_name']} is no module")
    return Module(meta["class_name"], state, own_tensors, children)


def _storage(content: bytes) -> Tensor:
    """All elements of a storage: (n,). The storage is itself a file of ``torch.save``."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _tensor(elements: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return elements.as_strided(size, stride, offset)  # refuses what lies outside the storage


def _parameter(tensor: Tensor, *_: object) -> Tensor:
    return tensor


class _Number:
    """Stands for a numpy number or array among the attributes of a module; none is needed."""

    def __setstate__(self, state: object) -> None:
        pass


def _number(*_: object) -> _Number:
    return _Number()


_NUMPY = (
    "dtype",
    "ndarray",
    *(f"{core}.multiarray.{f}" for core in ("core", "_core") for f in ("scalar", "_reconstruct")),
)
# dict and set are built in, so their attributes cannot be set.
_ALLOWED: dict[str, Any] = {
    "builtins.set": set,
    "__builtin__.set": set,
    "collections.OrderedDict": dict,
    "dnnlib.util.EasyDict": dict,
    "torch_utils.persistence._reconstruct_persistent_obj": _Call(_module),
    "torch.storage._load_from_bytes": _Call(_storage),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(_parameter),
    **{f"numpy.{name}": _Call(_number) for name in _NUMPY},
}
