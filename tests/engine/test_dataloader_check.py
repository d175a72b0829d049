"""Mistakes in the dataloaders of a config, each in one line with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config

from glean_ext.engine.dataloader_check import check_dataloader
from glean_ext.errors import InputError

CONFIGS = Path(__file__).parents[2] / "configs"


def config(name: str = "train_dataloader", **changes: object) -> dict:
    loader = {"batch_size": 2, "num_workers": 1, "sampler": {"type": "DefaultSampler"}, "dataset": {"type": "X"}}
    return {name: {key: value for key, value in (loader | changes).items() if value != "left out"}}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_shipped_configs_are_right(path):
    check_dataloader(Config.fromfile(path, import_custom_modules=False))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_workers": 0, "persistent_workers": False, "timeout": 0, "prefetch_factor": None},
        {"persistent_workers": True, "prefetch_factor": 4, "timeout": 9, "multiprocessing_context": "spawn"},
        {"sampler": {"type": "ResumableSampler", "shuffle": True}, "pin_memory": True, "num_batch_per_epoch": 3},
        {"batch_sampler": {"type": "X"}, "sampler": "left out", "batch_size": "left out"},
    ],
)
def test_right_ones(changes):
    check_dataloader(config(**changes))
    check_dataloader({"train_dataloader": None})


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "train_dataloader",
            {"num_workers": 0, "persistent_workers": True},
            "train_dataloader.persistent_workers=True needs loading processes, but train_dataloader.num_workers is 0. "
            "Set train_dataloader.persistent_workers=False, or train_dataloader.num_workers=1 or more.",
        ),
        (
            "val_dataloader",
            {"num_workers": "left out", "prefetch_factor": 2},
            "val_dataloader.prefetch_factor=2 needs loading processes, but val_dataloader.num_workers is 0. Set "
            "val_dataloader.prefetch_factor=None, or val_dataloader.num_workers=1 or more.",
        ),
        (
            "train_dataloader",
            {"num_workers": 0, "timeout": 3},
            "train_dataloader.timeout=3 needs loading processes, but train_dataloader.num_workers is 0. Set "
            "train_dataloader.timeout=0, or train_dataloader.num_workers=1 or more.",
        ),
        (
            "test_dataloader",
            {"num_workers": 0, "multiprocessing_context": "spawn"},
            "test_dataloader.multiprocessing_context='spawn' needs loading processes, but test_dataloader.num_workers "
            "is 0. Set test_dataloader.multiprocessing_context=None, or test_dataloader.num_workers=1 or more.",
        ),
        (
            "train_dataloader",
            {"num_workers": -1},
            "train_dataloader.num_workers is -1, but it must be a whole number, 0 or more.",
        ),
        (
            "train_dataloader",
            {"num_workers": 1.0},
            "train_dataloader.num_workers is 1.0, but it must be a whole number, 0 or more.",
        ),
        (
            "train_dataloader",
            {"prefetch_factor": 0},
            "train_dataloader.prefetch_factor is 0, but it must be a whole number, 1 or more.",
        ),
        (
            "train_dataloader",
            {"batch_size": 0},
            "train_dataloader.batch_size is 0, but it must be a whole number, 1 or more.",
        ),
        (
            "train_dataloader",
            {"batch_size": "left out"},
            "train_dataloader.batch_size is None, but it must be a whole number, 1 or more.",
        ),
        (
            "train_dataloader",
            {"workers": 3},
            "train_dataloader.workers: dataloaders have no such setting. Correct it, or leave it out.",
        ),
        (
            "train_dataloader",
            {"dataset": "left out"},
            "train_dataloader has no dataset. Set train_dataloader.dataset=dict(type='SRFolderDataset', ...).",
        ),
        (
            "val_dataloader",
            {"sampler": "left out"},
            "val_dataloader has no sampler. Set val_dataloader.sampler=dict(type='DefaultSampler', shuffle=False).",
        ),
        (
            "train_dataloader",
            {"shuffle": True},
            "train_dataloader.shuffle: the sampler shuffles. Set train_dataloader.sampler.shuffle=True instead.",
        ),
        (
            "train_dataloader",
            {"batch_sampler": {"type": "X"}},
            "train_dataloader.batch_size: train_dataloader.batch_sampler decides that. Leave one of them out.",
        ),
        (
            "val_dataloader",
            {"sampler": {"type": "ResumableSampler"}},
            "val_dataloader.sampler is ResumableSampler, which never ends. Set "
            "val_dataloader.sampler=dict(type='DefaultSampler', shuffle=False).",
        ),
    ],
)
def test_mistakes(name, changes, message):
    with pytest.raises(InputError) as error:
        check_dataloader(config(name, **changes))
    assert str(error.value) == message


def test_every_loader_of_a_list_is_checked():
    right, wrong = config()["train_dataloader"], config(num_workers=0, timeout=1)["train_dataloader"]
    with pytest.raises(InputError, match=r"^test_dataloader.timeout=1 needs loading processes"):
        check_dataloader({"test_dataloader": [right, wrong]})
    with pytest.raises(InputError, match=r"^val_dataloader is 3, but it must be dict"):
        check_dataloader({"val_dataloader": 3})
