"""Checkpoints that survive a crash: written whole or not at all, verified before training goes on from one."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path

logger = logging.getLogger(__name__)

# What schedules and optimisers save besides their settings.
NO_SETTINGS = {
    "last_step",
    "_global_step",
    "_last_value",
    "base_values",
    "verbose",
    "params",
    "param_name",
    "optimizer",
}


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


class ResumedSettingsHook(Hook):
    """Says what a resumed run takes from the checkpoint though the config has it otherwise.

    mmengine restores the schedule of the learning rates, where it ends included, and the settings of the optimisers.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        kept = [
            *_kept_settings(_by_name(runner.param_schedulers), _by_name(checkpoint.get("param_schedulers"))),
            *_kept_settings(_param_groups(runner.optim_wrapper.state_dict()), _param_groups(checkpoint["optimizer"])),
        ]
        if kept:
            runner.logger.warning(
                f"The settings of the checkpoint stay, those of the config do not count: {', '.join(kept)}. "
                "For others start from the weights, without --resume: load_from=<checkpoint>."
            )
        before, now = checkpoint.get("random_states", {}).get("batch"), images_an_iteration(runner)
        if before and before != now:
            runner.logger.warning(
                f"An iteration had {before} images and has {now} from here on: the learning rates were for {before}, "
                "and the run goes on at another place of the data."
            )


def images_an_iteration(runner: Runner) -> int:
    """The batch of all processes together."""
    return runner.train_dataloader.batch_size * get_world_size()


def _by_name(schedulers: dict | list | None) -> dict[str, dict]:
    """Schedulers, or what was saved of them, by a name for each."""
    lists = schedulers if isinstance(schedulers, dict) else {"": schedulers or []}
    return {
        f"{name} schedule".strip() + (f" {k + 1}" if k else ""): one if isinstance(one, dict) else vars(one)
        for name, all_of_it in lists.items()
        for k, one in enumerate(all_of_it)
    }


def _param_groups(state: dict) -> dict[str, dict]:
    """The settings of the first group of each optimiser's parameters; of the rate what it began with."""
    states = {"": state} if "param_groups" in state else state
    groups = {name: one["param_groups"][0] for name, one in states.items() if "param_groups" in one}
    return {
        f"{name} optimizer".strip(): {**group, "lr": group.get("initial_lr", group["lr"]), "initial_lr": None}
        for name, group in groups.items()
    }


def _kept_settings(wanted: dict[str, dict], saved: dict[str, dict]) -> list[str]:
    return [
        f"{name} {key} {saved[name][key]} instead of {value}"
        for name, settings in wanted.items()
        for key, value in settings.items()
        if name in saved and key in saved[name] and key not in NO_SETTINGS and saved[name][key] != value
    ]
