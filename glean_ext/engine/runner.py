"""Training and testing through mmengine's runner."""

from __future__ import annotations

import copy
import os
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch import nn

from glean_ext import checkpoints
from glean_ext.engine.checkpoint_resume import ResumedSettingsHook, newest_whole_checkpoint
from glean_ext.engine.hooks.bank import AdaptiveAugmentationHook
from glean_ext.engine.hooks.checkpoint import PlainKeysHook, RandomStateHook
from glean_ext.engine.hooks.guards import NaNGuardHook, SkippedFilesHook
from glean_ext.engine.unwrap import unwrap
from glean_ext.errors import InputError

PLUGIN = "glean_ext.plugin"  # imported by name, as a config does: it stands above this module
NOT_REGISTERED = re.compile(r"(?P<name>\S+) is not in the \S+::(?P<kind>.+?) registry")
AMP_WRAPPERS = ("MixedPrecisionOptimWrapper", "AmpOptimWrapper")
AVERAGE_KEYS = ("steps",)  # what mmengine's averages of weights save besides them
ALWAYS = (  # hooks of every training
    PlainKeysHook,
    RandomStateHook,
    ResumedSettingsHook,
    NaNGuardHook,
    SkippedFilesHook,
    AdaptiveAugmentationHook,
)


@contextmanager
def config_mistakes_as_input_errors() -> Iterator[None]:
    """Turn what a wrong config makes mmengine, or a constructor that it calls, raise into an InputError.

    Only what is raised while something is built from the config counts; anything else passes.
    """
    try:
        yield
    except InputError as error:
        raise InputError(_message(error)) from error
    except FileNotFoundError as error:
        raise InputError(f"{_message(error).rstrip('.')}. Correct the path in the config.") from error
    except (TypeError, ValueError, AssertionError, AttributeError, KeyError, NotImplementedError) as error:
        built = _what_was_built(error)
        if not built:
            raise
        raise InputError(f"config: {_explain(error, built)}") from error


def _message(error: Exception) -> str:
    """The message of an error. The text of one from a data worker is a whole traceback that ends with the message."""
    text = str(error).strip()
    return re.sub(r"^[\w.]+Error: ", "", text.splitlines()[-1]) if "Traceback (most recent call last)" in text else text


def _what_was_built(error: Exception) -> str:
    """What mmengine was building when it came to ``error``: a type named in the config, or a setting of the runner."""
    built = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == "mmengine.registry.build_functions":
            cfg = frame.f_locals.get("cfg")
            kind = cfg.get("type") if isinstance(cfg, dict) else None
            built = str(getattr(kind, "__name__", kind) or built or "type")
        elif module == "mmengine.runner.runner" and function.startswith("build_"):
            built = function.removeprefix("build_")
        elif module == "mmengine.runner.runner" and function == "from_cfg":
            built = "runner"
    return built


def _explain(error: Exception, built: str) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if unknown := NOT_REGISTERED.match(text):
        return (
            f"there is no {unknown['kind']} {unknown['name']!r}. Correct the type, or name the module that has it in "
            "custom_imports."
        )
    named = text.startswith(built) or f"{built}." in text.split("(")[0]
    return f"{text[:300]} (in {built})" if not named else text[:300]


def import_plugins(cfg: Config) -> None:
    """Import this package's plug-in and what the config's ``custom_imports`` names.

    Raises:
        InputError: A module that is not there.
    """
    custom = cfg.get("custom_imports", None) or {"imports": None}
    try:
        import_modules_from_strings(PLUGIN)
        import_modules_from_strings(**custom)
    except (ImportError, TypeError) as error:
        raise InputError(f"config: custom_imports: {error}. Correct it, or install what is missing.") from error


def use_mixed_precision(cfg: Config, dtype: str = "bfloat16") -> None:
    """Give every optimiser of ``cfg`` the mixed-precision wrapper.

    Raises:
        InputError: It has another wrapper, or there is none.
    """
    wrappers = {k: v for k, v in (cfg.get("optim_wrapper") or {}).items() if isinstance(v, dict) and "optimizer" in v}
    for name, wrapper in wrappers.items():
        kind = wrapper.get("type", "OptimWrapper")
        if kind == "OptimWrapper":
            wrapper.update(type="MixedPrecisionOptimWrapper", dtype=dtype)
        elif kind not in AMP_WRAPPERS:
            raise InputError(f"--amp: optim_wrapper.{name} is a {kind}, which has no mixed precision. Remove its type.")
    if not wrappers:
        raise InputError("--amp: the config has no optim_wrapper=dict(generator=dict(optimizer=...), ...). Add it.")


def scale_learning_rates(cfg: Config) -> None:
    """Let mmengine scale the learning rates by the real batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        InputError: The config does not say what batch size its learning rates are for.
    """
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise InputError(
            "--auto-scale-lr: the config has no auto_scale_lr=dict(base_batch_size=...), the batch size of all GPUs "
            "together that its learning rates are for. Add it."
        )
    cfg.auto_scale_lr.enable = True


def train(cfg: Config, hooks: Sequence[Hook] = ()) -> Runner:
    """Train as ``cfg`` says; with ``cfg.resume``, from ``cfg.load_from`` or ``cfg.work_dir``'s newest whole checkpoint.

    ``hooks`` come on top of those of the config.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    cfg = copy.deepcopy(cfg)
    _require(cfg, "train_dataloader", "train_cfg", "optim_wrapper")
    import_plugins(cfg)
    _check_optimizers(cfg)
    _check_processes(cfg)
    _distribute_on_cpus(cfg)
    if cfg.get("resume") and not cfg.get("load_from"):
        newest = newest_whole_checkpoint(cfg.work_dir)
        cfg.load_from = str(newest) if newest else None
    with config_mistakes_as_input_errors():
        runner = Runner.from_cfg(cfg)
        for hook in [*(kind() for kind in ALWAYS), *hooks]:
            runner.register_hook(hook)
        if cfg.get("load_from"):
            check_checkpoint(runner.model, cfg.load_from)
        runner.train()
    return runner


def _require(cfg: Config, *settings: str) -> None:
    missing = [name for name in settings if not cfg.get(name)]
    if missing:
        raise InputError(f"config: it has no {', '.join(missing)}. Add it; configs/_base_ has examples.")


def _check_processes(cfg: Config) -> None:
    """Refuse what mmengine's launchers tell as ``KeyError: 'RANK'`` and CUDA as an invalid device."""
    launcher = cfg.get("launcher")
    for name, sign, start in (("pytorch", "RANK", "bash tools/dist_train.sh"), ("slurm", "SLURM_PROCID", "srun")):
        if launcher == name and sign not in os.environ:
            raise InputError(
                f"--launcher {name}: this process was not started so. Start it by {start}, or leave it out."
            )
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if launcher == "pytorch" and torch.cuda.is_available() and here > gpus:
        raise InputError(f"{here} processes were started on this machine, but it has {gpus} GPUs. Start {gpus}.")


def _distribute_on_cpus(cfg: Config) -> None:
    """Let processes on a machine without GPU talk through gloo; mmengine's launcher needs GPUs."""
    if cfg.get("launcher") != "pytorch" or torch.cuda.is_available() or not torch.distributed.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    cfg.setdefault("model_wrapper_cfg", {"type": "MMSeparateDistributedDataParallel"})
    cfg.model_wrapper_cfg.device_ids = None


def _check_optimizers(cfg: Config) -> None:
    """Drop the discriminator's optimiser where there is no discriminator; refuse unknown optimisers.

    mmengine tells both as ``None is not a callable object`` and the like.
    """
    from mmagic.registry import OPTIMIZERS

    if not cfg.model.get("discriminator"):
        for setting in "optim_wrapper", "param_scheduler":
            if isinstance(cfg.get(setting), dict):
                cfg[setting].pop("discriminator", None)
    for name, wrapper in cfg.optim_wrapper.items():
        kind = wrapper.get("optimizer", {}).get("type") if isinstance(wrapper, dict) else None
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            raise InputError(f"config: optim_wrapper.{name}: there is no optimizer {kind!r}. Correct the type.")


def check_checkpoint(model: nn.Module, source: str) -> None:
    """Refuse to start from a checkpoint that holds a network of ``model`` only in part; mmengine would just warn.

    Raises:
        InputError: The file cannot be read, has nothing of the generator, or does not fit one of the networks.
    """
    state = checkpoints.read(source)
    for name, part in unwrap(model).named_children():
        if name == "generator" or any(key.startswith(f"{name}.") for key in state):
            network = part.module if isinstance(part, BaseAveragedModel) else unwrap(part)
            checkpoints.load_strict(network, checkpoints.with_prefix(state, name, source), source, AVERAGE_KEYS)


def test(cfg: Config, checkpoint: str | Path) -> dict[str, float]:
    """The metrics of ``cfg.test_evaluator`` over ``cfg.test_dataloader``, with the weights of ``checkpoint``.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    cfg = copy.deepcopy(cfg)
    _require(cfg, "test_dataloader", "test_cfg", "test_evaluator")
    for key in "discriminator", "gan_loss", "perceptual_loss":  # only training needs them
        cfg.model.pop(key, None)
    for key in "train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler":
        cfg.pop(key, None)
    for key in "val_cfg", "val_dataloader", "val_evaluator", "load_from", "resume":
        cfg.pop(key, None)
    import_plugins(cfg)
    _check_processes(cfg)
    _distribute_on_cpus(cfg)
    with config_mistakes_as_input_errors():
        runner = Runner.from_cfg(cfg)
        checkpoints.load_network_weights(unwrap(unwrap(runner.model).get_submodule("generator")), checkpoint)
        keep = _KeepMetrics()
        runner.register_hook(keep)
        runner.test()
        return {name: float(value) for name, value in keep.metrics.items()}


class _KeepMetrics(Hook):
    """Keeps the metrics of a test, which MMagic's ``MultiTestLoop`` logs but does not return."""

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.metrics = metrics or {}
