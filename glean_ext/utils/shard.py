"""A part of a job for one of several machines that do not know of each other."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from glean_ext.errors import InputError


@dataclass(frozen=True)
class Shard:
    """One of ``count`` parts of about equal size, each for a run of its own.

    The name of a file alone says which part it belongs to, whatever other files there are. So all parts together are
    the whole, in any order, on any machine, also when files are added meanwhile.

    >>> [number for number in (1, 2, 3) if Shard(number, 3).has("face.png")]
    [3]

    Args:
        number: Of this part, 1 to ``count``.
        count: Number of parts.

    Raises:
        InputError: ``number`` is out of range.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise _no_shard(str(self))

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``I/N``.

        Raises:
            InputError: Something else, or out of range.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None:
            raise _no_shard(text)
        return cls(int(match[1]), int(match[2]))

    def has(self, name: str) -> bool:
        """Whether the file of this name, a path within a folder, belongs to this part."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def _no_shard(text: str) -> InputError:
    return InputError(
        f"{{shard}} is {text}, but it must be I/N, with I from 1 to N.", "shard", "Give 1/4, for example."
    )
