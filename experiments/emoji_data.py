"""The emoji domain: 3D-rendered emoji at 64x64, with classes, split so that no emoji is on both sides.

Source: npm package ``@lobehub/fluent-emoji-3d`` 1.1.0 (MIT), 3,391 RGBA images of 256x256 named by code points, and
``unicode-emoji-json`` 0.9.0 (MIT) for their Unicode groups. Both are fetched with ``npm pack``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.utils.files import write_json
from glean_ext.utils.imresize import imresize

SIZE = 64
PACKAGES = {"images": "@lobehub/fluent-emoji-3d@1.1.0", "groups": "unicode-emoji-json@0.9.0"}
BACKGROUND = 255  # white, as emoji are mostly seen
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}
VARIATION_SELECTOR = "fe0f"
SHARES = {"test": 0.08, "val": 0.04}  # of the emoji, skin-tone variants counted once; the rest trains
CLASSES = {  # Unicode's group -> class
    "Smileys & Emotion": "faces",
    "People & Body": "people",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "transport",
    "Flags": "flags",
    "Objects": "objects",
    "Symbols": "symbols",
    "Activities": "activities",
}
CLASS_NAMES = tuple(CLASSES.values())
OTHER = "symbols"  # keycaps and the like, which the groups do not list
THUMBNAIL = 16  # pixels of a side, for the search for near duplicates
# Mean absolute difference of thumbnails, in levels of 255, below which two emoji count as the same picture. Between 6
# and 8 lie squares with different digits, and people who differ by their hair.
NEAR_DUPLICATE = 8.0
PERSON = "1f9d1"  # the adult without gender, which stands for man and woman in the names of families
ADULTS, GENDERS, JOINER = {"1f468", "1f469"}, {"2640", "2642"}, "200d"


def prepare(folder: Path, cache: Path) -> dict[str, dict[str, int]]:
    """Write ``folder/{train,val,test}/GT/<code points>.png`` and ``folder/classes.json``; the number of images a class.

    Raises:
        InputError: npm is not there, or the packages cannot be fetched.
    """
    images = sorted((fetch(PACKAGES["images"], cache) / "assets").glob("*.webp"))
    groups = json.loads((fetch(PACKAGES["groups"], cache) / "data-by-emoji.json").read_text())
    by_code = {"-".join(f"{ord(c):04x}" for c in emoji): entry["group"] for emoji, entry in groups.items()}
    by_code = {bare(code): group for code, group in by_code.items()}
    pictures = {path.stem: read(path) for path in images}
    families = join_near_duplicates(pictures)
    counts: dict[str, dict[str, int]] = {}
    classes: dict[str, str] = {}
    for code, picture in pictures.items():
        group = by_code.get(bare(code)) or by_code.get(without_tone(code)) or ""
        classes[code] = CLASSES.get(group, OTHER)
        split = split_of(families[code])
        target = folder / split / "GT" / f"{code}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(target)
        counts.setdefault(split, Counter())[classes[code]] += 1
    write_json(dict(sorted(classes.items())), folder / "classes.json")
    return counts


def fetch(package: str, cache: Path) -> Path:
    """The unpacked folder of an npm package, fetched when it is not in ``cache``."""
    target = cache / package.replace("@", "_").replace("/", "_")
    if not (target / "package").is_dir():
        target.mkdir(parents=True, exist_ok=True)
        try:
            done = subprocess.run(
                ["npm", "pack", package, "--silent"], cwd=target, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f"{package} cannot be fetched with npm ({error}). Install npm, or fill {target}."
            ) from error
        with tarfile.open(target / done.stdout.strip().splitlines()[-1]) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def read(path: Path) -> np.ndarray:
    """An image on the background, reduced: (64, 64, 3) uint8."""
    return imresize(on_background(path), size=(SIZE, SIZE))


def on_background(path: Path) -> np.ndarray:
    """A 256x256 RGBA image on the background: (256, 256, 3) uint8."""
    rgba = np.asarray(Image.open(path).convert("RGBA"), np.float32)
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + BACKGROUND * (1 - alpha)).astype(np.uint8)


def bare(code: str) -> str:
    """Code points without those that choose the coloured form.

    >>> bare("0023-fe0f-20e3")
    '0023-20e3'
    """
    return "-".join(f"{int(part, 16):04x}" for part in code.split("-") if part != VARIATION_SELECTOR)


def without_tone(code: str) -> str:
    """
    >>> without_tone("1f44b-1f3fb")
    '1f44b'
    """
    return "-".join(part for part in bare(code).split("-") if part not in SKIN_TONES)


def family_name(code: str) -> str:
    """What variants by skin tone and gender have in common.

    >>> family_name("1f3c4-1f3fb-200d-2640-fe0f"), family_name("1f469-200d-1f33e")
    ('1f3c4', '1f9d1-1f33e')
    """
    parts = [part for part in without_tone(code).split("-") if part not in {*GENDERS, JOINER}]
    return "-".join(PERSON if part in ADULTS else part for part in parts)


def join_near_duplicates(pictures: dict[str, np.ndarray]) -> dict[str, str]:
    """Code -> a name for its family: variants by skin tone or gender, and pictures that look alike."""
    codes = list(pictures)
    thumbnails = np.stack([imresize(pictures[code], size=(THUMBNAIL, THUMBNAIL)).astype(np.int16) for code in codes])
    flat = thumbnails.reshape(len(codes), -1)  # (M, 3 * 16 * 16)
    mirrored = thumbnails[:, :, ::-1].reshape(len(codes), -1)
    parent = {code: code for code in codes}

    def find(code: str) -> str:
        while parent[code] != code:
            parent[code] = parent[parent[code]]
            code = parent[code]
        return code

    first: dict[str, str] = {}
    for i, code in enumerate(codes):
        parent[find(code)] = find(first.setdefault(family_name(code), code))
        for other in flat, mirrored:
            near = np.flatnonzero(np.abs(other[i + 1 :] - flat[i]).mean(axis=1) < NEAR_DUPLICATE) + i + 1
            for j in near:
                parent[find(codes[j])] = find(code)
    return {code: family_name(find(code)) for code in codes}


def split_of(family: str) -> str:
    """The same for the same family, whatever else there is."""
    place = int(hashlib.sha256(family.encode()).hexdigest()[:8], 16) / 2**32
    for split, share in SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/emoji"))
    parser.add_argument("--cache", type=Path, default=Path("data/npm"))
    args = parser.parse_args()
    for split, classes in prepare(args.out, args.cache).items():
        Console().print(f"{split}: {sum(classes.values())} images: {dict(sorted(classes.items()))}")


if __name__ == "__main__":
    cli.run(main)
