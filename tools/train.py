"""Train a restorer: python tools/train.py configs/glean_x16_ffhq.py"""

from __future__ import annotations

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("config", help="config file")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the work dir")
    parser.add_argument("--amp", action="store_true", help="mixed precision (bf16)")
    cli.add_run_options(parser)
    args = parser.parse_args()

    from glean_ext.apis import runners
    from glean_ext.configs_io import load_run_config

    cfg = load_run_config(args)
    cfg.resume = args.resume or cfg.get("resume", False)
    if args.amp:
        runners.use_mixed_precision(cfg)
    runners.train(cfg)


if __name__ == "__main__":
    cli.run(main)
