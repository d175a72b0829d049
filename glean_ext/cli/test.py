"""Measure a restorer on its test set: glean test configs/glean_x16_ffhq.py CHECKPOINT --json metrics.json"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="path or URL: a training checkpoint or a network's weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the metrics to this file")
    cli.add_run_options(parser)
    args = parser.parse_args(argv)

    from glean_ext.cli.early_checks import check_test, require_model, require_output
    from glean_ext.config import load_run_config
    from glean_ext.utils.files import write_json

    require_model(args.config, args.checkpoint)
    if args.json:
        require_output(args.json)
    cfg = load_run_config(args.config, args.cfg_options, args.work_dir, args.launcher, args.local_rank)
    check_test(cfg, args.checkpoint)

    from glean_ext.engine.runner import test

    metrics = test(cfg, args.checkpoint)
    for name, value in metrics.items():
        print(f"{name:8} {value:.4f}")
    if args.json:
        write_json({"config": args.config, "checkpoint": args.checkpoint, **metrics}, args.json)
    return 0
