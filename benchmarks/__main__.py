"""Measure speed and memory, side by side with MMagic's own classes.

infer    a forward of a network, prepared for inference
train    a training step
startup  cold processes: imports, --help, one image from start to written file
data     loading a training sample: decoding, making the low-resolution image, the whole pipeline
page     docs/performance.md and its plot, from one run (about an hour; interrupted, it goes on where it was)

Contestants run in turn (A B A B ...) with the same weights and inputs; the peak memory of each is that of a process of
its own. Let nothing else run meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from glean_ext import cli

ROOT = Path(__file__).parents[1]
CONFIGS = {"infer": ROOT / "configs/glean_x16_ffhq.py", "train": ROOT / "configs/glean_x8_cat.py"}
DTYPES = ("float32", "bfloat16", "float16")


def add_contest(parser: argparse.ArgumentParser, task: str) -> None:
    parser.add_argument("--config", type=Path, default=CONFIGS[task], help="default: %(default)s")
    parser.add_argument("--network", choices=["glean", "lightglean"], help="take this in place of the config's")
    parser.add_argument("--in-size", type=int, help="side of the input in place of the config's")
    parser.add_argument("--out-size", type=int, help="side of the output in place of the config's")
    parser.add_argument("--batch", type=int, default=1 if task == "infer" else 2)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ...")
    parser.add_argument("--against", default="mmagic", help="mmagic (in float32), a config, an exported .onnx, or none")
    parser.add_argument("--against-dtype", choices=DTYPES, help="of another config (default: as --dtype)")
    parser.add_argument("--no-memory", action="store_true", help="leave the peak memory out")
    parser.add_argument("--no-peak", action="store_true", help="leave the machine's peak out")
    cli.add_config_options(parser)


def make_parser() -> cli.Parser:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in "infer", "train", "startup", "data", "page":
        command = commands.add_parser(name)
        command.add_argument("--repeats", type=int, default=3 if name == "page" else 5, help="default: %(default)s")
        command.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to this file")
        if name in CONFIGS:
            add_contest(command, name)
    commands.choices["infer"].add_argument("--checkpoint", help="the network's weights (default: random)")
    commands.choices["infer"].add_argument("--compile", metavar="MODE", help="a mode of torch.compile")
    commands.choices["data"].add_argument("--config", type=Path, default=CONFIGS["train"])
    page = commands.choices["page"]
    page.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], metavar="N", help="default: 1 4 16")
    page.add_argument("--output", type=Path, default=ROOT / "docs/performance.md")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    if min(args.repeats, getattr(args, "batch", 1), *getattr(args, "batches", [])) < 1:
        cli.fail("--repeats, --batch and --batches must be at least 1.")

    from benchmarks.command import run

    run(args)
    return 0


if __name__ == "__main__":
    cli.run(main)
