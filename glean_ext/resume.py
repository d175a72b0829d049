"""Checkpoints that survive a crash: written whole or not at all, verified before training goes on from one."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.fileio import LocalBackend

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.files import atomic_path

logger = logging.getLogger(__name__)


class AtomicBackend(LocalBackend):
    """mmengine's local files, written under a temporary name, brought to the disk and renamed.

    ``CheckpointHook(backend_args=dict(backend='atomic'))`` saves through it.

    Raises:
        InputError: The file cannot be written (disk full, no rights); a file of the same name is as it was.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        with atomic_path(filepath) as partial, partial.open("wb") as file:
            file.write(obj)
            file.flush()
            os.fsync(file.fileno())


def newest_whole_checkpoint(work_dir: str | os.PathLike) -> Path | None:
    """The newest training checkpoint of ``work_dir`` that is whole; damaged ones are named in the log.

    Returns:
        None when there is no checkpoint at all.

    Raises:
        InputError: There are checkpoints, but none of them is whole.
    """
    found = {
        int(m[1]): path for path in Path(work_dir).glob("iter_*.pth") if (m := re.match(r"iter_(\d+)$", path.stem))
    }
    damage: list[str] = []
    for _, path in sorted(found.items(), reverse=True):
        reason = _what_is_wrong(path)
        if reason is None:
            for line in damage:
                logger.warning("skipped %s", line)
            return path
        damage.append(f"{path} ({reason})")
    if damage:
        raise InputError(
            f"{work_dir}: no checkpoint can be resumed: {'; '.join(damage)}. Start anew in another work dir."
        )
    return None


def _what_is_wrong(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:  # compares every CRC
                return f"{member} is damaged"
        content = checkpoints.read_torch(path)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"truncated or damaged: {error}"
    except InputError as error:
        return str(error)
    missing = {"meta", "state_dict", "optimizer", "message_hub"} - content.keys()
    return f"it holds no {', '.join(sorted(missing))}" if missing else None
