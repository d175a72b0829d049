"""The class of an image: as users name it, as the encoder estimates it, and as a bank takes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError, did_you_mean
from glean_ext.network_settings import NO_CLASSES
from glean_ext.networks.conv2d_gradfix import Conv2d

SHOWN = 3  # names that a message suggests


class LabelHead(nn.Module):
    """Estimates the class of an image from the encoder's features at 4x4: (N, C, 4, 4) -> logits (N, classes)"""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, padding=1)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.conv(x), 0.2)
        return self.linear(x.mean((2, 3)))


def label_shares(label: Tensor, num_classes: int) -> Tensor:
    """One-hot labels: whole numbers (N,) -> (N, classes), fp32.

    Raises:
        InputError: A label below 0, or not below the number of classes.
    """
    if not torch.compiler.is_compiling():  # a GPU is waited for once
        for wrong in (value for value in label.tolist() if not 0 <= value < num_classes):
            raise unknown_label(wrong, num_classes)
    return (label[:, None] == torch.arange(num_classes, device=label.device)).float()


def class_shares(label: Tensor | None, default: int | None, logits: Tensor | None, num_classes: int) -> Tensor | None:
    """The share of each class in each image, as a bank takes it: (N, classes), fp32; None for a bank without classes.

    Args:
        label: The classes, whole numbers (N,); None: they are unknown.
        default: The class of all images where they are unknown; None: that is unknown, too.
        logits: (N, classes), what the encoder estimates where they are unknown.
        num_classes: Of the bank.

    Raises:
        InputError: A label for a bank without classes, or an unknown one.
    """
    if label is not None and not num_classes:
        raise InputError("This network has a bank without classes, but got labels. Leave them out.")
    if label is not None:
        return label_shares(label, num_classes)
    if logits is not None and default is not None:  # which is known to be a class: a GPU is not waited for
        return (torch.arange(num_classes, device=logits.device) == default).float().expand(logits.shape[0], -1)
    return None if logits is None else logits.float().softmax(1)


def find_label(label: int | str, num_classes: int, names: Sequence[str] = ()) -> int:
    """The index of a class that is given by index or by name; case, spaces and underscores do not matter.

    Raises:
        InputError: There is no such class; the nearest names are in the message.

    >>> find_label("golden_retriever", 3, ["tench", "Golden Retriever", "7"]), find_label("2", 3)
    (1, 2)
    """
    if not num_classes:
        raise InputError(NO_CLASSES, "label", "Leave it out.")
    if isinstance(label, str):
        plain = {_plain(name): index for index, name in reversed(list(enumerate(names)))}
        if _plain(label) in plain:
            return plain[_plain(label)]
        if not label.isdecimal():
            raise unknown_label(label, num_classes, names)
    if not 0 <= int(label) < num_classes:
        raise unknown_label(int(label), num_classes, names)
    return int(label)


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold().strip()


def unknown_label(label: int | str, num_classes: int, names: Sequence[str] = ()) -> InputError:
    """The error for a class that does not exist."""
    hint = did_you_mean(str(label), names, SHOWN, cutoff=0.5, plain=_plain)
    known = f"the names {names[0]!r} to {names[-1]!r} or " if names else ""
    return InputError(
        f"{{label}} is {label!r}, which is no class of this network.",
        parameter="label",
        hint=f"{hint}It takes {known}the numbers 0 to {num_classes - 1}.",
    )


def require_names(names: Sequence[str], num_classes: int) -> None:
    """Raise ValueError unless there are no names, or one for each class and all different."""
    if names and len(names) != num_classes:
        raise ValueError(f"class_names has {len(names)} names, but num_classes is {num_classes}.")
    if twice := [name for name in names if [_plain(other) for other in names].count(_plain(name)) > 1]:
        raise ValueError(f"class_names has {twice[0]!r} twice.")
