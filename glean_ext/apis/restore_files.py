"""Restoring files: one image, or each image of a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from glean_ext.apis.outputs import plan_outputs
from glean_ext.apis.restore import Restorer
from glean_ext.apis.sizes import SizePolicy
from glean_ext.errors import InputError
from glean_ext.images import read_rgb, write_png

SHOWN = 8  # failed files that the last error names before it counts the rest


def restore_path(
    config: str | os.PathLike,
    checkpoint: str | os.PathLike,
    source: str | os.PathLike,
    output: str | os.PathLike,
    device: str | None = None,
    size_policy: SizePolicy | str = "auto",
    cfg_options: Sequence[str] = (),
) -> None:
    """Restore a file or each image of a folder, and write PNG.

    A bad file in a folder does not stop the others. What was left out, changed or failed is printed.

    Args:
        config: See :class:`Restorer`; so are ``checkpoint``, ``device``, ``size_policy`` and ``cfg_options``.
        source: An image or a folder of images.
        output: A .png for an image, or a folder, which is made when it is not there.

    Raises:
        InputError: Something given cannot be used, or images failed.
    """
    source, output = Path(source), Path(output)
    pairs, others = plan_outputs(source, output)
    console = Console(soft_wrap=True, markup=False, highlight=False, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failures: dict[Path, InputError] = {}
    alone = not source.is_dir()
    with Progress(*columns, console=console, transient=alone, disable=alone and not console.is_terminal) as progress:
        images = progress.add_task("restoring", total=len(pairs), visible=not alone)
        tiles = progress.add_task("tiles", visible=False)

        def on_tile(done: int, total: int) -> None:
            if done == 1:
                progress.reset(tiles, total=total)
            progress.update(tiles, completed=done, visible=1 < total != done)

        restorer = Restorer(config, checkpoint, device, size_policy, cfg_options, console.print, on_tile)
        if others:
            console.print(f"left out, no images: {', '.join(path.name for path in others)}")
        for image, target in pairs:
            try:
                write_png(restorer.restore(read_rgb(image), str(image)), target)
            except InputError as error:
                if alone:
                    raise
                failures[image] = error
            progress.advance(images)
    if failures:
        for reason in failures.values():
            console.print(f"failed: {reason}")
        names = [path.name for path in failures]
        rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(
            f"{len(failures)} of {len(pairs)} images in {source} failed ({', '.join(names[:SHOWN])}{rest}); why is "
            f"said above. The others are in {output}."
        )
