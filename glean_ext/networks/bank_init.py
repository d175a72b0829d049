"""Where a restorer's bank gets its weights from before training: the arguments ``init_cfg`` and ``bank_init``."""

from __future__ import annotations

from torch import nn

from glean_ext.errors import InputError

BANK_INITS = ("pretrained", "random")


def require_bank_init(bank_init: str) -> None:
    """Raise ValueError for an unknown ``bank_init``."""
    if bank_init not in BANK_INITS:
        raise ValueError(f"bank_init must be one of {BANK_INITS}, but it is {bank_init!r}.")


def bank_file(net: nn.Module, init_cfg: dict | None, bank_init: str) -> dict | None:
    """What to load the bank by, or None where a random one was asked for.

    Raises:
        InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``.
    """
    if init_cfg is None and bank_init == "pretrained":
        raise InputError(
            f"{type(net).__name__} has no pre-trained bank to train with. Set generator.init_cfg=dict(type="
            "'Pretrained', checkpoint='<StyleGAN2 file>', prefix='generator_ema'), or generator.bank_init="
            "'random' if a random bank is what you want."
        )
    return init_cfg
