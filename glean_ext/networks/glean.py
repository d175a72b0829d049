"""GLEAN: encoder -> latent bank -> decoder.

Source: Chan et al., "GLEAN: Generative Latent Bank for Large-Factor Image Super-Resolution", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.network_settings import MAX_REFERENCES
from glean_ext.networks.ablations import NoBank
from glean_ext.networks.banks.bank import Bank
from glean_ext.networks.banks.loading import bank_file, load_bank, require_bank
from glean_ext.networks.banks.stylegan2 import StyleGAN2Generator
from glean_ext.networks.banks.stylegan2_spec import StyleGAN2Spec
from glean_ext.networks.builder import (
    freeze_or_tune,
    make_decoder,
    make_encoder,
    make_fusions,
    make_pyramid,
    require_bank_fits,
    require_parts,
)
from glean_ext.networks.encoder import Encoder, set_checkpointing
from glean_ext.networks.fidelity import require_gate
from glean_ext.networks.global_skip import make_global_skip
from glean_ext.networks.labels import LabelHead, class_shares, find_label, require_names
from glean_ext.networks.precision import mixed_precision
from glean_ext.networks.pyramid import decode
from glean_ext.networks.reference_features import ReferenceFeatures
from glean_ext.networks.references import distinct, enlarged, reduced, require_references
from glean_ext.networks.shapes import (
    MIN_SIZE,
    Size,
    SquarePadding,
    require_one_of,
    resolutions,
    size_requirements,
    square_paddings,
)
from glean_ext.networks.warm_start import start_from_bank

DECODERS = ("full", "slim", "none")


class GLEANNetwork(nn.Module):
    """GLEAN around a given bank. Subclasses build the bank from arguments that a config can have.

    A bank of several classes takes the class of the image, too: from the caller, from ``label``, or else as the shares
    that a classifier on the encoder's last features estimates.

    Args:
        generator: The bank.
        bank: ``'frozen'``; ``'tuned'``: trained with the rest; ``'absent'``: ``generator`` stands for none.
        widths: For every resolution up to ``out_size``, the channels of the encoder's features and of the decoder's.
        skip_fusions: Have MMagic's ``fusion_skip``, which is not computed.
        class_names: The names of the bank's classes, in the order of their numbers; may be empty.
        label: The class of all images, by number or name; None: it is given with the images, or estimated.
        fidelity_gate: The network is trained for every share of the bank, see :mod:`glean_ext.networks.fidelity`.
        pyramid: In training ``pyramid_images`` are images of 2h, 4h, ... H / 2, for the intermediate loss.
        references: The network takes reference images, see :mod:`glean_ext.networks.reference_features`.
        global_skip: The decoder's image is added to the enlarged input, see :mod:`glean_ext.networks.global_skip`.
        trunk: ``'rrdb'``, the paper's; ``'residual'``: EDSR's blocks, which learn in fewer steps
            (``docs/evidence.md``), ``num_rrdbs`` of them with ``rrdb_channels``.

    The others are those of :class:`GLEANStyleGANv2`.

    Raises:
        ValueError: A bank that does not fit; else as :class:`GLEANStyleGANv2`.
        InputError: An unknown ``label``.
    """

    def __init__(
        self,
        generator: Bank,
        in_size: Size,  # pixels: side of the input, a power of two from 4 on; or (height, width)
        out_size: Size,  # pixels: side of the output, a larger power of two; or (height, width) as in_size
        widths: Mapping[int, int],  # resolution -> channels
        img_channels: int = 3,  # of the input and of the output image
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        init_cfg: dict | None = None,  # the bank's file; None: there is none
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        bank_init: str = "pretrained",  # or 'random'
        bank: str = "frozen",  # or 'tuned', 'absent'
        inject_at: Sequence[int] | None = None,  # of 4, 8, ... in_size: where the bank gets features; None: everywhere
        decoder: str = "full",  # or 'slim', 'none'
        decoder_channels: int = 32,  # width of the slim decoder
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
        skip_fusions: bool = False,  # hold the weights of MMagic's fusion_skip
        class_names: Sequence[str] = (),  # one for each class of the bank
        label: int | str | None = None,  # the class of all images
        fidelity_gate: bool = False,  # the bank's features count 1 - w
        pyramid: bool = False,  # images of the decoder's smaller resolutions in training
        references: bool = False,  # take reference images
        global_skip: bool = False,  # add the enlarged input to the decoder's image
        trunk: str = "rrdb",  # or 'residual': blocks of the encoder's trunk
    ):
        super().__init__()
        require_bank(bank, bank_init, init_cfg)
        require_one_of("decoder", decoder, DECODERS)
        self.lq_padding, self.gt_padding = square_paddings(in_size, out_size)
        self.in_size, self.out_size = self.lq_padding.size, self.gt_padding.size
        self.size_requirements = size_requirements(self.lq_padding, self.gt_padding, any_size=False)
        low, high = self.lq_padding.side, self.gt_padding.side
        require_parts(bank, inject_at, decoder, low)
        require_bank_fits(generator, high, decoder)
        self.img_channels = img_channels
        self.init_cfg = init_cfg
        self.bank = bank
        self.bank_init = bank_init
        self.fp16_enabled = fp16_enabled
        self.num_classes = generator.spec.num_classes
        require_names(class_names, self.num_classes)
        self.class_names = tuple(class_names)
        self.label = None if label is None else find_label(label, self.num_classes, class_names)

        self.generator = generator
        freeze_or_tune(cast(nn.Module, generator), bank, image=decoder == "none")
        self.encoder = make_encoder(
            generator, low, widths, img_channels, rrdb_channels, num_rrdbs, decoder == "none", trunk
        )
        set_checkpointing(self.encoder, checkpoint_trunk)
        self.label_head = LabelHead(widths[MIN_SIZE], self.num_classes) if self.num_classes else None
        self.fusion_out, self.fusion_skip = make_fusions(generator, low, widths, inject_at, skip_fusions)
        self.decoder = make_decoder(decoder, generator, low, high, widths, decoder_channels, img_channels)
        self.fidelity_gate = require_gate(fidelity_gate, bank, decoder)
        self.pyramid = make_pyramid(self.decoder, img_channels) if pyramid else None
        self.pyramid_images: list[Tensor] = []  # of the last forward pass in training
        self.max_references = MAX_REFERENCES if references else 0
        self.reference_features = self._make_reference_features(widths[low]) if references else None
        self.global_skip = make_global_skip(self.decoder, global_skip)

    def _make_reference_features(self, channels: int) -> ReferenceFeatures:
        """For an encoder whose f_0 has so many ``channels``."""
        if self.bank == "absent" or self.decoder is None:
            raise ValueError("references=True needs a bank and a decoder.")
        low, high, spec = self.lq_padding.side, self.gt_padding.side, self.generator.spec
        return ReferenceFeatures(low, high, channels, spec.channels, spec.num_codes, self.img_channels)

    def forward(
        self,
        lq: Tensor,
        label: Tensor | None = None,
        with_logits: bool = False,
        fidelity: Tensor | None = None,
        references: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(N, 3, h, w), RGB in [-1, 1] -> (N, 3, H, W), fp32, about [-1, 1].

        Args:
            lq: The images.
            label: Their classes, whole numbers (N,), for a bank with classes; None: that of ``label``, or estimated.
            with_logits: Return the classifier's logits (N, classes), fp32, too.
            fidelity: w in [0, 1] of each image, (N,), for a network with the fidelity gate
                (:mod:`glean_ext.networks.fidelity`); None: 0.
            references: As :mod:`glean_ext.networks.references` says, for a network that takes them.

        Raises:
            InputError: The input is not of ``in_size``; a label for a bank without classes, or an unknown one;
                references that do not fit.
        """
        require_size(lq, self.lq_padding)
        if references is not None:
            size = self.gt_padding.height, self.gt_padding.width
            require_references(references, lq, size, self.max_references)
        with mixed_precision(lq.device, self.fp16_enabled):
            # The encoder: features {4: ..., h: f_0} of (N, C, res, res), style codes (N, K, S).
            lq = self.lq_padding.pad(lq)
            features, codes = self.encoder(lq)
            # The references, where there are any: they change the codes, and add to the bank's features.
            codes, added = self._see(lq, features, codes, references)
            # The class of each image, as shares (N, classes), where the bank has classes.
            logits = self.label_head(features[MIN_SIZE]) if self.label_head else None
            shares = class_shares(label, self.label, logits, self.num_classes)
            # The latent bank: its features at every resolution, {4: ..., H: ...} of (N, C, res, res).
            bank_features = self._bank_features(features, codes, shares)
            bank_features |= {res: bank_features[res] + x for res, x in added.items()}
            # The decoder: the image (N, 3, H, H).
            image = self._image(features, bank_features, codes, shares, fidelity)
            image = self.global_skip(image, lq)
            image = self.gt_padding.crop(image).float()
        return (image, cast(Tensor, logits).float()) if with_logits else image

    def _see(
        self, lq: Tensor, features: dict[int, Tensor], codes: Tensor, references: Tensor | None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """The codes with references (N, R, 3, H, W), and what they add to the bank's features."""
        if references is None or self.reference_features is None:
            return codes, {}
        low, high = self.lq_padding.side, self.gt_padding.side
        references, times = distinct(references)
        padded = self.gt_padding.pad(references.flatten(0, 1))  # (N R, 3, H, H), without repetition
        others, other_codes = self.encoder(reduced(padded, low))
        f_0, padded = (x.repeat(times, 1, 1, 1) for x in (others[low], padded))
        added = self.reference_features(features[low], f_0, enlarged(lq, high), padded)
        return self.reference_features.codes(codes, other_codes.repeat(times, 1, 1)), added

    def _bank_features(
        self, features: dict[int, Tensor], codes: Tensor, label: Tensor | None = None
    ) -> dict[int, Tensor]:
        """The bank's features by resolution; up to the input's, f_i are fused in after each block (section 3.2)."""
        x = self.generator.start(codes, label)  # (N, C, 4, 4)
        bank_features = {MIN_SIZE: x}
        for i, res in enumerate(resolutions(MIN_SIZE, self.gt_padding.side // 2)):
            if res <= self.lq_padding.side:
                x = self.fusion_out[i](torch.cat([x, features[res]], 1))  # (N, C, res, res)
            x = bank_features[2 * res] = self.generator.block(x, 2 * res, codes, label)  # (N, C, 2 res, 2 res)
        return bank_features

    def _image(
        self,
        features: dict[int, Tensor],
        bank_features: dict[int, Tensor],
        codes: Tensor,
        label: Tensor | None,
        fidelity: Tensor | None = None,
    ) -> Tensor:
        """The decoder's image; without a decoder the bank's own: (N, 3, H, H)"""
        if self.decoder is None:
            return self.generator.image(bank_features, codes, label)
        return decode(self, features[self.lq_padding.side], self._for_decoder(bank_features), fidelity)

    def _for_decoder(self, bank_features: dict[int, Tensor]) -> list[Tensor]:
        """The bank's features that the decoder gets: those of higher resolutions than the input's."""
        return [x for res, x in bank_features.items() if res > self.lq_padding.side]

    def init_weights(self) -> None:
        """Fill the bank from ``init_cfg`` before training; mmengine's runner calls this.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        if init_cfg := bank_file(self, self.init_cfg, self.bank, self.bank_init, self.generator.kind):
            load_bank(self.generator, init_cfg)


class GLEANStyleGANv2(GLEANNetwork):
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
        checkpoint_trunk: Training keeps only the inputs of the trunk's blocks and computes the blocks twice, which
            saves memory and takes time.
        warm_start: :meth:`init_weights` lets the bank start with its own mean image: its features pass the fusions, and
            every style code is the mean latent. MMagic's initialisation, the default, mixes the bank's features at
            random; in short trainings they are lost (``docs/evidence.md``).
        fidelity_gate: As for :class:`GLEANNetwork`; needs a bank and a decoder. ``pyramid`` and ``global_skip`` need
            a decoder. ``trunk`` as for :class:`GLEANNetwork`.
        references: As for :class:`GLEANNetwork`; needs a bank and a decoder. Without references an image is bit for bit
            that of the network without this option.

    Raises:
        ValueError: A size that is no power of two, or ``in_size >= out_size``; an unknown ``bank``, ``bank_init``,
            ``decoder`` or ``inject_at``; arguments that contradict each other.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: side of the input, a power of two from 4 on; or (height, width)
        out_size: Size,  # pixels: side of the output, a larger power of two; or (height, width) as in_size
        img_channels: int = 3,  # of the input and of the output image
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
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
        bank_init: Literal["pretrained", "random"] = "pretrained",
        bank: Literal["frozen", "tuned", "absent"] = "frozen",
        inject_at: Sequence[int] | None = None,  # of 4, 8, ... in_size: where the bank gets features; None: everywhere
        decoder: Literal["full", "slim", "none"] = "full",
        decoder_channels: int = 32,  # width of the slim decoder
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
        warm_start: bool = False,  # start training from the bank's mean image
        fidelity_gate: bool = False,  # the bank's features count 1 - w
        pyramid: bool = False,  # images of the decoder's smaller resolutions in training
        references: bool = False,  # take reference images
        global_skip: bool = False,  # add the enlarged input to the decoder's image
        trunk: Literal["rrdb", "residual"] = "rrdb",  # blocks of the encoder's trunk
    ):
        require_bank(bank, bank_init, init_cfg)
        if warm_start and bank == "absent":
            raise ValueError("bank='absent' leaves nothing to start from: set warm_start=False.")
        side = square_paddings(in_size, out_size)[1].side
        sizes = StyleGAN2Spec(side, style_channels, num_mlps, channel_multiplier, max_channels, blur_kernel, lr_mlp)
        super().__init__(
            NoBank(side) if bank == "absent" else StyleGAN2Generator.from_spec(sizes),
            in_size,
            out_size,
            sizes.channels,
            img_channels,
            rrdb_channels,
            num_rrdbs,
            init_cfg,
            fp16_enabled,
            bank_init,
            bank,
            inject_at,
            decoder,
            decoder_channels,
            checkpoint_trunk,
            skip_fusions=True,
            fidelity_gate=fidelity_gate,
            pyramid=pyramid,
            references=references,
            global_skip=global_skip,
            trunk=trunk,
        )
        self.warm_start = warm_start

    def init_weights(self) -> None:
        """Fill the bank from ``init_cfg`` before training, then start from it if ``warm_start`` says so.

        Raises:
            InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``, or the file does not
                hold the whole bank.
        """
        super().init_weights()
        if self.warm_start:
            to_codes = cast(nn.Linear, cast(nn.Sequential, cast(Encoder, self.encoder)[-1])[-1])
            style = cast(StyleGAN2Generator, self.generator).mean_style()
            start_from_bank(to_codes, self.fusion_out, style)


def require_size(lq: Tensor, size: SquarePadding) -> None:
    """Raise InputError unless ``lq`` is (N, C, height, width) with the height and width of ``size``."""
    if lq.ndim != 4 or lq.shape[-2:] != (size.height, size.width):
        raise InputError(
            f"This GLEAN takes images of {size} pixels, but got a tensor of shape {tuple(lq.shape)}. Resize the "
            f"image to {size}, or take a model of that size."
        )
