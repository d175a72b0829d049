"""Saves checkpoints; an old one is deleted only when its successor is on the disk."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from glean_ext import checkpoints
from glean_ext.compat import is_resuming
from glean_ext.utils.files import remove_leftovers


class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook of the same name, with the same arguments, that is safe when the disk is full or the run killed.

    mmengine deletes the best checkpoint, and the oldest one, before it writes the next: a full disk or a kill at that
    moment leaves none. Here the old one is deleted after that, so the disk needs space for one more. A checkpoint names
    the files that are deleted after it, so that a run which is killed before that deletes them when it is resumed.

    mmengine notes a new best checkpoint in the one of the same iteration, by writing that again. A run that is killed
    between the two takes over the best checkpoint when it is resumed.
    """

    file_backend: Any
    out_dir: str
    _superseded: Sequence[str] = ()  # files that the interrupted run was about to delete
    _resumed = False
    _saved = ""  # when the checkpoint that the run is resumed from was

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if isinstance(backend := getattr(self, "file_backend", None), DeferredRemoval):
            checkpoint["superseded"] = list(backend.files)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if is_resuming(runner):
            self._superseded = checkpoint.get("superseded", ())
            self._resumed = True
            self._saved = checkpoint["meta"].get("time", "")

    def before_train(self, runner: Runner) -> None:
        """As mmengine's; also deletes partial and old checkpoints, which a killed run leaves."""
        super().before_train(runner)
        if isinstance(self.file_backend, LocalBackend):
            if is_main_process():
                remove_leftovers(Path(self.out_dir), ".pth")
            if self._resumed:
                self._take_over_best(runner)
        self.file_backend = DeferredRemoval(self.file_backend)
        if is_main_process():
            with self._save_then_remove():
                for path in map(str, self._superseded):
                    if Path(path).parent == Path(self.out_dir):  # else the file is another run's
                        self.file_backend.remove(path)

    def _take_over_best(self, runner: Runner) -> None:
        """Note the best checkpoints of the iteration that the run is resumed from, if not those of an earlier run."""
        step = runner.epoch if self.by_epoch else runner.iter
        for path in sorted(Path(self.out_dir).glob(f"best_*_{glob.escape(self.filename_tmpl.format(step))}")):
            if str(path) in self._best_paths():
                continue
            content = checkpoints.read_torch(path)
            if content["meta"].get("time", "") < self._saved:  # the best one is written after the other
                continue
            values = content["message_hub"]["runtime_info"]
            for name in [
                name for name in values if name.startswith("best_ckpt") and Path(values[name]).name == path.name
            ]:
                score = name.replace("best_ckpt", "best_score")
                runner.message_hub.update_info(name, str(path))
                runner.message_hub.update_info(score, values[score])
                if metric := name.removeprefix("best_ckpt").removeprefix("_"):
                    self.best_ckpt_path_dict[metric] = str(path)
                else:
                    self.best_ckpt_path = str(path)
                self._superseded = [*self._superseded, *content.get("superseded", ())]

    def _best_paths(self) -> set[str | None]:
        return {getattr(self, "best_ckpt_path", None), *getattr(self, "best_ckpt_path_dict", {}).values()}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: object = None
    ) -> None:
        with self._save_then_remove():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        with self._save_then_remove():
            super().after_train_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float]) -> None:
        with self._save_then_remove():
            super().after_val_epoch(runner, metrics)

    @contextmanager
    def _save_then_remove(self) -> Iterator[None]:
        yield
        backend = getattr(self, "file_backend", None)  # a validation without training has none
        if isinstance(backend, DeferredRemoval):
            backend.remove_now(keep={self.last_ckpt, *self._best_paths()})


class DeferredRemoval:
    """A storage backend of mmengine that does not remove files until :meth:`remove_now` is called.

    Args:
        backend: Does everything else.

    Attributes:
        files: What is to be removed.
        folders: Likewise.
    """

    def __init__(self, backend: Any):
        self.backend = backend
        self.files: list[str] = []
        self.folders: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, filepath: str) -> None:
        self.files.append(filepath)

    def rmtree(self, dir_path: str) -> None:
        self.folders.append(dir_path)

    def remove_now(self, keep: set[str | None]) -> None:
        """Remove what was to be removed, except for ``keep``: paths that have been written again since."""
        files, self.files = self.files, []
        folders, self.folders = self.folders, []
        for path in files:
            if path not in keep and self.backend.isfile(path):
                self.backend.remove(path)
        for path in folders:
            if path not in keep and self.backend.isdir(path):
                self.backend.rmtree(path)
