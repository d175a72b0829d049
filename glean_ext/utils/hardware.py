"""What this machine has, as far as that is known without PyTorch, which takes seconds and 0.5 GiB to load."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")  # as Linux and torch.cpu call them
CPUINFO = Path("/proc/cpuinfo")


def is_library(name: str) -> bool:
    """Whether the system finds a shared library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def may_have_cuda() -> bool:
    """False where no GPU of NVIDIA or AMD can be used: on a Linux without a driver for one."""
    return sys.platform != "linux" or is_library("libcuda.so.1") or os.path.exists("/dev/kfd")


def instructions() -> list[str]:
    """The instruction sets of the processor, on Linux; elsewhere empty."""
    flags = ""
    with suppress(OSError):
        flags = next((line for line in CPUINFO.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return sorted(flags.partition(":")[2].split())


def processor() -> str:
    """The machine's kind and the instruction sets of its processor."""
    return f"{platform.machine()} {' '.join(instructions())}".strip()
