"""How much memory a forward takes and how much there is."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import psutil

from glean_ext.size_requirements import Size

if TYPE_CHECKING:  # what runs without torch asks for the memory, too
    import torch

# A process grew by the activations alive at once, 3 to 20% more, and up to 200 MiB: workspaces of convolutions, holes
# between small tensors (demo LightGLEAN at 56x56 to 192x192, x8 cat network at 32x32 and 64x64, on a CPU).
USABLE = 0.8  # the share of the memory, beyond the reserve, that activations may take
RESERVE = 256 * 2**20
# A pixel of a result of 8 and 16 bits, by bytes of its values: itself, with transparency, resized, and written with a
# before/after picture (measured: up to 21.7 and 34 in all).
RESULT_BYTES = {1: 22, 2: 36}
WEBP_BYTES = 28  # the same, in addition, where it is written as WebP (measured: up to 27.8)
JOINED_BYTES = 36  # a pixel of the rows that are being joined: fp32 RGB, and two temporaries of its conversion
FAKE_SIDE = 64  # of the input to count with; so large that borders do not count
GIB = 2**30
GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
UNLIMITED = 2**63 - 1  # bytes


@dataclass(frozen=True)
class GroupFiles:
    """Where a version of control groups has its limits.

    Attributes:
        roots: Folders within :data:`GROUPS`; a hybrid system has version 2 in ``unified``.
        limits: Files of limits, of which the smallest counts.
        usage: The file of the memory in use.
        droppable: What of the use is files that can be dropped, in ``memory.stat``.
    """

    roots: tuple[str, ...]
    limits: tuple[str, ...]
    usage: str
    droppable: str


VERSION_2 = GroupFiles(("", "unified"), ("memory.max", "memory.high"), "memory.current", "inactive_file")
VERSION_1 = GroupFiles(("memory",), ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True)
class Memory:
    """What a network needs and what there is, in bytes."""

    per_pixel: float  # activations of a forward, per pixel of the input
    ram: int  # at hand
    gpu: int | None = None  # at hand; None: the network runs on the CPU
    depth: int = 1  # bytes of the result's values
    writing: int = 0  # bytes a pixel of the result, in addition to RESULT_BYTES

    def needs(self, tile: Size, image: Size, scale: int) -> tuple[float, float]:
        """RAM and GPU memory for an image (height, width) in tiles (height, width)."""
        height, width = min(tile[0], image[0]), min(tile[1], image[1])
        pixel = RESULT_BYTES[self.depth] + self.writing
        result = scale**2 * image[1] * (pixel * image[0] + JOINED_BYTES * height)
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
    """Bytes of RAM and, for a GPU, of its memory that are free for this process now; the device None is the CPU."""
    ram = min([free_ram(), process_limit(), *group_limits()])
    if device is None or device.type != "cuda":
        return ram, None
    import torch

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return ram, torch.cuda.mem_get_info(device)[0] + cached


def free_ram() -> int:
    """Bytes that the machine has free, with the caches that it can drop."""
    try:
        return psutil.virtual_memory().available
    except Exception:  # /proc is not mounted, hides it, or is of a kind that psutil does not expect
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return UNLIMITED


def process_limit() -> int:
    """Bytes of address space that this process may still take (``ulimit -v``)."""
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit == resource.RLIM_INFINITY:
            return UNLIMITED
        return max(0, limit - psutil.Process().memory_info().vms)
    except Exception:  # a system without limits, or without a /proc that psutil expects
        return UNLIMITED


def group_limits(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> list[int]:
    """Bytes left under each memory limit of this process's control group and of those that it lies in.

    Containers, Slurm's jobs and steps, Kubernetes' pods and the slices of users have them; [] without limits.

    Args:
        groups: Where control groups are mounted.
        own: Names the groups of this process. Inside of a container they may be those of the host, of which nothing
            is mounted: then the mounted root is the container's own group.
    """
    names = {VERSION_2: PurePosixPath(), VERSION_1: PurePosixPath()}
    try:
        lines = os.fsdecode(own.read_bytes()).splitlines()  # names may have any bytes
    except OSError:
        lines = []
    for line in lines:
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        path = PurePosixPath(name.lstrip("/"))
        if ".." not in path.parts:  # outside of this namespace
            if not controllers:
                names[VERSION_2] = path
            elif "memory" in controllers.split(","):
                names[VERSION_1] = path
    left = []
    for files, path in names.items():
        for root in files.roots:
            for group in (path, *path.parents):
                left += _left(groups / root / group, files)
    return left


def _left(group: Path, files: GroupFiles) -> list[int]:
    """Bytes left in one group, [] where it has no limit."""
    limits = [number for name in files.limits if (number := _number(group / name)) is not None]
    usage = _number(group / files.usage)
    if not limits or usage is None:
        return []
    droppable = 0
    with suppress(OSError, ValueError):
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        droppable = int(statistics.get(files.droppable, 0))
    return [max(0, min(limits) - usage + droppable)]


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # 'max': no limit
        return None


def bytes_per_pixel(net: Any) -> float:
    """Bytes of activations that a forward of ``net`` holds at once, per pixel of its input.

    A network whose cost hardly depends on the image says with ``cost_side`` of which side it is counted.
    The network runs on fake tensors, which have shapes but no content: so nothing is computed or allocated.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from glean_ext.inference.model_cost import Cost, PeakMemory

    device, peak = next(net.parameters()).device, Cost()
    side = getattr(net, "cost_side", FAKE_SIDE)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), PeakMemory() as memory:
        memory.listeners.append(peak)
        net(torch.zeros(1, net.img_channels, side, side, device=device))
    return peak.peak / side**2
