"""What the parts of ``make gpu`` share: where and how large they measure, and how a row comes about."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks import measure
from glean_ext.errors import first_line

TERA = 1e12
TINY: dict[str, Any] = {"rrdb_channels": 8, "num_rrdbs": 1, "style_channels": 32, "num_mlps": 2}

Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """Where and how large.

    Args:
        device: ``'cuda'``, or ``'cpu'`` for a dry run.
        small: Tiny networks, which only show that every part runs.
    """

    device: str
    small: bool

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Sides of the input and of the output."""
        return [(8, 16)] if self.small else [(64, 1024), (128, 1024)]

    @property
    def batches(self) -> tuple[int, ...]:
        return (1, 2) if self.small else (1, 8)

    @property
    def precisions(self) -> list[str]:
        """What is measured, the most important first. TF32 and float16 are for GPUs."""
        return ["tf32", "bfloat16", "float16", "float32"] if self.on_gpu else ["float32", "bfloat16"]

    def generator(self, in_size: int, out_size: int) -> dict[str, Any]:
        sizes = {"type": "GLEANStyleGANv2", "in_size": in_size, "out_size": out_size, "bank_init": "random"}
        return {**sizes, **(TINY if self.small else {})}


def use_precision(name: str) -> torch.dtype:
    """The dtype of a precision; switches TF32 on or off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    return torch.float32 if name == "tf32" else getattr(torch, name)


def seconds_of(run: Callable[[], object], setup: Setup) -> float:
    """The median of a few runs after the first, which warms up."""
    run()
    return median(measure.seconds(run) for _ in range(1 if setup.small else 5))


def peak_bytes(run: Callable[[], object], setup: Setup, before: int) -> int | None:
    """The largest memory during a run, without the ``before`` bytes that other things take; None on a CPU."""
    if not setup.on_gpu:
        return None
    torch.cuda.reset_peak_memory_stats()
    run()
    return torch.cuda.max_memory_allocated() - before


def allocated(setup: Setup) -> int:
    gc.collect()
    if not setup.on_gpu:
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def row_or_reason(label: str, make: Callable[[], Row]) -> Row:
    """What ``make`` measures, or why that failed, in one line."""
    try:
        return {"label": label, **make()}
    except Exception as error:  # anything: too little memory, a kernel that is missing, a compiler
        return {"label": label, "failed": first_line(error)}
