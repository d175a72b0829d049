"""Which file is written for which image."""

from __future__ import annotations

from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.images import image_files


def plan_outputs(source: Path, output: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Which file is written for which image, and what of a folder is left out. Names are kept, with .png.

    Where two images of a folder differ in their extension only, all outputs keep theirs: ``a.jpg.png``.

    Raises:
        InputError: There is no such source, the output is of the wrong kind, or an input would be overwritten.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder. Give an image or a folder of images.")
    if not source.is_dir():
        target = output / f"{source.stem}.png" if output.is_dir() or not output.suffix else output
        if target.suffix.lower() != ".png":
            raise InputError(f"{output}: images are written as PNG. Name it {output.with_suffix('.png')}.")
        if target.exists() and target.samefile(source):
            raise InputError(f"{target} is the input and would be overwritten. Give another output.")
        return [(source, target)], []
    if output.is_file() or (output.suffix.lower() == ".png" and not output.exists()):
        raise InputError(f"{output} is a file, but {source} is a folder. Give a folder as output.")
    if output.exists() and output.samefile(source):
        raise InputError(f"{output} is the input folder. Give another folder as output.")
    images, others = image_files(source)
    unique = len({path.stem.lower() for path in images}) == len(images)
    return [(path, output / f"{path.stem if unique else path.name}.png") for path in images], others
