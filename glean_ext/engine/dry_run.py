"""``tools/train.py --dry-run``: everything that a long job needs, checked in a minute."""

from __future__ import annotations

import copy
import resource
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from glean_ext.engine.runner import config_mistakes_as_input_errors, train, unwrap
from glean_ext.errors import InputError
from glean_ext.utils.image_io import read_rgb

STEPS = 2  # the first one also warms up, the second is timed
SECONDS_READING = 10  # images are read for that long


def dry_run(cfg: Config) -> None:
    """Build all that ``cfg`` names, read images, train two steps, validate one batch; print what it takes.

    Nothing is written to ``cfg.work_dir``.

    Raises:
        InputError: Whatever would stop the job: a mistake in the config, a missing or damaged file, a bank that does
            not fit, shapes that do not, a loss that is not finite, a disk too small for the checkpoints.
    """
    console, table = Console(), Table("dry run", "")
    with tempfile.TemporaryDirectory() as scratch:
        watch = _Watch()
        runner = _train_steps(cfg, scratch, watch)
        for split, dataset in ("training", runner.train_dataloader.dataset), ("validation", _validate(cfg, runner)):
            if dataset is not None:
                table.add_row(f"{split} images", f"{len(dataset)}, {_read(dataset)} of them read")
        checkpoint = Path(scratch, f"iter_{STEPS}.pth").stat().st_size

    net = unwrap(unwrap(runner.model).get_submodule("generator"))
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    init_cfg = cfg.model.generator.get("init_cfg") or {}
    lq, gt = watch.shapes
    if hasattr(net, "bank"):
        table.add_row("bank", f"{net.bank}, from {init_cfg.get('checkpoint', 'random weights')}")
    table.add_row("parameters", f"{sum(p.numel() for p in net.parameters()):,}, {trained:,} of them trained")
    table.add_row("a batch", f"{lq} -> {gt}")
    table.add_row("losses", ", ".join(f"{name} {value:.4g}" for name, value in watch.losses.items()))
    hours = watch.seconds * cfg.train_cfg.max_iters / 3600
    table.add_row("a step", f"{watch.seconds:.2f} s, {hours:.1f} h for {cfg.train_cfg.max_iters:,} of them")
    table.add_row("peak memory", watch.memory)
    table.add_row("checkpoints", _disk(cfg, checkpoint))
    console.print(table)


class _Watch(Hook):
    """What the steps take."""

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


def _train_steps(cfg: Config, scratch: str, watch: _Watch) -> Runner:
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume, cfg.log_level = scratch, False, "ERROR"
    cfg.experiment_name = Path(scratch).name  # mmengine keeps what belongs to a name, for the next run of that name
    cfg.train_cfg.max_iters = STEPS
    for key in "val_cfg", "val_dataloader", "val_evaluator", "test_cfg", "test_dataloader", "test_evaluator":
        cfg[key] = None
    cfg.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": STEPS, "by_epoch": False}
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks", ()) if hook["type"] != "ProgressBarHook"]
    return train(cfg, hooks=[watch])


@torch.no_grad()
def _validate(cfg: Config, runner: Runner) -> Sequence | None:
    """Restore one validation batch; returns the data set, None when the config has no validation."""
    if not cfg.get("val_dataloader"):
        return None
    with config_mistakes_as_input_errors():
        loader = runner.build_dataloader({**cfg.val_dataloader, "num_workers": 0, "persistent_workers": False})
        runner.build_evaluator(list(cfg.val_evaluator))
        runner.model.eval()
        runner.model.val_step(next(iter(loader)))
    return loader.dataset


def _read(dataset: Sequence) -> int:
    """Read images until the time is over; returns how many."""
    end = time.perf_counter() + SECONDS_READING
    for count in range(len(dataset)):
        if time.perf_counter() > end:
            return count
        info = dataset.get_data_info(count)  # type: ignore[attr-defined]
        for path in {value for key, value in info.items() if key.endswith("_path")}:
            read_rgb(path)
    return len(dataset)


def _disk(cfg: Config, size: int) -> str:
    place = Path(cfg.work_dir).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    kept = max(1, cfg.default_hooks.checkpoint.get("max_keep_ckpts", -1)) + 2  # the best one, and one being written
    if kept * size > free:
        raise InputError(
            f"{place} has {free / 1e9:.1f} GB left, but {kept} checkpoints of {size / 1e9:.2f} GB are kept there. "
            "Choose another --work-dir, or a smaller default_hooks.checkpoint.max_keep_ckpts."
        )
    return f"{kept} of {size / 1e6:.0f} MB, {free / 1e9:.1f} GB free in {place}"
