"""How much restoring in tiles changes the results of a LightGLEAN, for several overlaps of the tiles.

The default overlap was chosen with the demo model; a deeper trunk may need a larger one (--tile-overlap). Squares and
pixels in random colours are measured, and the images that are given, which must be larger than a tile.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.inference.tiling import Tiling, largest_difference
from glean_ext.size_requirements import Size, format_size
from glean_ext.utils.array_conversion import to_floats
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.progress import ProgressBar

LIMIT = 1 / 255  # of the range from black to white
STRIDE = 16  # tiles start about every so many pixels of the input


def tiles(restorer: ImageRestorer, overlap: int) -> Tiling:
    """The smallest tiles, for many seams: one at every period of the injected noise, or at every :data:`STRIDE`."""
    tiling = SizePolicy("tile", tile_overlap=overlap).tiling(restorer.takes, (0, 0))
    stride = tiling.period * -(-max(STRIDE, overlap) // tiling.period)
    side = max(overlap + stride, tiling.smallest_tile)
    return replace(tiling, tile=(side, side))


def patterns(size: Size) -> dict[str, np.ndarray]:
    """Harder than any photograph: squares of 8 pixels and single pixels in black, white and six colours, uint8."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 2, (*size, 3), dtype=np.uint8) * 255
    squares = random.integers(0, 2, (-(-size[0] // 8), -(-size[1] // 8), 3), dtype=np.uint8) * 255
    return {"squares": squares.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]], "pixels": pixels}


def seams(
    restorer: ImageRestorer, rgb: np.ndarray, overlaps: Sequence[int], name: str = "the image"
) -> dict[int, float]:
    """The largest difference between the tiled and the whole result for each overlap; 1 is from black to white.

    Args:
        restorer: With a network that takes any size.
        rgb: (h, w, 3) uint8, small enough for the memory without tiles.
        overlaps: Pixels of the input that neighbouring tiles share.
        name: The image's name in errors.

    Raises:
        InputError: A network of one size, or an image smaller than two tiles.
    """
    if not restorer.takes.any_size:
        raise InputError(f"Seams are measured against the whole image, but this model takes {restorer.takes}.")
    size, image, differences = (rgb.shape[0], rgb.shape[1]), to_floats(rgb), {}
    whole = restorer.network(image)
    for overlap in overlaps:
        tiling = tiles(restorer, overlap)
        if tiling.count(size) == 1:
            raise InputError(
                f"{name} has {format_size(size)} pixels, which is one tile ({format_size(tiling.tile)}). Take a larger "
                "one."
            )
        differences[overlap] = largest_difference(restorer.network, image, tiling, whole)
    return differences


def measure_seams(
    config: str | os.PathLike | Mapping,
    checkpoint: str | os.PathLike,
    images: Sequence[str | os.PathLike],
    overlaps: Sequence[int],
    device: str | None = None,
    console: Console | None = None,
    size: Size = (96, 160),
) -> dict[int, float]:
    """Print what :func:`seams` finds for each image and the :func:`patterns`; return the worst for each overlap.

    The patterns have ``size`` (height, width), or are wider where the tiles require it.

    Raises:
        InputError: The config, the checkpoint, the device or an image cannot be used.
    """
    restorer = ImageRestorer(config, checkpoint, device, dtype="float32")
    largest = max(tiles(restorer, overlap).tile[0] for overlap in overlaps)
    sources = patterns((size[0], max(size[1], 2 * largest))) | {str(path): read_rgb(path) for path in images}
    console = console or Console(highlight=False, soft_wrap=True)
    table = Table("image", title="largest difference of tiles from the whole, in 1/255, by overlap")
    for overlap in overlaps:
        table.add_column(str(overlap), justify="right")
    worst = dict.fromkeys(overlaps, 0.0)
    with ProgressBar(console, transient=True) as bar:
        task = bar.add_task("measuring", total=len(sources))
        for name, rgb in sources.items():
            differences = seams(restorer, rgb, overlaps, name)
            table.add_row(name, *(f"{differences[overlap] / LIMIT:.2f}" for overlap in overlaps))
            worst = {overlap: max(worst[overlap], differences[overlap]) for overlap in overlaps}
            bar.advance(task)
    console.print(table)
    enough = [overlap for overlap in sorted(overlaps) if worst[overlap] < LIMIT]
    console.print(f"Smallest overlap under 1/255: {enough[0] if enough else 'larger than these'}.")
    return worst


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="weights of the network, or a training checkpoint: path or URL")
    parser.add_argument("image", nargs="*", help="low-resolution image files")
    parser.add_argument("--overlaps", type=int, nargs="+", default=[8, 12, 16, 20, 24, 28], metavar="PIXELS")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)")
    args = parser.parse_args()

    measure_seams(args.config, args.checkpoint, args.image, args.overlaps, args.device)


if __name__ == "__main__":
    cli.run(main)
