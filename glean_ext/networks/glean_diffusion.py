"""GLEAN with a diffusion model as its latent bank, asked in one pass, and with reference images.

The idea is that of the notes this package started from; no paper describes it. docs/tasks.md says what is taken from
where.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.network_settings import TAKE_REFERENCES
from glean_ext.networks.banks.diffusion import DiffusionBank
from glean_ext.networks.banks.loading import BANK_INITS
from glean_ext.networks.banks.reference_attention import Seen, attend, remember
from glean_ext.networks.conv2d_gradfix import Conv2d
from glean_ext.networks.decoder import SlimDecoder
from glean_ext.networks.encoder import Encoder, scaled_kaiming_, set_checkpointing, start_at_zero
from glean_ext.networks.glean import require_size
from glean_ext.networks.global_skip import make_global_skip
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.references import distinct, enlarged, reduced, require_references
from glean_ext.networks.shapes import (
    MIN_SIZE,
    Size,
    require_one_of,
    resolutions,
    size_requirements,
    square_paddings,
)

BANKS = ("frozen", "lora", "tuned")
DECODERS = ("slim", "none")


class GLEANDiffusion(nn.Module):
    """Encoder -> U-Net of a diffusion model, one pass at a fixed time step -> decoder.

    - The encoder is GLEAN's. Its features are added to the U-Net's skip connections and to its middle, through 1x1
      convolutions that start at zero (the interface of ControlNet, Zhang et al., ICCV 2023).
    - Its codes take the place of the text where the U-Net has cross-attention; otherwise one code, zero at the start,
      is added to the embedding of the time step.
    - The U-Net gets the enlarged input, or its latent, without noise.
    - The decoder is LightGLEAN's: f_0, to which the features of the U-Net's ascent are added. It stands in the place of
      the VAE's decoder, whose compression loses detail.

    Args:
        in_size: Images of other proportions, (height, width), lie in the middle of a square.
        pipeline: The folder of a diffusers pipeline (Stable Diffusion 1.5, 2.1, Turbo; DDPM), or the configs of its
            parts, ``dict(unet=..., vae=..., scheduler=...)``. The U-Net is a ``UNet2DModel`` or a
            ``UNet2DConditionModel``; without VAE it works on images.
        init_cfg: ``dict(type='Pretrained', checkpoint=path_or_url, prefix='...')`` with ``unet.*`` and ``vae.*``;
            None: :meth:`init_weights` loads the weights of the pipeline's folder, strictly.
        bank: ``'frozen'``; ``'lora'``: with trained low-rank updates of its attention; ``'tuned'``: trained as a whole.
        decoder: ``'slim'``; ``'none'``: the bank's own image, x_0 of its prediction, decoded by the VAE.
        global_skip: As for :class:`~glean_ext.networks.glean.GLEANStyleGANv2`; so is ``trunk``.

    Raises:
        ValueError: Sizes as for :class:`~glean_ext.networks.glean.GLEANStyleGANv2`; an unknown ``bank``, ``bank_init``
            or ``decoder``.
        InputError: A pipeline that cannot be a bank, or diffusers is missing.
    """

    max_references = TAKE_REFERENCES["GLEANDiffusion"]

    def __init__(
        self,
        in_size: Size,  # pixels: side of the input, a power of two from 4 on; or (height, width)
        out_size: Size,  # pixels: side of the output, a larger power of two; or (height, width) as in_size
        pipeline: str | os.PathLike | Mapping[str, Mapping],
        timestep: int = 200,  # of the pass
        num_codes: int = 16,  # K: tokens for the U-Net's cross-attention
        encoder_channels: int = 128,  # width of the encoder's features
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        decoder: Literal["slim", "none"] = "slim",
        decoder_channels: int = 32,  # width of the decoder
        bank: Literal["frozen", "lora", "tuned"] = "frozen",
        bank_init: Literal["pretrained", "random"] = "pretrained",
        init_cfg: dict | None = None,  # the bank's file; None: the pipeline's folder
        lora_rank: int = 4,
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
        global_skip: bool = False,  # add the enlarged input to the decoder's image
        trunk: Literal["rrdb", "residual"] = "rrdb",  # blocks of the encoder's trunk
    ):
        super().__init__()
        require_one_of("bank", bank, BANKS)
        require_one_of("bank_init", bank_init, BANK_INITS)
        require_one_of("decoder", decoder, DECODERS)
        self.lq_padding, self.gt_padding = square_paddings(in_size, out_size)
        self.in_size, self.out_size = self.lq_padding.size, self.gt_padding.size
        self.size_requirements = size_requirements(self.lq_padding, self.gt_padding, any_size=False)
        low, high = self.lq_padding.side, self.gt_padding.side
        self.img_channels = 3
        self.bank, self.bank_init, self.init_cfg, self.fp16_enabled = bank, bank_init, init_cfg, fp16_enabled

        self.generator = DiffusionBank(pipeline, high, timestep, num_codes)
        self.generator.requires_grad_(False)
        if bank == "tuned":
            self.generator.tune(image=decoder == "none")
        elif bank == "lora":
            self.generator.add_lora(lora_rank)
        spec = self.generator.spec
        widths = dict.fromkeys(resolutions(MIN_SIZE, low), encoder_channels)
        self.encoder = Encoder(
            low, widths, spec.num_codes, spec.code_channels, self.img_channels, rrdb_channels, num_rrdbs, 0, trunk
        )
        set_checkpointing(self.encoder, checkpoint_trunk)
        if spec.num_codes == 1:
            start_at_zero(cast(nn.Sequential, self.encoder[-1])[-1])
        self.residuals = nn.ModuleDict(  # by the number of the skip connection; the last one is the middle's
            {
                str(i): start_at_zero(Conv2d(encoder_channels, width, 1))
                for i, (width, res) in enumerate((*spec.skips, spec.middle))
                if res in widths
            }
        )
        self.lifts = nn.ModuleDict()
        self.decoder = None
        if decoder == "slim":
            below = {res: width for res, width in spec.features.items() if res <= low}
            self.lifts.update({str(res): Lift(width, decoder_channels, low // res) for res, width in below.items()})
            stages = {res: spec.features.get(res, 0) for res in resolutions(2 * low, high)}
            start = {low: encoder_channels + decoder_channels * len(below)}
            self.decoder = SlimDecoder(low, high, start, stages, decoder_channels, self.img_channels)
        self.global_skip = make_global_skip(self.decoder, global_skip)

    def forward(self, lq: Tensor, references: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        Args:
            lq: The images.
            references: For each image R others of the same thing, in high resolution: (N, R, 3, H, W), in [-1, 1],
                R from 1 to 8. Their order has no effect.

        Raises:
            InputError: The input is not of ``in_size``; references of other sizes, or too many of them.
        """
        require_size(lq, self.lq_padding)
        if references is not None:
            size = self.gt_padding.height, self.gt_padding.width
            require_references(references, lq, size, self.max_references)
        with mixed_precision(lq.device, self.fp16_enabled):
            seen = None if references is None else self._seen(references)
            lq = self.lq_padding.pad(lq)
            image = self.gt_padding.crop(self._restore(lq, enlarged(lq, self.gt_padding.side), seen))
        return image.float()

    def _restore(self, lq: Tensor, large: Tensor, seen: Seen | None) -> Tensor:
        """(N, 3, h, h), the same enlarged (N, 3, H, H) -> (N, 3, H, H)"""
        # The encoder: features {4: ..., h: f_0} of (N, C, res, res), codes (N, K, S).
        features, codes = self.encoder(lq)
        # The latent bank: its features {res: (N, C, res, res)} up to its own side.
        x = self.generator.encode(large)
        with nullcontext() if seen is None else attend(self.generator.unet, seen):
            bank_features = self._bank_features(features, codes, x)
        # The decoder: the image (N, 3, H, H).
        if self.decoder is None:
            return self.generator.image(x, bank_features)
        low = self.lq_padding.side
        below = [lift(bank_features[int(res)]) for res, lift in self.lifts.items()]
        # Above its own side the bank has no features: there the decoder gets some without channels.
        sides = resolutions(2 * low, self.gt_padding.side)
        none = codes.new_empty(lq.shape[0], 0, 1, 1)
        above = [bank_features[res] if res in bank_features else none.expand(-1, -1, res, res) for res in sides]
        image = self.decoder(torch.cat([features[low], *below], 1), above)
        return self.global_skip(image, lq)

    def _bank_features(self, features: Mapping[int, Tensor], codes: Tensor, x: Tensor) -> dict[int, Tensor]:
        """The U-Net's ascent: its features by side, after the encoder's have been added to those of the descent."""

        def fuse(states: list[Tensor]) -> list[Tensor]:
            for i, residual in self.residuals.items():
                states[int(i)] = states[int(i)] + residual(features[states[int(i)].shape[-1]])
            return states

        return self.generator.features(x, codes, fuse)

    def _seen(self, references: Tensor) -> Seen:
        """What the bank's attention sees of references (N, R, 3, H, W)."""
        references, times = distinct(references)
        padded = self.gt_padding.pad(references.flatten(0, 1))
        features, codes = self.encoder(reduced(padded, self.lq_padding.side))
        with remember(self.generator.unet) as seen:
            self._bank_features(features, codes, self.generator.encode(padded))
        return {name: x.repeat(times, 1, 1) for name, x in seen.items()}

    def init_weights(self) -> None:
        """Fill the bank before training; mmengine's runner calls this.

        Raises:
            InputError: The weights do not fit, or there are none although ``bank_init`` is ``'pretrained'``.
        """
        if self.bank_init == "random":
            return
        if self.init_cfg is None:
            self.generator.load_folder()
        else:
            self.generator.load(*checkpoints.read_pretrained(self.init_cfg))


class Lift(nn.Module):
    """Features of a lower resolution for the start of the decoder. (N, C, H, W) -> (N, O, scale H, scale W)"""

    def __init__(self, in_channels: int, out_channels: int, scale: int):
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels * scale**2, 1)
        self.scale = scale
        scaled_kaiming_(self, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), self.scale)
