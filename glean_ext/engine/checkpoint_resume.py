"""Checkpoints that survive a crash: written whole or not at all, and verified before a run resumes from one."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.fileio import LocalBackend
from mmengine.runner import Runner

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path

logger = logging.getLogger(__name__)

REQUIRED_PARTS = {"meta", "state_dict", "optimizer", "message_hub"}  # of a checkpoint that a run resumes from


class AtomicBackend(LocalBackend):
    """mmengine's local files, each written under a temporary name, flushed to the disk and then renamed.

    ``CheckpointHook(backend_args=dict(backend='atomic'))`` saves through it.

    Raises:
        InputError: The file cannot be written (disk full, no rights); an earlier file of that name is unchanged.
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
    damaged: list[str] = []
    for _, path in sorted(found.items(), reverse=True):
        fault = find_fault(path)
        if fault is None:
            for line in damaged:
                logger.warning("skipped %s", line)
            return path
        damaged.append(f"{path} ({fault})")
    if damaged:
        raise InputError(
            f"{work_dir}: no checkpoint can be resumed: {'; '.join(damaged)}.",
            parameter="work_dir",
            hint="Start again with another {work_dir}.",
        )
    return None


def find_fault(path: Path) -> str | None:
    """Why a run cannot resume from the checkpoint ``path``; None for a whole training checkpoint."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (member := archive.testzip()) is not None:  # compares every checksum
                return f"{member} is damaged"
        content = checkpoints.read_torch(path)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f"truncated or damaged: {error}"
    except InputError as error:
        return str(error)
    missing = REQUIRED_PARTS - content.keys()
    return f"it holds no {', '.join(sorted(missing))}" if missing else None


def images_per_iteration(runner: Runner) -> int:
    """The batch of all processes together."""
    return runner.train_dataloader.batch_size * get_world_size()
