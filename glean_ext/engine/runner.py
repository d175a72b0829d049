"""Training and testing through mmengine's runner."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from torch import nn

from glean_ext import checkpoints
from glean_ext.engine import config_checks
from glean_ext.engine.checkpoint_resume import newest_whole_checkpoint
from glean_ext.engine.config_errors import config_mistakes_as_input_errors, import_plugins
from glean_ext.engine.dataloader_check import check_dataloader
from glean_ext.engine.distribution import check_processes, use_gloo_on_cpus
from glean_ext.engine.hooks.adaptive_augmentation_hook import AdaptiveAugmentationHook
from glean_ext.engine.hooks.evaluation_check_hook import EvaluationCheckHook
from glean_ext.engine.hooks.nan_guard_hook import NaNGuardHook
from glean_ext.engine.hooks.plain_keys_hook import PlainKeysHook
from glean_ext.engine.hooks.progress_bar_hook import ProgressBarHook
from glean_ext.engine.hooks.random_state_hook import RandomStateHook
from glean_ext.engine.hooks.resumed_settings_hook import ResumedSettingsHook
from glean_ext.engine.hooks.skipped_files_hook import SkippedFilesHook
from glean_ext.engine.hooks.start_summary_hook import StartSummaryHook
from glean_ext.engine.terminal_log import only_logged, use_terminal_handler
from glean_ext.engine.unwrap import unwrap
from glean_ext.errors import InputError
from glean_ext.networks.discriminators import require_batch
from glean_ext.utils.weight_files import is_safetensors, local_path

logger = logging.getLogger(__name__)

DEFAULT_HOOKS = (  # of every training, besides those of mmengine and of the config
    PlainKeysHook,
    RandomStateHook,
    ResumedSettingsHook,
    NaNGuardHook,
    SkippedFilesHook,
    AdaptiveAugmentationHook,
    EvaluationCheckHook,
    StartSummaryHook,
)


class QuietRunner(Runner):
    """mmengine's runner, which leaves to the log file what tells a user nothing; see :mod:`.terminal_log`."""

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> object:
        """As mmengine's, which prints what :func:`check_checkpoint` has checked."""
        with only_logged(self.logger):
            return super().load_checkpoint(*args, **kwargs)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """As mmengine's."""
        logger = super().build_logger(*args, **kwargs)
        use_terminal_handler(logger)
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                logger.info(f"The config, the environment and the list of hooks are in {handler.baseFilename}.")
        return logger


class TrainingRunner(QuietRunner):
    """mmengine's runner, in which every process adds its state to a checkpoint.

    mmengine saves in the first process only, and calls the hooks' ``before_save_checkpoint`` there. Hooks with a
    method ``gather_state(runner)`` are called in all processes before that.
    """

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As mmengine's."""
        self.call_hook("gather_state")
        super().save_checkpoint(*args, **kwargs)


def train(cfg: Config, hooks: Sequence[Hook] = (), progress: bool = True) -> Runner:
    """Train as ``cfg`` says; with ``cfg.resume``, from ``cfg.load_from`` or ``cfg.work_dir``'s newest whole checkpoint.

    ``hooks`` are added to those of the config. The config is checked before anything is built.
    ``progress`` shows a bar.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    cfg = copy.deepcopy(cfg)
    config_checks.require(cfg, "train_dataloader", "train_cfg", "optim_wrapper")
    import_plugins(cfg)
    config_checks.check_training(cfg)
    _drop_unused_optimizers(cfg)
    check_processes(cfg)
    use_gloo_on_cpus(cfg)
    config_checks.make_work_dir(cfg)
    if cfg.get("resume") and not cfg.get("load_from"):
        newest = newest_whole_checkpoint(cfg.work_dir)
        cfg.load_from = str(newest) if newest else None
    if cfg.get("load_from"):
        cfg.load_from = str(local_path(cfg.load_from))  # mmengine would download it to a folder of its own
    with config_mistakes_as_input_errors():
        runner = TrainingRunner.from_cfg(cfg)
        for hook in [*(kind() for kind in DEFAULT_HOOKS), *hooks]:
            runner.register_hook(hook)
        if progress and not any(isinstance(hook, ProgressBarHook) for hook in runner.hooks):
            runner.register_hook(ProgressBarHook())
        if (discriminator := getattr(unwrap(runner.model), "discriminator", None)) is not None:
            require_batch(discriminator, cfg.train_dataloader.get("batch_size", 1))
        if cfg.get("load_from"):
            check_checkpoint(runner.model, cfg.load_from)
        runner.train()
    return runner


def _drop_unused_optimizers(cfg: Config) -> None:
    """Drop the discriminator's optimiser and schedule where there is no discriminator; mmengine would fail."""
    if not cfg.model.get("discriminator"):
        for setting in "optim_wrapper", "param_scheduler":
            if isinstance(cfg.get(setting), dict):
                cfg[setting].pop("discriminator", None)


def check_checkpoint(model: nn.Module, source: str) -> None:
    """Refuse to start from a checkpoint that holds a network of ``model`` only in part; mmengine would just warn.

    Raises:
        InputError: The file cannot be read, has nothing of the generator, or does not fit one of the networks.
    """
    if is_safetensors(Path(source)):
        raise InputError(
            f"{source} is a safetensors file, but training starts from what torch.save writes: a training checkpoint.",
            parameter="load_from",
            hint="Give one as {load_from}.",
        )
    state = checkpoints.read(source)
    for name, part in unwrap(model).named_children():
        network = part.module if isinstance(part, BaseAveragedModel) else unwrap(part)
        if name == "generator" or any(key.startswith(f"{name}.") for key in state):
            checkpoints.load_strict(
                network, checkpoints.with_prefix(state, name, source), source, checkpoints.UNUSED_BANK_KEYS
            )
        elif any(parameter.requires_grad for parameter in network.parameters()):
            logger.warning("%s has no %s, which keeps its initial weights", source, name)


def test(cfg: Config, checkpoint: str | Path) -> dict[str, float]:
    """The metrics of ``cfg.test_evaluator`` over ``cfg.test_dataloader``, with the weights of ``checkpoint``.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    cfg = copy.deepcopy(cfg)
    config_checks.require(cfg, "test_dataloader", "test_cfg", "test_evaluator")
    for key in "discriminator", "gan_loss", "perceptual_loss":  # only training needs them
        cfg.model.pop(key, None)
    for key in "train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler":
        cfg.pop(key, None)
    for key in "val_cfg", "val_dataloader", "val_evaluator", "load_from", "resume":
        cfg.pop(key, None)
    import_plugins(cfg)
    check_dataloader(cfg)
    check_processes(cfg)
    use_gloo_on_cpus(cfg)
    config_checks.make_work_dir(cfg)
    with config_mistakes_as_input_errors():
        runner = QuietRunner.from_cfg(cfg)
        checkpoints.load_network_weights(unwrap(unwrap(runner.model).get_submodule("generator")), checkpoint)
        keep = _KeepMetrics()
        for hook in keep, EvaluationCheckHook(), StartSummaryHook(), ProgressBarHook():
            runner.register_hook(hook)
        runner.test()
        return {name: float(value) for name, value in keep.metrics.items()}


class _KeepMetrics(Hook):
    """Keeps the metrics of a test, which MMagic's ``MultiTestLoop`` logs but does not return."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = metrics or {}
