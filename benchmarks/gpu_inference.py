"""Ours and MMagic's network beside each other on a GPU: precisions, CUDA graphs, torch.compile."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import measure
from benchmarks.cases import SEED, mmagic_generator, move_off_zero
from benchmarks.gpu_setup import TERA, Row, Setup, allocated, peak_bytes, row_or_reason, seconds_of, use_precision
from glean_ext.inference.model_cost import measure as measure_cost
from glean_ext.networks import build_network, prepare_for_inference

Network = Callable[[Tensor], Tensor]  # (N, 3, h, w) -> (N, 3, H, W)


class Graphed:
    """A network captured as a CUDA graph for one input; a call replays it."""

    def __init__(self, net: Network, lq: Tensor):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # outside the graph: libraries allocate and choose algorithms at first
            for _ in range(3):
                net(lq)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = net(lq)

    def __call__(self, lq: Tensor) -> Tensor:
        self.graph.replay()
        return self.output


class Inference:
    """Ours and MMagic's network of one size, with the same weights, on the CPU until they are measured."""

    def __init__(self, setup: Setup, in_size: int, out_size: int):
        self.setup = setup
        generator = setup.generator(in_size, out_size)
        torch.manual_seed(SEED)
        self.ours = build_network(generator)
        move_off_zero(self.ours)
        self.theirs = mmagic_generator(generator).eval()
        self.theirs.load_state_dict(self.ours.state_dict(), strict=True)
        self.name = f"{in_size} → {out_size}"
        self.in_size = in_size
        self.tflop = tera_operations(generator)
        self.references: dict[int, Tensor] = {}  # batch -> MMagic's image, float32

    def measure(self, batch: int, precision: str, mode: str, mmagic: bool) -> Row:
        """One candidate; ``mode`` is ``'eager'``, ``'graph'`` or ``'compiled'``."""
        label = f"{self.name}, batch {batch}, {'MMagic' if mmagic else 'ours'}, {precision}, {mode}"
        return row_or_reason(label, lambda: self._measure(batch, precision, mode, mmagic))

    @torch.inference_mode()
    def _measure(self, batch: int, precision: str, mode: str, mmagic: bool) -> Row:
        setup, dtype, before = self.setup, use_precision(precision), allocated(self.setup)
        pixels = torch.rand(batch, 3, self.in_size, self.in_size, generator=torch.Generator().manual_seed(SEED))
        lq = (2 * pixels - 1).to(setup.device)
        forward = self._in_mode(self._network(dtype, mmagic), lq, mode)
        output = forward(lq)
        seconds = seconds_of(lambda: forward(lq), setup)
        memory = peak_bytes(lambda: forward(lq), setup, before)
        reference = mmagic and precision == "float32"
        if reference:
            self.references[batch] = output.float().cpu()
        psnr = math.inf
        if batch in self.references:
            psnr = measure.difference(output, self.references[batch])["psnr"]
        return {
            "case": f"{self.name}, batch {batch}",
            "reference": reference,
            "precision": precision,
            "seconds": seconds,
            "images_per_second": batch / seconds,
            "memory": memory,
            "tflops": batch * self.tflop / seconds,
            "psnr": psnr if math.isfinite(psnr) else None,
        }

    def _network(self, dtype: torch.dtype, mmagic: bool) -> nn.Module:
        net = copy.deepcopy(self.theirs) if mmagic else prepare_for_inference(self.ours, dtype)
        return net.to(self.setup.device)

    def _in_mode(self, net: nn.Module, lq: Tensor, mode: str) -> Network:
        if mode == "graph":
            return Graphed(net, lq)
        if mode == "compiled":  # a small run only shows that the network can be traced
            return torch.compile(net, backend="eager" if self.setup.small else "inductor")
        return net


def tera_operations(generator: dict[str, Any]) -> float:
    """Of one image, in matrix products and convolutions of the unfolded network."""
    with FakeTensorMode():
        return measure_cost(build_network(generator), generator["in_size"], 3)["total"].flops / TERA


def inference(setup: Setup) -> Iterator[Row]:
    """MMagic's class and ours, at each size and batch: first what decides, then the other precisions and graphs."""
    for in_size, out_size in setup.sizes:
        networks = Inference(setup, in_size, out_size)
        for batch in setup.batches:
            yield networks.measure(batch, "float32", "eager", mmagic=True)
            for precision in setup.precisions:
                yield networks.measure(batch, precision, "eager", mmagic=False)
                if setup.on_gpu:
                    yield networks.measure(batch, precision, "graph", mmagic=False)
            if setup.on_gpu:
                yield networks.measure(batch, "tf32", "eager", mmagic=True)


def compiled(setup: Setup) -> Iterator[Row]:
    """Ours by torch.compile, in bf16: compiling takes a large part of a minute each."""
    for in_size, out_size in setup.sizes:
        networks = Inference(setup, in_size, out_size)
        for batch in reversed(setup.batches):
            yield networks.measure(batch, "bfloat16" if setup.on_gpu else "float32", "compiled", mmagic=False)
