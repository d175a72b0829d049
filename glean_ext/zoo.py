"""Models by name: which config, which weights, what for, and under which licence.

A name works wherever a config and a checkpoint are taken: ``glean-restore --model glean_x16_ffhq``,
``ImageRestorer("demo_glean_x8")``. Weights are downloaded when they are first needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glean_ext.errors import InputError, did_you_mean

GLEAN_URL = "https://download.openmmlab.com/mmediting/restorers/glean/"
BANK_URL = "https://download.openmmlab.com/mmediting/stylegan2/official_weights/"
GLEAN_SOURCE = "MMEditing's model page of GLEAN, CVPR 2021"
BANK_SOURCE = "MMEditing's conversion of NVIDIA's StyleGAN2, CVPR 2020"
# The networks are under MMagic's Apache-2.0; what they were trained from and on has licences of its own.
FFHQ_LICENCE = "Apache-2.0; trained from NVIDIA's StyleGAN2 (non-commercial) on FFHQ (CC BY-NC-SA 4.0)"
LSUN_LICENCE = "Apache-2.0; trained from NVIDIA's StyleGAN2 (non-commercial) on LSUN"
BANK_LICENCE = "NVIDIA Source Code License-NC (non-commercial)"
CARTOONS_LICENCE = "Apache-2.0; drawn after ToonHead by Johan Melin, CC BY 4.0"
EMOJI_LICENCE = "Apache-2.0; trained on Microsoft's Fluent emoji (@lobehub/fluent-emoji-3d), MIT"
CARTOONS = "A small demonstration that was trained on cartoon faces only: photographs become cartoons."
EMOJI = "A small demonstration that was trained on emoji only: photographs become emoji."
DEFAULT = "glean_in128out1024_ffhq"  # for photographs of faces: trained on blur, noise and JPEG


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    Attributes:
        name: Its name here.
        purpose: What it restores, for people who choose.
        config: The name of its config in ``configs/``.
        weights: The URL (https) of its weights, or ``glean-ext://NAME`` for those shipped with this package.
        sha256: The file's SHA-256, as many hex digits of it as are published: all 64 for shipped files, the 8 in the
            names of OpenMMLab's files for the others.
        megabytes: Size of the network's weights in fp32 (10^6 bytes); a downloaded file may hold more than them.
        licence: Of weights and training data.
        source: Who published it.
        sizes: Input and output size in pixels.
        kind: ``'restorer'`` or ``'bank'``.
        warning: What people must know who restore photographs with a demonstration; empty for other models.
        aliases: Other names, such as MMagic's for the config.
    """

    name: str
    purpose: str
    config: str
    weights: str
    sha256: str
    megabytes: int
    licence: str
    source: str
    sizes: str
    kind: str = "restorer"
    warning: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def demo(self) -> bool:
        """Whether it shows that the machine works, and nothing more: photographs are out of its domain."""
        return bool(self.warning)

    @property
    def file(self) -> str:
        """The name of the file of weights."""
        return self.weights.rpartition("/")[2]


def _published_bank(name: str, subject: str, config: str, file: str, megabytes: int, sizes: str) -> ModelCard:
    """A bank that MMagic's authors converted; the name of its file ends with 8 digits of its hash."""
    return ModelCard(
        name=name,
        purpose=f"the bank of {subject}, to train GLEAN with",
        config=config,
        weights=BANK_URL + file,
        sha256=file.removesuffix(".pth").rpartition("-")[2],
        megabytes=megabytes,
        licence=BANK_LICENCE,
        source=BANK_SOURCE,
        sizes=sizes,
        kind="bank",
    )


def _demo_model(
    name: str,
    purpose: str,
    sha256: str,
    megabytes: int,
    sizes: str,
    config: str | None = None,
    kind: str = "restorer",
    warning: str = CARTOONS,
) -> ModelCard:
    """A model that is shipped; its config has its name unless said otherwise."""
    return ModelCard(
        name=name,
        purpose=purpose,
        config=config or name,
        weights=f"glean-ext://{name}.safetensors",
        sha256=sha256,
        megabytes=megabytes,
        licence=EMOJI_LICENCE if warning == EMOJI else CARTOONS_LICENCE,
        source="this package",
        sizes=sizes,
        kind=kind,
        warning=warning,
    )


CARDS = (
    ModelCard(
        name="glean_in128out1024_ffhq",
        purpose="photographs of faces with blur, noise and JPEG artefacts",
        config="glean_in128out1024_ffhq",
        weights=GLEAN_URL + "glean_in128out1024_4x2_300k_ffhq_celebahq_20210812-acbcb04f.pth",
        sha256="acbcb04f",
        megabytes=697,
        licence=FFHQ_LICENCE,
        source=GLEAN_SOURCE,
        sizes="128x128 -> 1024x1024",
        aliases=(
            "glean_in128out1024_4xb2-300k_ffhq-celeba-hq",
            "glean_in128out1024-fp16_4xb2-300k_ffhq-celeba-hq",
            "glean_in128out1024_ffhq_amp",
        ),
    ),
    ModelCard(
        name="glean_x16_ffhq",
        purpose="tiny, clean photographs of faces",
        config="glean_x16_ffhq",
        weights=GLEAN_URL + "glean_ffhq_16x_20210527-61a3afad.pth",
        sha256="61a3afad",
        megabytes=702,
        licence=FFHQ_LICENCE,
        source=GLEAN_SOURCE,
        sizes="64x64 -> 1024x1024",
        aliases=("glean_x16_2xb8_ffhq", "glean_x16-fp16_2xb8_ffhq", "glean_x16_ffhq_amp"),
    ),
    ModelCard(
        name="glean_x8_cat",
        purpose="small, clean photographs of cats",
        config="glean_x8_cat",
        weights=GLEAN_URL + "glean_cat_8x_20210614-d3ac8683.pth",
        sha256="d3ac8683",
        megabytes=650,
        licence=LSUN_LICENCE,
        source=GLEAN_SOURCE,
        sizes="32x32 -> 256x256",
        aliases=("glean_x8_2xb8_cat", "glean_x8-fp16_2xb8_cat", "glean_x8_cat_amp"),
    ),
    ModelCard(
        name="glean_x16_cat",
        purpose="tiny, clean photographs of cats",
        config="glean_x16_cat",
        weights=GLEAN_URL + "glean_cat_16x_20210527-68912543.pth",
        sha256="68912543",
        megabytes=688,
        licence=LSUN_LICENCE,
        source=GLEAN_SOURCE,
        sizes="16x16 -> 256x256",
        aliases=("glean_x16_2xb8_cat",),
    ),
    _demo_model(
        "demo_glean_x8",
        "a demonstration on 8x8 cartoon faces; not for photographs",
        "edfa19b0ff8e654b68273c9e98e8d1e818dc1a402eea417cd8e94d579a97d0a5",
        6,
        "8x8 -> 64x64",
    ),
    _demo_model(
        "demo_lightglean_x8",
        "a demonstration on cartoon faces of any size; not for photographs",
        "426c047da321ced04f66893fcc2228b7d584fb7a526088eaeec9aab4b2b6f658",
        4,
        "8x8 or more, 8 times larger",
    ),
    _demo_model(
        "demo_glean_blind_x8",
        "a demonstration on blurred, noisy cartoon faces; not for photographs",
        "a977923b0ffdf7c72958c7fae1cbaa5d1719d97a57ed0b605acb169b4d993c66",
        6,
        "8x8 -> 64x64",
    ),
    _demo_model(
        "demo_glean_color",
        "a demonstration: colours for gray cartoon faces; not for photographs",
        "839fe00a8679f63c1324d720704aa3543a9cf076c7cd8ed558e03c90321db12d",
        6,
        "8x8 or more, unchanged",
    ),
    _demo_model(
        "demo_glean_biggan_x8",
        "a demonstration on emoji of nine classes; not for photographs",
        "40dd6c72029356306b03c4aff9b98e6ddd82cf863f124c2d968ce3ebb0379f6c",
        4,
        "8x8 -> 64x64",
        warning=EMOJI,
    ),
    _published_bank(
        "stylegan2_ffhq_1024",
        "faces",
        "bank_1024",
        "stylegan2-ffhq-config-f-official_20210327_171224-bce9310c.pth",
        121,
        "1024x1024",
    ),
    _published_bank(
        "stylegan2_cat_256",
        "cats",
        "bank_256",
        "stylegan2-cat-config-f-official_20210327_172444-15bc485b.pth",
        120,
        "256x256",
    ),
    _published_bank(
        "stylegan2_car_512",
        "cars",
        "bank_512",
        "stylegan2-car-config-f-official_20210327_172340-8cfe053c.pth",
        121,
        "512x384 within 512x512",
    ),
    _published_bank(
        "stylegan2_church_256",
        "churches",
        "bank_256",
        "stylegan2-church-config-f-official_20210327_172657-1d42b7d1.pth",
        120,
        "256x256",
    ),
    _published_bank(
        "stylegan2_horse_256",
        "horses",
        "bank_256",
        "stylegan2-horse-config-f-official_20210327_173203-ef3e69ca.pth",
        120,
        "256x256",
    ),
    ModelCard(
        name="biggan_deep_imagenet_256",
        purpose="the bank of ImageNet's 1000 classes, to train GLEAN with",
        config="glean_biggan_x8_imagenet",
        weights="https://download.openmmlab.com/mmediting/biggan/"
        "biggan-deep_imagenet1k_256x256_cvt_hugging-face_rgb_20210728_111735-28651569.pth",
        sha256="28651569",
        megabytes=223,
        licence="that of DeepMind's weights; trained on ImageNet (research)",
        source="MMagic's conversion of DeepMind's BigGAN-deep, ICLR 2019",
        sizes="256x256",
        kind="bank",
    ),
    _demo_model(
        "demo_bank",
        "the bank of cartoon faces that the demo models stand on",
        "a51b26c638472ff4cd14c143f16d5dd0a3549e6ffca09c6bf1d165940c59b0d9",
        2,
        "64x64",
        config="bank_demo_64",
        kind="bank",
    ),
    _demo_model(
        "demo_biggan_bank",
        "the bank of nine classes of emoji that demo_glean_biggan_x8 stands on",
        "b2881b6c87e66325baea50bae244e9ebee0ad1da6fc673b0c756b75f5b8c69c1",
        3,
        "64x64",
        config="bank_biggan_emoji_64",
        kind="bank",
        warning=EMOJI,
    ),
)
_BY_NAME = {name: card for card in CARDS for name in (card.name, *card.aliases)}


def list_models(kind: str | None = "restorer") -> list[str]:
    """The names of the models; ``kind`` is ``'restorer'``, ``'bank'``, or None for both.

    >>> glean_ext.list_models()[0]
    'glean_in128out1024_ffhq'
    """
    return [card.name for card in CARDS if kind in (None, card.kind)]


def find_model(name: str) -> ModelCard:
    """The card of a model by its name or by an alias.

    Raises:
        InputError: No model has that name; the nearest names are in the hint.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    hint = did_you_mean(name, _BY_NAME, most=3, cutoff=0.5)
    raise InputError(f"no model is called {name!r}.", "model", f"{hint}{{model=list}} shows all of them.")


def find_restorer(name: str) -> ModelCard:
    """The card of a model that restores images, by its name or by an alias.

    Raises:
        InputError: No model has that name, or it is a bank.
    """
    card = find_model(name)
    if card.kind != "restorer":
        raise InputError(
            f"{name} is {card.purpose}: it restores no images.", "model", "{model=list} shows those that do."
        )
    return card


def card_of(weights: str | os.PathLike) -> ModelCard | None:
    """The card of the model whose file of weights this is, by its name; None for other files.

    >>> card_of("downloads/glean_cat_8x_20210614-d3ac8683.pth").name
    'glean_x8_cat'
    """
    return next((card for card in CARDS if card.file == Path(weights).name), None)


def has_model(name: str) -> bool:
    """Whether a model has that name or alias."""
    return name in _BY_NAME
