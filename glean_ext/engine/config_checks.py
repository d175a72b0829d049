"""Checks of a config before anything is built from it: what would only show after hours, or as a riddle.

Importing this module, and :func:`check_settings`, need no torch, so that a front end can check first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine import Config

from glean_ext.engine.dataloader_check import check_dataloader
from glean_ext.errors import InputError
from glean_ext.network_settings import require_adversarial, require_bank_source, require_pretrained
from glean_ext.utils.argument_checks import require_names
from glean_ext.utils.class_sources import Signature
from glean_ext.utils.files import nearest_folder


@dataclass(frozen=True)
class Kind:
    """A kind of number that a setting takes.

    Args:
        whole: Without fractions.
        least: The smallest value.
        above: Values are larger than ``least``, not equal to it.
    """

    whole: bool = True
    least: float = 1
    above: bool = False
    infinite: bool = False  # inf is a value

    def accepts(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            return False
        if math.isinf(value) and not self.infinite:
            return False
        if self.whole and value % 1:
            return False
        return value > self.least if self.above else value >= self.least

    def __str__(self) -> str:
        name = "a whole number" if self.whole else "a number"
        if self.least == -math.inf:
            return name
        return f"{name} above {self.least:g}" if self.above else f"{name} of at least {self.least:g}"


COUNT = Kind()
COUNT_OR_ZERO = Kind(least=0)
COUNT_OR_NEVER = Kind(least=-1)  # mmengine's -1
WEIGHT = Kind(whole=False, least=0)
POSITIVE = Kind(whole=False, least=0, above=True)
LIMIT = Kind(whole=False, least=0, above=True, infinite=True)
ANY = Kind(whole=False, least=-math.inf)

# Settings and what they take; * is any name or position. None is always allowed: it means that something is not used.
NUMBERS = {
    "train_cfg.max_iters": COUNT,
    "train_cfg.val_interval": COUNT,
    "train_cfg.val_begin": COUNT_OR_ZERO,
    "train_dataloader.dataset.scale": COUNT,
    "val_dataloader.dataset.scale": COUNT,
    "test_dataloader.dataset.scale": COUNT,
    "model.pixel_loss.loss_weight": WEIGHT,
    "model.gan_loss.loss_weight": WEIGHT,
    "model.gan_loss.real_label_val": ANY,
    "model.gan_loss.fake_label_val": ANY,
    "model.perceptual_loss.perceptual_weight": WEIGHT,
    "model.perceptual_loss.style_weight": WEIGHT,
    "model.perceptual_loss.loss_weight": WEIGHT,
    "model.identity_loss.loss_weight": WEIGHT,
    "model.label_weight": WEIGHT,
    "model.adversarial_from": COUNT_OR_ZERO,
    "model.data_preprocessor.std.*": POSITIVE,
    "model.pyramid_weight": WEIGHT,
    "model.pyramid_iters": COUNT_OR_ZERO,
    "model.r1_gamma": WEIGHT,
    "model.r1_interval": COUNT,
    "model.train_cfg.disc_steps": COUNT,
    "model.train_cfg.disc_repeat": COUNT,
    "model.train_cfg.disc_init_steps": COUNT_OR_ZERO,
    "model.discriminator.mbstd_cfg.*": COUNT,
    "optim_wrapper.accumulative_counts": COUNT,
    "optim_wrapper.optimizer.lr": POSITIVE,
    "optim_wrapper.*.accumulative_counts": COUNT,
    "optim_wrapper.*.optimizer.lr": POSITIVE,
    "optim_wrapper.clip_grad.max_norm": LIMIT,
    "optim_wrapper.clip_grad.clip_value": LIMIT,
    "optim_wrapper.*.clip_grad.max_norm": LIMIT,
    "optim_wrapper.*.clip_grad.clip_value": LIMIT,
    "param_scheduler.T_max": COUNT,
    "param_scheduler.*.T_max": COUNT,
    "param_scheduler.*.*.T_max": COUNT,
    "default_hooks.logger.interval": COUNT,
    "default_hooks.checkpoint.interval": COUNT_OR_NEVER,
    "default_hooks.checkpoint.max_keep_ckpts": COUNT_OR_NEVER,
    "custom_hooks.*.interval": COUNT_OR_NEVER,
    "auto_scale_lr.base_batch_size": COUNT,
    "log_processor.window_size": COUNT,
}
# What ``clip_grad`` takes besides ``type``: arguments of torch.nn.utils.clip_grad_norm_ and clip_grad_value_.
CLIPPING = {
    "norm": Signature(
        dict.fromkeys(("max_norm", "norm_type", "error_if_nonfinite", "foreach"), ""), frozenset({"max_norm"})
    ),
    "value": Signature(dict.fromkeys(("clip_value", "foreach"), ""), frozenset({"clip_value"})),
}
RESTORERS = ("GLEAN", "GLEANColorizer")
CHOICES = {
    "model.gan_loss.gan_type": ("vanilla", "lsgan", "smgan", "wgan", "hinge", "l1"),
    "model.pixel_loss.reduction": ("none", "mean", "sum"),
}
# Whether a greater or a lower value of a metric is better.
RULES = {
    **dict.fromkeys(("PSNR", "SSIM", "MultiScaleSSIM", "SNR", "LR_PSNR", "Identity"), "greater"),
    **dict.fromkeys(("MAE", "MSE", "SAD", "LPIPS", "FID", "NIQE", "LR_MAE", "Identity_distance"), "less"),
}
SECTIONS = (
    "model",
    "train_cfg",
    "train_dataloader",
    "optim_wrapper",
    "default_hooks",
    "env_cfg",
    "randomness",
)  # dicts
LISTS = ("custom_hooks", "val_evaluator", "test_evaluator", "param_scheduler")  # of dicts, or one dict


def require(cfg: Config, *settings: str) -> None:
    """Raise InputError for settings that are not in the config."""
    missing = [name for name in settings if not cfg.get(name)]
    if missing:
        raise InputError(f"config: it has no {', '.join(missing)}. Add it; configs/_base_ has examples.")


def check_training(cfg: Config) -> None:
    """Check a config for training.

    Raises:
        InputError: The first mistake.
    """
    check_settings(cfg)
    _check_optimizers(cfg)


def check_settings(cfg: Config) -> None:
    """The part of :func:`check_training` that needs no torch.

    Raises:
        InputError: The first mistake.
    """
    check_sections(cfg)
    _refuse_strategies(cfg)
    _check_numbers(cfg)
    _check_choices(cfg)
    _check_clipping(cfg)
    _check_start(cfg)
    _check_checkpoint_hook(cfg)
    _check_best(cfg)
    if cfg.model.get("type") in RESTORERS:
        require_adversarial(cfg.model)
        require_bank_source(cfg.model.generator)
        if init_cfg := (cfg.model.get("discriminator") or {}).get("init_cfg"):
            require_pretrained(init_cfg)
    check_dataloader(cfg)
    _check_schedules(cfg)


def _refuse_strategies(cfg: Config) -> None:
    """mmengine's strategies shard one model whose ``forward`` trains it, by one optimizer; ours have several."""
    given = next((name for name in ("strategy", "runner_type") if cfg.get(name)), None)
    if given is not None:
        raise InputError(
            f"config: {given} asks for mmengine's FlexibleRunner (FSDP, DeepSpeed), which cannot train a generator and "
            "a discriminator. Remove it: several GPUs train through DDP, see tools/dist_train.sh."
        )


def require_writable_work_dir(cfg: Config) -> Path:
    """The folder for logs and checkpoints, or of the folders it will be made in the one that exists.

    Raises:
        InputError: It is a file, or may not be written to.
    """
    folder, writable = nearest_folder(Path(cfg.work_dir))
    if not writable:
        raise InputError(
            f"{cfg.work_dir} cannot be made a folder: {folder} is a file, or cannot be written to.",
            parameter="work_dir",
            hint="Choose another {work_dir}.",
        )
    return folder


def make_work_dir(cfg: Config) -> None:
    """Make the folder for logs and checkpoints.

    Raises:
        InputError: It is not set, or cannot be made.
    """
    require(cfg, "work_dir")
    try:
        Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{cfg.work_dir} cannot be made a folder ({error.strerror}).",
            parameter="work_dir",
            hint="Choose another {work_dir}.",
        ) from error


def check_sections(cfg: Config) -> None:
    """Raise InputError for a part of the config that is no dict, or no list of dicts."""
    for name in SECTIONS:
        if cfg.get(name) is not None and not isinstance(cfg[name], Mapping):
            raise InputError(f"config: {name} is {cfg[name]!r}, but it must be a dict. configs/_base_ has examples.")
    for name in LISTS:
        items = cfg.get(name)
        for item in items if isinstance(items, Sequence) and not isinstance(items, str) else [items]:
            if isinstance(item, (str, int, float)):  # objects are built already
                raise InputError(f"config: {name} has {item!r}, but it must be a dict. configs/_base_ has examples.")


def _check_numbers(cfg: Config) -> None:
    for pattern, kind in NUMBERS.items():
        for name, value in find_settings(cfg.to_dict(), pattern.split(".")):
            if value is not None and not kind.accepts(value):
                raise InputError(f"config: {name} is {value!r}, but it must be {kind}. Correct it.")


def _check_choices(cfg: Config) -> None:
    for pattern, choices in CHOICES.items():
        for name, value in find_settings(cfg.to_dict(), pattern.split(".")):
            if value not in choices:
                raise InputError(
                    f"config: {name} is {value!r}, but it must be one of {', '.join(choices)}. Correct it."
                )


def _check_start(cfg: Config) -> None:
    for name, kind, what in ("load_from", str, "a path or URL"), ("resume", bool, "True or False"):
        if (value := cfg.get(name)) is not None and not isinstance(value, kind):
            raise InputError(f"config: {name} is {value!r}, but it must be {what}. Correct it.")


def _check_clipping(cfg: Config) -> None:
    """Refuse settings of ``clip_grad`` that PyTorch's functions do not have, which the first step would find."""
    for pattern in "optim_wrapper.clip_grad", "optim_wrapper.*.clip_grad":
        for name, given in find_settings(cfg.to_dict(), pattern.split(".")):
            if not isinstance(given, Mapping):
                continue  # mmengine says what it must be
            known = CLIPPING.get(given.get("type", "norm"))
            if known is None:
                raise InputError(f"config: {name}.type is {given['type']!r}, but it must be one of norm, value.")
            require_names(f"config: {name}", {key: value for key, value in given.items() if key != "type"}, known)


def checkpoint_hook(cfg: Config) -> Mapping | None:
    """The settings of the hook that saves checkpoints; None without one."""
    hook = (cfg.get("default_hooks") or {}).get("checkpoint")
    return hook if isinstance(hook, Mapping) else None


def _check_checkpoint_hook(cfg: Config) -> None:
    """Refuse a hook that counts epochs, which saves nothing before the end, and a folder that cannot be written to."""
    hook = checkpoint_hook(cfg)
    if hook is None:
        return
    if "max_iters" in (cfg.get("train_cfg") or {}) and hook.get("by_epoch", True):
        raise InputError(
            "config: default_hooks.checkpoint counts epochs, but training counts iterations, so nothing would be saved "
            "before its end. Set default_hooks.checkpoint.by_epoch=False."
        )
    folder = hook.get("out_dir")
    if isinstance(folder, str) and "://" not in folder and not nearest_folder(Path(folder))[1]:
        raise InputError(
            f"config: default_hooks.checkpoint.out_dir is {folder}, where nothing can be written. Choose another "
            "folder."
        )


def _check_best(cfg: Config) -> None:
    """Check the rule of the best checkpoint, where one is given for one metric."""
    hook = checkpoint_hook(cfg) or {}
    if isinstance(best := hook.get("save_best"), str) and isinstance(rule := hook.get("rule"), str):
        check_rule(best, rule)


def check_rule(metric: str, rule: str) -> None:
    """Raise InputError where a rule of a metric keeps the worst checkpoint."""
    better = RULES.get(metric.split("/")[-1], rule)
    if rule != better:
        adjective = "lower" if better == "less" else "greater"
        raise InputError(
            f"config: default_hooks.checkpoint.rule is {rule!r}, but a {adjective} {metric} is better. Set "
            f"default_hooks.checkpoint.rule={better!r}."
        )


def find_settings(content: Any, pattern: list[str], path: tuple[str, ...] = ()) -> Iterator[tuple[str, object]]:
    """The settings that a pattern of :data:`NUMBERS` names, and their values."""
    if not pattern:
        yield ".".join(path), content
        return
    first, *rest = pattern
    if isinstance(content, Mapping):
        items = [(str(key), value) for key, value in content.items()]
    elif isinstance(content, list):
        items = [(str(index), value) for index, value in enumerate(content)]
    else:
        items = []
    for key, value in items:
        if first in ("*", key):
            yield from find_settings(value, rest, (*path, key))


def _check_optimizers(cfg: Config) -> None:
    """Refuse unknown optimisers, of which mmengine would say ``None is not a callable object``."""
    from mmagic.registry import OPTIMIZERS

    for name, wrapper in cfg.optim_wrapper.items():
        if name == "discriminator" and not cfg.model.get("discriminator"):
            continue  # not used
        kind = wrapper.get("optimizer", {}).get("type") if isinstance(wrapper, dict) else None
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            raise InputError(f"config: optim_wrapper.{name}: there is no optimizer {kind!r}. Correct the type.")


def _check_schedules(cfg: Config) -> None:
    """Refuse schedules that count epochs: a training by iterations is one epoch, so the rate would never change."""
    if "max_iters" not in (cfg.get("train_cfg") or {}):
        return
    for pattern in "param_scheduler", "param_scheduler.*", "param_scheduler.*.*":
        for name, scheduler in find_settings(cfg.to_dict(), pattern.split(".")):
            if not isinstance(scheduler, Mapping) or "type" not in scheduler:
                continue
            if scheduler.get("by_epoch", True) and not scheduler.get("convert_to_iter_based"):
                raise InputError(
                    f"config: {name} counts epochs, but training counts iterations, so the learning rate would never "
                    f"change. Set {name}.by_epoch=False."
                )
