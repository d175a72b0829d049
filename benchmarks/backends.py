"""The command ``backends``: PyTorch, plain and in the fast form, beside the engines, in fp32 and int8.

Besides wall-clock time it measures the processor time of each run, which other work on the machine hardly changes.
Results are added to a JSON file, network by network, and the section of the performance page is made from it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
from rich.console import Console
from torch import Tensor

from benchmarks import conditions_page, measure
from benchmarks.cases import Case, build, shared_network, shared_weights, sides
from benchmarks.options import NETWORKS, BackendOptions
from glean_ext.inference.engines import OPTIMIZED, installed, optimize_model
from glean_ext.inference.export import export_network, write_metadata
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.quantization import quantize
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.utils.image_io import Picture, write_picture

HEADING = "\n## Backends\n"
RESULTS, CONDITIONS = "performance_backends.json", "performance_conditions.json"  # beside the page
SETTING = ("network", "in_size", "out_size", "int8")  # of a report
IMAGES = 8  # random ones, to calibrate int8 with: its speed does not depend on them


def cases_of(options: BackendOptions, folder: Path) -> list[Case]:
    """The candidates, the reference last: MMagic's class, or PyTorch's plain form where MMagic has none."""
    generator = {"type": NETWORKS[options.network], "in_size": options.in_size, "out_size": options.out_size}
    plain = Case("infer", {"generator": generator}, False, "float32", "cpu", 1, prepared=False)
    engines = [engine for engine in ("onnxruntime", "openvino") if installed(engine)]
    models = exported(plain, folder, options.int8)
    run = [
        replace(plain, onnx=str(_as_cached(path, dtype, engine)), dtype=dtype, engine=engine)
        for path, dtype in models
        for engine in engines
    ]
    cases = [replace(plain, prepared=True), *run, plain]
    return [*cases, replace(plain, mmagic=True)] if options.network == "glean" else cases


def _as_cached(model: Path, dtype: str, engine: str) -> Path:
    """The form of a model that is run: onnxruntime's own in fp32."""
    if engine != "onnxruntime" or dtype != "float32":
        return model
    optimized = model.with_suffix(OPTIMIZED)
    if not optimized.exists():
        optimize_model(model, optimized)
    return optimized


def exported(case: Case, folder: Path, with_int8: bool) -> list[tuple[Path, str]]:
    """The network as ONNX, in fp32 and in int8, and their types; what is in ``folder`` already is used."""
    fp32, int8, images = folder / "fp32.onnx", folder / "int8.onnx", folder / "images"
    if not fp32.exists():
        export_network(shared_network(case), fp32, notify=lambda notice: None, engine="onnxruntime")
    if not with_int8:
        return [(fp32, "float32")]
    if not int8.exists():
        random, size = np.random.default_rng(0), (*sides(case.model["generator"]["in_size"]), 3)
        for number in range(IMAGES):
            write_picture(Picture(random.integers(0, 256, size, np.uint8)), images / f"{number}.png")
        quantize(fp32, int8, str(images), lambda notice: None, least_psnr=0)
        write_metadata(int8, OnnxBackend(fp32).metadata)
    return [(fp32, "float32"), (int8, "int8")]


def measure_backends(options: BackendOptions, console: Console) -> dict[str, Any]:
    """Measure all candidates in turn; ratios are medians of pairs of runs with the reference."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        cases = cases_of(options, options.models or Path(folder))
        memories = [measure.peak_memory(case, 1).own for case in cases] if options.memory else None
        weights = shared_weights(cases[0])
        workloads = [build(case, weights) for case in cases]
        outputs = [workload.run() for workload in workloads]
        wall, cpu = measure.wall_and_cpu([workload.run for workload in workloads], options.repeats)
    results = []
    for i, case in enumerate(cases):
        difference = (
            measure.difference(cast(Tensor, outputs[i]), cast(Tensor, outputs[-1])) if i + 1 < len(cases) else {}
        )
        row = {
            "label": case.label,
            "speed": _ratio(wall, i),
            "cpu_speed": _ratio(cpu, i),
            "memory": memories[i] / memories[-1] if memories else None,
            "psnr": difference.get("psnr"),
        }
        console.print(row)
        results.append(row)
    setting = {"network": options.network, "in_size": options.in_size, "out_size": options.out_size}
    setting |= {"int8": options.int8, "load": round(load, 1), "repeats": options.repeats}
    return setting | {"results": results, **measure.describe_environment("cpu")}


def _ratio(times: Sequence[Sequence[float]], index: int) -> float:
    """How many times as fast as the last one."""
    return median(last / own for own, last in zip(times[index], times[-1], strict=True))


def add(report: dict[str, Any], results: Path, keys: Sequence[str] = SETTING) -> list[dict[str, Any]]:
    """Put a report into the file of all of them, in place of an older one whose ``keys`` have the same values."""
    others = [old for old in known(results) if any(old.get(key) != report.get(key) for key in keys)]
    write_json(all_of_them := [*others, report], results)
    return all_of_them


def known(results: Path) -> list[dict[str, Any]]:
    """The reports in a file; [] where there is none."""
    return json.loads(results.read_text()) if results.exists() else []


def write_section(reports: Sequence[dict[str, Any]], page: Path) -> None:
    """Replace the section of the performance page, the last one; what ``conditions`` measured comes after it."""
    before = page.read_text().partition(HEADING)[0] if page.exists() else ""
    further = conditions_page.lines(known(page.parent / CONDITIONS))
    with atomic_path(page) as partial:
        partial.write_text(before.rstrip("\n") + "\n" + HEADING + "\n".join([*lines(reports), *further]) + "\n")


def lines(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The section, line by line."""
    if not reports:
        return
    machine = reports[-1]["machine"]
    yield ""
    yield f"Made by `python -m benchmarks backends` on {machine['cpu']}, {machine['threads']} threads, batch 1, random"
    yield "weights. Candidates ran in turn; the load is the machine's average when they began, that of other processes."
    yield "*Speed* and *processor time* say how many times as fast a candidate is as the last line, by the clock and by"
    yield "the time that its threads computed; a quiet machine comes close to the latter. *Memory* is the peak without"
    yield "libraries, in relation to the last line. PSNR is from the last line; int8 was calibrated with noise here,"
    yield "which says nothing about its accuracy."
    for report in reports:
        yield ""
        yield f"{report['network']}, {report['in_size']} -> {report['out_size']}, load {report['load']}"
        yield ""
        yield "| | speed | processor time | memory | PSNR (dB) |"
        yield "|---|---|---|---|---|"
        for row in report["results"]:
            psnr = "" if row["psnr"] is None or "int8" in row["label"] else f"{row['psnr']:.0f}"
            memory = "" if row["memory"] is None else f"{row['memory']:.2f}"
            yield f"| {row['label']} | {row['speed']:.2f} | {row['cpu_speed']:.2f} | {memory} | {psnr} |"
