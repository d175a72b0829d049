"""Reports the damaged files that training skips."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner


class SkippedFilesHook(Hook):
    """Counts the damaged files that ``unreadable='skip'`` replaced; warns of each once."""

    def before_train(self, runner: Runner) -> None:
        self.files: set[str] = set()
        self.times = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: object = None
    ) -> None:
        for sample in (data_batch or {}).get("data_samples", ()):
            for path in sample.metainfo.get("skipped", ()):
                self.times += 1
                if path not in self.files:
                    self.files.add(path)
                    runner.logger.warning(f"{path} is damaged and was skipped.")

    def after_train(self, runner: Runner) -> None:
        if self.files:
            runner.logger.warning(f"{len(self.files)} damaged files were skipped, {self.times} times in all.")
