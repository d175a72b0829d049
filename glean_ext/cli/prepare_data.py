"""Prepare a data set: glean prepare-data SOURCE OUT --size 1024

SOURCE is a folder with subfolders, a zip, an LMDB of images, or a folder behind a URL such as s3://bucket/photos. OUT
gets train/GT and test/GT, lists of their names for ann_file, and a report. Damaged and too small images are rejected,
and images that show the same are found, so that they never get into different splits. An interrupted run continues when
the same command is run again. Presets hold the options of published data sets; options on the command line override
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from glean_ext import cli
from glean_ext.cli.restore_options import CLUSTER_HELP, whole_number

LISTS = ("train", "test")


def _size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text} is no size: give 256, or WIDTHxHEIGHT such as 512x384")
    return int(sides[0]), int(sides[-1])


def _list(text: str) -> tuple[str, str]:
    split, found, path = text.partition("=")
    return (split, path) if found and split in LISTS else ("all", text)


def _parser() -> argparse.ArgumentParser:
    from glean_ext.data_preparation.options import CROPS, DUPLICATES, FITS, PRESETS

    parser = cli.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="folder, zip or LMDB of images, or the URL of a folder")
    add("out", metavar="OUT", type=Path, help="new folder, or one that this tool made")
    add("--preset", choices=PRESETS, help="options of a published data set")
    add("--size", type=_size, help="of the images: 1024, or WIDTHxHEIGHT")
    add("--crop", choices=CROPS, help="crop to the middle (default), to the largest face aligned as in FFHQ, or not")
    add("--fit", choices=FITS, help="with --crop none, how other shapes are fitted (default: they are rejected)")
    add("--letterbox", action="store_true", help="pad images that are not square to a black square")
    add("--enlarge", action="store_true", help="enlarge small images instead of rejecting them")
    add("--split", type=float, help="share of training images (default: 0.99)")
    add("--seed", type=int, help="another seed gives another split (default: 0)")
    add(
        "--list",
        type=_list,
        action="append",
        metavar="[SPLIT=]FILE",
        help="only the files that FILE names; with train= or test= in this split; train=rest: all others",
    )
    add(
        "--duplicates",
        choices=DUPLICATES,
        help="drop images that show the same (default), exact copies, or none; what shows the same shares a split",
    )
    add("--lr-scale", type=int, metavar="N", help="also write low-resolution images, N times smaller")
    add("--lmdb", action="store_true", help="write LMDB databases instead of folders")
    add("--max-pixels", type=whole_number, metavar="N", help="reject images with more pixels (default: 200e6)")
    add("--shard", metavar="I/N", help="make only the Ith of N parts, for job arrays; a run without it completes OUT")
    add("--workers", type=int, metavar="N", help="number of processes (default: one for each core)")
    add("--cluster", metavar="ADDRESS", help=CLUSTER_HELP)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    given = vars(parser.parse_args(argv))

    from rich.console import Console

    from glean_ext.data_preparation.options import PRESETS, PreparationOptions
    from glean_ext.data_preparation.prepare import prepare
    from glean_ext.utils.messages import printable
    from glean_ext.utils.progress import ProgressBar
    from glean_ext.utils.shard import Shard

    source, out, workers = given.pop("source"), given.pop("out"), given.pop("workers", None)
    cluster = given.pop("cluster", None)
    shard = Shard.parse(given.pop("shard")) if "shard" in given else None
    lists = given.pop("list", [])
    names = [split for split, _ in lists]
    if len(set(names)) < len(names) or ("all" in names and len(names) > 1):
        parser.error("argument --list: give one FILE, or one for each of train= and test=")
    if workers is not None and workers < 1:
        parser.error("argument --workers: give 1 or more")
    values = dict(PRESETS.get(given.pop("preset", ""), {}))
    if given.get("crop", "none") != "none":
        values.pop("fit", None)  # how a preset fits whole images does not apply to cropped ones
    values |= given
    if "size" not in values:
        parser.error("--size is needed, or a --preset")
    options = PreparationOptions(**values)
    face_crop = None
    if options.crop == "face":
        from glean_ext.faces.largest_face import LargestFace

        face_crop = LargestFace(small=options.enlarge)
    bar = ProgressBar(Console(stderr=True))

    def notify(notice: object) -> None:
        with suppress(OSError):  # stderr cannot be written to
            bar.console.print(printable(str(notice)), markup=False, highlight=False, soft_wrap=True)

    report = prepare(source, out, options, dict(lists), workers, face_crop, bar, notify, shard, cluster)
    if shard is None:
        _print_summary(report, out)
    else:
        print(f"shard {shard}: {report['now']} images made, {report['images'] - report['now']} were there")
        print("After all shards, the same command without --shard completes the data set.")
    return 0


def _print_summary(report: dict, out: Path) -> None:
    from glean_ext.utils.messages import printable, summarize_names

    print(f"{report['train']} training and {report['test']} test images of {report['images']} in {report['seconds']} s")
    for what in "rejected", "duplicates dropped", "duplicates kept":
        if report[what]:
            print(f"{what}: " + ", ".join(f"{count} {kind}" for kind, count in report[what].items()))
    if first := report.get("first frame only"):
        names = summarize_names([entry["file"] for entry in first])
        print(f"of animations and files with several pages, only the first image is used: {names}")
    if report["left out"]:
        print(f"left out, no images or hidden: {summarize_names(report['left out'])}")
    print(printable(f"{out}: report.json, images.csv, contact_sheet.png"))
