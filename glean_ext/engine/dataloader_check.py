"""Mistakes in the dataloaders of a config, found before training starts, and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from glean_ext.errors import InputError
from glean_ext.utils.class_sources import ClassSources, signature

DATALOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
ENDLESS_SAMPLERS = ("ResumableSampler", "InfiniteSampler")
MMENGINE_KEYS = frozenset({"num_batch_per_epoch"})
SET_BY_BATCH_SAMPLER = ("batch_size", "drop_last", "shuffle", "sampler")
# Settings of loading processes, and the value each has without them.
OF_PROCESSES = {"persistent_workers": False, "prefetch_factor": None, "timeout": 0, "multiprocessing_context": None}


def check_dataloader(cfg: Mapping) -> None:
    """Check ``train_dataloader``, ``val_dataloader`` and ``test_dataloader`` of a config, where they are set.

    Raises:
        InputError: torch or mmengine would refuse one of them, or validation would never end.
    """
    for name in DATALOADERS:
        loaders = cfg.get(name) or []
        for loader in loaders if isinstance(loaders, Sequence) else [loaders]:
            if isinstance(loader, Mapping):
                _check(name, loader)
            elif not hasattr(loader, "dataset"):  # as a DataLoader has, which is built already
                raise InputError(f"{name} is {loader!r}, but it must be dict(batch_size=..., dataset=dict(...), ...).")


def _check(name: str, loader: Mapping) -> None:
    for key in loader:
        if key not in _settings():
            raise InputError(f"{name}.{key}: dataloaders have no such setting. Correct it, or leave it out.")
    if not loader.get("dataset"):
        raise InputError(f"{name} has no dataset. Set {name}.dataset=dict(type='SRFolderDataset', ...).")
    _check_batches(name, loader)
    workers = loader.get("num_workers", 0)
    if not _is_whole(workers, least=0):
        raise InputError(f"{name}.num_workers is {workers!r}, but it must be a whole number, 0 or more.")
    if workers:
        factor = loader.get("prefetch_factor")
        if factor is not None and not _is_whole(factor, least=1):
            raise InputError(f"{name}.prefetch_factor is {factor!r}, but it must be a whole number, 1 or more.")
        return
    for key, without in OF_PROCESSES.items():
        if loader.get(key, without) not in (without, None):
            raise InputError(
                f"{name}.{key}={loader[key]!r} needs loading processes, but {name}.num_workers is 0. Set "
                f"{name}.{key}={without!r}, or {name}.num_workers=1 or more."
            )


@cache
def _settings() -> frozenset[str]:
    """What torch's DataLoader takes, and mmengine takes out before."""
    takes = signature("DataLoader", [ClassSources.of_package("torch", "utils/data")])
    assert takes is not None
    return MMENGINE_KEYS | set(takes.annotations)


def _check_batches(name: str, loader: Mapping) -> None:
    if loader.get("batch_sampler") is not None:
        for key in SET_BY_BATCH_SAMPLER:
            if loader.get(key) not in (None, False) and (key, loader[key]) != ("batch_size", 1):
                raise InputError(f"{name}.{key}: {name}.batch_sampler decides that. Leave one of them out.")
        return
    if "batch_size" not in loader or not _is_whole(loader["batch_size"], least=1):
        raise InputError(
            f"{name}.batch_size is {loader.get('batch_size')!r}, but it must be a whole number, 1 or more."
        )
    sampler = loader.get("sampler")
    if sampler is None:
        raise InputError(f"{name} has no sampler. Set {name}.sampler=dict(type='DefaultSampler', shuffle=False).")
    if loader.get("shuffle"):
        raise InputError(f"{name}.shuffle: the sampler shuffles. Set {name}.sampler.shuffle=True instead.")
    kind = sampler.get("type") if isinstance(sampler, Mapping) else None
    if name != DATALOADERS[0] and kind in ENDLESS_SAMPLERS:
        raise InputError(
            f"{name}.sampler is {kind}, which never ends. Set {name}.sampler=dict(type='DefaultSampler', "
            "shuffle=False)."
        )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
