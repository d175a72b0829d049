"""Train a restorer or a bank: glean train configs/glean_x16_ffhq.py"""

from __future__ import annotations

from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of the work dir")
    parser.add_argument("--amp", action="store_true", help="mixed precision (bf16)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="learning rates in proportion to the batch size")
    parser.add_argument("--dry-run", action="store_true", help="check files, bank, one step and memory; train nothing")
    cli.add_run_options(parser)
    args = parser.parse_args(argv)

    from glean_ext.cli.early_checks import check_training
    from glean_ext.config import load_run_config
    from glean_ext.engine.config_changes import scale_learning_rates, use_mixed_precision
    from glean_ext.engine.config_checks import check_sections

    cfg = load_run_config(args.config, args.cfg_options, args.work_dir, args.launcher, args.local_rank)
    cfg.resume = args.resume or cfg.get("resume", False)
    check_sections(cfg)
    if args.amp:
        use_mixed_precision(cfg)
    if args.auto_scale_lr:
        scale_learning_rates(cfg)
    check_training(cfg)

    from glean_ext.engine.runner import train

    if args.dry_run:
        from glean_ext.engine.dry_run import dry_run

        print_report(dry_run(cfg).rows())
    else:
        train(cfg)
    return 0


def print_report(rows: list[tuple[str, str]]) -> None:
    from rich.table import Table

    from glean_ext.cli.plain_console import PlainConsole
    from glean_ext.utils.messages import printable

    table = Table("dry run", "")
    for row in rows:
        table.add_row(*map(printable, row))
    PlainConsole().print(table, soft_wrap=False)
