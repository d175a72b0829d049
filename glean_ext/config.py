"""Reading config files without importing MMagic; every mistake in them becomes an error of one line."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from glean_ext.errors import InputError, first_line
from glean_ext.network_settings import LABEL, require_arguments
from glean_ext.utils.files import expand_home
from glean_ext.utils.temporary_folder import temporary_folder_errors

HOME = Path(__file__).parent / ".mim"  # where OpenMMLab's tools look for the configs and metafiles of a package
# Settings of mmengine's runner that a config may leave out and ``cfg_options`` may add.
RUNNER_KEYS = {
    "auto_scale_lr", "custom_hooks", "custom_imports", "data_preprocessor", "default_hooks", "default_scope",
    "env_cfg", "experiment_name", "launcher", "load_from", "log_level", "log_processor", "model", "optim_wrapper",
    "param_scheduler", "randomness", "resume", "test_cfg", "test_dataloader", "test_evaluator", "train_cfg",
    "train_dataloader", "val_cfg", "val_dataloader", "val_evaluator", "visualizer", "work_dir",
}  # fmt: skip

DICT = re.compile(
    r"\bdict\(|(^|[\[(,])\s*\{\s*(\}\s*$|['\"][^'\"]*['\"]\s*:|\w+\s*:\s)"
)  # the beginning of a dict in the value of an option


def load_config(path: str | os.PathLike, cfg_options: Sequence[str] | None = None) -> Config:
    """Read a config, change it by ``cfg_options``, and check that it has a network.

    Modules that the config's ``custom_imports`` names are not imported. ``~/`` and ``~user/`` at the beginning of texts
    are home folders.

    Args:
        path: A .py, .yaml or .json config, or the name of a shipped one; see :func:`find_config`.
        cfg_options: ``key=value`` strings, or None; a key is a path such as ``model.generator.in_size``.

    Raises:
        InputError: The file or one of its bases is missing or cannot be run, an option is malformed, there is no
            ``model.generator``, or it has a setting that its network lacks.
    """
    path = find_config(path)
    try:
        with temporary_folder_errors():
            config = Config.fromfile(path, import_custom_modules=False)
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = error.filename or first_line(error)
        raise InputError(f"{path}: a file that it names is missing ({missing}). Correct its _base_.") from error
    except Exception as error:  # a config is Python code: anything may happen in it
        raise InputError(
            f"{path} cannot be read: {type(error).__name__}: {first_line(error, keys=True)}. Correct it."
        ) from error
    merge_options(config, cfg_options)
    try:
        for key in config:
            config[key] = _at_home(config[key])
    except InputError as error:
        raise error.about(str(path)) from error
    require_arguments(generator_config(config, path))
    return config


def _at_home(value: Any) -> Any:
    """A value of a config in whose texts ``~/`` and ``~user/`` are home folders; dicts are changed in place."""
    if isinstance(value, str):
        return expand_home(value) if value.startswith("~") and ("/" in value or value == "~") else value
    if isinstance(value, dict):
        for key, item in list(dict.items(value)):  # ConfigDict's own method would import what it names
            if isinstance(item, str | dict | list | tuple):
                value[key] = _at_home(item)
    return type(value)(map(_at_home, value)) if type(value) in (list, tuple) else value


def find_config(path: str | os.PathLike) -> Path:
    """A config file; where there is none of that name, the config of that name that this package ships.

    So ``glean_x16_ffhq``, ``glean_x16_ffhq.py`` and ``configs/glean_x16_ffhq.py`` are found from every folder.

    Raises:
        InputError: There is neither.
    """
    path = Path(expand_home(path))
    if path.is_file():
        return path
    shipped = HOME / "configs" / (path.relative_to("configs") if path.is_relative_to("configs") else path)
    for candidate in shipped, shipped.with_name(f"{shipped.name}.py"):
        if not path.is_absolute() and candidate.is_file():
            return candidate
    raise InputError(f"{path}: there is no such file. Give the path of a config.")


def load_run_config(
    path: str | os.PathLike,
    cfg_options: Sequence[str] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
    local_rank: int = 0,
) -> Config:
    """The config of a run of mmengine's runner.

    Args:
        path: As for :func:`load_config`.
        cfg_options: As for :func:`load_config`.
        work_dir: Where logs and checkpoints go; None: where the config says, or ``work_dirs/<name of the config>``.
        launcher: What started the processes of the run: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        local_rank: The number of this process on its machine, unless the environment has it as ``LOCAL_RANK``.

    Raises:
        InputError: As :func:`load_config`.
    """
    os.environ.setdefault("LOCAL_RANK", str(local_rank))
    config = load_config(path, cfg_options)
    config.launcher = launcher
    config.work_dir = work_dir or config.get("work_dir") or str(Path("work_dirs") / Path(path).stem)
    return config


def with_options(config: Mapping, cfg_options: Sequence[str]) -> Mapping:
    """The ``model`` of a config that is given as a dict, changed by ``key=value`` options; the dict stays as it is.

    Raises:
        InputError: As :func:`merge_options`.
    """
    if not cfg_options:
        return config
    changed = Config({"model": config["model"]} if "model" in config else {})  # a copy
    merge_options(changed, cfg_options)
    return changed.to_dict()


def merge_options(config: Config, cfg_options: Sequence[str] | None) -> None:
    """Change ``config`` by ``key=value`` options, which are parsed as MMagic's tools do.

    Raises:
        InputError: An option without '=' or with an unreadable value, a key that is no setting of the config or of
            the runner, or one that goes through a value that is not a dict.
    """
    if not cfg_options:
        return
    labels: dict[str, str] = {}
    others: list[str] = []
    for option in cfg_options:
        key, equals, value = option.partition("=")
        if key == LABEL and equals:
            labels[key] = value
            continue
        others.append(option)
        if not (equals and all(key.split("."))):
            raise _bad_option(option, "it must be key=value, e.g. model.generator.in_size=64.")
        if key.split(".")[0] not in config and key.split(".")[0] not in RUNNER_KEYS:
            raise _bad_option(option, f"the config has no {key.split('.')[0]!r}. Correct the key.")
        if DICT.search(value):  # mmengine would take it for a text, or parse it without end
            raise _bad_option(option, f"a value cannot be a dict. Give its settings one by one: {key}.<name>=<value>.")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="*", action=DictAction)
    try:
        config.merge_from_dict(parser.parse_args(["--cfg-options", *others]).cfg_options | labels)
    except RecursionError as error:
        raise _bad_option(" ".join(others), "a text with a comma in brackets cannot be given here.") from error
    except (AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad_option(" ".join(others), first_line(error, keys=True)) from error


def _bad_option(option: str, problem: str) -> InputError:
    return InputError(f"{{cfg_options}} {option}: {problem}", parameter="cfg_options")


def generator_config(config: Mapping, source: object) -> ConfigDict:
    """``model.generator``, the network's type and arguments.

    Raises:
        InputError: It is not there, or no dict.
    """
    model = config.get("model")
    generator = model.get("generator") if isinstance(model, Mapping) else None
    if not isinstance(generator, Mapping) or "type" not in generator:
        raise InputError(
            f"{source} has no model.generator = dict(type='GLEANStyleGANv2', ...). Add it, or take another config."
        )
    return generator
