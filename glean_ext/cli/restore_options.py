"""The arguments of ``glean-restore``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from glean_ext import cli

USAGE = """%(prog)s CONFIG CHECKPOINT INPUT ... -o OUTPUT [options]
       %(prog)s MODEL.onnx INPUT ... -o OUTPUT [options]"""


DESCRIPTION = """Restore images, folders of images, and videos; images are written as PNG.

CONFIG is a file or the name of a shipped config, such as glean_x16_ffhq; CHECKPOINT a path or URL. INPUT is a file, a
folder (with all folders in it), or a pattern in quotes, such as 'photos/**/*.jpg'.

Transparency, 16 bits and colour profiles of images are kept, and the EXIF orientation is applied. GLEAN takes images of
one size; others are resized, with a notice, or restored in tiles, or refused. LightGLEAN takes any size from 8x8 on, in
tiles where the memory at hand does not suffice. With --photo the faces of photographs are found and restored.
"""


def make_parser() -> cli.Parser:
    parser = cli.Parser(usage=USAGE, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arguments", nargs="+", metavar="CONFIG CHECKPOINT INPUT", help="see above")
    parser.add_argument("-o", "--output", required=True, help="file, or folder, which is made when it is not there")
    _add_run_options(parser.add_argument_group("how it runs"))
    _add_output_options(parser.add_argument_group("what is written"))
    add_size_options(parser.add_argument_group("images of other sizes than the model takes"))
    add_photo_options(parser.add_argument_group("whole photographs"))
    cli.add_config_options(parser)
    return parser


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)")
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the computation (default: bfloat16 where the hardware has instructions for it, else float32)",
    )
    group.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="images at once, of one size (default 1)"
    )
    group.add_argument("--compile", action="store_true", help="compile the network first: takes a minute, runs faster")


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--suffix", default="", help="is put after the names: --suffix _restored")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument("--skip-existing", action="store_true", help="go on with those that do not exist")
    group.add_argument("--outscale", type=float, metavar="X", help="final size in sizes of the input, by bicubic")
    group.add_argument(
        "--alpha",
        choices=["upsample", "restore"],
        default="upsample",
        help="transparency is upsampled (default), or restored by the network",
    )
    group.add_argument(
        "--crf", type=_crf, default=10.0, metavar="Q", help="of videos: 0 (lossless) to 51 (small; default 10)"
    )
    group.add_argument("--compare", action="store_true", help="also write NAME_compare.png: before, bicubic, and after")


def add_size_options(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--size-policy",
        default="auto",
        help="error: refuse them. resize: to the size of the training, by MATLAB's bicubic. tile: restore overlapping "
        "tiles and join them. auto (default): resize for GLEAN, tile for LightGLEAN, which takes all that the memory "
        "suffices for in one tile",
    )
    group.add_argument("--fit", help="resize keeps the aspect: pad (default) the image, or crop it")
    group.add_argument("--tile-size", type=int, help="side of LightGLEAN's tiles in pixels of the input")
    group.add_argument("--tile-overlap", type=int, help="pixels of the input that neighbouring tiles share at least")


def add_photo_options(group: argparse._ActionsContainer) -> None:
    group.add_argument("--photo", action="store_true", help="find the faces, restore them, and put them back")
    group.add_argument(
        "--fidelity", type=float, default=0.0, metavar="W", help="0 (default) restores, 1 keeps the input"
    )
    group.add_argument("--only-center-face", action="store_true", help="restore the face nearest to the middle only")
    group.add_argument("--aligned", action="store_true", help="inputs are aligned faces already")
    group.add_argument(
        "--min-face", type=float, metavar="PIXELS", help="leave smaller faces alone (default: 32 or more)"
    )
    group.add_argument(
        "--max-faces", type=_positive, default=200, metavar="N", help="refuse photos with more (default 200)"
    )
    group.add_argument(
        "--when-no-face",
        choices=["keep", "whole", "error"],
        default="keep",
        help="keep (default) such a photo, restore it as a whole, or refuse it",
    )
    group.add_argument(
        "--save-faces", metavar="DIR", help="write the aligned faces, before and after, into this folder"
    )
    group.add_argument(
        "--background",
        nargs="+",
        default=["bicubic"],
        metavar="MODEL",
        help="enlarges all but the faces: bicubic (default), CONFIG CHECKPOINT, or MODEL.onnx; give it last",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _crf(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 51:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 (lossless) and 51")
    return number


def names_of(add_options: Callable[[argparse._ActionsContainer], None]) -> list[str]:
    """The options that such a function adds, as the parsed arguments call them."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    return list(vars(parser.parse_args([])))
