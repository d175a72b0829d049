"""From the command line's options to a report on the terminal and in a file."""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.console import Console

from benchmarks import comparison, data_loading, page, startup
from benchmarks.cases import Case, sides
from benchmarks.measure import as_json
from glean_ext.config import load_config
from glean_ext.errors import InputError
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.inference.torch_backend import pick_device
from glean_ext.utils.files import write_json

WIDTH = 130  # of tables in a file or a pipe
NETWORKS = {"glean": "GLEANStyleGANv2", "lightglean": "LightGLEANStyleGANv2"}


def run(args: argparse.Namespace) -> None:
    """Do what ``python -m benchmarks`` was asked for.

    Raises:
        InputError: A config, option, checkpoint, device or file that cannot be used.
    """
    warnings.simplefilter("ignore")  # what other libraries deprecate would bury the report
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(highlight=False, soft_wrap=True, markup=False, width=width)
    report = COMMANDS[args.command](args, console)
    if args.json:
        write_json(as_json(report), args.json)


def run_contest(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The commands ``infer`` and ``train``."""
    cases = contest(args)
    options = comparison.Options(args.repeats, not args.no_memory, not args.no_peak)
    report = comparison.compare(cases, options, console)
    comparison.print_report(report, console)
    if args.command == "train":
        report["loading"] = _loading(args, cases[0], console)
        fed = report["loading"].images_per_second / report["results"][0].images_per_second
        console.print(f"One process loads {fed:,.0f} times as many images as training uses.")
    return report


def contest(args: argparse.Namespace) -> list[Case]:
    """What is measured: this package's, and what ``--against`` names.

    Raises:
        InputError: A config, option or device that cannot be used.
    """
    device = str(pick_device(args.device))
    if args.dtype == "float16" and device == "cpu":
        raise InputError("--dtype float16 needs a GPU; on a CPU take bfloat16.")
    config = _config(args, args.config)
    ours = _case(args, config, args.dtype, device)
    if args.against == "none":
        return [ours]
    if args.against == "mmagic":
        return [ours, replace(ours, mmagic=True, dtype="float32", compile=None, checkpoint=None)]
    if args.against.endswith(".onnx"):
        return [ours, _onnx_case(args, ours)]
    return [ours, _case(args, load_config(args.against), args.against_dtype or args.dtype, device)]


def _onnx_case(args: argparse.Namespace, ours: Case) -> Case:
    if args.command != "infer" or ours.device != "cpu" or not ours.checkpoint:
        raise InputError(
            f"--against {args.against}: an exported model is compared with the network it was made of: with infer, on "
            "the CPU, and with --config and --checkpoint as they were given to tools/export.py."
        )
    return replace(ours, onnx=args.against, dtype=OnnxBackend(args.against).metadata.dtype, compile=None)


def _config(args: argparse.Namespace, path: Path) -> Config:
    """A config with the network and sizes that the options ask for."""
    config = load_config(path, args.cfg_options)
    generator = config.model.generator
    if args.network:
        generator.type = NETWORKS[args.network]
    for name, value in (("in_size", args.in_size), ("out_size", args.out_size)):
        if value:
            generator[name] = value
    if config.model.get("discriminator"):
        config.model.discriminator.in_size = generator.out_size
    return config


def _case(args: argparse.Namespace, config: Config, dtype: str, device: str) -> Case:
    if args.command == "train":
        if not config.get("optim_wrapper"):
            raise InputError(f"{args.config} has no optim_wrapper, so it cannot be trained. Take another config.")
        optim_wrapper = config.optim_wrapper.to_dict()
        return Case("train", config.model.to_dict(), False, dtype, device, args.batch, optim_wrapper=optim_wrapper)
    model = {"generator": config.model.generator.to_dict()}
    return Case("infer", model, False, dtype, device, args.batch, args.compile, args.checkpoint)


def _loading(args: argparse.Namespace, case: Case, console: Console) -> data_loading.Loading:
    """How fast samples of the size that ``case`` trains with are loaded from PNG files."""
    generator = case.model["generator"]
    out, low = max(sides(generator["out_size"])), max(sides(generator["in_size"]))
    report = data_loading.data(_pipeline(args.config), {out: out // low}, args.repeats, console)
    return report["loading"][0]


def _pipeline(config: Path) -> list[dict]:
    dataset = (load_config(config).get("train_dataloader") or {}).get("dataset") or {}
    if not dataset.get("pipeline"):
        raise InputError(f"{config} has no train_dataloader.dataset.pipeline. Take another config.")
    return dataset["pipeline"]


def run_startup(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The command ``startup``."""
    report = startup.startup(args.repeats, console)
    startup.print_report(report, console)
    return report


def run_data(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The command ``data``."""
    report = data_loading.data(_pipeline(args.config), data_loading.TRAINED_SIZES, args.repeats, console)
    data_loading.print_report(report, console)
    return report


def run_page(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """The command ``page``."""
    finished = page.Finished(args.output.with_suffix(".partial.json"), args.repeats)
    report = page.measure_all(args.batches, args.repeats, finished, console)
    page.write(report, args.output)
    finished.forget()
    console.print(f"{args.output}")
    return report


COMMANDS = {"infer": run_contest, "train": run_contest, "startup": run_startup, "data": run_data, "page": run_page}
