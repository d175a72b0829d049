"""Train the demo bank and write glean_ext/assets/demo_bank.safetensors. Resumes where it stopped."""

from __future__ import annotations

from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="rendered when it is not there")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/demo_bank"))
    args = parser.parse_args()

    from glean_ext.demo.bank import Recipe, train_bank
    from glean_ext.demo.faces import make_demo_data

    make_demo_data(args.data)
    train_bank(args.data, args.work_dir, Recipe())


if __name__ == "__main__":
    cli.run(main)
