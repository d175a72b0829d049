"""GLEAN: encoder -> latent bank -> decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Large-Factor Image Super-Resolution", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError

from .bank_init import bank_file, require_bank_init
from .decoder import Decoder
from .encoder import Encoder
from .precision import mixed_precision
from .shapes import MIN_SIZE, require_scale, resolutions
from .stylegan2 import StyleGAN2Generator


class GLEANStyleGANv2(nn.Module):
    """GLEAN with a StyleGAN2 bank. State-dict keys and outputs are those of MMagic's class of the same name.

    The bank's weights are frozen. The bank's mapping network and RGB path, and ``fusion_skip``, never reach the
    output: they are kept so that checkpoints agree, are not computed and not trained.

    Args:
        in_size: Height and width of the input, a power of two from 8 on, smaller than ``out_size``.
        out_size: Height and width of the output and of the bank's images.
        img_channels: Channels of the input and output image.
        rrdb_channels: Width of the RRDB trunk.
        num_rrdbs: Blocks of the RRDB trunk.
        style_channels: Channels of a style code; as the bank has them.
        num_mlps: Layers of the bank's mapping network.
        channel_multiplier: Width of the bank from 64x64 on; 2 is StyleGAN2's configuration f.
        max_channels: No layer of bank, encoder pyramid or decoder is wider. 512 is what the published banks have.
        blur_kernel: Taps of the bank's resampling filter.
        lr_mlp: Learning-rate multiplier of the bank's mapping network.
        default_style_mode: Accepted because MMagic's class has it; it has no effect, for the codes come from the
            encoder. So do ``eval_style_mode``, ``mix_prob`` and ``bgr2rgb``.
        eval_style_mode: See ``default_style_mode``.
        mix_prob: See ``default_style_mode``.
        init_cfg: Where the bank's weights are: ``dict(type='Pretrained', checkpoint=path_or_url,
            prefix='generator_ema')``. :meth:`init_weights` loads them, strictly.
        fp16_enabled: Run in mixed precision when no autocast is active: fp16 on a GPU, bf16 on a CPU.
        bgr2rgb: See ``default_style_mode``.
        bank_init: ``'pretrained'``: training needs an ``init_cfg``. ``'random'``: it starts with a random bank.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank_init``.
    """

    def __init__(
        self,
        in_size: int,
        out_size: int,
        img_channels: int = 3,
        rrdb_channels: int = 64,
        num_rrdbs: int = 23,
        style_channels: int = 512,
        num_mlps: int = 8,
        channel_multiplier: float = 2,
        blur_kernel: Sequence[float] = (1, 3, 3, 1),
        lr_mlp: float = 0.01,
        default_style_mode: str = "mix",
        eval_style_mode: str = "single",
        mix_prob: float = 0.9,
        init_cfg: dict | None = None,
        fp16_enabled: bool = False,
        bgr2rgb: bool = False,
        max_channels: int = 512,
        bank_init: str = "pretrained",
    ):
        super().__init__()
        require_scale(in_size, out_size)
        require_bank_init(bank_init)
        self.in_size = in_size
        self.out_size = out_size
        self.init_cfg = init_cfg
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled

        self.generator = StyleGAN2Generator(
            out_size, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp
        )
        self.generator.requires_grad_(False)
        channels = self.generator.channels
        self.encoder = Encoder(
            in_size, channels, self.generator.num_latents, style_channels, img_channels, rrdb_channels, num_rrdbs
        )
        self.fusion_out = nn.ModuleList()
        self.fusion_skip = nn.ModuleList()
        for res in resolutions(MIN_SIZE, in_size):
            c = channels[res]
            self.fusion_out.append(nn.Conv2d(2 * c, c, 3, padding=1))
            self.fusion_skip.append(nn.Conv2d(c + 3, 3, 3, padding=1))
        self.fusion_skip.requires_grad_(False)
        self.decoder = Decoder(in_size, out_size, channels, img_channels)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, h), RGB in [-1, 1] -> (N, 3, H, H), fp32, about [-1, 1].

        Raises:
            InputError: The input is not ``in_size`` by ``in_size``.
        """
        self._check_input(lq)
        with mixed_precision(lq.device, self.fp16_enabled):
            features, codes = self.encoder(lq)  # {4: ..., h: f_0}, (N, K, S)
            bank_features = self._ask_bank(features, codes)
            return self.decoder(features[self.in_size], bank_features).float()

    def _ask_bank(self, features: dict[int, Tensor], codes: Tensor) -> list[Tensor]:
        """The bank's features above the input size, f_i mixed in up to it (CVPR 2021, section 3.2)."""
        x = self.generator.start(codes)  # (N, C, 4, 4)
        answers = []
        for i, res in enumerate(resolutions(MIN_SIZE, self.out_size // 2)):
            if res <= self.in_size:
                x = self.fusion_out[i](torch.cat([x, features[res]], 1))
            x = self.generator.block(x, 2 * res, codes)  # (N, C, 2 res, 2 res)
            if res >= self.in_size:
                answers.append(x)
        return answers

    def _check_input(self, lq: Tensor) -> None:
        if lq.ndim != 4 or lq.shape[-2:] != (self.in_size, self.in_size):
            raise InputError(
                f"This GLEAN takes images of {self.in_size}x{self.in_size} pixels, but got a tensor of shape "
                f"{tuple(lq.shape)}. Resize the image to {self.in_size}x{self.in_size}, or take a model of that size."
            )

    def init_weights(self) -> None:
        """Fill the bank from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        if init_cfg := bank_file(self, self.init_cfg, self.bank_init):
            checkpoints.load_pretrained(self.generator, init_cfg)
