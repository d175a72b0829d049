"""GLEAN: encoder -> latent bank -> decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Large-Factor Image Super-Resolution", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.loading import bank_file, load_bank, require_bank
from glean_ext.networks.banks.spec import BankSpec
from glean_ext.networks.builder import make_bank, make_decoder, make_encoder, make_fusions, require_parts
from glean_ext.networks.encoder import set_checkpointing
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.shapes import (
    MIN_SIZE,
    Size,
    SquarePadding,
    require_one_of,
    resolutions,
    size_requirements,
    square_paddings,
)

DECODERS = ("full", "slim", "none")


class GLEANStyleGANv2(nn.Module):
    """GLEAN with a StyleGAN2 bank. State-dict keys and outputs are those of MMagic's class of the same name.

    The bank's weights are frozen. The bank's mapping network and RGB path, and ``fusion_skip``, never reach the
    output: they exist so that checkpoints agree, but are neither computed nor trained.

    Args:
        in_size: Images of other proportions, (height, width), lie in the middle of a square
            (:class:`~glean_ext.networks.shapes.SquarePadding`); its side is a power of two.
        init_cfg: ``dict(type='Pretrained', checkpoint=path_or_url, prefix='generator_ema')``; :meth:`init_weights`
            loads the bank from there, strictly.
        bank_init: ``'pretrained'``: training needs an ``init_cfg``. ``'random'``: it starts with a random bank.
        bank: ``'frozen'``; ``'tuned'``: trained with the rest; ``'absent'``: encoder and decoder only. This and the
            next two are for ablations, see :mod:`glean_ext.networks.ablations`.
        decoder: ``'full'``; ``'slim'``: LightGLEAN's; ``'none'``: the bank's own image is the output.
        checkpoint_trunk: Training keeps only the inputs of the RRDB trunk's blocks and computes the blocks twice, which
            saves memory and takes time.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank``, ``bank_init``,
            ``decoder`` or ``inject_at``; arguments that contradict each other.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: side of the input, a power of two from 4 on; or (height, width)
        out_size: Size,  # pixels: side of the output, a larger power of two; or (height, width) as in_size
        img_channels: int = 3,  # of the input and of the output image
        rrdb_channels: int = 64,  # width of the encoder's RRDB trunk
        num_rrdbs: int = 23,  # blocks of the RRDB trunk
        style_channels: int = 512,  # S: channels of a style code; here and below as in the bank's file
        num_mlps: int = 8,  # layers of the bank's mapping network
        channel_multiplier: float = 2,  # width of the bank from 64x64 on: 2 is StyleGAN2's configuration f
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the bank's resampling filter
        lr_mlp: float = 0.01,  # learning-rate multiplier of the bank's mapping network
        default_style_mode: str = "mix",  # no effect: MMagic's class has it, but the codes come from the encoder
        eval_style_mode: str = "single",  # no effect, see default_style_mode
        mix_prob: float = 0.9,  # no effect, see default_style_mode
        init_cfg: dict | None = None,  # the bank's file; None: there is none
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        bgr2rgb: bool = False,  # no effect, see default_style_mode
        max_channels: int = 512,  # limit of the width of bank, encoder pyramid and decoder
        bank_init: str = "pretrained",  # or 'random'
        bank: str = "frozen",  # or 'tuned', 'absent'
        inject_at: Sequence[int] | None = None,  # of 4, 8, ... in_size: where the bank gets features; None: everywhere
        decoder: str = "full",  # or 'slim', 'none'
        decoder_channels: int = 32,  # width of the slim decoder
        checkpoint_trunk: bool = False,  # gradient checkpointing of the RRDB trunk
    ):
        super().__init__()
        require_bank(bank, bank_init, init_cfg)
        require_one_of("decoder", decoder, DECODERS)
        self.lq_padding, self.gt_padding = square_paddings(in_size, out_size)
        self.in_size, self.out_size = self.lq_padding.size, self.gt_padding.size
        self.size_requirements = size_requirements(self.lq_padding, self.gt_padding, any_size=False)
        low, high = self.lq_padding.side, self.gt_padding.side
        require_parts(bank, inject_at, decoder, low)
        spec = BankSpec(high, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp)
        self.img_channels = img_channels
        self.init_cfg = init_cfg
        self.bank = bank
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled

        self.generator = make_bank(spec, bank, decoder)
        self.encoder = make_encoder(self.generator, low, style_channels, img_channels, rrdb_channels, num_rrdbs)
        set_checkpointing(self.encoder, checkpoint_trunk)
        self.fusion_out, self.fusion_skip = make_fusions(self.generator, low, inject_at)
        self.decoder = make_decoder(decoder, self.generator, low, high, decoder_channels, img_channels)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        Raises:
            InputError: The input is not of ``in_size``.
        """
        require_size(lq, self.lq_padding)
        with mixed_precision(lq.device, self.fp16_enabled):
            # The encoder: features {4: ..., h: f_0} of (N, C, res, res), style codes (N, K, S).
            features, codes = self.encoder(self.lq_padding.pad(lq))
            # The latent bank: its features above the input's resolution, (N, C_i, 2^i h, 2^i h) for i = 1, 2, ...
            bank_features = self._bank_features(features, codes)
            # The decoder: the image (N, 3, H, H).
            image = self.decoder(features[self.lq_padding.side], bank_features)
            return self.gt_padding.crop(image).float()

    def _bank_features(self, features: dict[int, Tensor], codes: Tensor) -> list[Tensor]:
        """The bank's features above the input's resolution; up to it, f_i are fused in (CVPR 2021, section 3.2)."""
        x = self.generator.start(codes)  # (N, C, 4, 4)
        in_size, bank_features = self.lq_padding.side, []
        for i, res in enumerate(resolutions(MIN_SIZE, self.gt_padding.side // 2)):
            if res <= in_size:
                x = self.fusion_out[i](torch.cat([x, features[res]], 1))  # (N, C, res, res)
            x = self.generator.block(x, 2 * res, codes)  # (N, C, 2 res, 2 res)
            if res >= in_size:
                bank_features.append(x)
        return bank_features

    def init_weights(self) -> None:
        """Fill the bank from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        if init_cfg := bank_file(self, self.init_cfg, self.bank, self.bank_init):
            load_bank(self.generator, init_cfg)


def require_size(lq: Tensor, size: SquarePadding) -> None:
    """Raise InputError unless ``lq`` is (N, C, height, width) with the height and width of ``size``."""
    if lq.ndim != 4 or lq.shape[-2:] != (size.height, size.width):
        raise InputError(
            f"This GLEAN takes images of {size} pixels, but got a tensor of shape {tuple(lq.shape)}. Resize the "
            f"image to {size}, or take a model of that size."
        )
