"""NVIDIA's network pickles, read without running any code of theirs.

A network is pickled as a call of ``torch_utils.persistence._reconstruct_persistent_obj`` with its class name, source
code and state (NVlabs/stylegan2-ada-pytorch, ``torch_utils/persistence.py``); here that call only records the class
name and the state.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from glean_ext.checkpoints import GET_AGAIN
from glean_ext.errors import InputError, first_line
from glean_ext.utils.safe_unpickler import ForbiddenNameError, Function, make_dict
from glean_ext.utils.torch_files import read_torch_file

MAX_DEPTH = 32  # of modules in modules


@dataclass
class Module:
    """A pickled network or layer: attributes, and below it the tensors and modules."""

    class_name: str
    attributes: dict[str, Any]
    own_tensors: dict[str, Any] = field(default_factory=dict)
    children: dict[str, Module] = field(default_factory=dict)
    depth: int = 1  # of the modules below it, itself included
    has_parent: bool = False

    def __setstate__(self, state: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it changes a {self.class_name}")

    def add(self, name: str, child: Module) -> None:
        """Make ``child`` a child of this module, and of no other: a small file could else have endless paths."""
        if child.has_parent or child.depth >= MAX_DEPTH:
            raise pickle.UnpicklingError(f"{name} of {self.class_name} is nested too deeply, or in two modules")
        child.has_parent = True
        self.children[name] = child
        self.depth = max(self.depth, child.depth + 1)

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
        return read_torch_file(path, NVIDIA_NAMES)
    except ForbiddenNameError as error:
        if error.name == "dnnlib.tflib.network.Network":
            raise InputError(
                f"{path} holds TensorFlow networks. Make a PyTorch pickle of it with legacy.py of NVIDIA's "
                "stylegan2-ada-pytorch, then convert that."
            ) from error
        raise InputError(
            f"{path} names {error.name}, which is neither a tensor nor a plain container: reading it could run code, "
            "so it was not read. Take the pickle that NVIDIA's training wrote."
        ) from error
    except Exception as error:  # the bytes of a damaged file lead anywhere
        raise InputError(f"{path} is truncated or damaged ({first_line(error)}). {GET_AGAIN}") from error


def _module(meta: dict) -> Module:
    state, class_name = dict(meta["state"]), meta["class_name"]
    if meta["type"] != "class" or not isinstance(class_name, str):
        raise pickle.UnpicklingError("it holds a persistent object that is no class")
    module = Module(class_name, state)
    for name, tensor in {**state.pop("_parameters", {}), **state.pop("_buffers", {})}.items():
        if isinstance(tensor, Tensor):
            module.own_tensors[str(name)] = tensor
        elif tensor is not None:
            raise pickle.UnpicklingError(f"{name} of {class_name} is no tensor")
    for name, child in state.pop("_modules", {}).items():
        if isinstance(child, Module):
            module.add(str(name), child)
        elif child is not None:
            raise pickle.UnpicklingError(f"{name} of {class_name} is no module")
    return module


NVIDIA_NAMES = {
    "dnnlib.util.EasyDict": Function(make_dict),
    "torch_utils.persistence._reconstruct_persistent_obj": Function(_module),
}
