"""From the options to a report on the terminal and in a file."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from benchmarks import backends, comparison, conditions, data_loading, degradation_speed, page
from benchmarks.cases import Case, sides
from benchmarks.measure import as_json
from benchmarks.options import (
    NETWORKS,
    BackendOptions,
    ComparisonOptions,
    ConditionsOptions,
    DataOptions,
    DegradationOptions,
    Options,
    PageOptions,
)
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.torch_backend import pick_device
from glean_ext.utils.files import write_json

WIDTH = 130  # of tables in a file or a pipe


def run(options: Options, json_file: Path | None = None) -> None:
    """Run a command of ``python -m benchmarks``, and write its report to ``json_file``.

    Raises:
        InputError: A config, option, checkpoint, device or file cannot be used.
    """
    warnings.simplefilter("ignore")  # deprecation warnings of other libraries would hide the report
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, soft_wrap=True, markup=False, width=width)
    report = COMMANDS[type(options)](options, console)
    if json_file:
        write_json(as_json(report), json_file)


def run_comparison(options: ComparisonOptions, console: Console) -> dict[str, Any]:
    """The commands ``infer`` and ``train``."""
    cases = make_cases(options)
    report = comparison.compare(cases, options.measure, console)
    comparison.print_report(report, console)
    if options.task == "train":
        report["loading"] = _measure_loading(options, cases[0], console)
        ratio = report["loading"].images_per_second / report["results"][0].images_per_second
        console.print(f"One process loads {ratio:,.0f} times as many images as training uses.")
    return report


def make_cases(options: ComparisonOptions) -> list[Case]:
    """What is measured: this package's network, and what ``options.against`` names.

    Raises:
        InputError: A config, option or device cannot be used.
    """
    device = str(pick_device(options.device))
    if options.dtype == "float16" and device == "cpu":
        raise InputError("--dtype float16 needs a GPU; on a CPU use bfloat16.")
    ours = _make_case(options, _load_config(options), options.dtype, device)
    if options.against == "none":
        return [ours]
    if options.against == "mmagic":
        return [ours, replace(ours, mmagic=True, dtype="float32", compile=None, checkpoint=None)]
    if options.against.endswith(".onnx"):
        return [ours, _make_onnx_case(options, ours)]
    other = load_config(options.against)
    return [ours, _make_case(options, other, options.against_dtype or options.dtype, device)]


def _make_onnx_case(options: ComparisonOptions, ours: Case) -> Case:
    if options.task != "infer" or ours.device != "cpu" or not ours.checkpoint:
        raise InputError(
            f"--against {options.against}: an exported model is compared with the network it was exported from: with "
            "infer, on the CPU, and with the same --config and --checkpoint as tools/export.py had."
        )
    return replace(ours, onnx=options.against, dtype=OnnxBackend(options.against).metadata.dtype, compile=None)


def _load_config(options: ComparisonOptions) -> Config:
    """The config with the network and sizes of the options."""
    config = load_config(options.config, options.cfg_options)
    generator = config.model.generator
    if options.network:
        generator.type = NETWORKS[options.network]
    for name, value in (("in_size", options.in_size), ("out_size", options.out_size)):
        if value:
            generator[name] = value
    if config.model.get("discriminator"):
        config.model.discriminator.in_size = generator.out_size
    return config


def _make_case(options: ComparisonOptions, config: Config, dtype: str, device: str) -> Case:
    case = Case(options.task, config.model.to_dict(), False, dtype, device, options.batch)
    if options.task == "infer":
        model = {"generator": case.model["generator"]}
        return replace(case, model=model, compile=options.compile, checkpoint=options.checkpoint)
    if not config.get("optim_wrapper"):
        raise InputError(f"{options.config} has no optim_wrapper, so it cannot be trained. Give another config.")
    return replace(case, optim_wrapper=config.optim_wrapper.to_dict())


def _measure_loading(options: ComparisonOptions, case: Case, console: Console) -> data_loading.Loading:
    """How fast samples of the size that ``case`` is trained with are loaded from PNG files."""
    generator = case.model["generator"]
    out, low = max(sides(generator["out_size"])), max(sides(generator["in_size"]))
    report = data_loading.compare_formats(
        _load_pipeline(options.config), {out: out // low}, options.measure.repeats, console
    )
    return report["loading"][0]


def _load_pipeline(config: Path) -> list[dict]:
    dataset = (load_config(config).get("train_dataloader") or {}).get("dataset") or {}
    if not dataset.get("pipeline"):
        raise InputError(f"{config} has no train_dataloader.dataset.pipeline. Give another config.")
    return dataset["pipeline"]


def run_data(options: DataOptions, console: Console) -> dict[str, Any]:
    """The command ``data``."""
    pipeline = _load_pipeline(options.config)
    report = data_loading.compare_formats(pipeline, data_loading.TRAINED_SIZES, options.repeats, console)
    data_loading.print_report(report, console)
    return report


def run_degradations(options: DegradationOptions, console: Console) -> dict[str, Any]:
    """The command ``degradations``."""
    report = degradation_speed.measure_presets(options.size, options.images, console)
    degradation_speed.print_report(report, console)
    return report


def run_page(options: PageOptions, console: Console) -> dict[str, Any]:
    """The command ``page``."""
    if options.only == "training":
        report = page.measure_training(options.repeats, console)
        page.write_training(report, options.output)
    else:
        report = page.measure_page(options.batches, options.repeats, console)
        page.write(report, options.output)
    console.print(f"{options.output}")
    return report


def run_backends(options: BackendOptions, console: Console) -> dict[str, Any]:
    """The command ``backends``."""
    report = backends.measure_backends(options, console)
    backends.write_section(backends.add(report, options.results), options.page)
    return report


def run_conditions(options: ConditionsOptions, console: Console) -> dict[str, Any]:
    """The command ``conditions``."""
    report = conditions.measure_conditions(options, console)
    conditions.add(report, options.results)
    backends.write_section(backends.known(options.page.parent / backends.RESULTS), options.page)
    return report


COMMANDS: dict[type, Callable[[Any, Console], dict[str, Any]]] = {
    ComparisonOptions: run_comparison,
    DataOptions: run_data,
    DegradationOptions: run_degradations,
    PageOptions: run_page,
    BackendOptions: run_backends,
    ConditionsOptions: run_conditions,
}
