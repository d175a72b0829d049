"""Make the weights that the package ships, in glean_ext/assets. An interrupted run continues with the same command.

bank: the StyleGAN2 of cartoon faces (hours on a CPU).
glean: the GLEAN of configs/demo_glean_x8.py on that bank.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bank", "glean"])
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="the rendered faces, made if missing")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/<asset>")
    parser.add_argument("--init", help="weights to start from, e.g. glean-ext://demo_bank.safetensors")
    parser.add_argument("--config", type=Path, default=Path("configs/demo_glean_x8.py"))
    parser.add_argument(
        "--max-iters", type=int, default=6000, help="glean only: training iterations (default: %(default)s)"
    )
    args = parser.parse_args()

    from demo import assets

    if args.what == "bank":
        work_dir = args.work_dir or Path("work_dirs/demo_bank")
        path = assets.make_bank(args.data, work_dir, Path("docs/demo_bank_samples.png"), args.init)
    else:
        work_dir = args.work_dir or Path("work_dirs") / args.config.stem
        path = assets.make_glean(args.config, args.data, work_dir, args.max_iters, args.init)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    cli.run(main)
