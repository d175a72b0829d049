"""How much memory a forward takes and how much there is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from glean_ext.size_requirements import Size

if TYPE_CHECKING:  # what runs without torch asks for the memory, too
    import torch

# A process grew by the activations alive at once, 3 to 20% more, and up to 200 MiB: workspaces of convolutions, holes
# between small tensors (demo LightGLEAN at 56x56 to 192x192, x8 cat network at 32x32 and 64x64, on a CPU).
USABLE = 0.8  # the share of the memory, beyond the reserve, that activations may take
RESERVE = 256 * 2**20
RESULT_BYTES = 3  # a pixel of a result of 8 bits
JOINED_BYTES = 36  # a pixel of the rows that are being joined: fp32 RGB, and two temporaries of its conversion
FAKE_SIDE = 64  # of the input to count with; so large that borders do not count
GIB = 2**30
GROUPS = Path("/sys/fs/cgroup")
# Control group versions 2 and 1: the folder, limit, use, and what of the use is files that can be dropped.
LIMITS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True)
class Memory:
    """What a network needs and what there is, in bytes."""

    per_pixel: float  # activations of a forward, per pixel of the input
    ram: int  # at hand
    gpu: int | None = None  # at hand; None: the network runs on the CPU
    depth: int = 1  # bytes of the result's values

    def needs(self, tile: Size, image: Size, scale: int) -> tuple[float, float]:
        """RAM and GPU memory for an image (height, width) in tiles (height, width)."""
        height, width = min(tile[0], image[0]), min(tile[1], image[1])
        result = scale**2 * image[1] * (RESULT_BYTES * self.depth * image[0] + JOINED_BYTES * height)
        forward = self.per_pixel * height * width / USABLE + RESERVE
        return (result + forward, 0) if self.gpu is None else (result, forward)

    def suffices(self, tile: Size, image: Size, scale: int) -> bool:
        ram, gpu = self.needs(tile, image, scale)
        return ram <= self.ram and gpu <= (self.gpu or 0)

    def describe(self, tile: Size, image: Size, scale: int) -> str:
        """What is needed and what there is, as part of a sentence."""
        ram, gpu = self.needs(tile, image, scale)
        if self.gpu is not None and ram <= self.ram:
            return f"{gpu / GIB:.1f} GiB on the GPU, and {self.gpu / GIB:.1f} GiB are free"
        return f"{ram / GIB:.1f} GiB of memory, and {self.ram / GIB:.1f} GiB are free"


def at_hand(device: torch.device | None = None) -> tuple[int, int | None]:
    """Bytes of RAM and, for a GPU, of its memory that can be had now; None is the CPU."""
    ram = min(psutil.virtual_memory().available, *group_limits())
    if device is None or device.type != "cuda":
        return ram, None
    import torch

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return ram, torch.cuda.mem_get_info(device)[0] + cached


def group_limits(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes left under each memory limit of this process's control group (containers, Slurm); [] without limits."""
    left, names = [], {""}  # inside its container a group is the root
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, name = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            names.add(name.lstrip("/"))
    for kind, limit, use, files in LIMITS:
        for name in names:
            folder = groups / kind / name
            try:
                most = int((folder / limit).read_text())  # 'max': no limit
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                left.append(max(0, most - int((folder / use).read_text()) + int(stat.get(files, 0))))
            except (OSError, ValueError):
                continue
    return left


def bytes_per_pixel(net: Any) -> float:
    """Bytes of activations that a forward of ``net`` holds at once, per pixel of its input.

    The network runs on fake tensors, which have shapes but no content: so nothing is computed or allocated.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from glean_ext.inference.model_cost import Cost, PeakMemory

    device, peak = next(net.parameters()).device, Cost()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), PeakMemory() as memory:
        memory.listeners.append(peak)
        net(torch.zeros(1, net.img_channels, FAKE_SIDE, FAKE_SIDE, device=device))
    return peak.peak / FAKE_SIDE**2
