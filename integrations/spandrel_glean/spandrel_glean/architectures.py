"""How spandrel recognizes and loads GLEAN and LightGLEAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spandrel import Architecture, ImageModelDescriptor, ModelTiling, SizeRequirements, StateDict
from spandrel.util import KeyCondition, get_seq_len
from torch import Tensor, nn

from glean_ext.checkpoints import network_state
from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, LightGLEANStyleGANv2
from glean_ext.networks.shapes import channels_by_resolution
from glean_ext.size_requirements import MIN_INPUT
from glean_ext.utils.messages import summarize_names

NOISE = "generator.injected_noise_"
GLEAN_KEYS = KeyCondition.has_all(
    "encoder.0.0.conv_first.weight",
    "fusion_out.0.weight",
    "generator.constant_input.input",
    "decoder.0.upsample_conv.weight",
)
LIGHT_GLEAN_KEYS = KeyCondition.has_all("style_codes", "encoder.0.conv_first.weight", "decoder.start.weight")


class GLEANArch(Architecture[GLEANStyleGANv2]):
    """GLEAN (Chan et al., CVPR 2021): one size of square images."""

    def __init__(self) -> None:
        super().__init__(id="GLEAN", name="GLEAN", detect=lambda state: GLEAN_KEYS(_network(state)))

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[GLEANStyleGANv2]:
        """Raises:
        InputError: The widths are those of no StyleGAN2, or it is a variant that only its config describes.
        """
        state = _network(state_dict)
        pyramid = get_seq_len(state, "encoder")  # resolutions from in_size to 4, and the style codes
        arguments = _arguments(state, in_size=2**pyramid, trunk="encoder.0.0")
        arguments["num_mlps"] = sum(key.startswith("generator.style_mapping.") for key in state) // 2
        arguments["references"] = "reference_features.sharpness" in state
        size = SizeRequirements(minimum=arguments["in_size"], square=True)
        network = GLEANStyleGANv2(**arguments)
        return _descriptor(self, network, state, arguments, size, ModelTiling.DISCOURAGED)


class LightGLEANArch(Architecture[LightGLEANStyleGANv2]):
    """LightGLEAN (Chan et al., TPAMI 2022): images of any size from 8x8 on."""

    def __init__(self) -> None:
        super().__init__(id="LightGLEAN", name="LightGLEAN", detect=lambda state: LIGHT_GLEAN_KEYS(_network(state)))

    def load(self, state_dict: StateDict) -> ImageModelDescriptor[LightGLEANStyleGANv2]:
        """Raises:
        InputError: The widths are those of no StyleGAN2, or it is a variant that only its config describes.
        """
        state = _network(state_dict)
        arguments = _arguments(state, in_size=min(_noise_sides(state)) // 2, trunk="encoder.0")
        arguments["decoder_channels"] = state["decoder.start.weight"].shape[0]
        network = LightGLEANStyleGANv2(**arguments)
        return _descriptor(self, network, state, arguments, SizeRequirements(minimum=MIN_INPUT), ModelTiling.SUPPORTED)


def _network(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The restorer's own entries, also of a training checkpoint."""
    return network_state(state, "the state dict")


def _noise_sides(state: Mapping[str, Tensor]) -> list[int]:
    """The resolutions of the bank's layers: every one has a noise map."""
    return [tensor.shape[-1] for key, tensor in state.items() if key.startswith(NOISE)]


def _arguments(state: Mapping[str, Tensor], in_size: int, trunk: str) -> dict[str, Any]:
    """The constructor's arguments that both networks have, from the shapes of their weights."""
    out_size = max(_noise_sides(state))
    conv_first = state[f"{trunk}.conv_first.weight"]  # (rrdb_channels, img_channels, 3, 3)
    modulation = state[f"generator.convs.{_last_conv(state)}.conv.style_modulation.linear.weight_orig"]  # (C, S)
    multiplier, limit = _widths(state, out_size)
    return {
        "in_size": in_size,
        "out_size": out_size,
        "img_channels": conv_first.shape[1],
        "rrdb_channels": conv_first.shape[0],
        "num_rrdbs": get_seq_len(state, f"{trunk}.body"),
        "style_channels": modulation.shape[1],
        "channel_multiplier": multiplier,
        "max_channels": limit,
        "fidelity_gate": "fidelity_gate.trained" in state,
        "pyramid": "pyramid.0.weight" in state,
        "global_skip": "global_skip.gain" in state,
        "trunk": "residual" if f"{trunk}.body.0.conv1.weight" in state else "rrdb",
        "bank_init": "random",  # the weights follow
    }


def _last_conv(state: Mapping[str, Tensor]) -> int:
    return max(int(key.split(".")[2]) for key in state if key.startswith("generator.convs."))


def _widths(state: Mapping[str, Tensor], out_size: int) -> tuple[float, int]:
    """``channel_multiplier`` and ``max_channels`` that give the bank's widths."""
    widths = {}
    res = out_size
    for i in range(_last_conv(state) - 1, -1, -2):  # the upsampling convolutions, from the last one down
        if (weight := state.get(f"generator.convs.{i}.conv.weight_orig")) is None:
            break
        widths |= {res: weight.shape[1], res // 2: weight.shape[2]}
        res //= 2
    limit = max([width for res, width in widths.items() if res < 64], default=max(widths.values()))
    # The first where max_channels is no limit somewhere; the second where a multiplier above 2 raises that limit.
    for multiplier in max(width * res for res, width in widths.items()) / 16384, 2 * max(widths.values()) / limit:
        table = channels_by_resolution(out_size, multiplier, limit)
        if all(table[res] == width for res, width in widths.items()):
            return multiplier, limit
    raise InputError(f"the bank has the channels {widths} by resolution, which no StyleGAN2 has. Use `glean restore`.")


def _descriptor(
    architecture: Architecture,
    network: nn.Module,
    state: Mapping[str, Tensor],
    arguments: Mapping[str, Any],
    size_requirements: SizeRequirements,
    tiling: ModelTiling,
) -> ImageModelDescriptor:
    if others := sorted(network.state_dict().keys() ^ state.keys()):
        raise InputError(
            f"this is a variant of {architecture.name} that only its config describes ({summarize_names(others)}). Use "
            "`glean restore`."
        )
    return ImageModelDescriptor(
        network,
        state,
        architecture=architecture,
        purpose="SR",
        tags=[f"{arguments['in_size']}to{arguments['out_size']}", f"{arguments['num_rrdbs']}{arguments['trunk']}"],
        supports_half=False,  # both networks compute lower precisions by autocast, with weights in fp32
        supports_bfloat16=False,
        scale=arguments["out_size"] // arguments["in_size"],
        input_channels=arguments["img_channels"],
        output_channels=arguments["img_channels"],
        size_requirements=size_requirements,
        tiling=tiling,
        call_fn=_restore,
    )


def _restore(network: nn.Module, image: Tensor) -> Tensor:
    """(1, 3, h, w) in [0, 1] -> (1, 3, H, W), about [0, 1]."""
    return (network(image * 2 - 1) + 1) / 2
