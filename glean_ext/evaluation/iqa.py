"""Metrics of pyiqa (IQA-PyTorch), whose licence is non-commercial: the extra ``iqa``, never a requirement."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glean_ext.errors import InputError, did_you_mean, first_line
from glean_ext.evaluation.names import PYIQA
from glean_ext.utils.optional_packages import import_optional

EXTRA = "pip install 'glean-ext[iqa]' (pyiqa's licence is non-commercial)"


@dataclass(frozen=True)
class IQAMetric:
    """A metric of pyiqa.

    Attributes:
        needs_reference: ``compute`` takes the output and the reference, else the output alone.
        lower_is_better: Of its values.
        version: Of pyiqa.
        compute: One or two (H, W, 3) uint8 RGB arrays -> value.
    """

    needs_reference: bool
    lower_is_better: bool
    version: str
    compute: Callable[..., float]


def create_iqa(name: str, device: str = "cpu") -> IQAMetric:
    """A metric of pyiqa by its name there, after ``pyiqa:``.

    Most have a network, whose weights pyiqa downloads into torch's folder for downloads when it is first used.

    Raises:
        InputError: pyiqa is not installed, has no such metric, or cannot get the weights.
    """
    pyiqa = import_optional("pyiqa", f"{{metrics={name}}}", EXTRA, "metrics")
    key, known = name.removeprefix(PYIQA), pyiqa.list_models()
    if key not in known:
        nearest = did_you_mean(key, known, most=3, cutoff=0.4)
        raise InputError(f"{{metrics={name}}}: pyiqa {pyiqa.__version__} has no metric {key!r}. {nearest}", "metrics")
    logging.getLogger("pyiqa").setLevel(logging.WARNING)
    try:
        with redirect_stdout(sys.stderr):  # where it says that it downloads
            metric = pyiqa.create_metric(key, device=torch.device(device))
    except Exception as error:  # of the network, of a hub's client, or of a damaged download
        raise InputError(
            f"{{metrics={name}}}: pyiqa cannot load its weights ({type(error).__name__}: {first_line(error)}). Run it "
            f"once with a connection to the network, or copy the files from another machine to {_folder()}.",
            "metrics",
        ) from error

    def compute(*images: np.ndarray) -> float:
        try:
            return float(metric(*(_tensor(image) for image in images)))
        except Exception as error:  # each metric has its own limits, as of the size
            raise InputError(f"{name} failed ({type(error).__name__}: {first_line(error)}).") from error

    return IQAMetric(metric.metric_mode == "FR", bool(metric.lower_better), pyiqa.__version__, compute)


def _folder() -> str:
    from torch.hub import get_dir

    return f"{get_dir()}/pyiqa"


def _tensor(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [0, 1]"""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255
