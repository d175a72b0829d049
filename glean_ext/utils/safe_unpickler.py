"""Reading a pickle as data.

A pickle is a program: it may call whatever it can name. Here it gets stand-ins for a few known names and nothing else,
so it can import and run nothing. It also cannot take more memory than a few times the size of its file.
"""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any, NoReturn

import torch
from torch import Tensor

GROWTH, SLACK = 8, 32 << 20  # memory that the content of a file may take: 8 times its size, and 32 MiB
INSTRUCTION = 32  # bytes that an instruction of a pickle counts for, unless it makes a larger object
LARGER = {
    pickle.EMPTY_SET: 216,
    pickle.FROZENSET: 216,
    pickle.EMPTY_DICT: 64,
    pickle.EMPTY_LIST: 56,
    pickle.MEMOIZE: 64,
}
MAX_NAME = 100  # characters of a name that a message repeats
COSTS = {code[0]: nbytes for code, nbytes in LARGER.items()}
PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
# Data types of plain numbers; tensors of others (quantized, packed, without arithmetic) cannot even be copied.
NUMBERS = re.compile(r"torch\.(bool|bfloat16|u?int(8|16|32|64)|(float|complex)(16|32|64|128)|float8_\w+)")
UNSUPPORTED = (pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.NEWOBJ_EX, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)


class ForbiddenNameError(pickle.UnpicklingError):
    """A pickle names something that is not known to be harmless."""

    def __init__(self, name: str):
        self.name = "".join(letter if letter.isprintable() else "?" for letter in name[:MAX_NAME])
        super().__init__(f"it names {self.name}")


class Budget:
    """The memory that the content of a file may take."""

    def __init__(self, file_size: int):
        self.left = GROWTH * file_size + SLACK

    def spend(self, nbytes: int) -> None:
        """Count ``nbytes`` before they are allocated.

        Raises:
            UnpicklingError: They are more than is left.
        """
        self.left -= nbytes
        if self.left < 0:
            raise pickle.UnpicklingError("its content would take far more memory than the file has bytes")


class Function:
    """What a pickle may call under some name. A pickle can set attributes of what it names, but not of this."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it sets {name} of a function")


def require_keys(keys: Iterable[object]) -> None:
    """Refuse tuples in tuples as keys: the hash of a tuple recurses without a limit, so a deep one ends the process.

    Raises:
        UnpicklingError: There is such a key.
    """
    if any(isinstance(part, tuple) for key in keys if isinstance(key, tuple) for part in key):
        raise pickle.UnpicklingError("it has a tuple in a tuple as a key")


def make_dict(items: Mapping[Any, Any] | Iterable[tuple[Any, Any]] = ()) -> dict:
    """What a pickle gets by ``dict(items)``."""
    pairs = list(items.items() if isinstance(items, Mapping) else items)
    require_keys(key for key, _ in pairs)
    return dict(pairs)


def make_set(items: Iterable[Any] = ()) -> set:
    """What a pickle gets by ``set(items)``."""
    members = list(items)
    require_keys(members)
    return set(members)


def make_frozenset(items: Iterable[Any] = ()) -> frozenset:
    """What a pickle gets by ``frozenset(items)``."""
    return frozenset(make_set(items))


class SkippedObject:
    """Stands for an object of a file that is not needed, whatever it is built from."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Instructions(dict):
    """What the unpickler does for each instruction of a pickle."""

    def __init__(self, unpickler: type[SafeUnpickler], budget: Budget):
        super().__init__(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
        self.budget = budget
        for code in UNSUPPORTED:
            del self[code[0]]
        for code, method in unpickler.GUARDED.items():
            self[code[0]] = method

    def __getitem__(self, code: int) -> Callable:
        self.budget.spend(COSTS.get(code, INSTRUCTION))
        if code not in self:
            raise pickle.UnpicklingError(f"it has an unknown instruction {bytes([code])!r}")
        return super().__getitem__(code)


class SafeUnpickler(pickle._Unpickler):  # in Python: the one in C allocates what a file says, before it reads
    """Reads a pickle that holds nothing but tensors, plain containers, and what ``names`` has stand-ins for.

    Args:
        file: Open for reading in memory, e.g. a mapped file, whose ``read`` allocates no more than there is.
        names: What stands for a dotted name: a :class:`Function`, or a constant.
        budget: Is charged for what is read.
        storage: Gives the elements of a tensor's storage, (n,), by its id in the file; None: the file has none.
    """

    GUARDED: dict[bytes, Callable]
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]
    read: Callable[[int], bytes]

    def __init__(
        self, file: IO[bytes], names: Mapping[str, Any], budget: Budget, storage: Callable[[Any], Tensor] | None = None
    ):
        super().__init__(file, encoding="latin1")
        self.names, self.budget, self.storage = names, budget, storage
        self.dispatch = _Instructions(type(self), budget)  # type: ignore[misc]

    def find_class(self, module: str, name: str) -> Any:
        dotted = f"{PYTHON_2_MODULES.get(module, module)}.{name}"
        if dotted in self.names:
            return self.names[dotted]
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            if not NUMBERS.fullmatch(str(dtype)):
                raise pickle.UnpicklingError(f"it has a tensor of {dtype}, which is no plain number")
            return dtype
        raise ForbiddenNameError(dotted)

    def _load_persid(self) -> None:
        raise pickle.UnpicklingError("it is of pickle protocol 0, in which torch.save loses tensors")

    def persistent_load(self, pid: Any) -> Tensor:
        if self.storage is None:
            raise pickle.UnpicklingError("it refers to data outside the file")
        return self.storage(pid)

    def _call(self, function: object, args: Any) -> Any:
        if not isinstance(function, Function) or not isinstance(args, tuple):
            raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")
        self.budget.spend(sum(map(sys.getsizeof, args)))
        result = function(*args)
        self.budget.spend(result.numel() * result.element_size() if isinstance(result, Tensor) else 0)
        return result

    def _load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _load_newobj(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _instantiate(self, function: object, args: list) -> None:
        self.append(self._call(function, tuple(args)))

    def _load_build(self) -> None:
        state, target = self.stack[-1], self.stack[-2]
        if isinstance(state, tuple):
            self.budget.spend(sum(map(sys.getsizeof, state)))
        if isinstance(target, dict):  # attributes of an OrderedDict: not needed
            self.stack.pop()
        elif isinstance(target, Tensor | list | set):
            raise pickle.UnpicklingError(f"it changes a {type(target).__name__}")
        else:
            super().load_build()  # type: ignore[misc]

    def _load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise pickle.UnpicklingError(f"it sets items of a {type(target).__name__}")
        require_keys(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _load_additems(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        if not isinstance(target, set):
            raise pickle.UnpicklingError(f"it adds items to a {type(target).__name__}")
        require_keys(items)
        target.update(items)

    def _load_frozenset(self) -> None:
        self.append(make_frozenset(self.pop_mark()))

    def _load_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(self.read(size))


SafeUnpickler.GUARDED = {
    pickle.PERSID: SafeUnpickler._load_persid,
    pickle.REDUCE: SafeUnpickler._load_reduce,
    pickle.NEWOBJ: SafeUnpickler._load_newobj,
    pickle.BUILD: SafeUnpickler._load_build,
    pickle.SETITEM: SafeUnpickler._load_setitem,
    pickle.SETITEMS: SafeUnpickler._load_setitems,
    pickle.DICT: SafeUnpickler._load_dict,
    pickle.ADDITEMS: SafeUnpickler._load_additems,
    pickle.FROZENSET: SafeUnpickler._load_frozenset,
    pickle.BYTEARRAY8: SafeUnpickler._load_bytearray,
}
