"""What a restorer needs of a latent bank: the protocol that GLEAN and LightGLEAN are written against.

A bank is a ``torch.nn.Module`` that holds the synthesis layers of a pre-trained generator. A restorer starts it from
codes and takes it from one resolution to the next; in between it may change the features. ``docs/add_a_bank.md`` shows
how to write one.

A class with :class:`Bank` as a base (``class MyBank(nn.Module, Bank)``) inherits what most banks have in common: strict
loading, and no image of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from torch import Tensor, nn

from glean_ext import checkpoints


@dataclass(frozen=True)
class BankSpec:
    """What a restorer has to know of a bank before it is built around it."""

    channels: Mapping[int, int]  # resolution (4, 8, ... the side of the images) -> channels of the features there
    num_codes: int  # K: codes that the whole bank takes for an image
    code_channels: int  # S: channels of a code
    unused_codes: int = 0  # the last codes, on which no features depend: they only make the image
    num_classes: int = 0  # classes of images; 0: the bank takes no label
    makes_image: bool = False  # it has :meth:`Bank.image`


class BankBlocks(Protocol):
    """The upper blocks of a bank, which start from given features: what LightGLEAN needs."""

    spec: BankSpec

    def __call__(self, x: Tensor, codes: Tensor) -> list[Tensor]:
        """(N, C, h, w), codes (N, K, S) -> the features after each block, (N, C_i, 2^i h, 2^i w) for i = 1, 2, ..."""
        ...


class Bank(Protocol):
    """A whole bank: what GLEAN needs.

    ``label`` is None, or the share of each class in an image: (N, classes), each row a sum of 1. It is one-hot where
    the class is known.
    """

    spec: BankSpec
    kind: str = ""  # its architecture as messages name it; empty: that of no other bank

    def start(self, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """The features at 4x4: codes (N, K, S) -> (N, C, 4, 4)"""
        ...

    def block(self, x: Tensor, res: int, codes: Tensor, label: Tensor | None = None) -> Tensor:
        """The features at ``res`` from those below: (N, C, res / 2, res / 2), codes (N, K, S) -> (N, C', res, res)"""
        ...

    def image(self, features: Mapping[int, Tensor], codes: Tensor, label: Tensor | None = None) -> Tensor:
        """The bank's own image from its features at every resolution: {res: (N, C, res, res)} -> (N, 3, H, H)

        Only banks with ``spec.makes_image`` have it.
        """
        raise TypeError(f"{type(self).__name__} makes no image.")

    def tune(self, image: bool) -> None:
        """Make trainable what the features depend on and, with ``image``, what :meth:`image` depends on."""
        cast(nn.Module, self).requires_grad_(True)

    def load(self, state: Mapping[str, Tensor], source: object, prefix: str) -> None:
        """Fill the bank completely from the tensors of a file, or not at all.

        Args:
            state: The tensors, without ``prefix``.
            source: Named in errors.
            prefix: What was taken off the keys of the file; for the advice in errors.

        Raises:
            InputError: The tensors are not those of this bank.
        """
        checkpoints.load_strict(cast(nn.Module, self), state, source, checkpoints.UNUSED_BANK_KEYS, prefix)

    @property
    def sizes(self) -> dict[str, Any]:
        """The bank's sizes by the restorer's arguments, to be compared with those of a file that does not fit."""
        return {}
