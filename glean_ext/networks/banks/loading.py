"""How a restorer's bank gets its weights before training: ``bank``, ``bank_init`` and ``init_cfg``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.network_settings import require_file
from glean_ext.networks.banks import biggan_file, stylegan2
from glean_ext.networks.banks.bank import Bank
from glean_ext.networks.shapes import require_one_of
from glean_ext.utils.downloads import without_secrets

BANKS = ("frozen", "tuned", "absent")
BANK_INITS = ("pretrained", "random")
# Kind of bank -> the sizes that a file's tensors have if it is of that kind, otherwise nothing.
KINDS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any]]] = {
    "StyleGAN2": stylegan2.bank_sizes,
    "BigGAN": biggan_file.bank_sizes,
}


def require_bank(bank: str, bank_init: str, init_cfg: dict | None) -> None:
    """Raise ValueError for an unknown ``bank`` or ``bank_init``, or a bank file where none is to be loaded."""
    require_one_of("bank", bank, BANKS)
    require_one_of("bank_init", bank_init, BANK_INITS)
    for name, value, without in ("bank", bank, "absent"), ("bank_init", bank_init, "random"):
        if value == without and init_cfg is not None:
            raise ValueError(f"{name}={value!r} does not go with a bank file: set init_cfg=None, or another {name}.")


def bank_file(net: nn.Module, init_cfg: dict | None, bank: str, bank_init: str, kind: str = "StyleGAN2") -> dict | None:
    """The ``init_cfg`` to load the bank with, or None where the bank is absent or random.

    Raises:
        InputError: There is no ``init_cfg`` although ``bank_init`` is ``'pretrained'``.
    """
    require_file(type(net).__name__, init_cfg, bank, bank_init, kind)
    return init_cfg


def load_bank(bank: Bank, init_cfg: dict) -> None:
    """Fill ``bank`` from the file that ``init_cfg`` names, strictly.

    Raises:
        InputError: The file does not fit. For a bank of another kind the message names it, for one of other sizes those
            of the file and of the config.
    """
    state, source, prefix = checkpoints.read_pretrained(init_cfg)
    try:
        bank.load(state, source, prefix)
    except InputError as error:
        if reason := _reason(bank, state):
            raise InputError(f"{without_secrets(str(source))} {reason}") from error
        raise


def _reason(bank: Bank, state: Mapping[str, Tensor]) -> str:
    """Why a file does not fit a bank, as the rest of a sentence about the file; empty where only its keys tell."""
    found = {kind: sizes for kind, sizes_of in KINDS.items() if (sizes := sizes_of(state))}
    wanted = bank.kind or type(bank).__name__
    if found and wanted not in found:
        return f"holds a {', '.join(found)}, but the network takes a {wanted}. Take another file, or another network."
    own, file = bank.sizes, found.get(wanted, {})
    if own.get("num_classes") and file.get("num_classes") == 0:
        return f"holds an unconditional {wanted}, but the network takes one with classes. Take another file."
    if differences := _differences(own, file):
        return (
            f"holds a bank of other sizes: {'; '.join(differences)}. A bank must draw images as large as the output "
            "and be as wide as the config says: set the file's sizes, or take another file."
        )
    return ""


def _differences(own: Mapping[str, Any], file: Mapping[str, Any]) -> list[str]:
    """The sizes in which a file differs from a bank; of the widths only the first one that differs."""
    other = [name for name in own if name in file and file[name] != own[name]]
    widths = [name for name in other if name.startswith("channels at")]
    names = [name for name in other if name not in widths[1:]]
    causes = {name: f"{name} (channel_multiplier, max_channels)" for name in widths}
    return [f"{causes.get(name, name)} is {file[name]} in the file, {own[name]} in the config" for name in names]
