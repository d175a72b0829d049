"""How a restorer's bank gets its weights before training: ``bank``, ``bank_init`` and ``init_cfg``."""

from __future__ import annotations

from torch import nn

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks.banks.stylegan2 import bank_sizes
from glean_ext.networks.shapes import require_one_of
from glean_ext.utils.downloads import without_secrets

BANKS = ("frozen", "tuned", "absent")
BANK_INITS = ("pretrained", "random")


def require_bank(bank: str, bank_init: str, init_cfg: dict | None) -> None:
    """Raise ValueError for an unknown ``bank`` or ``bank_init``, or a bank file where none is to be loaded."""
    require_one_of("bank", bank, BANKS)
    require_one_of("bank_init", bank_init, BANK_INITS)
    for name, value, without in ("bank", bank, "absent"), ("bank_init", bank_init, "random"):
        if value == without and init_cfg is not None:
            raise ValueError(f"{name}={value!r} does not go with a bank file: set init_cfg=None, or another {name}.")


def bank_file(net: nn.Module, init_cfg: dict | None, bank: str, bank_init: str) -> dict | None:
    """The ``init_cfg`` to load the bank with, or None where the bank is absent or random.

    Raises:
        InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``.
    """
    if init_cfg is None and bank_init == "pretrained" and bank != "absent":
        raise InputError(
            f"{type(net).__name__} has no pre-trained bank to train with. Set generator.init_cfg=dict(type="
            "'Pretrained', checkpoint='<StyleGAN2 file>', prefix='generator_ema'), or generator.bank_init="
            "'random' if a random bank is what you want."
        )
    return init_cfg


def load_bank(generator: nn.Module, init_cfg: dict) -> None:
    """Fill ``generator`` from the file that ``init_cfg`` names, strictly.

    Raises:
        InputError: The file does not fit. For a bank of other sizes the message names the file's and the config's.
    """
    try:
        checkpoints.load_pretrained(generator, init_cfg)
    except InputError as error:
        if differences := _differences(generator, init_cfg):
            source = without_secrets(str(init_cfg["checkpoint"]))
            raise InputError(
                f"{source} holds a bank of other sizes: {'; '.join(differences)}. A bank must draw images as large as "
                "the output and be as wide as the config says: set the file's sizes, or take another file."
            ) from error
        raise


def _differences(generator: nn.Module, init_cfg: dict) -> list[str]:
    """The sizes in which a bank file differs from ``generator``; of the widths only the first one that differs."""
    try:
        source = init_cfg["checkpoint"]
        state = checkpoints.with_prefix(checkpoints.read(source), init_cfg.get("prefix") or "", source)
    except (InputError, KeyError):
        return []
    file, own = bank_sizes(state), bank_sizes(generator.state_dict())
    other = [name for name in own if name in file and file[name] != own[name]]
    widths = [name for name in other if name.startswith("channels at")]
    names = [name for name in other if name not in widths[1:]]
    causes = {name: f"{name} (channel_multiplier, max_channels)" for name in widths}
    return [f"{causes.get(name, name)} is {file[name]} in the file, {own[name]} in the config" for name in names]
