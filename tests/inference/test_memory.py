"""How much memory a forward needs and how much there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import TINY

from glean_ext.inference import memory_budget
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import RESERVE, USABLE, Memory, at_hand, bytes_per_pixel, group_limits
from glean_ext.inference.model_cost import Cost, PeakMemory
from glean_ext.networks import build_network, prepare_for_inference

DEMO = Path(__file__).parents[2] / "configs" / "demo_lightglean_x8.py"
LIGHT = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 32, "decoder_channels": 8}


def test_needs_by_hand():
    """A pixel of the result takes 22 bytes, of the rows being joined 36; an input pixel of a tile 70 / USABLE."""
    image, tile = (100, 50), (20, 30)
    result, forward = 16 * 50 * (22 * 100 + 36 * 20), 70 * 20 * 30 / USABLE + RESERVE
    assert Memory(70, 0).needs(tile, image, 4) == (result + forward, 0)
    assert Memory(70, 0, 0).needs(tile, image, 4) == (result, forward)
    webp = Memory(70, 0, writing=28).needs(tile, image, 4)[0] - Memory(70, 0).needs(tile, image, 4)[0]
    assert webp == pytest.approx(16 * 100 * 50 * 28)
    assert Memory(70, 0).needs((999, 999), image, 4) == Memory(70, 0).needs(image, image, 4)
    needed = int(result + forward) + 1
    assert Memory(70, needed).suffices(tile, image, 4) and not Memory(70, needed - 2).suffices(tile, image, 4)
    assert Memory(70, int(result), int(forward) + 1).suffices(tile, image, 4)
    assert not Memory(70, int(result) - 1, 10**10).suffices(tile, image, 4)
    assert not Memory(70, 10**9, int(forward) - 1).suffices(tile, image, 4)


def test_results_of_16_bits_take_more(monkeypatch):
    image = (100, 100)
    more = Memory(70, 0, depth=2).needs(image, image, 8)[0] - Memory(70, 0).needs(image, image, 8)[0]
    assert more == 14 * 800 * 800
    light = ImageRestorer(
        "demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors", "cpu", notify=lambda line: None
    )
    free = Memory(0, RESERVE + (58 + 72) * 800 * 800 // 2)  # between what 8 and 16 bits need
    monkeypatch.setattr(light.network, "memory", lambda: free)
    assert light.prepare(np.zeros((*image, 3), np.uint8)).plan.tile == image
    assert light.prepare(np.zeros((*image, 3), np.uint16)).plan.tile < image


@pytest.mark.parametrize("folded", [False, True])
def test_bytes_per_pixel_are_those_of_a_real_forward(folded):
    net = build_network(LIGHT).eval()
    net = prepare_for_inference(net) if folded else net
    cost = Cost()
    with torch.no_grad(), PeakMemory() as counter:
        counter.listeners.append(cost)
        net(torch.zeros(1, 3, 64, 64))
    assert bytes_per_pixel(net) == pytest.approx(cost.peak / 64**2, rel=1e-4) and cost.peak > 2**20
    with torch.no_grad(), PeakMemory() as counter:
        counter.listeners.append(cost)
        cost.peak = 0
        net(torch.zeros(1, 3, 30, 200))
    assert cost.peak / 6000 == pytest.approx(bytes_per_pixel(net), rel=0.05)


def test_counting_leaves_the_network_as_it_was():
    net = build_network(LIGHT)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    bytes_per_pixel(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(type(value) is torch.nn.Parameter for value in net.parameters())


def test_memory_at_hand_is_that_of_the_machine():
    ram, gpu = at_hand(torch.device("cpu"))
    assert gpu is None and 2**24 < ram < 2**50


def test_limits_of_control_groups(tmp_path):
    """Containers of both versions, by files as Linux writes them."""
    own = tmp_path / "own"
    own.write_text("4:cpu,memory:/docker/abc\n1:cpu:/\n0::/user.slice\n")
    assert group_limits(tmp_path, own) == []
    new, old = tmp_path / "user.slice", tmp_path / "memory"
    new.mkdir(), old.mkdir()
    (new / "memory.max").write_text("max\n")
    (new / "memory.current").write_text("1000\n")
    (new / "memory.stat").write_text("anon 1\ninactive_file 50\n")
    assert group_limits(tmp_path, own) == []
    (new / "memory.max").write_text("1500\n")
    assert group_limits(tmp_path, own) == [550]
    (old / "memory.limit_in_bytes").write_text("400\n")
    (old / "memory.usage_in_bytes").write_text("600\n")
    (old / "memory.stat").write_text("total_inactive_file 20\n")
    assert group_limits(tmp_path, own) == [550, 0]
    assert group_limits(tmp_path, tmp_path / "no") == [0]


def group(folder: Path, **files: object) -> None:
    """Files of a control group as Linux writes them: ``memory_max=100`` is memory.max."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("memory_", "memory.", 1)).write_text(f"{content}\n")


@pytest.fixture
def unlimited_machine(monkeypatch, tmp_path):
    """A machine with 5000 bytes free, whose groups and processes have no limits; its groups' folder."""
    monkeypatch.setattr(memory_budget, "free_ram", lambda: 5000)
    monkeypatch.setattr(memory_budget, "process_limit", lambda: memory_budget.UNLIMITED)
    monkeypatch.setattr(memory_budget.group_limits, "__defaults__", (tmp_path / "cgroup", tmp_path / "own"))
    return tmp_path / "cgroup"


@pytest.mark.parametrize("own", [None, "", "0::/\n", "0::/user.slice\n", "4:memory:/\n0::/\n", "no colons\n"])
def test_without_limits_what_is_free_counts(unlimited_machine, tmp_path, own):
    """Version 2 without numbers, no groups at all, and /proc without the file."""
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert at_hand() == (5000, None)
    group(unlimited_machine / "user.slice", memory_max="max", memory_high="max", memory_current=10, memory_stat="")
    assert at_hand() == (5000, None)


@pytest.mark.parametrize("limited", ["slurm", "slurm/job_7", "slurm/job_7/step_0"])
@pytest.mark.parametrize("version", [1, 2, "hybrid"])
def test_limits_of_parents_count(unlimited_machine, tmp_path, version, limited):
    """Slurm's job and step, Kubernetes' pod, the slice of a user: the process's own group has no limit."""
    old = version == 1
    (tmp_path / "own").write_text(f"{'9:cpu,memory' if old else '0:'}:/slurm/job_7/step_0/task_0\n3:cpu:/elsewhere\n")
    root = unlimited_machine / {1: "memory", 2: "", "hybrid": "unified"}[version]
    limit, usage = ("memory_limit_in_bytes", "memory_usage_in_bytes") if old else ("memory_max", "memory_current")
    group(root / "slurm/job_7/step_0/task_0", **{limit: 2**63 - 4096 if old else "max", usage: 5})
    group(root / "elsewhere", **{limit: 1, usage: 0})
    assert at_hand() == (5000, None)
    group(root / limited, **{limit: 3000, usage: 800})  # memory.stat is missing
    assert at_hand() == (2200, None)
    group(root / limited, memory_stat="total_inactive_file 300" if old else "anon 4\ninactive_file 300")
    assert at_hand() == (2500, None)


def test_the_smallest_limit_counts(unlimited_machine, tmp_path):
    (tmp_path / "own").write_text("0::/pod/container\n")
    group(unlimited_machine / "pod", memory_max=1000, memory_high=900, memory_current=100)
    group(unlimited_machine / "pod/container", memory_max=700, memory_high="max", memory_current=100)
    assert sorted(group_limits()) == [600, 800] and at_hand() == (600, None)


def test_groups_outside_of_the_namespace_are_not_looked_for(unlimited_machine, tmp_path):
    (tmp_path / "own").write_text("0::/../../other\n")
    group(tmp_path / "other", memory_max=10, memory_current=0)
    group(unlimited_machine, memory_max=400, memory_current=100)
    assert at_hand() == (300, None)


def test_a_machine_without_proc(monkeypatch):
    def unreadable():
        raise FileNotFoundError("/proc/meminfo")

    monkeypatch.setattr(memory_budget.psutil, "virtual_memory", unreadable)
    assert 2**24 < memory_budget.free_ram() < 2**50
    monkeypatch.setattr(memory_budget.os, "sysconf", lambda name: unreadable())
    assert memory_budget.free_ram() == memory_budget.UNLIMITED


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, IndexError, memory_budget.psutil.AccessDenied, NotImplementedError]
)
def test_a_proc_that_psutil_does_not_expect(monkeypatch, error):
    def fail():
        raise error

    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**40, 2**40))
    monkeypatch.setattr(memory_budget.psutil, "virtual_memory", fail)
    monkeypatch.setattr(memory_budget.psutil, "Process", fail)
    assert 2**24 < memory_budget.free_ram() < 2**50
    assert memory_budget.process_limit() == memory_budget.UNLIMITED


def test_names_of_groups_have_any_bytes(unlimited_machine, tmp_path):
    (tmp_path / "own").write_bytes(b"0::/caf\xe9\n")
    group(unlimited_machine / os.fsdecode(b"caf\xe9"), memory_max=700, memory_current=100)
    assert at_hand() == (600, None)


def test_the_limit_of_the_process(monkeypatch):
    resource = pytest.importorskip("resource")
    used = memory_budget.psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 2**30, resource.RLIM_INFINITY))
    assert 2**29 < memory_budget.process_limit() < 2**31
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert memory_budget.process_limit() == memory_budget.UNLIMITED


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak of a process from Linux")
@pytest.mark.parametrize("side", [64, 128])
def test_a_real_process_stays_within_the_estimate(side):
    code = f"""
import torch
from glean_ext.inference.memory_budget import USABLE, bytes_per_pixel
from glean_ext.inference.model_cost import peak_rss
from glean_ext.config import load_config
from glean_ext.networks import build_network
net = build_network(load_config({str(DEMO)!r}).model.generator).eval()
estimate = bytes_per_pixel(net) * {side}**2
before = peak_rss()
with torch.inference_mode():
    net(torch.zeros(1, 3, {side}, {side}))
print(peak_rss() - before, estimate)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    growth, alive = map(float, output.split())
    assert 0.9 * alive < growth < alive / USABLE + RESERVE
