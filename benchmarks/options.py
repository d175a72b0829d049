"""The options of the commands, as the command line passes them on. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CONDITIONS = ("memory", "busy", "batches", "folder", "int8")
NETWORKS = {"glean": "GLEANStyleGANv2", "lightglean": "LightGLEANStyleGANv2"}

GPU_BUDGETS = {  # part of the run on a GPU -> seconds, 480 in all
    "peak": 30,
    "tests": 80,
    "inference": 140,
    "training": 100,
    "compiled": 60,
    "loading": 30,
    "processes": 40,
}


@dataclass(frozen=True)
class MeasureOptions:
    """What is measured of each candidate.

    Args:
        repeats: Timed runs of each candidate, after the first run, which is not counted.
        memory: Measure the peak memory, each candidate in a process of its own.
        peak: Measure the machine's largest throughput.
    """

    repeats: int = 5
    memory: bool = True
    peak: bool = True


@dataclass(frozen=True)
class ComparisonOptions:
    """The commands ``infer`` and ``train``.

    Args:
        task: ``'infer'`` or ``'train'``.
        config: A config file.
        measure: What is measured.
        network: A key of :data:`NETWORKS`; None for the config's own network.
        in_size: Side of the input; None for the config's own.
        out_size: Side of the output; None for the config's own.
        batch: Images in a batch.
        dtype: A name of :data:`glean_ext.utils.dtypes.DTYPES`.
        device: ``'cpu'``, ``'cuda'``, ``'cuda:1'``...
        against: ``'mmagic'``, a config, an exported ``.onnx`` file, or ``'none'``.
        against_dtype: The dtype of ``against`` where that is a config; None for ``dtype``.
        cfg_options: Changes to the config, ``key=value``.
        checkpoint: Weights of the network; None for random ones. Inference only.
        compile: Mode of ``torch.compile``; None for no compilation. Inference only.
    """

    task: str
    config: Path
    measure: MeasureOptions
    network: str | None
    in_size: int | None
    out_size: int | None
    batch: int
    dtype: str
    device: str
    against: str
    against_dtype: str | None
    cfg_options: tuple[str, ...] = ()
    checkpoint: str | None = None
    compile: str | None = None


@dataclass(frozen=True)
class DataOptions:
    """The command ``data``: the config whose data pipeline is timed, and the timed runs of each part."""

    config: Path
    repeats: int


@dataclass(frozen=True)
class DegradationOptions:
    """The command ``degradations``: side of the images, and images for each preset."""

    size: int
    images: int


@dataclass(frozen=True)
class PageOptions:
    """The command ``page``.

    Args:
        batches: Batch sizes at the smallest output.
        repeats: Timed runs of each candidate.
        output: The page's path.
        only: ``'training'``: measure and replace that section only; None: the whole page.
    """

    batches: tuple[int, ...]
    repeats: int
    output: Path
    only: str | None = None


@dataclass(frozen=True)
class BackendOptions:
    """The command ``backends``.

    Args:
        network: A key of :data:`NETWORKS`.
        in_size: Side of the input.
        out_size: Side of the output.
        repeats: Timed runs of each candidate.
        int8: Also measure int8.
        memory: Measure the peak memory, each candidate in a process of its own.
        models: A folder that keeps the exported models, for another run; None: they are made again.
        results: The JSON file that the results are added to.
        page: Whose last section shows them.
    """

    network: str
    in_size: int
    out_size: int
    repeats: int
    int8: bool
    memory: bool
    models: Path | None
    results: Path
    page: Path


@dataclass(frozen=True)
class ConditionsOptions:
    """The command ``conditions``.

    Args:
        part: A key of :data:`benchmarks.conditions.PARTS`.
        results: The JSON file that the results are added to.

    The others are those of :class:`BackendOptions`.
    """

    part: str
    network: str
    in_size: int
    out_size: int
    repeats: int
    models: Path | None
    results: Path
    page: Path


@dataclass(frozen=True)
class GPUOptions:
    """The command ``gpu``.

    Args:
        device: ``'cuda'``, or ``'cpu'`` for a dry run.
        small: Tiny networks, which only show that every part runs.
        output: The page; the JSON file lies beside it.
        parts: Names of :data:`GPU_BUDGETS`; empty for all.
    """

    device: str
    small: bool
    output: Path
    parts: tuple[str, ...] = ()


Options = (
    ComparisonOptions | DataOptions | DegradationOptions | PageOptions | BackendOptions | ConditionsOptions | GPUOptions
)
