"""A diffusion model's U-Net as a latent bank. diffusers is imported here only, and only when such a bank is made.

One pass of the U-Net at a fixed time step takes the place of StyleGAN2's synthesis: the descent to the lowest
resolution, into which a restorer adds its encoder's features, and the ascent, whose features go to its decoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from glean_ext import checkpoints
from glean_ext.errors import InputError, first_line, require_one_of
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.optional_packages import import_optional

Fuse = Callable[[list[Tensor]], list[Tensor]]
UNETS = ("UNet2DModel", "UNet2DConditionModel")
AUTOENCODERS = ("AutoencoderTiny", "AutoencoderKL")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
PARTS = {"unet": UNETS, "vae": AUTOENCODERS, "scheduler": ()}
CONFIG_FILES = {"unet": "unet/config.json", "vae": "vae/config.json", "scheduler": "scheduler/scheduler_config.json"}
# Inputs of some U-Nets that a restorer has nothing for, by the attribute that takes them.
OTHER_INPUTS = {
    "class_embedding": "class labels",
    "add_embedding": "sizes or images",
    "encoder_hid_proj": "projections",
}
ATTENTION_LAYERS = ("to_q", "to_k", "to_v", "to_out.0")  # which LoRA adapts


@dataclass(frozen=True)
class DiffusionSpec:
    """What a restorer has to know of a diffusion bank: (channels, side in pixels) of its features."""

    skips: Sequence[tuple[int, int]]  # of the descent, from the first layer on
    middle: tuple[int, int]  # at its end
    features: Mapping[int, int]  # side -> channels, of the ascent
    num_codes: int  # K: with cross-attention as many as wanted, otherwise 1
    code_channels: int  # S


def read_pipeline(source: str | os.PathLike | Mapping[str, Mapping]) -> dict[str, dict[str, Any]]:
    """The configs of the parts of a diffusers pipeline: ``unet``, and ``vae`` and ``scheduler`` where it has them.

    Args:
        source: The folder of a pipeline or of a U-Net alone, or the configs themselves.

    Raises:
        InputError: There is no such folder, or it holds no U-Net of the kinds that can be a bank.
    """
    parts = dict(source) if isinstance(source, Mapping) else _read_folder(Path(source))
    where = "pipeline" if isinstance(source, Mapping) else str(source)
    if "unet" not in parts:
        raise InputError(f"{where} holds no U-Net. Give a folder of diffusers that has unet/config.json.")
    for name, kinds in PARTS.items():
        kind = parts.get(name, {}).get("_class_name")
        if name in parts and kinds and kind not in kinds:
            raise InputError(f"{where}: {name} is a {kind}, but a bank takes {' or '.join(kinds)}.")
    return {name: dict(parts[name]) for name in PARTS if name in parts}


def _read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder. A diffusion bank is a local folder of diffusers.")
    files = {name: folder / file for name, file in CONFIG_FILES.items()}
    if not files["unet"].exists() and (folder / "config.json").exists():
        files = {"unet": folder / "config.json"}
    return {name: _read_json(file) for name, file in files.items() if file.exists()}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is no JSON file ({first_line(error)}).") from error
    return content


class DiffusionBank(nn.Module):
    """The U-Net of a diffusion model, and its autoencoder if it works on latents.

    Args:
        pipeline: As for :func:`read_pipeline`.
        out_size: Pixels: side of the images.
        timestep: The time step of every pass.
        num_codes: K, where the U-Net has cross-attention; otherwise one code is added to the embedding of the time.

    Attributes:
        configs: Of the parts of the pipeline.
        spec: What a restorer has to know of it.
        side: Pixels: side of what the U-Net works on, images or latents.

    Raises:
        InputError: A pipeline that cannot be a bank, or diffusers is missing.
    """

    def __init__(
        self, pipeline: str | os.PathLike | Mapping[str, Mapping], out_size: int, timestep: int, num_codes: int
    ):
        super().__init__()
        self.configs = configs = read_pipeline(pipeline)
        self.folder = None if isinstance(pipeline, Mapping) else Path(pipeline)
        self.timestep = timestep
        self.unet = _build(configs["unet"])
        self.vae = _build(configs["vae"]) if "vae" in configs else None
        with torch.device("meta"):
            probe, vae = _build(configs["unet"]), _build(configs["vae"]) if "vae" in configs else None
        _, channels, _, self.side = _encode(vae, torch.empty(1, 3, out_size, out_size, device="meta")).shape
        self._require_fits(channels)
        self.spec = _spec(probe, self.side, timestep, num_codes)
        alpha, sigma, self.prediction = _noise_levels(configs.get("scheduler"), timestep)
        self.register_buffer("alpha", torch.tensor(alpha), persistent=False)
        self.register_buffer("sigma", torch.tensor(sigma), persistent=False)

    def _require_fits(self, channels: int) -> None:
        unet: Any = self.unet
        if unet.config.in_channels != channels:
            given = "images, since the pipeline has no VAE," if self.vae is None else "the VAE's latents"
            raise InputError(f"The U-Net takes {unet.config.in_channels} channels, but {given} have {channels}.")
        halvings = len(unet.down_blocks) - 1
        if self.side % 2**halvings or not self.side:
            raise InputError(f"The U-Net halves its input {halvings} times, but it has {self.side} pixels a side.")
        for name, what in OTHER_INPUTS.items():
            if getattr(unet, name, None) is not None:
                raise InputError(f"The U-Net takes {what}, which a restorer does not have. Take another one.")

    def encode(self, image: Tensor) -> Tensor:
        """Images (N, 3, H, H) in [-1, 1] -> what the U-Net takes, (N, C, side, side), without noise or gradient."""
        return _encode(self.vae, image.detach())

    def features(self, x: Tensor, codes: Tensor, fuse: Fuse) -> dict[int, Tensor]:
        """One pass: (N, C, side, side), codes (N, K, S) -> the features of the ascent by side, {res: (N, C, res, res)}.

        Args:
            x: From :meth:`encode`.
            codes: The context of the cross-attention; without that, one code that is added to the time's embedding.
            fuse: Changes what the descent leaves: the skip connections, and then the features before the ascent.
        """
        return _features(self.unet, x, self.timestep, codes, fuse)

    def image(self, x: Tensor, features: Mapping[int, Tensor]) -> Tensor:
        """The bank's own image, (N, 3, H, H) in about [-1, 1]: x_0 of its prediction, decoded by the VAE.

        Args:
            x: The input of :meth:`features`, taken as x_t.
            features: Its output.
        """
        unet: Any = self.unet
        y = features[self.side]
        if unet.conv_norm_out is not None:
            y = unet.conv_act(unet.conv_norm_out(y))
        y = unet.conv_out(y)
        if self.prediction == "epsilon":
            y = (x - cast(Tensor, self.sigma) * y) / cast(Tensor, self.alpha)
        elif self.prediction == "v_prediction":
            y = cast(Tensor, self.alpha) * x - cast(Tensor, self.sigma) * y
        return _decode(self.vae, y)

    def tune(self, image: bool) -> None:
        """Make the U-Net trainable; without ``image`` all but the layers that only make its prediction."""
        unet: Any = self.unet
        unet.requires_grad_(True)
        for last in () if image else (unet.conv_norm_out, unet.conv_out):
            if last is not None:
                last.requires_grad_(False)

    def add_lora(self, rank: int) -> None:
        """Low-rank updates for the attention of the U-Net, the only trainable part (Hu et al., ICLR 2022).

        At the start they change nothing.
        """
        for name, module in list(self.unet.named_modules()):
            if isinstance(module, nn.Linear) and name.endswith(ATTENTION_LAYERS):
                parametrize.register_parametrization(
                    module, "weight", LowRank(module.out_features, module.in_features, rank)
                )

    def load(self, state: Mapping[str, Tensor], source: object, prefix: str) -> None:
        """Fill the bank from the tensors of a file, strictly: ``unet.*`` and ``vae.*``.

        Raises:
            InputError: The tensors are not those of this bank.
        """
        checkpoints.require_fit(
            self._plain_state(), state, type(self).__name__, source, checkpoints.UNUSED_BANK_KEYS, prefix
        )
        self._copy(state)

    def load_folder(self) -> None:
        """Fill the bank from the folder it was made from, strictly.

        Raises:
            InputError: There is no folder, or its weights do not fit its configs.
        """
        if self.folder is None:
            raise InputError("The bank has no weights: pipeline is a dict. Set init_cfg, or give pipeline a folder.")
        parts = {name: _load(self.folder, name, part) for name, part in self.named_children()}
        self._copy(nn.ModuleDict(parts).state_dict())

    def _plain_state(self) -> dict[str, Tensor]:
        """The tensors by the names that they have without LoRA, whose own are left out."""
        state = {key.replace(".parametrizations.weight.original", ".weight"): x for key, x in self.state_dict().items()}
        return {key: x for key, x in state.items() if ".parametrizations." not in key}

    @torch.no_grad()
    def _copy(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._plain_state().items():
            tensor.copy_(state[name])


class LowRank(nn.Module):
    """A weight (O, I) plus the product of two narrow matrices."""

    def __init__(self, out_features: int, in_features: int, rank: int):
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)  # as nn.Linear

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def _diffusers() -> Any:
    return import_optional("diffusers", "A diffusion bank", "pip install 'glean-ext[diffusion]'")


def _build(config: Mapping[str, Any]) -> nn.Module:
    """A part of a pipeline with random weights."""
    kind = getattr(_diffusers(), config["_class_name"])
    try:
        return kind.from_config({key: value for key, value in config.items() if key != "_name_or_path"})
    except (TypeError, ValueError) as error:
        raise InputError(f"The config of {config['_class_name']} cannot be used ({error}).") from error


def _encode(vae: Any, image: Tensor) -> Tensor:
    """The latents of images, scaled as the U-Net takes them; without ``vae`` the images."""
    if vae is None:
        return image
    encoded = vae.encode(image)
    latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latents * vae.config.scaling_factor


def _decode(vae: Any, x: Tensor) -> Tensor:
    """The images of what the U-Net works on: of latents, or itself."""
    if vae is None:
        return x
    image: Tensor = vae.decode(x / vae.config.scaling_factor).sample
    return image


def _load(folder: Path, name: str, part: nn.Module) -> nn.Module:
    """A part of a pipeline with the weights of its folder."""
    where = folder / name if (folder / name).is_dir() else folder
    try:
        net, report = cast(Any, type(part)).from_pretrained(
            str(where), local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{where}: its weights cannot be read ({first_line(error)}).") from error
    wrong = [*report["missing_keys"], *report["unexpected_keys"], *map(str, report["mismatched_keys"])]
    if wrong:
        raise InputError(f"{where}: its weights do not fit its config: {summarize_names(wrong, 1)}.")
    return net


def _spec(probe: nn.Module, side: int, timestep: int, num_codes: int) -> DiffusionSpec:
    """The sizes of a U-Net's features; ``probe`` is one on the meta device, where a pass costs nothing."""
    unet: Any = probe
    width = getattr(unet.config, "cross_attention_dim", None)
    if isinstance(width, Sequence):
        raise InputError("The U-Net has cross-attention of several widths, but all codes have one. Take another one.")
    codes = (num_codes, width) if width else (1, unet.time_embedding.linear_2.out_features)
    x = torch.empty(1, unet.config.in_channels, side, side, device="meta")
    given = torch.empty(1, *codes, device="meta")
    sizes: list[tuple[int, int]] = []

    def note_sizes(states: list[Tensor]) -> list[Tensor]:
        sizes.extend((state.shape[1], state.shape[3]) for state in states)
        return states

    features = _features(probe, x, timestep, given, note_sizes)
    *skips, middle = sizes
    return DiffusionSpec(skips, middle, {res: x.shape[1] for res, x in features.items()}, *codes)


def _noise_levels(scheduler: Mapping[str, Any] | None, timestep: int) -> tuple[float, float, str]:
    """alpha_t, sigma_t and what the U-Net predicts: x_t = alpha_t x_0 + sigma_t epsilon. Without scheduler: x_0."""
    if scheduler is None:
        return 1.0, 0.0, "sample"
    prediction = scheduler.get("prediction_type", "epsilon")
    require_one_of("prediction_type", prediction, PREDICTIONS)
    levels = _diffusers().DDPMScheduler.from_config(dict(scheduler)).alphas_cumprod
    if not 0 <= timestep < len(levels):
        raise InputError(f"timestep must be from 0 to {len(levels) - 1}, but it is {timestep}.")
    kept = float(levels[timestep])
    return kept**0.5, (1 - kept) ** 0.5, prediction


def _features(net: nn.Module, x: Tensor, timestep: int, codes: Tensor, fuse: Fuse) -> dict[int, Tensor]:
    unet: Any = net
    time = _embedded_time(unet, x, timestep, codes)

    def run(block: Any, x: Tensor, **further: Any) -> Any:
        if getattr(block, "has_cross_attention", False):
            further["encoder_hidden_states"] = codes
        return block(hidden_states=x, temb=time, **further)

    if unet.config.center_input_sample:
        x = 2 * x - 1
    x = unet.conv_in(x)
    skips = [x]
    for block in unet.down_blocks:
        x, outputs = run(block, x)
        skips += outputs
    if unet.mid_block is not None:
        x = run(unet.mid_block, x)
    *skips, x = fuse([*skips, x])
    features = {}
    for block in unet.up_blocks:
        taken = len(block.resnets)
        x = run(block, x, res_hidden_states_tuple=tuple(skips[-taken:]))
        del skips[-taken:]
        features[x.shape[-1]] = x  # of two blocks with one resolution the last one stays
    return features


def _embedded_time(unet: Any, x: Tensor, timestep: int, codes: Tensor) -> Tensor:
    """(N, D); a code is added where the U-Net has no cross-attention."""
    steps = torch.full((x.shape[0],), timestep, device=x.device)
    time: Tensor = unet.time_embedding(unet.time_proj(steps).to(codes.dtype))
    if not getattr(unet.config, "cross_attention_dim", None):
        time = time + codes[:, 0]
    if getattr(unet, "time_embed_act", None) is not None:
        time = unet.time_embed_act(time)
    return time
