"""Constructors of classes, read from source files: importing those of torch, MMagic or mmengine takes seconds."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
# @HOOKS.register_module(...) above a class, perhaps with other decorators between them
REGISTERED = re.compile(
    r"^@(?P<registry>\w+)\.register_module\((?P<arguments>[^)]*)\)(?=\n(?:@.*\n)*class (?P<name>\w+))", re.MULTILINE
)
STRING = re.compile(r"['\"]([^'\"]+)['\"]")
EMPTY = ("Generic", "Module", "Protocol", "object")  # base classes whose constructors take no arguments


@dataclass(frozen=True)
class Signature:
    """What a constructor takes, besides ``self``.

    Attributes:
        annotations: Name -> its annotation, as written; empty where there is none.
        required: Those without a default.
        further: It takes other names, too, or may do so.
    """

    annotations: dict[str, str]
    required: frozenset[str]
    further: bool = False


class ClassSources:
    """The classes of source files, by name.

    Args:
        files: Where they are; of several classes with one name, none is known.
    """

    def __init__(self, files: Sequence[Path]):
        self._texts = {file: file.read_text(encoding="utf-8") for file in files}

    @classmethod
    def of_package(cls, name: str, *folders: str) -> ClassSources:
        """All classes of an installed package, or of folders in it; none where it is not installed."""
        spec = find_spec(name)
        homes = spec.submodule_search_locations if spec else None
        roots = [Path(home, folder) for home in homes or () for folder in folders or ("",)]
        return cls([file for root in roots for file in sorted(root.rglob("*.py")) if ".mim" not in file.parts])

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """Name of a class -> the files that have one of that name."""
        found: dict[str, list[Path]] = {}
        for file, text in self._texts.items():
            for name in CLASS.findall(text):
                found.setdefault(name, []).append(file)
        return found

    @cached_property
    def registered(self) -> dict[str, dict[str, str]]:
        """Registry -> name there -> class, by the decorator ``register_module``."""
        found: dict[str, dict[str, str]] = {}
        for text in self._texts.values():
            for match in REGISTERED.finditer(text):
                for name in STRING.findall(match["arguments"]) or [match["name"]]:
                    found.setdefault(match["registry"], {})[name] = match["name"]
        return found

    def find(self, name: str) -> tuple[ast.ClassDef, dict[str, str]] | None:
        """The class of a name, where there is one only, and its file's imports: name there -> name where it is from."""
        files = self.files.get(name, [])
        if len(files) != 1:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the files of others
            body = ast.parse(self._texts[files[0]]).body
        imports = [alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
        (found,) = (node for node in body if isinstance(node, ast.ClassDef) and node.name == name)
        return found, {alias.asname: alias.name for alias in imports if alias.asname}


def signature(name: str, sources: Sequence[ClassSources]) -> Signature | None:
    """The constructor of a class; with those of its base classes, where it passes its ``**kwargs`` to them.

    Args:
        name: Of the class.
        sources: Where it and its base classes may be; the first one that has a class of that name counts.

    Returns:
        None where it is not known.
    """
    annotations: dict[str, str] = {}
    required: set[str] = set()
    positions, given = 0, set[str]()  # what the class above passes to the next constructor by itself
    for init in _constructors(name, sources):
        if init is None:
            return Signature(annotations, frozenset(required), further=True) if annotations else None
        own = _arguments(init)
        taken = {*list(own)[:positions], *given, *annotations}
        annotations |= {argument: text for argument, (text, _) in own.items() if argument not in taken}
        required |= {argument for argument, (_, needed) in own.items() if needed and argument not in taken}
        if init.args.kwarg is None:
            break
        call = _call_with(init, init.args.kwarg.arg)
        if call is None:  # they go elsewhere
            return Signature(annotations, frozenset(required), further=True)
        positions = sum(not isinstance(argument, ast.Starred) for argument in call.args)
        given = {keyword.arg for keyword in call.keywords if keyword.arg}
    return Signature(annotations, frozenset(required))


def _constructors(name: str, sources: Sequence[ClassSources]) -> Iterator[ast.FunctionDef | None]:
    """``__init__`` of a class and of its base classes, nearest first; None, at the end: one is not known."""
    if name in EMPTY:
        return
    place = next((i for i, each in enumerate(sources) if name in each.files), None)
    found = None if place is None else sources[place].find(name)
    if place is None or found is None or not _is_plain(found[0]):
        yield None
        return
    node, imports = found
    yield from (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__")
    for base in node.bases:
        base_name = ast.unparse(base).split("[")[0].rpartition(".")[2]
        base_name = imports.get(base_name, base_name)
        # A base of the same name is another library's.
        yield from _constructors(base_name, sources[place + 1 :] if base_name == name else sources)


def _is_plain(node: ast.ClassDef) -> bool:
    """Whether ``__init__`` says what calling a class takes."""
    made = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    return not made and not any(isinstance(part, ast.FunctionDef) and part.name == "__new__" for part in node.body)


def _arguments(init: ast.FunctionDef) -> dict[str, tuple[str, bool]]:
    """Of a constructor besides ``self``: name -> its annotation as written, and whether it has no default."""
    arguments = init.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    named = list(zip([*positional, *arguments.kwonlyargs], defaults, strict=True))[1:]
    return {
        each.arg: (ast.unparse(each.annotation) if each.annotation else "", default is None) for each, default in named
    }


def _call_with(init: ast.FunctionDef, kwargs: str) -> ast.Call | None:
    """The one use of ``**kwargs`` in a constructor, if that is a call of the next constructor."""
    uses = [node for node in ast.walk(init) if isinstance(node, ast.Name) and node.id == kwargs]
    for call in ast.walk(init):
        if isinstance(call, ast.Call) and re.fullmatch(r"super\(.*\)\.__init__", ast.unparse(call.func)):
            passed = [keyword.value for keyword in call.keywords if keyword.arg is None]
            return call if len(uses) == 1 and uses[0] in passed else None
    return None
