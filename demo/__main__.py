"""The whole chain on a CPU without a network: data, bank, training, test, comparison (`make demo` runs this)."""

from __future__ import annotations

from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/demo_glean_x8_short.py"))
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo"))
    parser.add_argument("--data", type=Path, default=Path("data/demo"))
    parser.add_argument("--max-iters", type=int, help="training iterations (default: from the config)")
    args = parser.parse_args()

    from demo.run import run_demo

    run_demo(args.config, args.work_dir, args.data, args.max_iters)


if __name__ == "__main__":
    cli.run(main)
