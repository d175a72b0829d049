"""Take the photographs of ``restoring.md``: ``python docs/photos.py``. Look at each before it is committed."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.faces import DEMO, Identity, group_photo  # noqa: E402

from glean_ext.faces.alignment import align  # noqa: E402
from glean_ext.faces.detection import Face, FaceFinder  # noqa: E402
from glean_ext.faces.photo_restorer import PhotoRestorer  # noqa: E402
from glean_ext.inference.image_restorer import ImageRestorer  # noqa: E402
from glean_ext.utils.image_writer import write_picture  # noqa: E402
from glean_ext.utils.picture import Picture  # noqa: E402

GAP, CAPTION = 6, 20  # pixels

Tile = tuple[str, np.ndarray]


def sheet(rows: list[list[Tile]], height: int) -> np.ndarray:
    """(H, W, 3): captioned pictures in rows of a height, larger ones reduced."""
    return np.vstack([np.hstack([_captioned(caption, image, height) for caption, image in row]) for row in rows])


def _captioned(caption: str, image: np.ndarray, height: int) -> np.ndarray:
    width = round(height * image.shape[1] / image.shape[0])
    interpolation = cv2.INTER_AREA if height <= len(image) else cv2.INTER_NEAREST
    canvas = np.full((height + CAPTION + GAP, width + 2 * GAP, 3), 255, np.uint8)
    canvas[CAPTION : CAPTION + height, GAP : GAP + width] = cv2.resize(
        image, (width, height), interpolation=interpolation
    )
    drawing = Image.fromarray(canvas)
    ImageDraw.Draw(drawing).text((GAP, 2), caption, "black", ImageFont.load_default(14))
    return np.asarray(drawing)


def marked(photo: np.ndarray, faces: list[Face]) -> np.ndarray:
    """The photograph with the landmarks, the outline and the aligned square of each face."""
    out = photo.copy()
    for face in faces:
        for points, colour in (face.quad, (255, 220, 0)), (face.oval, (0, 255, 0)):
            cv2.polylines(out, [np.round(points).astype(np.int32)], True, colour, 2, cv2.LINE_AA)
        for x, y in face.landmarks:
            cv2.circle(out, (round(x), round(y)), 3, (255, 0, 0), -1)
    return out


def difference(image: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Ten times the difference, on gray."""
    return np.clip(128 + 10 * (image.astype(int) - photo), 0, 255).astype(np.uint8)


def main() -> None:
    finder = FaceFinder()
    demo = PhotoRestorer(ImageRestorer(*DEMO, device="cpu"), save_faces=True, finder=finder)
    identity = PhotoRestorer(Identity(512, 2), finder=finder)

    portrait = np.ascontiguousarray(data.astronaut()[:256, 100:356])
    result, same = demo.restore(portrait), identity.restore(portrait).image
    (face,) = result.faces
    rows = [
        [
            ("photograph", portrait),
            ("landmarks, outline, square", marked(portrait, [face.face])),
            ("aligned crop", align(portrait, face.face.quad, 256)),
            ("the model's input, 8x8", face.crop),
        ],
        [
            ("cartoon, colours matched", face.restored),
            ("pasted back with the hair", result.image),
            ("identity network, 512 -> 1024", same),
            ("its difference, x10", difference(same, portrait)),
        ],
    ]
    write_picture(Picture(sheet(rows, 256)), ROOT / "docs" / "photo_astronaut.png")

    group = group_photo()
    result, same = demo.restore(group), identity.restore(group).image
    row = [
        ("six faces found", marked(group, [item.face for item in result.faces])),
        ("restored by the cartoon model", result.image),
        ("identity network: difference from the photograph, x10", difference(same, group)),
    ]
    write_picture(Picture(sheet([row], 400)), ROOT / "docs" / "photo_group.png")


if __name__ == "__main__":
    main()
