"""LightGLEAN: encoder -> the upper part of the latent bank -> slim decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Image Super-Resolution and Beyond", TPAMI 2022: no coarse
connections between encoder and bank, learned style codes. It was never released; what only a release could tell, the
decoder above all, is ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.loading import bank_file, load_bank, require_bank
from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.builder import make_blocks, make_decoder
from glean_ext.networks.encoder import feature_extractor, set_checkpointing
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.shapes import MIN_INPUT, Size, canvases, require_one_of

logger = logging.getLogger(__name__)
DECODERS = ("slim", "full")


class LightGLEANStyleGANv2(nn.Module):
    """LightGLEAN with a StyleGAN2 bank: a ninth of GLEAN's parameters, two fifths of its FLOPs, any input size.

    Without coarse features and with constant style codes, every block of the bank up to the input's resolution would
    compute a constant. So the bank starts there, from the encoder's f_0, and has no mapping network and no RGB path.
    Its weights are frozen.

    The style codes, one for every modulated convolution, are parameters. :meth:`init_weights` sets them to the bank's
    mean latent: there the bank makes its most typical image (it is the centre of StyleGAN's truncation), so all layers
    are modulated as they were in the bank's training, and the codes start from where no image is far. From random
    vectors, training would first have to find the bank's latents. Without a bank file they are zero, which modulates by
    the layers' biases.

    Args:
        in_size: Height and width that the bank's resolutions and the stored noise belong to, a power of two from 8 on,
            smaller than ``out_size``. Inputs may have any other size; the scale is ``out_size / in_size``. As GLEAN it
            takes (height, width), too, of which the longer one counts.
        out_size: Height and width of the bank's images.
        img_channels: Channels of the input and output image.
        rrdb_channels: Width of the RRDB trunk.
        num_rrdbs: Blocks of the RRDB trunk.
        style_channels: Channels of a style code; as the bank has them.
        num_mlps: Layers of the mapping network in the bank's file; only :meth:`init_weights` needs it, and ``lr_mlp``.
        channel_multiplier: Width of the bank from 64x64 on; 2 is StyleGAN2's configuration f.
        blur_kernel: Taps of the bank's resampling filter.
        lr_mlp: Learning-rate multiplier of the mapping network in the bank's file.
        init_cfg: Where the bank's weights are: ``dict(type='Pretrained', checkpoint=path_or_url,
            prefix='generator_ema')``, the same file as GLEAN's. :meth:`init_weights` loads them, strictly.
        fp16_enabled: Run in mixed precision when no autocast is active: fp16 on a GPU, bf16 on a CPU that has it.
        max_channels: No layer of the bank is wider. 512 is what the published banks have.
        bank_init: ``'pretrained'``: training needs an ``init_cfg``. ``'random'``: it starts with a random bank.
        decoder_channels: Width of the slim decoder.
        bank: ``'frozen'``; ``'tuned'``: trained with the rest; ``'absent'``: encoder and decoder are all there is.
            This and ``decoder`` are for ablations, see :mod:`glean_ext.networks.ablations`.
        decoder: ``'slim'``; ``'full'``: GLEAN's. There is no ``'none'``, for this part of a bank makes no image.
        checkpoint_trunk: Gradient checkpointing of the RRDB trunk: training keeps only the blocks' inputs and computes
            the blocks twice, which saves memory and takes time.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank``, ``bank_init`` or
            ``decoder``; arguments that contradict each other.
    """

    in_size = None  # any; GLEAN has its one input size here

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
        init_cfg: dict | None = None,
        fp16_enabled: bool = False,
        max_channels: int = 512,
        bank_init: str = "pretrained",
        decoder_channels: int = 32,
        bank: str = "frozen",
        decoder: str = "slim",
        checkpoint_trunk: bool = False,
    ):
        super().__init__()
        require_bank(bank, bank_init, init_cfg)
        require_one_of("decoder", decoder, DECODERS)
        lq_canvas, gt_canvas = canvases(in_size, out_size)
        self.nominal_size, self.out_size = lq_canvas.size, gt_canvas.size
        self.bank_from, bank_size = lq_canvas.side, gt_canvas.side
        self.img_channels = img_channels
        self.init_cfg = init_cfg
        self.bank = bank
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled
        self._make_whole_bank = partial(
            StyleGAN2Generator,
            bank_size,
            style_channels,
            num_mlps,
            channel_multiplier,
            max_channels,
            blur_kernel,
            lr_mlp,
        )

        self.generator = make_blocks(
            bank, self.bank_from, bank_size, style_channels, channel_multiplier, max_channels, blur_kernel
        )
        self.style_codes = nn.Parameter(torch.zeros(self.generator.num_latents, style_channels), bank != "absent")
        f_0_channels = self.generator.channels[self.bank_from]
        self.encoder = feature_extractor(img_channels, rrdb_channels, num_rrdbs, f_0_channels)
        set_checkpointing(self.encoder, checkpoint_trunk)
        self.decoder = make_decoder(decoder, self.generator, self.bank_from, bank_size, decoder_channels, img_channels)

    def forward(self, lq: Tensor) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1]; h and w from 8 on.

        Raises:
            InputError: The input is smaller than 8x8, or has other channels.
        """
        require_input(lq, self.img_channels)
        with mixed_precision(lq.device, self.fp16_enabled):
            f_0 = self.encoder(lq)  # (N, C, h, w)
            # A copy, for views of parameters that reach modules under no_grad break torch's FLOP counter.
            codes = self.style_codes.repeat(lq.shape[0], 1, 1)  # (N, K, S)
            bank_features = self.generator(f_0, codes)
            return self.decoder(f_0, bank_features).float()

    def init_weights(self) -> None:
        """Fill the bank's blocks and the style codes from ``init_cfg`` before training; mmengine's runner calls this.

        The file must hold the whole StyleGAN2, as for GLEAN; what is not taken from it is logged.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        init_cfg = bank_file(self, self.init_cfg, self.bank, self.bank_init)
        if init_cfg is None:
            return
        whole = self._make_whole_bank()
        load_bank(whole, init_cfg)
        state, own = whole.state_dict(), self.generator.state_dict()
        self.generator.load_state_dict({key: state[key] for key in own}, strict=True)
        with torch.no_grad():
            self.style_codes.copy_(whole.mean_style().expand_as(self.style_codes))
        logger.info(
            "LightGLEAN took %d of the %d tensors in %s and the mean latent. It does not use: %s.",
            len(own), len(state), init_cfg["checkpoint"], self._unused(state.keys() - own.keys()),
        )  # fmt: skip

    def _unused(self, keys: Iterable[str]) -> str:
        """Tensors of the whole bank counted by what they belong to."""
        counts = {"mapping network": 0, "RGB path": 0, f"blocks up to {self.bank_from}x{self.bank_from}": 0}
        mapping, rgb, blocks = counts
        for key in keys:
            counts[mapping if key.startswith("style_mapping.") else rgb if key.startswith("to_rgb") else blocks] += 1
        return ", ".join(f"{group} ({count})" for group, count in counts.items())


def require_input(lq: Tensor, channels: int) -> None:
    """Raise InputError unless ``lq`` is (N, channels, h, w) with h and w of at least 8."""
    if lq.ndim != 4 or lq.shape[1] != channels or min(lq.shape[2:]) < MIN_INPUT:
        raise InputError(
            f"LightGLEAN takes images of at least {MIN_INPUT}x{MIN_INPUT} pixels with {channels} channels, but got a "
            f"tensor of shape {tuple(lq.shape)}. Enlarge or pad the image."
        )
