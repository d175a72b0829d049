"""Restore an image, or each image of a folder, and write PNG.

Images of another size than the model's are padded to a square, resized and cut again, or refused (--size-policy).
Transparent pixels become white; of an animation the first picture is taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="weights of the network, or a training checkpoint: path or URL")
    parser.add_argument("input", help="image file or folder of images")
    parser.add_argument("-o", "--output", required=True, help=".png file or folder; made when it is not there")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)")
    parser.add_argument("--size-policy", default="resize", help="resize (default) or error: images of another size")
    cli.add_config_options(parser)
    args = parser.parse_args(argv)

    from glean_ext.apis.restore import restore_path

    restore_path(args.config, args.checkpoint, args.input, args.output, args.device, args.size_policy, args.cfg_options)
    return 0


if __name__ == "__main__":
    cli.run(main)
