"""A network of a config and a checkpoint, run by PyTorch: what an ``ImageRestorer`` has behind it."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glean_ext.checkpoints import load_network_weights
from glean_ext.errors import InputError, first_line, require_at_least, require_one_of
from glean_ext.inference.backend import NetworkSource, OutOfMemory, resolve_model
from glean_ext.inference.memory_budget import Memory, at_hand, bytes_per_pixel
from glean_ext.network_settings import require_number_of_references, require_several_results
from glean_ext.networks import GLEANColorization, Restorer, build_network, prepare_for_inference
from glean_ext.networks.fidelity import fix_fidelity, has_gate
from glean_ext.networks.inference import with_fidelity
from glean_ext.networks.precision import fast_dtype, without_own_autocast
from glean_ext.networks.references import max_references
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.array_conversion import from_tensor, upload
from glean_ext.utils.dtypes import DTYPES
from glean_ext.utils.heap import return_freed_memory

Array = np.ndarray
LARGE = 64 * 2**20  # bytes of a result, from which on returning freed memory first pays


class TorchBackend:
    """Runs a network, in its fast form where it has one.

    Args:
        config: A config file, a dict with ``model.generator``, or a network with its weights.
        checkpoint: The network's state dict or a training checkpoint, as path or URL.
        device: ``'cpu'``, ``'cuda'``, ...; None takes the GPU when there is one.
        cfg_options: ``key=value`` changes to the config.
        dtype: ``'float32'``, ``'bfloat16'`` or ``'float16'``; None is :func:`default_dtype`.
        compile: A mode of ``torch.compile``, ``'default'`` say; None leaves that out.
        seed: Of a colorizer: which of its possible answers is given; None: the one in the middle.
        fidelity: Of a network with the fidelity gate: its w in [0, 1], see :mod:`glean_ext.networks.fidelity`; None: 0.

    Attributes:
        takes: The sizes that the network takes.
        colorizes: Whether it gives gray images colours.
        gated: Whether it has the fidelity gate.
        max_references: How many reference images it takes at most; 0: none.
        net: The network, in the form that is run.
        dtype: What it computes in.
        weights: The name of the file of weights.

    Raises:
        InputError: A config, checkpoint, device, dtype, mode, seed or fidelity that cannot be used.
    """

    def __init__(
        self,
        config: str | os.PathLike | Mapping | nn.Module,
        checkpoint: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        cfg_options: Sequence[str] = (),
        dtype: str | None = None,
        compile: str | None = None,
        seed: int | None = None,
        fidelity: float | None = None,
    ):
        if dtype is not None:
            require_one_of("dtype", dtype, DTYPES)
        self.device = pick_device(device)
        if isinstance(config, nn.Module):
            net, self.weights, given = config, type(config).__name__, True
        else:
            config, checkpoint = resolve_model(config, checkpoint)
            net, self.weights, given = load_network(config, checkpoint, cfg_options), Path(checkpoint).name, False
        self.takes = cast(SizeRequirements, net.size_requirements)
        self.colorizes = isinstance(net, GLEANColorization)
        self.gated = has_gate(net)
        self.max_references = max_references(net)
        self._references: Tensor | None = None  # (1, R, 3, H, W)
        self._fixed = fidelity is not None
        if fidelity is not None:
            fix_fidelity(net, fidelity)
        self._latent = None if seed is None else draw_latent(net, seed).to(self.device)
        self.net, self.dtype, self._autocast = prepared(net, dtype, self.device, not given)
        del net
        return_freed_memory()  # of what was read and converted
        self._network: Callable[..., Tensor] = self._compiled(compile) if compile else self.net
        self._counting = threading.Lock()
        self._running = threading.Lock()  # a network has one pass at a time: references hang hooks on it

    def with_seed(self, seed: int) -> TorchBackend:
        """A colorizer's network that gives another of its possible answers, with the same weights in memory.

        Raises:
            InputError: Another network, which has one answer only, or a negative seed.
        """
        other = copy.copy(self)
        other._latent = draw_latent(self.net, seed).to(self.device)
        return other

    def with_fidelity(self, fidelity: float) -> TorchBackend:
        """A network with the fidelity gate at another w, not compiled, with the same weights but for the decoder's.

        Raises:
            InputError: w lies outside of [0, 1], or the network has no gate, or one whose w was chosen already.
        """
        if not self.gated or self._fixed:
            raise InputError("This network has no gate that {fidelity} could set.", parameter="fidelity")
        other = copy.copy(self)
        other._fixed = True
        other.net = other._network = with_fidelity(self.net, fidelity)
        return other

    def _compiled(self, mode: str) -> Callable[..., Tensor]:
        """Compiled and run once, so that what is wrong comes up now."""
        try:
            forward = torch.compile(self.net, mode=mode)
            with torch.inference_mode(), self._autocast:
                forward(torch.zeros(1, 3, *self.takes.nominal, device=self.device))
        except Exception as error:  # anything: no compiler, an unknown mode, a fault of the compiler
            raise InputError(
                f"{{compile}}: torch.compile in mode {mode!r} cannot be used here ({first_line(error)}).",
                parameter="compile",
                hint="Leave {compile} out.",
            ) from error
        return forward

    def __call__(self, lq: Array) -> Array:
        """(N, 3, h, w) float32, RGB in [-1, 1] -> (N, 3, H, W) float32, about [-1, 1].

        Raises:
            OutOfMemory: Too little GPU memory.
            InputError: An output that is not finite.
        """
        return self._run(lambda: torch.from_numpy(lq).to(self.device)).float().cpu().numpy()

    def restore(self, images: Sequence[Array]) -> list[Array]:
        """Images of one size, (h, w, 3) uint8 or uint16 RGB, together: each comes back as (H, W, 3) of its dtype.

        Raises:
            InputError: As :meth:`__call__`.
        """
        output = self._run(lambda: upload(images, self.device))  # (N, 3, H, W)
        return [from_tensor(result, image.dtype) for result, image in zip(output, images, strict=True)]

    def with_references(self, references: Sequence[Array]) -> TorchBackend:
        """The same network, to which every image has these references: (H, W, 3) uint8 RGB, of the output's size.

        Raises:
            InputError: It takes fewer, or none.
        """
        require_number_of_references(len(references), self.max_references)
        other = copy.copy(self)
        other._references = upload(references, self.device)[None] if references else None
        return other

    def _output(self, lq: Tensor) -> Tensor:
        conditions = {}
        if self._latent is not None:
            conditions["z"] = self._latent
        if self._references is not None:
            conditions["references"] = self._references.expand(len(lq), -1, -1, -1, -1)
        return self._network(lq, **conditions)

    @torch.inference_mode()
    def _run(self, make_input: Callable[[], Tensor]) -> Tensor:
        try:
            lq = make_input()
            if self.device.type == "cpu" and 12 * self.takes.scale**2 * lq.numel() / 3 >= LARGE:
                return_freed_memory()  # holes of the heap, of no use to the tensors of this forward
            with self._running, self._autocast:
                output = self._output(lq)
            finite = bool(torch.isfinite(output).all())
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            hint = "Give smaller tiles with {tile_size}, or use {device=cpu}." if self.takes.any_size else ""
            raise OutOfMemory(
                "The GPU has too little memory for it.",
                parameter=("tile_size", "device"),
                hint=hint or "Use {device=cpu}.",
            ) from error
        if not finite:
            hint = "The checkpoint is of a failed training."
            if self.dtype == "float16":
                raise InputError(
                    "the network's output is not finite. float16 may not suffice.", "dtype", "Try {dtype=float32}."
                )
            raise InputError(f"the network's output is not finite. {hint}")
        return output

    def memory(self) -> Memory:
        """What a forward takes and what there is. Any thread may ask."""
        with self._counting:
            return Memory(self._bytes_per_pixel, *at_hand(self.device))

    @cached_property
    def _bytes_per_pixel(self) -> float:
        return bytes_per_pixel(self.net)


def load_network(
    config: str | os.PathLike | Mapping, checkpoint: str | os.PathLike | None = None, cfg_options: Sequence[str] = ()
) -> Restorer:
    """The network of a config with its weights, frozen and in evaluation mode, on the CPU.

    ``net(lq)``: (N, 3, h, w) float32 in [-1, 1], RGB -> (N, 3, H, W). ``prepare_for_inference`` makes it faster.

    >>> net = glean_ext.load_network("demo_glean_x8")
    >>> net.in_size, net.out_size
    (8, 64)

    Args:
        config: A model's name (:func:`glean_ext.list_models`), a config file, or a dict with ``model.generator``.
        checkpoint: The network's weights or a training checkpoint, as path or URL; None: those of the named model.
        cfg_options: ``key=value`` changes to the config.

    Raises:
        InputError: A config or checkpoint that cannot be used.
    """
    source = NetworkSource(*resolve_model(config, checkpoint), tuple(cfg_options))
    with Undrawn():
        net = build_network(dict(source.generator()))
    load_network_weights(net, source.checkpoint, assign=True)
    return net.requires_grad_(False).eval()


class Undrawn(TorchFunctionMode):
    """Weights get no values, random ones or zeros, before those of a file: what is not written to takes no memory."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            return torch.empty(*args, **kwargs)
        if getattr(func, "__name__", "").endswith(("normal_", "uniform_", "zero_")):  # also those of nn.init
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def prepared(
    net: nn.Module, dtype: str | None, device: torch.device, share: bool = False
) -> tuple[nn.Module, str, AbstractContextManager[object]]:
    """The form of a network that is run, its dtype, and the context to run it in; ``net`` may ``share`` its tensors."""
    fast_dtype = dtype or default_dtype(device)
    try:
        fast = prepare_for_inference(net, getattr(torch, fast_dtype), share)
        return fast.to(device), fast_dtype, nullcontext()
    except InputError:  # it has no fast form: it stays in fp32, and its operations may be in another dtype
        net, dtype = without_own_autocast(net).to(device), dtype or "float32"
        return net, dtype, torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32")


def draw_latent(net: nn.Module, seed: int) -> Tensor:
    """The latent of a seed, for a colorizer: (1, S), the same on every machine.

    Raises:
        InputError: Another network, which has one answer only, or a negative seed.
    """
    require_several_results({"type": type(net).__name__})
    assert isinstance(net, GLEANColorization)
    require_at_least("seed", seed, 0)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, net.style_channels, generator=generator)


def default_dtype(device: torch.device) -> str:
    """The name of the fastest dtype for a device, see :func:`glean_ext.networks.precision.fast_dtype`."""
    return str(fast_dtype(device)).removeprefix("torch.")


def pick_device(name: str | torch.device | None) -> torch.device:
    """A device that works; for None the GPU when there is one.

    Raises:
        InputError: There is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"{{device={name}}} cannot be used here ({first_line(error)}).", "device", "Use {device=cpu}."
        ) from error
    return device
