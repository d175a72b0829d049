"""Measure speed and memory beside MMagic's own classes.

infer    a forward pass of a network that is prepared for inference
train    a training step
data     loading a training sample: decoding, making the low-resolution image, the whole pipeline
degradations
         making inputs for blind restoration, by preset
backends PyTorch beside onnxruntime and OpenVINO, and the last section of docs/performance.md
conditions  memory of whole processes, a busy machine, many images, int8: the end of docs/performance.md
page     docs/performance.md and its plot, from one run (about an hour)
gpu      docs/performance_gpu.md: all of it on a GPU, in at most 8 minutes (make gpu)

The candidates run in turn (A B A B ...) with the same weights and inputs. The peak memory of each is measured in a
process of its own. Run nothing else on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.options import (
    CONDITIONS,
    GPU_BUDGETS,
    NETWORKS,
    BackendOptions,
    ComparisonOptions,
    ConditionsOptions,
    DataOptions,
    DegradationOptions,
    GPUOptions,
    MeasureOptions,
    Options,
    PageOptions,
)
from glean_ext import cli
from glean_ext.utils.dtypes import DTYPES

ROOT = Path(__file__).parents[1]
CONFIGS = {"infer": ROOT / "configs/glean_x16_ffhq.py", "train": ROOT / "configs/glean_x8_cat.py"}


def add_comparison_options(parser: argparse.ArgumentParser, task: str) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGS[task], help="default: %(default)s")
    parser.add_argument("--network", choices=list(NETWORKS), help="use this network instead of the config's")
    parser.add_argument("--in-size", type=int, help="side of the input, instead of the config's")
    parser.add_argument("--out-size", type=int, help="side of the output, instead of the config's")
    parser.add_argument("--batch", type=int, default=1 if task == "infer" else 2)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--against", default="mmagic", help="mmagic (in float32), a config, an exported .onnx, or none")
    parser.add_argument("--against-dtype", choices=DTYPES, help="of another config (default: as --dtype)")
    parser.add_argument("--no-memory", action="store_true", help="do not measure the peak memory")
    parser.add_argument("--no-peak", action="store_true", help="do not measure the machine's largest throughput")
    cli.add_config_options(parser)


def make_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in "infer", "train", "data", "backends", "conditions", "page":
        command = commands.add_parser(name)
        command.add_argument("--repeats", type=int, default=3 if name == "page" else 5, help="default: %(default)s")
        command.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to this file")
        if name in CONFIGS:
            add_comparison_options(command, name)
    commands.choices["infer"].add_argument("--checkpoint", help="the network's weights (default: random)")
    commands.choices["infer"].add_argument("--compile", metavar="MODE", help="a mode of torch.compile")
    commands.choices["data"].add_argument("--config", type=Path, default=CONFIGS["train"])
    backends = commands.choices["backends"]
    conditions = commands.choices["conditions"]
    conditions.add_argument("part", choices=CONDITIONS)
    for command in backends, conditions:
        command.add_argument("--network", choices=list(NETWORKS), default="glean")
        command.add_argument("--in-size", type=int, default=64)
        command.add_argument("--out-size", type=int, default=1024)
        command.add_argument("--models", type=Path, metavar="FOLDER", help="keep what is made there, and use it")
        command.add_argument("--results", type=Path, default=ROOT / f"docs/performance_{command.prog.split()[-1]}.json")
        command.add_argument("--page", type=Path, default=ROOT / "docs/performance.md")
    backends.add_argument("--int8", action="store_true", help="also in int8")
    backends.add_argument("--no-memory", action="store_true", help="do not measure the peak memory")
    page = commands.choices["page"]
    page.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    page.add_argument("--output", type=Path, default=ROOT / "docs/performance.md")
    page.add_argument("--only", choices=["training"], help="replace this section only (minutes)")
    degradations = commands.add_parser("degradations")
    degradations.add_argument("--size", type=int, default=512, help="side of the images (default: %(default)s)")
    degradations.add_argument("--images", type=int, default=50, help="for each preset (default: %(default)s)")
    degradations.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to this file")
    gpu = commands.add_parser("gpu")
    gpu.add_argument("--device", default="cuda", help="default: %(default)s; cpu with --small is a dry run")
    gpu.add_argument("--small", action="store_true", help="tiny networks, which only show that every part runs")
    gpu.add_argument("--parts", nargs="+", choices=list(GPU_BUDGETS), default=[], help="default: all")
    gpu.add_argument(
        "--output", type=Path, help="the page, with a JSON file beside it (default: docs/performance_gpu.md)"
    )
    return parser


def parse(argv: Sequence[str] | None = None) -> tuple[Options, Path | None]:
    """The options of a command, and the JSON file to write."""
    args = make_parser().parse_args(argv)
    if args.command == "gpu":
        folder = ROOT / ("work_dirs" if args.small else "docs")
        output = args.output or folder / "performance_gpu.md"
        return GPUOptions(args.device, args.small, output, tuple(args.parts)), None
    if args.command == "degradations":
        if args.size < 64 or args.images < 1:
            cli.fail("--size must be at least 64, and --images at least 1.")
        return DegradationOptions(args.size, args.images), args.json
    if min(args.repeats, getattr(args, "batch", 1), *getattr(args, "batches", [])) < 1:
        cli.fail("--repeats, --batch and --batches must be at least 1.")
    if args.command == "data":
        return DataOptions(args.config, args.repeats), args.json
    if args.command == "backends":
        names = ("network", "in_size", "out_size", "repeats", "int8", "models", "results", "page")
        return BackendOptions(memory=not args.no_memory, **{name: getattr(args, name) for name in names}), args.json
    if args.command == "conditions":
        names = ("part", "network", "in_size", "out_size", "repeats", "models", "results", "page")
        return ConditionsOptions(**{name: getattr(args, name) for name in names}), args.json
    if args.command == "page":
        return PageOptions(tuple(args.batches), args.repeats, args.output, args.only), args.json
    comparison = ComparisonOptions(
        task=args.command,
        config=args.config,
        measure=MeasureOptions(args.repeats, not args.no_memory, not args.no_peak),
        network=args.network,
        in_size=args.in_size,
        out_size=args.out_size,
        batch=args.batch,
        dtype=args.dtype,
        device=args.device,
        against=args.against,
        against_dtype=args.against_dtype,
        cfg_options=tuple(args.cfg_options),
        checkpoint=getattr(args, "checkpoint", None),
        compile=getattr(args, "compile", None),
    )
    return comparison, args.json


def main(argv: Sequence[str] | None = None) -> int:
    options, json_file = parse(argv)
    if isinstance(options, GPUOptions):
        from benchmarks.gpu import run_gpu

        _, whole = run_gpu(options)
        return 0 if whole else 1

    from benchmarks.command import run

    run(options, json_file)
    return 0


if __name__ == "__main__":
    cli.run(main)
