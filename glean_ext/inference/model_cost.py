"""What a config's network costs: parameters, FLOPs and memory, per part and in total, without computing anything."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.networks import build_network
from glean_ext.networks.shapes import Size

MIB = 2**20
STATUS = Path("/proc/self/status")


@dataclass
class Cost:
    """What a part of a network, or all of it, costs."""

    parameters: int = 0
    trainable: int = 0
    flops: int = 0  # of one forward, as torch.utils.flop_counter counts
    peak: int = 0  # bytes of activations alive at once while this part runs, those of other parts too


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in its context and still alive; works for fake tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.listeners: list[Cost] = []  # whose ``peak`` is kept up to date
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage(), inputs)
        return out

    def _count(self, storage: torch.UntypedStorage, inputs: set[int]) -> None:
        if storage in self._seen or id(storage) in inputs:  # a view
            return
        self._seen.add(storage)
        self.alive += storage.nbytes()
        weakref.finalize(storage, self._free, storage.nbytes())
        for cost in self.listeners:
            cost.peak = max(cost.peak, self.alive)

    def _free(self, nbytes: int) -> None:
        self.alive -= nbytes


def measure(net: nn.Module, size: Size, channels: int = 3) -> dict[str, Cost]:
    """The cost of every part of a fake ``net`` (see :class:`FakeTensorMode`) and, last, of all of it (``total``).

    Args:
        net: The network, which is left frozen; a part is a child of it, or a parameter of its own.
        size: Side of the square input, or (height, width); the batch is one image.
        channels: Channels of the input.
    """
    parts = {name: Cost() for name, _ in net.named_children()}  # some have no parameters
    for name, parameter in net.named_parameters():
        for key in name.split(".")[0], "total":
            cost = parts.setdefault(key, Cost())
            cost.parameters += parameter.numel()
            cost.trainable += parameter.numel() if parameter.requires_grad else 0
    parts["total"] = parts.pop("total")
    counter, memory = FlopCounterMode(display=False), PeakMemory()
    net.requires_grad_(False)  # views of trainable parameters break torch's FLOP counter
    with torch.no_grad(), counter, memory:
        memory.listeners.append(parts["total"])
        with _attributed(net, parts, counter, memory):
            net(lq_images(size, channels))
    parts["total"].flops = counter.get_total_flops()
    return parts


def lq_images(size: Size, channels: int) -> Tensor:
    """A batch of one black image: (1, channels, h, w)."""
    return torch.zeros(1, channels, *(size if isinstance(size, Sequence) else (size, size)))


@contextmanager
def _attributed(net: nn.Module, parts: dict[str, Cost], counter: FlopCounterMode, memory: PeakMemory) -> Iterator[None]:
    """Attribute FLOPs and memory to the children of ``net``, whichever of their own modules are called."""
    handles = []
    for name, child in net.named_children():
        cost, running = parts[name], [0]  # calls of modules of this part that have not returned

        def enter(*_: object, cost: Cost = cost, running: list[int] = running) -> None:
            if not running[0]:
                memory.listeners.append(cost)
                cost.flops -= counter.get_total_flops()
            running[0] += 1

        def leave(*_: object, cost: Cost = cost, running: list[int] = running) -> None:
            running[0] -= 1
            if not running[0]:
                memory.listeners.remove(cost)
                cost.flops += counter.get_total_flops()

        for module in child.modules():
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class NetworkCosts:
    """What the network of a config costs at its nominal size, batch 1.

    Attributes:
        title: Its type and sizes.
        parts: As :func:`measure` returns them.
        weight_bytes: Of weights and stored noise.
    """

    title: str
    parts: dict[str, Cost]
    weight_bytes: int


def config_costs(config: str | os.PathLike, cfg_options: Sequence[str] = ()) -> NetworkCosts:
    """The costs of a config's network.

    Args:
        config: A config file.
        cfg_options: ``key=value`` changes to it.

    Raises:
        InputError: A config or option that cannot be used.
    """
    generator = load_config(config, cfg_options).model.generator
    with FakeTensorMode():
        net = build_network(generator).eval()
        parts = measure(net, generator.in_size, generator.get("img_channels", 3))
    title = f"{generator.type} {generator.in_size} -> {generator.out_size}, batch 1"
    return NetworkCosts(title, parts, sum(value.nbytes for value in net.state_dict().values()))


def peak_of_a_forward(config: str | os.PathLike, cfg_options: Sequence[str] = ()) -> tuple[int, int]:
    """Peak memory of a new process, in bytes: with the network loaded, and after one forward (Linux only).

    Raises:
        InputError: Another system than Linux.
    """
    if not STATUS.is_file():
        raise InputError(f"{{memory}} reads {STATUS}, which only Linux has.", "memory", "Leave {memory} out.")
    command = [sys.executable, "-m", "glean_ext.inference.model_cost", os.fspath(config), *cfg_options]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    before, peak = map(int, output.split())
    return before, peak


def main(argv: Sequence[str]) -> None:
    """What the process of :func:`peak_of_a_forward` does: it writes its peak before and after a forward to stdout."""
    config, *cfg_options = argv
    generator = load_config(config, cfg_options).model.generator
    net = build_network(generator).eval()
    lq = lq_images(generator.in_size, generator.get("img_channels", 3))
    before = peak_rss()
    with torch.inference_mode():
        net(lq)
    sys.stdout.write(f"{before} {peak_rss()}\n")


def peak_rss() -> int:
    """The most memory that this process had, in bytes (Linux only)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
