"""Stand-ins for what NumPy's arrays and scalars are pickled with: they take the bytes of plain numbers only.

NumPy's own constructors take any data type. With a data type of Python objects, the bytes of a file become pointers:
the file decides what the process calls next.
"""

from __future__ import annotations

import math
import pickle
import re
from typing import Any

import numpy as np

PLAIN = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)")  # truth values, integers, real and complex numbers
NO_FIELDS = (None, None, None, -1, -1, 0)  # the state of a plain data type after its version and byte order


class PlainDtype:
    """Stands for ``numpy.dtype``; refuses what is not a plain number."""

    def __init__(self, code: object, align: object = False, copy: object = True):
        if not isinstance(code, str) or not PLAIN.fullmatch(code):
            raise pickle.UnpicklingError(f"it holds a NumPy array of {str(code)[:20]!r}, which is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _version, order, *rest = state
        if tuple(rest) != NO_FIELDS or order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("it changes a NumPy data type")
        self.dtype = self.dtype.newbyteorder(order)


class PlainArray(np.ndarray):
    """Stands for ``numpy.core.multiarray._reconstruct``, and is the array that it makes. It is saved as NumPy's own."""

    def __new__(cls, kind: object = None, shape: object = None, code: object = None) -> PlainArray:
        return super().__new__(cls, (0,), np.uint8)

    def __setstate__(self, state: tuple) -> None:  # type: ignore[override]
        *_version, shape, dtype, fortran, content = state
        _require_bytes(shape, dtype, content)
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), content))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return self.view(np.ndarray).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)


class ArrayName:
    """Stands for ``numpy.ndarray``, which pickles name but do not call."""

    def __new__(cls, *_: object) -> ArrayName:
        raise pickle.UnpicklingError("it calls numpy.ndarray")


def plain_scalar(dtype: object, content: object) -> np.generic:
    """Stands for ``numpy.core.multiarray.scalar``."""
    return plain_frombuffer(content, dtype, (1,), "C")[0]


def plain_frombuffer(content: Any, dtype: Any, shape: Any, order: object, *_: object) -> np.ndarray:
    """Stands for ``numpy.core.numeric._frombuffer``, which arrays are pickled with from protocol 5 on."""
    _require_bytes(shape, dtype, content)
    array = np.frombuffer(bytearray(content), dtype.dtype)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _require_bytes(shape: object, dtype: object, content: object) -> None:
    if not isinstance(dtype, PlainDtype) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("it holds a NumPy array that is not made of the bytes of plain numbers")
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise pickle.UnpicklingError("it holds a NumPy array whose shape is no shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise pickle.UnpicklingError("it holds a NumPy array whose shape does not fit its bytes")


NUMPY_NAMES: dict[str, Any] = {
    "numpy.dtype": PlainDtype,
    "numpy.ndarray": ArrayName,
    **{
        f"numpy.{core}.{name}": stand_in
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, stand_in in (
            ("multiarray._reconstruct", PlainArray),
            ("multiarray.scalar", plain_scalar),
            ("numeric._frombuffer", plain_frombuffer),
        )
    },
}
