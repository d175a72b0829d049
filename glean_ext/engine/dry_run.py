"""A dry run: everything that a long training needs, checked in a minute."""

from __future__ import annotations

import copy
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.compat import end_workers
from glean_ext.datasets.sr_transforms import read_image
from glean_ext.engine.config_checks import checkpoint_hook, require_writable_work_dir
from glean_ext.engine.config_errors import config_mistakes_as_input_errors
from glean_ext.engine.hooks.evaluation_check_hook import evaluations
from glean_ext.engine.hooks.start_summary_hook import describe_bank
from glean_ext.engine.runner import train
from glean_ext.engine.unwrap import unwrap
from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.temporary_folder import temporary_folder_errors

STEPS = 2  # the first one also warms up, the second is timed
READING_SECONDS = 10  # for the images of each data set


@dataclass
class ImageCount:
    """The images of data sets: how many there are, how many were read, and how many of these training skips."""

    total: int
    read: int = 0
    damaged: int = 0

    def __str__(self) -> str:
        skipped = f", {self.damaged} of these are damaged and skipped" if self.damaged else ""
        return f"{self.total}, {self.read} of them read{skipped}"


@dataclass(frozen=True)
class DryRunReport:
    """What a training takes."""

    images: dict[str, ImageCount]  # of 'training' and 'validation'
    bank: str | None  # what it is and where it comes from
    parameters: int
    trained_parameters: int
    batch: tuple[tuple[int, ...], tuple[int, ...]]  # shapes of the low-resolution images and of the ground truth
    losses: dict[str, float]  # of the last step
    step_seconds: float
    steps: int  # of the whole training
    peak_memory: str
    checkpoints: str  # how many, their size, and the space for them

    def rows(self) -> list[tuple[str, str]]:
        """The report as a table: a name and a text for each row."""
        rows = [(f"{name} images", str(count)) for name, count in self.images.items()]
        if self.bank:
            rows.append(("bank", self.bank))
        hours = self.step_seconds * self.steps / 3600
        return [
            *rows,
            ("parameters", f"{self.parameters:,}, {self.trained_parameters:,} of them trained"),
            ("a batch", f"{self.batch[0]} -> {self.batch[1]}"),
            ("losses", ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())),
            ("a step", f"{self.step_seconds:.2f} s, {hours:.1f} h for {self.steps:,} of them"),
            ("peak memory", self.peak_memory),
            ("checkpoints", self.checkpoints),
        ]


def dry_run(cfg: Config) -> DryRunReport:
    """Build everything that ``cfg`` names, read images, train two steps, and validate one batch.

    Nothing is written to ``cfg.work_dir``.

    Raises:
        InputError: Whatever would stop the training: a mistake in the config, a missing or damaged file, a bank that
            does not fit, shapes that do not match, a loss that is not finite, a disk too small for the checkpoints.
    """
    with temporary_folder_errors(), tempfile.TemporaryDirectory() as scratch:
        steps = _StepsHook()
        runner = _train_steps(cfg, scratch, steps)
        images = {"training": _read([runner.train_dataloader.dataset])}
        if validation := _validate(runner):
            images["validation"] = _read(validation)
        checkpoint_size = Path(scratch, f"iter_{STEPS}.pth").stat().st_size

    net = unwrap(unwrap(runner.model).get_submodule("generator"))
    return DryRunReport(
        images=images,
        bank=describe_bank(net, cfg),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        batch=steps.shapes,
        losses=steps.losses,
        step_seconds=steps.seconds,
        steps=int(cfg.train_cfg.max_iters),
        peak_memory=steps.memory,
        checkpoints=_disk(cfg, checkpoint_size),
    )


class _StepsHook(Hook):
    """Measures the training steps."""

    priority = "HIGHEST"  # so that what other hooks do after a step is not counted

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        inputs, samples = (data_batch or {})["inputs"], (data_batch or {})["data_samples"]
        self.shapes = (len(inputs), *inputs[0].shape), (len(samples), *samples[0].gt_img.shape)
        self.start = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        self.losses = {name: loss.item() for name, loss in (outputs or {}).items()}
        self.seconds = time.perf_counter() - self.start
        if torch.cuda.is_available():
            self.memory = f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB of the GPU"
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
            self.memory = f"{peak / 2**20:.2f} GiB"


def _train_steps(cfg: Config, scratch: str, steps: _StepsHook) -> Runner:
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume, cfg.log_level = scratch, False, "ERROR"
    cfg.experiment_name = Path(scratch).name  # a name of its own, since mmengine keeps loggers by this name
    cfg.train_cfg.max_iters = STEPS
    cfg.train_cfg.val_begin = STEPS + 1  # everything that a validation needs is built, but it is not run
    for key in "test_cfg", "test_dataloader", "test_evaluator":
        cfg[key] = None
    best = {key: (checkpoint_hook(cfg) or {}).get(key) for key in ("save_best", "rule")}
    saving = {"type": "CheckpointHook", "interval": STEPS, "by_epoch": False, **best}
    cfg.default_hooks = {**(cfg.get("default_hooks") or {}), "checkpoint": saving}
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks") or () if not _is_bar(hook)]
    return train(cfg, hooks=[steps], progress=False)


def _is_bar(hook: object) -> bool:
    return isinstance(hook, Mapping) and hook.get("type") == "ProgressBarHook"


@torch.no_grad()
def _validate(runner: Runner) -> list[Sequence]:
    """Restore one batch of each validation set and measure it; returns the data sets."""
    datasets: list[Sequence] = []
    runner.model.eval()
    for evaluator, loader in evaluations(runner.val_loop) if runner.val_loop else ():
        with config_mistakes_as_input_errors():
            batch = next(iter(loader))
            outputs = runner.model.val_step(batch)
            if hasattr(evaluator, "prepare_metrics"):  # MMagic's
                evaluator.prepare_metrics(unwrap(runner.model), loader)
                evaluator.process(data_samples=outputs, data_batch=batch, metrics=evaluator.metrics)
            else:
                evaluator.process(data_samples=outputs, data_batch=batch)
        end_workers(loader)
        datasets.append(loader.dataset)
    return datasets


def _read(datasets: Sequence) -> ImageCount:
    """Read images for :data:`READING_SECONDS`. Damaged ones are an error, except where the data set skips them."""
    end = time.perf_counter() + READING_SECONDS
    count = ImageCount(sum(map(len, datasets)))
    for dataset in datasets:
        for index in range(len(dataset)):
            if time.perf_counter() > end:
                return count
            info = dataset.get_data_info(index)
            try:
                for name in info:
                    if name.endswith("_path"):
                        read_image(info, name.removesuffix("_path"))
            except UnreadableImageError:
                if not getattr(dataset, "skips", False):
                    raise
                count.damaged += 1
            count.read += 1
    return count


def _disk(cfg: Config, size: int) -> str:
    folder = require_writable_work_dir(cfg)
    free = shutil.disk_usage(folder).free
    # Besides these: one that is being written, the best one, and its successor before the best one is deleted.
    kept = max(1, (checkpoint_hook(cfg) or {}).get("max_keep_ckpts", -1)) + 3
    if kept * size > free:
        raise InputError(
            f"{folder} has {free / 1e9:.1f} GB left, but {kept} checkpoints of {size / 1e9:.2f} GB are kept there.",
            parameter="work_dir",
            hint="Choose another {work_dir}, or a smaller default_hooks.checkpoint.max_keep_ckpts.",
        )
    return f"{kept} of {size / 1e6:.0f} MB, {free / 1e9:.1f} GB free in {folder}"
