"""Restore an image, or each image of a folder, and write PNG.

GLEAN takes images of one size. Others are resized, with a notice; they can also be restored in tiles, or refused.
LightGLEAN takes any size from 8x8 on, in tiles where the memory at hand does not suffice for the whole image.
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
    sizes = parser.add_argument_group("images of other sizes than the model takes")
    sizes.add_argument(
        "--size-policy",
        default="auto",
        help="error: refuse them. resize: to the size of the training, by MATLAB's bicubic. tile: restore overlapping "
        "tiles and join them. auto (default): resize for GLEAN, tile for LightGLEAN, which takes all that the memory "
        "suffices for in one tile",
    )
    sizes.add_argument("--fit", help="resize keeps the aspect: pad (default) the image, or crop it")
    sizes.add_argument("--tile-size", type=int, help="side of LightGLEAN's tiles in pixels of the input")
    sizes.add_argument("--tile-overlap", type=int, help="pixels of the input that neighbouring tiles share at least")
    cli.add_config_options(parser)
    args = parser.parse_args(argv)

    from glean_ext.apis.restore_files import restore_path
    from glean_ext.apis.sizes import SizePolicy

    policy = SizePolicy(args.size_policy, args.fit, args.tile_size, args.tile_overlap)
    restore_path(args.config, args.checkpoint, args.input, args.output, args.device, policy, args.cfg_options)
    return 0


if __name__ == "__main__":
    cli.run(main)
