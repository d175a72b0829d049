"""What a command can check before it loads torch and MMagic, which takes seconds: files, names, options, packages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from glean_ext.config import find_config
from glean_ext.engine.config_arguments import FOR_TEST, FOR_TRAINING, check_arguments
from glean_ext.engine.config_checks import check_sections, check_settings, require, require_writable_work_dir
from glean_ext.engine.dataloader_check import check_dataloader
from glean_ext.errors import InputError
from glean_ext.utils.dataset_folders import list_images, require_folders
from glean_ext.utils.downloads import is_url
from glean_ext.utils.files import nearest_folder
from glean_ext.utils.tar_shards import list_shards
from glean_ext.utils.weight_files import ASSET_SCHEME, local_path, require_weights

FOR_RUNS = ("mmagic", "mmcv", "torchvision", "albumentations")  # what training and testing import
WEIGHTS = ("checkpoint", "pretrained")  # settings that name files of weights
DATASET, SHARDS = "SRFolderDataset", "SRShardDataset"
TORCHVISION = "torchvision://"


def check_training(cfg: Config) -> None:
    """Check what a config of a training names, the missing downloads last.

    Raises:
        InputError: A setting, folder or file is wrong or missing.
        ModuleNotFoundError: A package that training needs is not installed.
    """
    require(cfg, "train_dataloader", "train_cfg", "optim_wrapper")
    check_settings(cfg)
    require_writable_work_dir(cfg)
    require_packages(*FOR_RUNS)
    check_arguments(cfg, FOR_TRAINING)
    for name in "train_dataloader", "val_dataloader":
        _check_datasets(cfg.get(name))
    _require_weights([cfg.get("load_from"), *_weights(cfg.model), *_weights(cfg.get("val_evaluator"))])


def check_test(cfg: Config, checkpoint: str) -> None:
    """The same for a test of a checkpoint.

    Raises:
        InputError: As above.
        ModuleNotFoundError: As above.
    """
    require(cfg, "test_dataloader", "test_cfg", "test_evaluator")
    check_sections(cfg)
    check_dataloader(cfg)
    require_writable_work_dir(cfg)
    require_packages(*FOR_RUNS)
    check_arguments(cfg, FOR_TEST)
    _check_datasets(cfg.test_dataloader)
    _require_weights([checkpoint, *_weights(cfg.test_evaluator)])


def require_model(config: str, checkpoint: str) -> None:
    """Raise InputError where a config is missing, or weights are missing or no weights; nothing is downloaded."""
    find_config(config)
    require_weights(checkpoint)


def require_packages(*names: str) -> None:
    """Raise ModuleNotFoundError for the first package that is not installed; none is imported."""
    for name in names:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def require_output(out: str | os.PathLike) -> None:
    """Raise InputError where a file cannot be written: a folder has its name, or cannot be written to."""
    out = Path(out)
    if out.is_dir():
        raise InputError(f"{out} is a folder. Give the name of a file.")
    folder, writable = nearest_folder(out.absolute().parent)
    if not writable:
        raise InputError(
            f"{out} cannot be written: {folder} is no folder that may be written to. Choose another output."
        )


def _check_datasets(loaders: Any) -> None:
    for dataset in _dicts(loaders):
        if dataset.get("type") == DATASET and isinstance(prefix := dataset.get("data_prefix"), Mapping):
            root, names = dataset.get("data_root") or "", dataset.get("ann_file") or ""
            require_folders(root, prefix, names)
            if not names and not (folder := os.path.join(root, prefix.get("gt") or "")).endswith(".lmdb"):
                list_images(folder, bool(dataset.get("recursive")))
        if dataset.get("type") == SHARDS and dataset.get("shards"):
            list_shards(dataset["shards"])


def _weights(part: Any) -> Iterator[str]:
    """The files of weights that a part of a config names, each once."""
    found = (part.get(key) for part in _dicts(part) for key in WEIGHTS)
    yield from dict.fromkeys(source for source in found if isinstance(source, str))


def _require_weights(sources: list[str | None]) -> None:
    """Look for all files first, then download what is missing, then torchvision's weights, which need torch."""
    found = [source for source in sources if source]
    for source in sorted(found, key=is_url):
        if is_url(source) or source.startswith(ASSET_SCHEME) or "://" not in source:
            local_path(source)
    for source in found:
        if source.startswith(TORCHVISION) and (url := _torchvision_url(source.removeprefix(TORCHVISION))):
            local_path(url)


def _torchvision_url(network: str) -> str | None:
    """Where torchvision's weights are; None where it has no such network, which whoever builds it reports."""
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(network).IMAGENET1K_V1.url
    except (AttributeError, KeyError, ValueError):
        return None


def _dicts(content: Any) -> Iterator[Mapping]:
    """All dicts in a part of a config."""
    if isinstance(content, Mapping):
        yield content
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for value in content:
            yield from _dicts(value)
