"""Draw cartoon people, each in several pictures: with another expression and pose, all else the same.

They are the faces of demo.render_faces: what may differ between the pictures of one are eyes, eyebrows and mouth, the
angle, and the place. OUTPUT/train/GT and OUTPUT/test/GT have a folder for each person, as data with references need it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from demo.render_faces import avatar, make_avatar, render
from glean_ext import cli
from glean_ext.errors import InputError, require_at_least
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.utils.progress import ProgressBar

EXPRESSION = ("eyesVariant", "eyebrowsVariant", "mouthVariant")
OPTIONAL = ("beard", "rearHair")  # what some people do not have
MAX_ANGLE = 8.0  # degrees
MAX_SHIFT = 3.0  # percent of the drawing
PEOPLE = {"train": 1250, "test": 50}
PICTURES = 4  # of each person
MANIFEST = "manifest.json"


def person(seed: str, number: int) -> Any:
    """Picture ``number`` of the person ``seed``, a ``dicebear.Avatar``."""
    options = avatar(seed).to_json()["options"]
    other = avatar(f"{seed}/{number}").to_json()["options"]
    rng = random.Random(f"{seed}/{number}")
    chosen = {name: value for name, value in options.items() if name.endswith(("Variant", "Color"))}
    chosen |= {f"{part}Probability": 100 if f"{part}Variant" in options else 0 for part in OPTIONAL}
    chosen |= {name: other[name] for name in EXPRESSION}
    pose = {"rotate": rng.uniform(-MAX_ANGLE, MAX_ANGLE)}
    pose |= {name: rng.uniform(-MAX_SHIFT, MAX_SHIFT) for name in ("translateX", "translateY")}
    return make_avatar({**chosen, **pose})


def make_people(root: Path, people: dict[str, int], pictures: int = PICTURES) -> None:
    """Draw ``root/<part>/GT/<person>/<number>.png``; a finished folder is left as it is.

    Raises:
        InputError: ``root`` holds other people, or other numbers of them.
    """
    recipe = {"people": people, "pictures": pictures, "angle": MAX_ANGLE, "shift": MAX_SHIFT}
    manifest = root / MANIFEST
    known = json.loads(manifest.read_text()) if manifest.exists() else None
    if known == recipe:
        return
    jobs = [
        (f"{part}-person-{one}", number, root / part / "GT" / f"{one:05d}" / f"{number}.png")
        for part, count in people.items()
        for one, number in product(range(count), range(pictures))
    ]
    drawn = {path for part in people for path in (root / part / "GT").glob("*/*.png")}
    if known or not drawn <= {path for *_, path in jobs}:
        raise InputError(
            f"{root} holds other people, or other numbers of them. Delete it, or draw into another folder."
        )
    with ProgressBar() as bar, ProcessPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("drawing people", total=len(jobs))
        for _ in pool.map(_write, *zip(*jobs, strict=True), chunksize=8):
            bar.advance(task)
    write_json(recipe, manifest)


def _write(seed: str, number: int, path: Path) -> None:
    with atomic_path(path) as partial:
        render(person(seed, number)).save(partial, "PNG")


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=Path("data/people"), metavar="OUTPUT")
    parser.add_argument("--people", type=int, default=PEOPLE["train"], help="to train with (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of each (default: %(default)s)")
    args = parser.parse_args()
    require_at_least("people", args.people, 1)
    require_at_least("pictures", args.pictures, 2)  # one has the others as references
    make_people(args.output, {**PEOPLE, "train": args.people}, args.pictures)


if __name__ == "__main__":
    cli.run(main)
