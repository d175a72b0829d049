"""The peak memory of whole processes that restore one image from a file into a file.

Everything counts: the interpreter, libraries, reading weights, making the network, the forward. MMagic's process has
its generator alone, without the discriminator and losses that its configs build, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.cases import Case, shared_network
from benchmarks.options import NETWORKS, ConditionsOptions
from glean_ext.errors import InputError
from glean_ext.inference.engines import installed
from glean_ext.utils.image_io import Picture, write_picture

# The peak of a child is that of its parent where the parent was larger when it forked: so a small one starts it.
SMALL_PARENT = """
import resource, subprocess, sys, json, time
process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr)
most = {"VmHWM": 0, "RssAnon": 0}
while process.poll() is None:
    with open(f"/proc/{process.pid}/status") as file:
        values = dict(line.split(":") for line in file)
    for name in most:
        most[name] = max(most[name], int(values.get(name, "0").split()[0]) * 1024)
    time.sleep(0.02)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([process.returncode, usage.ru_maxrss * 1024, *most.values(), usage.ru_utime + usage.ru_stime]))
"""
MAKING = 40  # seconds of a processor, which no run takes that has its model
MMAGIC = "from benchmarks.process_memory import restore_with_mmagic; restore_with_mmagic()"


def measure_memory(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """The peak of each backend's process and of MMagic's, and of the process that makes an engine's model."""
    network = {"type": NETWORKS[options.network], "in_size": options.in_size, "out_size": options.out_size}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_inputs(network, folder)
        restore = [sys.executable, "-m", "glean_ext", "restore", "config.py", "weights.pth", "image.png", "--overwrite"]
        restore += ["-o", "restored.png", "--device", "cpu", "--dtype", "float32", "--backend"]
        engines = [engine for engine in ("onnxruntime", "openvino") if installed(engine)]
        rows: list[dict[str, Any]] = []
        for backend in ("torch", *engines, "auto"):
            if backend in engines:
                making = run_process([*restore, backend], folder)  # unless it is there from an earlier run
                if making["cpu_seconds"] > MAKING:
                    maker = {"label": f"{backend}, the process that makes its model", **making, "unmapped": None}
                    rows += [maker, {"label": f"{backend}, meanwhile", **making, "peak": making["own"]}]
            rows.append({"label": backend, **run_process([*restore, backend], folder)})
        rows.append({"label": "MMagic GLEAN", **run_process([sys.executable, "-c", MMAGIC], folder)})
    for row in rows:
        row["ratio"] = row["peak"] / rows[-1]["peak"]
        row["unmapped_ratio"] = row["unmapped"] and row["unmapped"] / rows[-1]["unmapped"]
        console.print(row)
    return {**network, "network": options.network, "rows": rows}


def write_inputs(network: dict[str, Any], folder: Path) -> None:
    """``config.py``, ``weights.pth`` (random) and ``image.png``."""
    (folder / "config.py").write_text(f"model = dict(generator={network!r})\n")
    if not (folder / "weights.pth").exists():
        case = Case("infer", {"generator": network}, False, "float32", "cpu", 1)
        torch.save(shared_network(case).state_dict(), folder / "weights.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (network["in_size"], network["in_size"], 3), np.uint8)
    write_picture(Picture(pixels), folder / "image.png")


def run_process(command: Sequence[str], folder: Path) -> dict[str, float]:
    """Run a command in ``folder``: peaks in bytes, and its processor time in seconds, with that of its children.

    ``own`` is the peak of its process, ``peak`` that of the largest one that it starts, or its own. ``unmapped`` is its
    own without the pages of files that it maps, which the system can drop.

    Raises:
        InputError: It failed.
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str((folder / "cache").absolute())}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in (os.getcwd(), os.environ.get("PYTHONPATH")) if path)
    environment.pop("TORCH_HOME", None)
    done = subprocess.run(
        [sys.executable, "-S", "-c", SMALL_PARENT, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    code, peak, own, unmapped, seconds = json.loads(done.stdout.splitlines()[-1])
    if code:
        raise InputError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
    return {"peak": peak, "own": own, "unmapped": unmapped, "cpu_seconds": round(seconds, 2)}


def restore_with_mmagic() -> None:
    """What a process does with MMagic's class in the folder of :func:`write_inputs`."""
    import cv2
    from mmengine.config import Config
    from mmengine.runner import load_checkpoint

    from benchmarks.cases import mmagic_generator

    generator = Config.fromfile("config.py").model.generator.to_dict()
    net = mmagic_generator(generator | {"type": "GLEANStyleGANv2"}).eval()
    load_checkpoint(net, "weights.pth", map_location="cpu")  # LightGLEAN's weights leave it as it is
    image = cv2.imread("image.png")
    assert image is not None
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    lq = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        output = net(lq)[0].clamp(-1, 1).permute(1, 2, 0)
    cv2.imwrite("restored.png", cv2.cvtColor(((output + 1) * 127.5).round().byte().numpy(), cv2.COLOR_RGB2BGR))
