"""Invert images with the bank of a config: PULSE, the comparison for GLEAN's one forward pass.

A search over the bank's latents for an image whose reduction is the input. It takes seconds to minutes an image, and
says why it stopped: epsilon (near enough), stalled (no further gain), or steps (all used).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of a GLEAN, whose bank is searched")
    parser.add_argument("input", nargs="+", type=Path, help="square low-resolution images")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument("--space", choices=["z", "w+"], default="w+", help="one latent, or one a layer (default: w+)")
    parser.add_argument("--steps", type=int, default=200, help="at most (default: %(default)s)")
    parser.add_argument("--restarts", type=int, default=4, help="random starts (default: %(default)s)")
    parser.add_argument("--epsilon", type=float, default=1e-3, help="distance that is near enough (default: 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of the starts")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU if there is one)")
    cli.add_config_options(parser)
    args = parser.parse_args()

    from glean_ext.inversion import InversionOptions
    from glean_ext.inversion.images import invert_images, load_config_bank, plan
    from glean_ext.utils.progress import ProgressBar

    options = InversionOptions(args.space, args.steps, args.restarts, epsilon=args.epsilon, seed=args.seed)
    jobs = plan(args.input, args.output, args.overwrite)
    bank = load_config_bank(args.config, args.cfg_options, args.device)
    with ProgressBar(details=True) as bar:
        task = bar.add_task("", total=options.steps, details="")

        def start(source: Path):
            bar.reset(task, description=source.name)
            return lambda step, distance: bar.update(task, completed=step, details=f"distance {distance:.5f}")

        def done(target: Path, found) -> None:
            bar.console.print(
                f"{target}: stopped by {found.reason} after {found.steps} steps, distance {found.distance:.5f}, "
                f"{found.seconds:.1f} s",
                soft_wrap=True,
                highlight=False,
            )

        invert_images(bank, jobs, options, start, done)


if __name__ == "__main__":
    cli.run(main)
