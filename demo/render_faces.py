"""The demo's images: cartoon faces of 64x64 pixels, rendered from Python packages without a network.

The drawings are the style "ToonHead" by Johan Melin (CC BY 4.0, a remix by DiceBear), cropped to the head, on one of
two flat backgrounds. The same seed gives the same image. The packages are the extra ``glean-ext[demo]``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib import resources
from pathlib import Path

from PIL import Image

from glean_ext.utils.files import atomic_path, write_json
from glean_ext.utils.progress import ProgressBar

SIZE = 64
RENDER_SIZE = 3 * SIZE  # of the whole drawing; the head takes about two thirds of it
CROP_LEFT, CROP_TOP, CROP_SIZE = 32, 21, 2 * SIZE  # pixels of RENDER_SIZE
DRAWING_SIZE = 768  # units of the drawing: four in a pixel
BACKGROUNDS = ["b6d7f4", "f4dcc2"]
TRAIN_IMAGES, TEST_IMAGES = 5000, 200
MANIFEST = "manifest.json"


@cache
def _style():
    from dicebear import Style

    return Style(json.loads((resources.files("dicebear_styles") / "toon-head.json").read_text()))


def avatar(seed: str):
    """The drawing of ``seed``, a ``dicebear.Avatar``; its options say which eyes, mouth and hair it has."""
    return make_avatar({"seed": seed, "backgroundColor": BACKGROUNDS})


def make_avatar(options: dict):
    """The drawing with these options of dicebear."""
    from dicebear import Avatar

    return Avatar(_style(), options)


def render_face(seed: str) -> Image.Image:
    """The face of ``seed``: RGB, 64x64."""
    return render(avatar(seed))


def render(drawing) -> Image.Image:
    """The head of a drawing: RGB, 64x64."""
    return rasterize(drawing.to_string())


def rasterize(svg: str, size: int = SIZE) -> Image.Image:
    """The head of a drawing as SVG: RGB, of ``size`` pixels a side."""
    import resvg_py

    whole = f'viewBox="0 0 {DRAWING_SIZE} {DRAWING_SIZE}"'
    unit = DRAWING_SIZE // RENDER_SIZE
    head = f'viewBox="{CROP_LEFT * unit} {CROP_TOP * unit} {CROP_SIZE * unit} {CROP_SIZE * unit}"'
    before, found, after = svg.partition(whole)
    assert found, "the drawing has another size"
    png = bytes(
        resvg_py.svg_to_bytes(svg_string=before + head + after, width=2 * size, height=2 * size, skip_system_fonts=True)
    )
    return Image.open(io.BytesIO(png)).convert("RGB").resize((size, size), Image.Resampling.BOX)


def _render_png(seed: str) -> bytes:
    stream = io.BytesIO()
    render_face(seed).save(stream, "PNG")
    return stream.getvalue()


def make_demo_data(root: Path, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> None:
    """Render ``root/train/GT`` and ``root/test/GT``; no two images are equal.

    Held-out images are rendered first, so they do not depend on the number of training images. A finished folder is
    left unchanged; an unfinished one is completed.
    """
    recipe = {"train": train, "test": test, "size": SIZE, "backgrounds": BACKGROUNDS}
    recipe |= {"style": "ToonHead by Johan Melin, CC BY 4.0", "crop": [CROP_LEFT, CROP_TOP, CROP_SIZE, RENDER_SIZE]}
    manifest = root / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text()) == recipe:
        return
    with ProgressBar() as bar, ProcessPoolExecutor(os.cpu_count()) as pool:
        task = bar.add_task("rendering faces", total=train + test)
        seen: set[str] = set()
        for split, count in ("test", test), ("train", train):
            folder = root / split / "GT"
            written = 0
            batch = min(count, 256)
            for start in range(0, 10 * count, batch or 1):
                seeds = [f"{split}-{i}" for i in range(start, start + batch)]
                for png in pool.map(_render_png, seeds, chunksize=8):
                    digest = hashlib.sha256(png).hexdigest()
                    if digest in seen or written == count:
                        continue
                    seen.add(digest)
                    with atomic_path(folder / f"{written:05d}.png") as partial:
                        partial.write_bytes(png)
                    written += 1
                    bar.advance(task)
                if written == count:
                    break
    write_json(recipe, manifest)
