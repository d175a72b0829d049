"""GLEAN: encoder -> latent bank -> decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Large-Factor Image Super-Resolution", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.loading import bank_file, load_bank, require_bank
from glean_ext.networks.builder import make_bank, make_decoder, make_encoder, make_fusions, require_parts
from glean_ext.networks.encoder import set_checkpointing
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.shapes import MIN_SIZE, Size, SquarePadding, canvases, require_one_of, resolutions

DECODERS = ("full", "slim", "none")


class GLEANStyleGANv2(nn.Module):
    """GLEAN with a StyleGAN2 bank. State-dict keys and outputs are those of MMagic's class of the same name.

    The bank's weights are frozen. The bank's mapping network and RGB path, and ``fusion_skip``, never reach the
    output: they are kept so that checkpoints agree, are not computed and not trained.

    Args:
        in_size: Side of the square input, a power of two from 8 on, smaller than ``out_size``; or (height, width),
            the longer of which is such a number (see :class:`~glean_ext.networks.shapes.SquarePadding`).
        out_size: Side of the output and of the bank's images, or (height, width) in the proportions of ``in_size``.
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
        fp16_enabled: Run in mixed precision when no autocast is active: fp16 on a GPU, bf16 on a CPU that has it.
        bgr2rgb: See ``default_style_mode``.
        bank_init: ``'pretrained'``: training needs an ``init_cfg``. ``'random'``: it starts with a random bank.
        bank: ``'frozen'``; ``'tuned'``: trained with the rest; ``'absent'``: encoder and decoder are all there is.
            This and what follows are for ablations, see :mod:`glean_ext.networks.ablations`.
        inject_at: Resolutions where the encoder's features go into the bank, of 4, 8, ... ``in_size``; None: all.
        decoder: ``'full'``; ``'slim'``: LightGLEAN's; ``'none'``: the bank's own image is the output.
        decoder_channels: Width of the slim decoder.
        checkpoint_trunk: Gradient checkpointing of the RRDB trunk: training keeps only the blocks' inputs and computes
            the blocks twice, which saves memory and takes time.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank``, ``bank_init``,
            ``decoder`` or ``inject_at``; arguments that contradict each other.
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
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
        bank: str = "frozen",
        inject_at: Sequence[int] | None = None,
        decoder: str = "full",
        decoder_channels: int = 32,
        checkpoint_trunk: bool = False,
    ):
        super().__init__()
        require_bank(bank, bank_init, init_cfg)
        require_one_of("decoder", decoder, DECODERS)
        self.lq_canvas, self.gt_canvas = canvases(in_size, out_size)
        self.in_size, self.out_size = self.lq_canvas.size, self.gt_canvas.size
        sides = self.lq_canvas.side, self.gt_canvas.side
        require_parts(bank, inject_at, decoder, sides[0])
        self.init_cfg = init_cfg
        self.bank = bank
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled

        self.generator = make_bank(
            bank,
            decoder,
            sides[1],
            style_channels,
            num_mlps,
            channel_multiplier,
            max_channels,
            blur_kernel,
            lr_mlp,
        )
        self.encoder = make_encoder(self.generator, sides[0], style_channels, img_channels, rrdb_channels, num_rrdbs)
        set_checkpointing(self.encoder, checkpoint_trunk)
        self.fusion_out, self.fusion_skip = make_fusions(self.generator, sides[0], inject_at)
        self.decoder = make_decoder(decoder, self.generator, *sides, decoder_channels, img_channels)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        Raises:
            InputError: The input is not of ``in_size``.
        """
        require_size(lq, self.lq_canvas)
        with mixed_precision(lq.device, self.fp16_enabled):
            features, codes = self.encoder(self.lq_canvas.place(lq))  # {4: ..., h: f_0}, (N, K, S)
            bank_features = self._bank_features(features, codes)
            image = self.decoder(features[self.lq_canvas.side], bank_features)
            return self.gt_canvas.cut(image).float()

    def _bank_features(self, features: dict[int, Tensor], codes: Tensor) -> list[Tensor]:
        """The bank's features above the input size, f_i mixed in up to it (CVPR 2021, section 3.2)."""
        x = self.generator.start(codes)  # (N, C, 4, 4)
        in_size, answers = self.lq_canvas.side, []
        for i, res in enumerate(resolutions(MIN_SIZE, self.gt_canvas.side // 2)):
            if res <= in_size:
                x = self.fusion_out[i](torch.cat([x, features[res]], 1))
            x = self.generator.block(x, 2 * res, codes)  # (N, C, 2 res, 2 res)
            if res >= in_size:
                answers.append(x)
        return answers

    def init_weights(self) -> None:
        """Fill the bank from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        if init_cfg := bank_file(self, self.init_cfg, self.bank, self.bank_init):
            load_bank(self.generator, init_cfg)


def require_size(lq: Tensor, size: SquarePadding) -> None:
    """Raise InputError unless ``lq`` is (N, C, height, width) as ``size`` has them."""
    if lq.ndim != 4 or lq.shape[-2:] != (size.height, size.width):
        raise InputError(
            f"This GLEAN takes images of {size} pixels, but got a tensor of shape {tuple(lq.shape)}. Resize the "
            f"image to {size}, or take a model of that size."
        )
