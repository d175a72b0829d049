"""LightGLEAN: encoder -> the upper part of the latent bank -> slim decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Image Super-Resolution and Beyond", TPAMI 2022: no coarse
connections between encoder and bank, learned style codes. It was never released; what the paper leaves open, above all
the decoder, is our own design.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks.banks.loading import bank_file, load_bank, require_bank
from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.banks.stylegan2_spec import StyleGAN2Spec
from glean_ext.networks.builder import make_blocks, make_decoder, make_pyramid
from glean_ext.networks.encoder import feature_extractor, set_checkpointing
from glean_ext.networks.fidelity import require_gate
from glean_ext.networks.global_skip import make_global_skip
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.pyramid import decode
from glean_ext.networks.shapes import Size, require_one_of, size_requirements, square_paddings
from glean_ext.size_requirements import MIN_INPUT
from glean_ext.utils.downloads import without_secrets

logger = logging.getLogger(__name__)
DECODERS = ("slim", "full")


class LightGLEANStyleGANv2(nn.Module):
    """LightGLEAN with a StyleGAN2 bank: a ninth of GLEAN's parameters, two fifths of its FLOPs, any input size.

    Without coarse features and with constant style codes, every block of the bank up to the input's resolution would
    compute a constant. So the bank starts there, from the encoder's f_0, and has no mapping network and no RGB path.
    Its weights are frozen.

    The style codes, one for every modulated convolution, are parameters. :meth:`init_weights` sets them to the bank's
    mean latent, the centre of StyleGAN's truncation: there every layer is modulated as it was in the bank's training,
    and no image is far away. From random vectors, training would first have to find the bank's latents. Without a bank
    file the codes are zero, so the biases of the style layers alone modulate.

    Args:
        in_size: Decides with ``out_size`` which blocks of the bank are used and the scale, ``out_size / in_size``;
            inputs may have any size from 8x8 on. Of (height, width) the longer side counts.
        init_cfg: ``dict(type='Pretrained', checkpoint=path_or_url, prefix='generator_ema')``, the same file as GLEAN's;
            :meth:`init_weights` loads the blocks from there, strictly.
        bank_init: ``'pretrained'``: training needs an ``init_cfg``. ``'random'``: it starts with a random bank.
        bank: ``'frozen'``; ``'tuned'``: trained with the rest; ``'absent'``: encoder and decoder only. This and
            ``decoder`` are for ablations, see :mod:`glean_ext.networks.ablations`.
        decoder: ``'slim'``; ``'full'``: GLEAN's. ``'none'`` does not exist, for this part of a bank makes no image.
        checkpoint_trunk: Training keeps only the inputs of the trunk's blocks and computes the blocks twice, which
            saves memory and takes time.
        fidelity_gate: As for :class:`~glean_ext.networks.glean.GLEANStyleGANv2`; so are
            ``pyramid``, ``global_skip`` and ``trunk``.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank``, ``bank_init`` or
            ``decoder``; arguments that contradict each other.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: nominal side of the input, a power of two from 8 on; or (height, width)
        out_size: Size,  # pixels: side of the output then, a larger power of two; or (height, width) as in_size
        img_channels: int = 3,  # of the input and of the output image
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        style_channels: int = 512,  # S: channels of a style code; here and below as in the bank's file
        num_mlps: int = 8,  # layers of the mapping network in the bank's file; used by init_weights only
        channel_multiplier: float = 2,  # width of the bank from 64x64 on: 2 is StyleGAN2's configuration f
        blur_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the bank's resampling filter
        lr_mlp: float = 0.01,  # learning-rate multiplier of that mapping network
        init_cfg: dict | None = None,  # the bank's file; None: there is none
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        max_channels: int = 512,  # limit of the bank's width
        bank_init: Literal["pretrained", "random"] = "pretrained",
        decoder_channels: int = 32,  # width of the slim decoder
        bank: Literal["frozen", "tuned", "absent"] = "frozen",
        decoder: Literal["slim", "full"] = "slim",
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
        fidelity_gate: bool = False,  # the bank's features count 1 - w
        pyramid: bool = False,  # images of the decoder's smaller resolutions in training
        global_skip: bool = False,  # add the enlarged input to the decoder's image
        trunk: Literal["rrdb", "residual"] = "rrdb",  # blocks of the encoder's trunk
    ):
        super().__init__()
        require_bank(bank, bank_init, init_cfg)
        require_one_of("decoder", decoder, DECODERS)
        lq_padding, gt_padding = square_paddings(in_size, out_size, MIN_INPUT)
        self.size_requirements = size_requirements(lq_padding, gt_padding, any_size=True)
        low, high = lq_padding.side, gt_padding.side
        self.bank_from = low
        sizes = StyleGAN2Spec(high, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp)
        self.bank_sizes = sizes
        self.img_channels = img_channels
        self.init_cfg = init_cfg
        self.bank = bank
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled

        self.generator = make_blocks(sizes, bank, low)
        self.style_codes = nn.Parameter(torch.zeros(self.generator.spec.num_codes, style_channels), bank != "absent")
        self.encoder = feature_extractor(img_channels, rrdb_channels, num_rrdbs, sizes.channels[low], trunk)
        set_checkpointing(self.encoder, checkpoint_trunk)
        widths = sizes.channels
        self.decoder = cast(
            nn.Module, make_decoder(decoder, self.generator, low, high, widths, decoder_channels, img_channels)
        )
        self.fidelity_gate = require_gate(fidelity_gate, bank, decoder)
        self.pyramid = make_pyramid(self.decoder, img_channels) if pyramid else None
        self.pyramid_images: list[Tensor] = []  # of the last forward pass in training
        self.global_skip = make_global_skip(self.decoder, global_skip)

    def forward(self, lq: Tensor, fidelity: Tensor | None = None) -> Tensor:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1]; h and w from 8 on.

        ``fidelity`` (N,) is w of each image, in [0, 1], for a network with the fidelity gate; None: 0.

        Raises:
            InputError: The input is smaller than 8x8, or has other channels.
        """
        require_input(lq, self.img_channels)
        with mixed_precision(lq.device, self.fp16_enabled):
            # The encoder: f_0 (N, C, h, w).
            f_0 = self.encoder(lq)
            # The style codes (N, K, S); a copy, as a view of a parameter breaks torch's FLOP counter under no_grad.
            codes = self.style_codes.repeat(lq.shape[0], 1, 1)
            # The latent bank: its features above the input's resolution, (N, C_i, 2^i h, 2^i w) for i = 1, 2, ...
            bank_features = self.generator(f_0, codes)
            # The decoder: the image (N, 3, H, W).
            image = decode(self, f_0, bank_features, fidelity)
            image = self.global_skip(image, lq)
            return image.float()

    def init_weights(self) -> None:
        """Fill the bank's blocks and the style codes from ``init_cfg`` before training; mmengine's runner calls this.

        The file must hold the whole StyleGAN2 generator, as for GLEAN; its unused tensors are counted in the log.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        init_cfg = bank_file(self, self.init_cfg, self.bank, self.bank_init)
        if init_cfg is None:
            return
        whole = StyleGAN2Generator.from_spec(self.bank_sizes)
        load_bank(whole, init_cfg)
        state, own = whole.state_dict(), self.generator.state_dict()
        self.generator.load_state_dict({key: state[key] for key in own}, strict=True)
        with torch.no_grad():
            self.style_codes.copy_(whole.mean_style().expand_as(self.style_codes))
        source, unused = without_secrets(str(init_cfg["checkpoint"])), self._unused(state.keys() - own.keys())
        message = "LightGLEAN took %d of the %d tensors in %s and the mean latent. It does not use: %s."
        logger.info(message, len(own), len(state), source, unused)

    def _unused(self, keys: Iterable[str]) -> str:
        """The tensors of the whole bank with these keys, counted by the part that they belong to."""
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
