"""Train a restorer: python tools/train.py configs/glean_x16_ffhq.py"""

from __future__ import annotations

import os
from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<name of the config>)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work dir")
    parser.add_argument("--amp", action="store_true", help="mixed precision (bf16)")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to the config"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by the launcher")
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))

    from glean_ext.apis import runners
    from glean_ext.configs_io import load_config

    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs") / Path(args.config).stem)
    cfg.resume = args.resume or cfg.get("resume", False)
    if args.amp:
        runners.use_mixed_precision(cfg)
    runners.train(cfg)


if __name__ == "__main__":
    cli.run(main)
