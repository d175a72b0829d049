"""Several processes: the ways to start them, and gloo where there is no GPU."""

from __future__ import annotations

import os

import torch
from mmengine import Config

from glean_ext.errors import InputError

LAUNCHERS = (  # name, a variable of the environment that it sets, how it is called
    ("pytorch", "RANK", "bash tools/dist_train.sh"),
    ("slurm", "SLURM_PROCID", "srun"),
)


def check_processes(cfg: Config) -> None:
    """Refuse a launcher that did not start this process, and more processes than GPUs.

    mmengine would say ``KeyError: 'RANK'``, and CUDA name an invalid device.

    Raises:
        InputError: See above.
    """
    launcher = cfg.get("launcher")
    for name, variable, start in LAUNCHERS:
        if launcher == name and variable not in os.environ:
            raise InputError(
                f"{{launcher={name}}} is for processes that {start} starts, and it did not start this one.",
                parameter="launcher",
                hint=f"Start it by {start}, or leave {{launcher}} out.",
            )
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if launcher == "pytorch" and torch.cuda.is_available() and here > gpus:
        raise InputError(f"{here} processes were started on this machine, but it has {gpus} GPUs. Start {gpus}.")


def use_gloo_on_cpus(cfg: Config) -> None:
    """Let processes on a machine without GPU communicate through gloo; mmengine's launcher needs GPUs."""
    if cfg.get("launcher") != "pytorch" or torch.cuda.is_available() or not torch.distributed.is_available():
        return
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    cfg.setdefault("model_wrapper_cfg", {"type": "MMSeparateDistributedDataParallel"})
    cfg.model_wrapper_cfg.device_ids = None
