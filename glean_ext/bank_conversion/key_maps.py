"""How the published StyleGAN2 implementations name their tensors: key maps, as data.

A row names a key of ours (MMagic's names), the source's key, and how the tensor is changed. Rows are templates: those
of ``layers`` stand for each layer of the mapping network, those of ``blocks`` for each synthesis or discriminator
block. How many there are is counted by the first row of each.

    {fc}, {layer}           a mapping layer, counted from 0 and from 1
    {i}, {res}              a block, counted from 0, and its resolution: 8, 16, ...
    {up}, {same}, {next}    2i, 2i + 1, 2i + 2: its style convolutions and their noise
    {down}                  its place in the discriminator, 1 for the highest resolution
    {size}                  the resolution of the image

Sources of the names: rosinality/stylegan2-pytorch ``model.py``; NVlabs/stylegan2-ada-pytorch ``training/networks.py``
and NVlabs/stylegan3 ``training/networks_stylegan2.py``, whose keys agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _one_axis(x: Tensor) -> Tensor:
    return x[None]  # (...) -> (1, ...)


def _two_axes(x: Tensor) -> Tensor:
    return x[None, None]  # (...) -> (1, 1, ...)


def _vector(x: Tensor) -> Tensor:
    return x.reshape(-1)  # () -> (1,)


def _over_pixels(x: Tensor) -> Tensor:
    return x.reshape(1, -1, 1, 1)  # (C,) -> (1, C, 1, 1)


def _for_zeros(x: Tensor) -> Tensor:
    return 4 * x  # our filter includes the gain for the inserted zeros; NVIDIA applies that gain later


class Row(NamedTuple):
    target: str
    source: str
    change: Callable[[Tensor], Tensor] = _as_it_is


def _under(target: str, source: str, rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(Row(f"{target}.{row.target}", f"{source}.{row.source}", row.change) for row in rows)


@dataclass(frozen=True)
class KeyMap:
    """The rows of one network."""

    once: tuple[Row, ...]
    blocks: tuple[Row, ...]
    layers: tuple[Row, ...] = ()
    optional: tuple[Row, ...] = ()
    unused: tuple[str, ...] = ()  # patterns of source keys that nothing needs

    @property
    def probe(self) -> str:
        """A source key by which such a network is recognized, for each has it."""
        return next(row.source for row in self.once if "{" not in row.source)


@dataclass(frozen=True)
class Format:
    """One implementation's checkpoints: their entries, in the order of preference, and their key maps."""

    generators: tuple[str, ...]
    discriminators: tuple[str, ...]
    generator: KeyMap
    discriminator: KeyMap | None = None  # None: it cannot be converted


# ---------------------------------------------------------------- rosinality/stylegan2-pytorch

_R_RGB = (
    Row("conv.weight_orig", "conv.weight"),
    Row("conv.style_modulation.bias", "conv.modulation.bias"),
    Row("conv.style_modulation.linear.weight_orig", "conv.modulation.weight"),
    Row("bias", "bias"),
)
_R_CONV = (*_R_RGB[:3], Row("noise_injector.weight", "noise.weight"), Row("activate.bias", "activate.bias"))

_R_GENERATOR = KeyMap(
    once=(
        Row("constant_input.input", "input.input"),
        *_under("conv1", "conv1", _R_CONV),
        *_under("to_rgb1", "to_rgb1", _R_RGB),
        Row("injected_noise_0", "noises.noise_0"),
    ),
    layers=(
        Row("style_mapping.{layer}.linear.weight_orig", "style.{layer}.weight"),
        Row("style_mapping.{layer}.bias", "style.{layer}.bias"),
    ),
    blocks=(
        *_under("to_rgbs.{i}", "to_rgbs.{i}", _R_RGB),
        Row("to_rgbs.{i}.upsample.kernel", "to_rgbs.{i}.upsample.kernel"),
        *_under("convs.{up}", "convs.{up}", _R_CONV),
        Row("convs.{up}.conv.blur.kernel", "convs.{up}.conv.blur.kernel"),
        *_under("convs.{same}", "convs.{same}", _R_CONV),
        Row("injected_noise_{same}", "noises.noise_{same}"),
        Row("injected_noise_{next}", "noises.noise_{next}"),
    ),
    optional=(Row("w_avg", "latent_avg", _vector),),
)
_R_DISCRIMINATOR = KeyMap(
    once=(
        Row("convs.0.0.conv.weight_orig", "convs.0.0.weight"),
        Row("convs.0.1.bias", "convs.0.1.bias"),
        Row("final_conv.0.conv.weight_orig", "final_conv.0.weight"),
        Row("final_conv.1.bias", "final_conv.1.bias"),
        Row("final_linear.0.linear.weight_orig", "final_linear.0.weight"),
        Row("final_linear.0.bias", "final_linear.0.bias"),
        Row("final_linear.1.linear.weight_orig", "final_linear.1.weight"),
        Row("final_linear.1.bias", "final_linear.1.bias"),
    ),
    blocks=(
        Row("convs.{down}.conv1.0.conv.weight_orig", "convs.{down}.conv1.0.weight"),
        Row("convs.{down}.conv1.1.bias", "convs.{down}.conv1.1.bias"),
        Row("convs.{down}.conv2.0.kernel", "convs.{down}.conv2.0.kernel"),
        Row("convs.{down}.conv2.1.conv.weight_orig", "convs.{down}.conv2.1.weight"),
        Row("convs.{down}.conv2.2.bias", "convs.{down}.conv2.2.bias"),
        Row("convs.{down}.skip.0.kernel", "convs.{down}.skip.0.kernel"),
        Row("convs.{down}.skip.1.conv.weight_orig", "convs.{down}.skip.1.weight"),
    ),
)

# ---------------------------------------------------------------- MMagic, MMEditing, MMGeneration: our own names


def _itself(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    return tuple(Row(row.target, row.target) for row in rows)


def _own_names(keys: KeyMap, unused: tuple[str, ...]) -> KeyMap:
    return KeyMap(_itself(keys.once), _itself(keys.blocks), _itself(keys.layers), _itself(keys.optional), unused)


_M_GENERATOR = _own_names(_R_GENERATOR, ("truncation_latent", "steps"))
_M_DISCRIMINATOR = _own_names(_R_DISCRIMINATOR, (r"ada_aug\..*",))

# ---------------------------------------------------------------- NVIDIA's stylegan2-ada-pytorch and stylegan3

_N_RGB = (
    Row("conv.weight_orig", "weight", _one_axis),
    Row("conv.style_modulation.bias", "affine.bias"),
    Row("conv.style_modulation.linear.weight_orig", "affine.weight"),
    Row("bias", "bias", _over_pixels),
)
_N_CONV = (*_N_RGB[:3], Row("noise_injector.weight", "noise_strength", _vector), Row("activate.bias", "bias"))

_N_GENERATOR = KeyMap(
    once=(
        Row("constant_input.input", "synthesis.b4.const", _one_axis),
        *_under("conv1", "synthesis.b4.conv1", _N_CONV),
        *_under("to_rgb1", "synthesis.b4.torgb", _N_RGB),
        Row("injected_noise_0", "synthesis.b4.conv1.noise_const", _two_axes),
    ),
    layers=(
        Row("style_mapping.{layer}.linear.weight_orig", "mapping.fc{fc}.weight"),
        Row("style_mapping.{layer}.bias", "mapping.fc{fc}.bias"),
    ),
    blocks=(
        *_under("to_rgbs.{i}", "synthesis.b{res}.torgb", _N_RGB),
        Row("to_rgbs.{i}.upsample.kernel", "synthesis.b{res}.resample_filter", _for_zeros),
        *_under("convs.{up}", "synthesis.b{res}.conv0", _N_CONV),
        Row("convs.{up}.conv.blur.kernel", "synthesis.b{res}.conv0.resample_filter", _for_zeros),
        *_under("convs.{same}", "synthesis.b{res}.conv1", _N_CONV),
        Row("injected_noise_{same}", "synthesis.b{res}.conv0.noise_const", _two_axes),
        Row("injected_noise_{next}", "synthesis.b{res}.conv1.noise_const", _two_axes),
    ),
    optional=(Row("w_avg", "mapping.w_avg"),),
    unused=(r"synthesis\.b4\.resample_filter", r"synthesis\.b\d+\.conv1\.resample_filter"),
)
_N_DISCRIMINATOR = KeyMap(
    once=(
        Row("convs.0.0.conv.weight_orig", "b{size}.fromrgb.weight"),
        Row("convs.0.1.bias", "b{size}.fromrgb.bias"),
        Row("final_conv.0.conv.weight_orig", "b4.conv.weight"),
        Row("final_conv.1.bias", "b4.conv.bias"),
        Row("final_linear.0.linear.weight_orig", "b4.fc.weight"),
        Row("final_linear.0.bias", "b4.fc.bias"),
        Row("final_linear.1.linear.weight_orig", "b4.out.weight"),
        Row("final_linear.1.bias", "b4.out.bias"),
    ),
    blocks=(
        Row("convs.{down}.conv1.0.conv.weight_orig", "b{res}.conv0.weight"),
        Row("convs.{down}.conv1.1.bias", "b{res}.conv0.bias"),
        Row("convs.{down}.conv2.0.kernel", "b{res}.conv1.resample_filter"),
        Row("convs.{down}.conv2.1.conv.weight_orig", "b{res}.conv1.weight"),
        Row("convs.{down}.conv2.2.bias", "b{res}.conv1.bias"),
        Row("convs.{down}.skip.0.kernel", "b{res}.skip.resample_filter"),
        Row("convs.{down}.skip.1.conv.weight_orig", "b{res}.skip.weight"),
    ),
    unused=(r"b\d+\.resample_filter", r"b\d+\.(fromrgb|conv0)\.resample_filter", r"b4\.conv\.resample_filter"),
)

FORMATS = {
    "mmagic": Format(("generator_ema", "generator"), ("discriminator",), _M_GENERATOR, _M_DISCRIMINATOR),
    "rosinality": Format(("g_ema", "g"), ("d",), _R_GENERATOR, _R_DISCRIMINATOR),
    "nvidia": Format(("G_ema", "G"), ("D",), _N_GENERATOR, _N_DISCRIMINATOR),
}


class Demand(NamedTuple):
    """A setting of NVIDIA's that this package computes with one value only."""

    modules: str  # a pattern of their paths
    attribute: str
    value: Any  # the only one
    meaning: str  # of other values


NVIDIA_DEMANDS = {
    "Generator": (
        Demand("", "c_dim", 0, "a conditional network"),
        Demand(r"mapping\.fc\d+", "activation", "lrelu", "another activation"),
        Demand(r"mapping\.fc\d+", "bias_gain", 0.01, "another learning-rate multiplier of the mapping network"),
        Demand(r"synthesis\.b\d+", "architecture", "skip", "another architecture"),
        Demand(r"synthesis\.b\d+\.conv\d", "activation", "lrelu", "another activation"),
        Demand(r"synthesis\.b\d+\.conv\d", "use_noise", True, "layers without noise"),
        Demand(r".*\.affine", "bias_gain", 1, "another learning-rate multiplier"),
    ),
    "Discriminator": (
        Demand("", "c_dim", 0, "a conditional network"),
        Demand(r"b\d+", "architecture", "resnet", "another architecture"),
        Demand(r"b\d+\.(fromrgb|conv0|conv1)|b4\.(conv|fc)", "activation", "lrelu", "another activation"),
        Demand(r"b\d+\.skip|b4\.out", "activation", "linear", "another activation"),
        Demand(r"b4\.(fc|out)", "bias_gain", 1, "another learning-rate multiplier"),
    ),
}

# Keys of networks that are not an unconditional StyleGAN2, and what they are.
FOREIGN = (
    (r"synthesis\.input\..*|.*\.magnitude_ema", "a StyleGAN3 network"),
    (r"(mapping\.)?embed\..*|mapping\..*", "a conditional network"),
    (r".*\b(iwt|dwt)\..*", "a SWAGAN network"),
    (r"to_rgb\.\d+\..*|progression\..*|synthesis\.blocks\..*", "a StyleGAN1 network"),
    (r"synthesis\.b\d+\.skip\..*", "a StyleGAN2 generator of the architecture 'resnet'"),
    (r"b4\.fromrgb\..*", "a StyleGAN2 discriminator of the architecture 'skip'"),
)

# The channel axis of the tensors that produce or consume an image.
IMAGE_AXES = (
    (r"to_rgb(1|s\.\d+)\.(conv\.weight_orig|bias)", 1),
    (r"convs\.0\.0\.conv\.weight_orig", 1),
    (r"output_layer\.conv\.(weight|bias)", 0),  # of BigGAN, as the next one
    (r"output_layer\.conv\.u0", 1),
)
