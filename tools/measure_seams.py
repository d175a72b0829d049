"""How much tiles change what a LightGLEAN makes of images, by the overlap of the tiles.

The default overlap was chosen with the demo model; a deeper trunk may need another (infer.py --tile-overlap). Squares
and pixels in random colours are measured, and images that are given; these must be larger than a tile.
"""

from __future__ import annotations

import argparse

from glean_ext import cli


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="weights of the network, or a training checkpoint: path or URL")
    parser.add_argument("image", nargs="*", help="low-resolution image files")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[8, 12, 16, 20, 24, 28], metavar="PIXELS")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)")
    args = parser.parse_args()

    from glean_ext.apis.seams import measure_seams

    measure_seams(args.config, args.checkpoint, args.image, args.overlaps, args.device)


if __name__ == "__main__":
    cli.run(main)
