"""Reading what ``torch.save`` wrote, in each of its formats, as data: see :mod:`glean_ext.utils.safe_unpickler`.

``torch.load(weights_only=True)`` runs no code either. But it reads no pickles of protocols above 2, allocates what a
file says before it reads, and has to be given NumPy's constructors, which are not safe (``plain_numpy``).
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from glean_ext.utils.safe_unpickler import (
    Budget,
    Function,
    SafeUnpickler,
    SkippedObject,
    make_dict,
    make_frozenset,
    make_set,
    require_keys,
)
from glean_ext.utils.weight_files import MAGIC_NUMBER, ZIP

BLOCK = 2**20  # bytes
STORAGE_TYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128,
}  # fmt: skip


def read_torch_file(path: Path, more_names: Mapping[str, Any] | None = None) -> Any:
    """What ``torch.save`` or ``pickle`` wrote to ``path``: tensors in plain containers. Nothing in it is run.

    Args:
        path: The file.
        more_names: Stand-ins for further names in the pickle, as :class:`SafeUnpickler` takes them.

    Raises:
        ForbiddenNameError: It holds something else.
        Exception: It is damaged; a damaged file leads anywhere.
    """
    budget = Budget(path.stat().st_size)
    names = _names(budget) | dict(more_names or {})
    with path.open("rb") as file:
        if file.read(len(ZIP)) == ZIP:
            with zipfile.ZipFile(file) as archive:
                return _load_zip(archive, path.stat().st_size, names, budget)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _load_stream(content, len(content), names, budget)  # type: ignore[arg-type]


class _Storages:
    """The storages of a file, each read once.

    Args:
        size: Bytes of the file; all storages together cannot have more.
        archive: Has the storages as files; None: they come after the pickle, and whoever reads it fills them.
        folder: Where in ``archive``.
    """

    def __init__(self, size: int, archive: zipfile.ZipFile | None = None, folder: str = ""):
        self.left, self.archive, self.folder = size, archive, folder
        self.buffers: dict[str, bytearray] = {}

    def __call__(self, pid: Any) -> Tensor:
        kind, dtype, key, _location, length, *view = pid
        require_keys([key])
        if kind != "storage" or not isinstance(dtype, torch.dtype) or type(length) is not int or any(view):
            raise pickle.UnpicklingError("it refers to data that is no storage of torch's")
        if key not in self.buffers:
            self.buffers[key] = self._read(key, length * dtype.itemsize)
        return _elements(self.buffers[key], dtype)

    def _read(self, key: Any, nbytes: int) -> bytearray:
        if not 0 <= nbytes <= self.left:
            raise pickle.UnpicklingError(f"storage {str(key)[:20]!r} has {nbytes} bytes, more than the file")
        self.left -= nbytes
        if self.archive is None:
            return bytearray(nbytes)
        name = f"{self.folder}data/{key}"
        if (length := self.archive.getinfo(name).file_size) != nbytes:
            raise pickle.UnpicklingError(f"storage {key!r} has {length} bytes instead of {nbytes}")
        content = bytearray(nbytes)
        with self.archive.open(name) as stored:  # block by block, without a second copy in memory
            for start in range(0, nbytes, BLOCK):
                block = stored.read(min(BLOCK, nbytes - start))
                content[start : start + len(block)] = block
                if len(block) != min(BLOCK, nbytes - start):
                    raise EOFError("it ends in the middle of a storage")
        return content


def _elements(content: bytearray, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _load_zip(archive: zipfile.ZipFile, size: int, names: Mapping[str, Any], budget: Budget) -> Any:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise pickle.UnpicklingError("its content is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise pickle.UnpicklingError("its content is larger than the file")
    pickles = [entry.filename for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1 or any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise pickle.UnpicklingError("it is another zip archive than those of torch.save")
    folder = pickles[0].removesuffix("data.pkl")
    byte_order = f"{folder}byteorder"
    if byte_order in archive.namelist() and archive.read(byte_order) != b"little":
        raise pickle.UnpicklingError("it is of a machine with another byte order")
    storages = _Storages(size, archive, folder)
    return SafeUnpickler(io.BytesIO(archive.read(pickles[0])), names, budget, storages).load()


def _load_stream(file: IO[bytes], size: int, names: Mapping[str, Any], budget: Budget) -> Any:
    """A plain pickle, or the format of ``torch.save`` before zip: several pickles, then the storages."""
    content = SafeUnpickler(file, names, budget).load()
    if not isinstance(content, int) or content != MAGIC_NUMBER:
        return content
    _version, system = SafeUnpickler(file, names, budget).load(), SafeUnpickler(file, names, budget).load()
    if not system["little_endian"]:
        raise pickle.UnpicklingError("it is of a machine with another byte order")
    storages = _Storages(size)
    content = SafeUnpickler(file, names, budget, storages).load()
    for key in SafeUnpickler(file, names, budget).load():
        require_keys([key])
        file.read(8)  # the number of elements, which the pickle has, too
        buffer = storages.buffers[key]
        stored = file.read(len(buffer))
        if len(stored) != len(buffer):
            raise EOFError("it ends in the middle of a storage")
        buffer[:] = stored
    return content


# ---------------------------------------------------------------- names


def _tensor(elements: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    """A view of a storage that does not reach beyond it."""
    numbers = (offset, *size, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError("it has a tensor of no valid shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(elements):
        raise pickle.UnpicklingError(f"it has a tensor out of bounds for storage of {len(elements)} elements")
    return elements.as_strided(size, stride, offset if math.prod(size) else 0)


def _tensor_of_bytes(
    elements: Tensor, offset: int, size: tuple, stride: tuple, _grad: object, _hooks: object, dtype: Any, *_: object
) -> Tensor:
    return _tensor(elements.view(dtype), offset, size, stride)


def _parameter(tensor: Tensor, *_: object) -> Tensor:
    return tensor


def _with_attributes(rebuild: Function, _kind: object, args: tuple, *_: object) -> Tensor:
    """A tensor that somebody set attributes of; they are not needed."""
    return rebuild(*args)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as pickles of protocol 2 have them."""
    return text.encode("latin1")


def _bytes(content: bytes = b"", *_: object) -> bytes:
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError("it makes bytes of something else")
    return content


def _storage_in_pickle(budget: Budget, content: bytes) -> Tensor:
    """All elements of a storage, (n,), which in a plain pickle is a file of ``torch.save`` on its own."""
    budget.spend(len(content))
    names = {name: dtype for name, dtype in TORCH_NAMES.items() if isinstance(dtype, torch.dtype)}
    storage = _load_stream(io.BytesIO(content), len(content), names, budget)
    if not isinstance(storage, Tensor):
        raise pickle.UnpicklingError("it has a storage that is none")
    return storage


TORCH_NAMES: dict[str, Any] = {
    **{f"torch{cuda}.{name}Storage": dtype for name, dtype in STORAGE_TYPES.items() for cuda in ("", ".cuda")},
    "torch.storage.UntypedStorage": torch.uint8,
    "torch._utils._rebuild_tensor": Function(_tensor),
    "torch._utils._rebuild_tensor_v2": Function(_tensor),
    "torch._utils._rebuild_tensor_v3": Function(_tensor_of_bytes),
    "torch._utils._rebuild_parameter": Function(_parameter),
    "torch._utils._rebuild_parameter_with_state": Function(_parameter),
    "torch._tensor._rebuild_from_type_v2": Function(_with_attributes),
    "torch.nn.parameter.Parameter": Function(_parameter),
    "torch.Tensor": Function(SkippedObject),  # the kind of a tensor with attributes
    "torch.Size": Function(tuple),
    "torch.device": Function(SkippedObject),
    "torch.serialization._get_layout": Function(SkippedObject),
    "collections.OrderedDict": Function(make_dict),
    "collections.Counter": Function(make_dict),
    "builtins.set": Function(make_set),
    "builtins.frozenset": Function(make_frozenset),
    "builtins.complex": Function(complex),
    "builtins.bytearray": Function(_bytes),
    "builtins.bytes": Function(_bytes),
    "_codecs.encode": Function(_latin1),
}


def _names(budget: Budget) -> dict[str, Any]:
    names = {**TORCH_NAMES, "torch.storage._load_from_bytes": Function(partial(_storage_in_pickle, budget))}
    try:
        from glean_ext.utils.plain_numpy import NUMPY_NAMES
    except ImportError:  # torch runs without NumPy
        return names
    return names | {name: Function(stand_in) for name, stand_in in NUMPY_NAMES.items()}
