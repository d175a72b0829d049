"""Pickles of the structure that NVIDIA's training writes, made without NVIDIA's code.

A network is a call of ``torch_utils.persistence._reconstruct_persistent_obj`` with its class name, source and state
(NVlabs/stylegan2-ada-pytorch ``torch_utils/persistence.py``); arguments are ``dnnlib.util.EasyDict``. The modules of
these names exist only while a file is written, so that reading cannot rely on them.
"""

from __future__ import annotations

import math
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SOURCE_CODE = "raise SystemExit('the source code in the pickle was run')"


class Persistent:
    """One module: pickled by class name and state, as ``torch.nn.Module`` has it."""

    def __init__(self, class_name: str, **attributes: Any):
        self.class_name = class_name
        self.state = {
            "training": False,
            "_parameters": OrderedDict(),
            "_buffers": OrderedDict(),
            "_non_persistent_buffers_set": set(),
            "_backward_hooks": OrderedDict(),
            "_modules": OrderedDict(),
            "_init_args": (),
            **attributes,
        }

    def __reduce__(self) -> tuple:
        meta = {"type": "class", "version": 6, "module_src": SOURCE_CODE, "class_name": self.class_name}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta | {"state": self.state},), None


class EasyDict(dict):
    pass


def _names() -> dict[str, ModuleType]:
    modules = {name: ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")}

    def _reconstruct_persistent_obj(meta: dict) -> None:
        raise AssertionError("only its name is needed")

    for value, module in ((_reconstruct_persistent_obj, "torch_utils.persistence"), (EasyDict, "dnnlib.util")):
        value.__module__, value.__qualname__ = module, value.__name__
        setattr(modules[module], value.__name__, value)
    return modules


def write(content: Any, path: Path, protocol: int = 4) -> Path:
    """Pickle ``content`` with the modules' names in place, and take them away again."""
    names = _names()
    assert not set(names) & set(sys.modules)
    sys.modules.update(names)
    try:
        path.write_bytes(pickle.dumps(content, protocol))
    finally:
        for name in names:
            del sys.modules[name]
    return path


BUFFERS = ("resample_filter", "noise_const", "w_avg")
CLASSES = {
    "mapping": "MappingNetwork",
    "synthesis": "SynthesisNetwork",
    "torgb": "ToRGBLayer",
    "affine": "FullyConnectedLayer",
    "mbstd": "MinibatchStdLayer",
}


def module_tree(class_name: str, tensors: dict[str, Tensor], attributes: dict[str, dict[str, Any]]) -> Persistent:
    """A network by its state dict; ``attributes`` by the path of the module."""
    root = Persistent(class_name, _init_kwargs=EasyDict(c_dim=0, synthesis_kwargs=EasyDict(num_fp16_res=4)))
    modules = {"": root}

    def module(path: str) -> Persistent:
        if path not in modules:
            parent, _, name = path.rpartition(".")
            modules[path] = Persistent(CLASSES.get(name, "Conv2dLayer"), weight_gain=np.float64(1 / math.sqrt(3)))
            module(parent).state["_modules"][name] = modules[path]
        return modules[path]

    for key, tensor in tensors.items():
        path, _, name = key.rpartition(".")
        if name in BUFFERS:
            module(path).state["_buffers"][name] = tensor
        else:
            module(path).state["_parameters"][name] = nn.Parameter(tensor, requires_grad=False)
    for path, values in attributes.items():
        module(path).state.update(values)
    return root


def _fully_connected(path: str) -> dict[str, Any]:
    mapping = path.startswith("mapping.")
    activation = "lrelu" if mapping or path == "b4.fc" else "linear"
    return {"activation": activation, "bias_gain": 0.01 if mapping else 1}


def generator(tensors: dict[str, Tensor], **changes: dict[str, Any]) -> Persistent:
    """``changes`` are attributes by path, with ``__`` for dots; ``root`` is the network itself."""
    paths = {key.rpartition(".")[0] for key in tensors}
    attributes: dict[str, dict[str, Any]] = {"": {"z_dim": 16, "c_dim": 0, "img_channels": 3}}
    for path in paths:
        if path.endswith(".affine") or path.startswith("mapping."):
            attributes[path] = _fully_connected(path)
        elif path.endswith((".conv0", ".conv1")):
            layer = {"activation": "lrelu", "use_noise": True, "conv_clamp": 256, "act_gain": np.float64(2**0.5)}
            attributes[path] = layer
        elif path.startswith("synthesis.b") and path.count(".") == 1:
            res = int(path.removeprefix("synthesis.b"))
            attributes[path] = {"architecture": "skip", "use_fp16": res > 8, "resolution": res}
    return module_tree("Generator", tensors, _changed(attributes, changes))


def discriminator(tensors: dict[str, Tensor], group_size: int | None = 4, **changes: dict[str, Any]) -> Persistent:
    paths = {key.rpartition(".")[0] for key in tensors} | {"b4"}
    attributes: dict[str, dict[str, Any]] = {
        "": {"c_dim": 0},
        "b4.mbstd": {"group_size": group_size, "num_channels": 1},
    }
    for path in paths:
        if path in ("b4.fc", "b4.out"):
            attributes[path] = _fully_connected(path)
        elif "." in path:
            attributes[path] = {"activation": "linear" if path.endswith(".skip") else "lrelu", "conv_clamp": 256}
        else:
            attributes[path] = {"architecture": "resnet", "use_fp16": False, "resolution": int(path[1:])}
    network = module_tree("Discriminator", tensors, _changed(attributes, changes))
    network.state["_modules"]["b4"].state["_modules"]["nothing"] = None  # as an absent layer is kept
    return network


def _changed(attributes: dict[str, dict[str, Any]], changes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for path, values in changes.items():
        attributes.setdefault("" if path == "root" else path.replace("__", "."), {}).update(values)
    return attributes


def snapshot(**entries: Any) -> dict[str, Any]:
    """What a training run saves beside its networks."""
    augment = Persistent("AugmentPipe", xflip=1.0)
    augment.state["_buffers"]["p"] = torch.zeros([])
    return {"augment_pipe": augment, "training_set_kwargs": {"path": "ffhq.zip", "resolution": 32}, **entries}
