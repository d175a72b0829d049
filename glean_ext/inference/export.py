"""Writing a network as one file that runs without this package: ONNX, or a program of ``torch.export``.

Both come from one graph that ``torch.export`` captures from the network, and both are run on random images
and compared with the network itself before the file gets its name. ONNX is made by ``torch.onnx``'s exporter of such
graphs (``dynamo=True``): the older one, which traces TorchScript, is deprecated and would store the sizes it saw.

The interface and the metadata are described in :mod:`glean_ext.inference.onnx_backend`. Precision ``float16`` is
inside: inputs and outputs are float32 all the same.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

import glean_ext
from glean_ext.errors import InputError, Notice, first_line
from glean_ext.inference.engines import EXTRA, INPUT, OUTPUT, weights_of
from glean_ext.inference.export_formats import PACKAGES, require_suffix
from glean_ext.inference.memory_budget import bytes_per_pixel
from glean_ext.inference.onnx_backend import ModelMetadata, OnnxBackend
from glean_ext.inference.torch_backend import load_network
from glean_ext.networks.layers import EqualizedLinear
from glean_ext.networks.precision import without_own_autocast
from glean_ext.size_requirements import MIN_INPUT, SizeRequirements
from glean_ext.utils.files import atomic_path, expand_home, temporary_folder_beside
from glean_ext.utils.messages import log_notice
from glean_ext.utils.optional_packages import import_optional, installed_version, version_errors

if TYPE_CHECKING:  # needs packages that other exports do not
    from glean_ext.inference.quantization import Quantized

# How much of the value range a file's results may differ by from the network's, before no file is written.
TOLERANCE = {"float32": 1e-4, "float16": 2e-2}
METADATA = "metadata.json"  # in a .pt2
LARGEST_PROTOBUF = 2**31 - 2**24  # bytes of weights; more go into a file beside the model

Run = Callable[[Tensor], Tensor]  # (N, 3, h, w) -> (N, 3, H, W)


def export(
    config: str | os.PathLike,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    format: str = "onnx",
    dtype: str = "float32",
    cfg_options: Sequence[str] = (),
    notify: Callable[[Notice], None] = log_notice,
) -> ModelMetadata:
    """Write the network of a config and a checkpoint as one file, and check that file.

    Args:
        config: A config file.
        checkpoint: The network's state dict or a training checkpoint, as path or URL.
        out: The file to write. The weights of an ONNX model of more than 2 GB come into ``<out>.data`` beside it.
        format: ``'onnx'`` or ``'torch'``.
        dtype: Of weights and computation, ``'float32'`` or ``'float16'``.
        cfg_options: ``key=value`` changes to the config.
        notify: Gets a notice before each step.

    Returns:
        What the file says of itself, the largest difference among it.

    Raises:
        InputError: A config, checkpoint or name that cannot be used, a missing package, or results that differ from
            the network's by more than :data:`TOLERANCE`. No file is written then.
    """
    out = expand_home(out)
    require_place(out, format)
    net = load_network(config, checkpoint, cfg_options)
    return export_network(net, out, format, dtype, {"checkpoint": Path(checkpoint).name}, notify)


def export_int8(
    config: str | os.PathLike,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    calibrate: str,
    cfg_options: Sequence[str] = (),
    notify: Callable[[Notice], None] = log_notice,
) -> Quantized:
    """Write the network of a config and a checkpoint as an ONNX model in int8.

    Args:
        calibrate: A folder of images, at least four, like those that are going to be restored.

    The others, and what is raised, are those of :func:`export`.
    """
    from glean_ext.inference.quantization import quantize

    out, calibrate = Path(expand_home(out)), expand_home(calibrate)
    require_place(out, "onnx")
    with atomic_path(out) as partial, temporary_folder_beside(out) as folder:
        metadata = export(config, checkpoint, model := folder / "fp32.onnx", "onnx", "float32", cfg_options, notify)
        report = quantize(model, written := folder / out.name, calibrate, notify)
        others = metadata.others | {"psnr": f"{report.psnr:.2f}"}
        write_metadata(written, replace(metadata, dtype="int8", others=others))
        written.replace(partial)
    return report


def write_metadata(path: Path, metadata: ModelMetadata) -> None:
    """Replace the metadata of an ONNX model; its weights stay where they are."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, metadata.to_metadata())
    onnx.save(model, path)


def require_place(out: str | os.PathLike, format: str, engine: str | None = None) -> None:
    """Raise InputError if ``out`` is no name for a file of this form, or a package that writes it is missing."""
    out = Path(out)
    require_suffix(out, format)
    if out.is_dir():
        raise InputError(f"{out} is a folder. Give the name of a file.")
    for package in PACKAGES[format] if engine is None else ():
        import_optional(package, f"{{format={format}}}", EXTRA, "format")


def export_network(
    net: nn.Module,
    out: str | os.PathLike,
    format: str = "onnx",
    dtype: str = "float32",
    others: Mapping[str, str] | None = None,
    notify: Callable[[Notice], None] = log_notice,
    engine: str | None = None,
) -> ModelMetadata:
    """As :func:`export`, a network that is in memory; it is frozen.

    Args:
        others: What else goes into the file's metadata.
        engine: The one that the file is for, which runs it image by image: it is checked with that one only.
    """
    require_place(out, format, engine)
    out = Path(out)
    net = without_own_autocast(net.requires_grad_(False).eval())
    metadata = describe(net, dtype, {**(others or {}), **_versions(format)})

    with atomic_path(out) as partial, temporary_folder_beside(out) as folder:
        notify(Notice("capturing the network"))
        program = capture(net, dtype, alone=engine is not None)
        written = folder / out.name
        if format == "onnx":
            metadata = _write_onnx(program, net, metadata, written, notify, engine)
        else:
            metadata = _write_torch(program, net, metadata, written, notify)
        if (weights := weights_of(written)).exists():
            weights.replace(weights_of(out))
        written.replace(partial)
    return metadata


def describe(net: nn.Module, dtype: str, others: dict[str, str]) -> ModelMetadata:
    """The metadata of a restorer; its difference is not known yet."""
    takes = cast(SizeRequirements, net.size_requirements)
    memory = bytes_per_pixel(net) if takes.any_size else 0.0
    return ModelMetadata(
        type(net).__name__, dtype, takes.nominal, takes.scale, takes.any_size, memory, float("inf"), others
    )


def capture(net: nn.Module, dtype: str = "float32", alone: bool = False) -> torch.export.ExportedProgram:
    """The graph of a restorer: the batch is free, for LightGLEAN height and width from 8 on, too.

    With ``alone`` it takes one image at a time. Then the style codes of LightGLEAN are constants, so that engines can
    compute beforehand what follows from them.
    """
    takes = cast(SizeRequirements, net.size_requirements)
    height, width = takes.nominal
    free: dict[int, Any] = {} if alone else {0: torch.export.Dim.DYNAMIC}  # a U-Net of diffusers takes up to 63
    if takes.any_size:  # sizes that are free must not look equal
        height, width = height + 3, width + 5
        free |= {2: torch.export.Dim("height", min=MIN_INPUT), 3: torch.export.Dim("width", min=MIN_INPUT)}
    # Not the fast form: that goes image by image and band by band, which a graph would freeze at the sizes of today.
    program = torch.export.export(
        Cast(net, getattr(torch, dtype)),
        (torch.zeros(1 if alone else 2, 3, height, width),),
        dynamic_shapes=(free,),
        strict=False,
    )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


class Cast(nn.Module):
    """A network that computes in ``dtype``, all but its style codes; inputs and outputs are fp32 all the same."""

    def __init__(self, net: nn.Module, dtype: torch.dtype):
        super().__init__()
        tensors = (*net.parameters(), *net.buffers())
        if dtype != torch.float32 or any(t.is_floating_point() and t.dtype != dtype for t in tensors):
            net = copy.deepcopy(net).to(dtype)  # of the same dtype, weights are in memory once
        self.net, self.dtype = net, dtype
        for module in self.net.modules():
            if isinstance(module, EqualizedLinear):  # computes in fp32 always
                module.float()

    def forward(self, lq: Tensor) -> Tensor:
        return self.net(lq.to(self.dtype)).float()


def _write_onnx(
    program: torch.export.ExportedProgram,
    net: nn.Module,
    metadata: ModelMetadata,
    path: Path,
    notify: Callable[[Notice], None],
    engine: str | None,
) -> ModelMetadata:
    notify(Notice("converting it to ONNX"))
    free = ({} if engine else {0: "batch"}) | ({2: "height", 3: "width"} if metadata.any_size else {})
    with warnings.catch_warnings(), version_errors(PACKAGES["onnx"], "{format=onnx}", EXTRA, "format"):
        warnings.simplefilter("ignore")  # of the exporter, about itself
        onnx_program: Any = torch.onnx.export(
            program, (), input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=(free,), dynamo=True, verbose=False
        )
    for node in onnx_program.model.graph.all_nodes():
        node.metadata_props.clear()  # where in the Python code it comes from
    size = sum(value.const_value.nbytes for value in onnx_program.model.graph.initializers.values())
    # One file takes three copies of the weights in memory; engines map those in a file of their own.
    onnx_program.save(path, external_data=size > LARGEST_PROTOBUF or engine is not None)
    write_metadata(path, metadata)
    notify(Notice("comparing it with PyTorch"))

    def load() -> Run:
        session = OnnxBackend(path, engine=engine or "onnxruntime", dtype="float32" if engine else None)
        return lambda lq: torch.from_numpy(session(lq.numpy()))

    metadata = _checked(metadata, net, load, alone=engine is not None)
    write_metadata(path, metadata)
    return metadata


def _write_torch(
    program: torch.export.ExportedProgram,
    net: nn.Module,
    metadata: ModelMetadata,
    path: Path,
    notify: Callable[[Notice], None],
) -> ModelMetadata:
    torch.export.save(program, path)
    notify(Notice("comparing it with the network"))
    metadata = _checked(metadata, net, lambda: torch.export.load(path).module())
    torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata.to_metadata())})
    return metadata


def load_torch(path: str | os.PathLike) -> tuple[nn.Module, ModelMetadata]:
    """The network of a .pt2 file, (N, 3, h, w) -> (N, 3, H, W), and what the file says of it.

    Raises:
        InputError: The file is missing, damaged, or not by this package.
    """
    path, extra = Path(path), {METADATA: ""}
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Give the path of a model that tools/export.py wrote.")
    try:
        program = torch.export.load(path, extra_files=extra)
        stored = json.loads(extra[METADATA] or "{}")
    except Exception as error:  # zip, JSON, torch: anything
        raise InputError(
            f"{path} is damaged or no .pt2 file ({first_line(error)}). Export the network again."
        ) from error
    return program.module(), ModelMetadata.from_metadata(stored, path)


@torch.inference_mode()
def _checked(metadata: ModelMetadata, net: Run, load: Callable[[], Run], alone: bool = False) -> ModelMetadata:
    """The metadata with the largest difference of what ``load`` loads from ``net``.

    It is that of random images, or of one image ``alone``.
    """
    images = random_images(metadata)[: 1 if alone else None]
    expected = [net(lq) for lq in images]  # before the other one takes memory, too
    run = load()
    difference = max(largest_difference(y, run(lq)) for y, lq in zip(expected, images, strict=True))
    if not difference <= (most := TOLERANCE[metadata.dtype]):  # NaN, too
        half = metadata.dtype == "float16"
        raise InputError(
            f"The exported network differs from the network by {difference:.2g} of the value range, more than "
            f"{most:g}; no file was written.",
            parameter="dtype",
            hint="Use {dtype=float32}." if half else "Try other versions of the [export] packages.",
        )
    return replace(metadata, max_difference=difference)


def random_images(metadata: ModelMetadata) -> list[Tensor]:
    """Batches of uniform noise in [-1, 1]: of the nominal size, and of an odd one where all are taken."""
    height, width = metadata.nominal
    shapes = [(1, 3, height, width), (2, 3, height, width)]
    if metadata.any_size:
        shapes[1] = (2, 3, height + 3, width + 5)
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=generator) * 2 - 1 for shape in shapes]


def largest_difference(image: Tensor, other: Tensor) -> float:
    """Between the results of two networks, as a share of the value range: 0 none, 1 black became white."""
    return (image - other).abs().max().item() / 2


def _versions(format: str) -> dict[str, str]:
    return {"glean_ext": glean_ext.__version__} | {package: installed_version(package) for package in PACKAGES[format]}
