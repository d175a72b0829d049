"""Measure a restorer on its test set: python tools/test.py configs/glean_x16_ffhq.py CHECKPOINT --json metrics.json"""

from __future__ import annotations

import os
from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="path or URL: a training checkpoint or a network's weights")
    parser.add_argument("--work-dir", help="where the log goes (default: work_dirs/<name of the config>)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the metrics to this file")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to the config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by the launcher")
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))

    from glean_ext.apis import runners
    from glean_ext.configs_io import load_config
    from glean_ext.files import write_json

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(args.config).stem)
    metrics = runners.test(cfg, args.checkpoint)
    for name, value in metrics.items():
        print(f"{name:8} {value:.4f}")
    if args.json:
        write_json({"config": args.config, "checkpoint": args.checkpoint, **metrics}, args.json)


if __name__ == "__main__":
    cli.run(main)
