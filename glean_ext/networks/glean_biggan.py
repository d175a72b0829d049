"""GLEAN for images of many classes: encoder -> BigGAN -> decoder.

The idea is that of GLEAN's TPAMI 2022 paper, which was never released; the wiring is ours, see ``docs/tasks.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from glean_ext.networks.ablations import NoBank
from glean_ext.networks.banks.biggan import BigGANGenerator
from glean_ext.networks.banks.biggan_spec import BigGANSpec
from glean_ext.networks.glean import GLEANNetwork
from glean_ext.networks.shapes import Size, square_paddings
from glean_ext.networks.warm_start import start_as_identity


class GLEANBigGAN(GLEANNetwork):
    """GLEAN with a BigGAN or BigGAN-deep bank: one network for all classes of the bank.

    The class of an image is given with it, set by ``label``, or else estimated: a classifier on the encoder's last
    features, trained with the rest, gives the share of each class, and the bank gets the mean of their embeddings.

    Each fusion starts as the identity on the bank's features, to which training adds the encoder's: the bank's batch
    norm has fixed statistics, those of its own features. BigGAN's features grow from block to block, and no norm comes
    before the decoder, so :meth:`init_weights` measures them: the decoder gets them with unit standard deviation.

    Args:
        out_size: 32, 64, 128, 256 or 512.
        init_cfg: ``dict(type='Pretrained', checkpoint=path_or_url, prefix='generator_ema')``, weights of MMagic's
            ``BigGANGenerator`` or ``BigGANDeepGenerator``; :meth:`init_weights` loads the bank from there, strictly.
        class_names: The names of the classes, in the order of their numbers; empty: classes have numbers only.
        label: The class of all images, by number or name; None: it is given with the images, or estimated.
        decoder: ``'full'``; ``'slim'``: LightGLEAN's; ``'none'``: the bank's own image is the output.

    The others are those of :class:`~glean_ext.networks.glean.GLEANStyleGANv2`.

    Raises:
        ValueError: Sizes that no such bank has; else as :class:`~glean_ext.networks.glean.GLEANStyleGANv2`.
        InputError: ``label`` is no class; the nearest names are in the message.
    """

    def __init__(
        self,
        in_size: Size,  # pixels: side of the input, a power of two from 4 on; or (height, width)
        out_size: Size,  # pixels: side of the output, a larger power of two; or (height, width) as in_size
        num_classes: int,  # of the bank
        img_channels: int = 3,  # of the input and of the output image
        rrdb_channels: int = 64,  # width of the encoder's trunk
        num_rrdbs: int = 23,  # blocks of the trunk
        deep: bool = False,  # the bank is BigGAN-deep; here and below as in the bank's file
        base_channels: int = 96,  # width of the bank's last layers
        noise_size: int = 120,  # channels of its latent code
        shared_dim: int = 128,  # channels of its embedding of a class
        attention_at: Sequence[int] | None = None,  # where it has self-attention after the blocks; None: at 64, if any
        init_cfg: dict | None = None,  # the bank's file; None: there is none
        fp16_enabled: bool = False,  # mixed precision where no autocast is active: fp16 on a GPU, bf16 on a CPU
        max_channels: int = 512,  # limit of the width of encoder pyramid and decoder
        class_names: Sequence[str] = (),  # one for each class
        label: int | str | None = None,  # the class of all images
        bank_init: Literal["pretrained", "random"] = "pretrained",
        bank: Literal["frozen", "tuned", "absent"] = "frozen",
        inject_at: Sequence[int] | None = None,  # of 4, 8, ... in_size: where the bank gets features; None: everywhere
        decoder: Literal["full", "slim", "none"] = "full",
        decoder_channels: int = 32,  # width of the slim decoder
        checkpoint_trunk: bool = False,  # gradient checkpointing of the trunk
        fidelity_gate: bool = False,  # the bank's features count 1 - w
        global_skip: bool = False,  # add the enlarged input to the decoder's image
        trunk: Literal["rrdb", "residual"] = "rrdb",  # blocks of the encoder's trunk
    ):
        side = square_paddings(in_size, out_size)[1].side
        sizes = BigGANSpec(side, num_classes, base_channels, noise_size, shared_dim, deep, attention_at)
        super().__init__(
            NoBank(side) if bank == "absent" else BigGANGenerator(sizes),
            in_size,
            out_size,
            {res: min(width, max_channels) for res, width in sizes.widths.items()},
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
            class_names=class_names if bank != "absent" else (),
            label=label if bank != "absent" else None,
            fidelity_gate=fidelity_gate,
            global_skip=global_skip,
            trunk=trunk,
        )
        for fusion in self.fusion_out:
            if isinstance(fusion, nn.Conv2d):
                start_as_identity(fusion)
        self.bank_scale: Tensor | None
        needed = self.decoder is not None and bank != "absent"
        self.register_buffer("bank_scale", torch.ones(len(self.generator.spec.channels)) if needed else None)

    def init_weights(self) -> None:
        super().init_weights()
        if self.bank_scale is not None:
            self.bank_scale.copy_(1 / cast(BigGANGenerator, self.generator).deviations())

    def _for_decoder(self, bank_features: dict[int, Tensor]) -> list[Tensor]:
        features = super()._for_decoder(bank_features)
        if self.bank_scale is None:
            return features
        return [x * scale for x, scale in zip(features, self.bank_scale[-len(features) :], strict=True)]
