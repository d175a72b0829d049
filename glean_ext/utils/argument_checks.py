"""Arguments that a config gives to a class, compared with what its constructor takes: names, and plain types."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from numbers import Integral, Real

from glean_ext.errors import InputError, did_you_mean
from glean_ext.utils.class_sources import Signature

MAX_LISTED = 12  # names that a message lists
# The types of annotations that are checked, and what messages call them.
TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "bool": (bool, "True or False"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "str": (str, "text"),
    "dict": (Mapping, "a dict"),
    "Mapping": (Mapping, "a dict"),
    "list": ((list, tuple), "a list"),
    "Sequence": ((list, tuple), "a list"),
    "None": (type(None), "None"),
}


def require_names(owner: str, given: Collection[str], takes: Signature, supplied: Collection[str] = ()) -> None:
    """Refuse arguments that a constructor does not have, and missing ones.

    Args:
        owner: What messages name first, such as ``'model.generator (GLEANStyleGANv2)'``.
        given: Names in a config; those that begin with an underscore are mmengine's.
        takes: What the constructor takes.
        supplied: Names that whoever builds the object adds.

    Raises:
        InputError: The first of them.
    """
    for name in given:
        if name not in takes.annotations and not takes.further and not name.startswith("_"):
            known = sorted(set(takes.annotations) - set(supplied))
            listed = f"There are {', '.join(known)}." if 0 < len(known) <= MAX_LISTED else ""
            hint = did_you_mean(name, known) or listed
            raise InputError(f"{owner}: there is no argument {name!r}. {hint}".strip())
    if missing := sorted(takes.required - set(given) - set(supplied)):
        raise InputError(f"{owner}: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. Add it.")


def require_types(owner: str, given: Mapping[str, object], takes: Signature) -> None:
    """Refuse values of another type than an annotation names, where it names plain types only.

    Raises:
        InputError: The first of them.
    """
    for name, value in given.items():
        choices = _choices(takes.annotations.get(name, ""))
        if choices and not any(_is_of(value, choice) for choice in choices):
            if all(isinstance(choice, tuple) for choice in choices):
                values = tuple(choice[0] for choice in choices)
                raise InputError(f"{owner}: {name} must be one of {values}, but it is {value!r}.")
            names = [TYPES[choice][1] if isinstance(choice, str) else repr(choice[0]) for choice in choices]
            raise InputError(f"{owner}: {name} is {value!r}, but it must be {' or '.join(names)}. Correct it.")


def _choices(annotation: str) -> list[str | tuple[object]]:
    """Of an annotation: names of :data:`TYPES`, and in tuples the values of a ``Literal``; empty: others are in it.

    >>> _choices("Literal['a', 'b'] | None"), _choices("int | Tensor")
    ([('a',), ('b',), 'None'], [])
    """
    found: list[str | tuple[object]] = []
    nodes = [ast.parse(annotation, mode="eval").body] if annotation else []
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.BinOp):
            nodes = [node.left, node.right, *nodes]
            continue
        name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
        if name == "Literal" and isinstance(node, ast.Subscript):
            values = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            found += [(ast.literal_eval(value),) for value in values]
        elif name in TYPES:
            found.append(name)
        else:
            return []
    return found


def _is_of(value: object, choice: str | tuple[object]) -> bool:
    if not isinstance(choice, str):
        return value == choice[0]
    return isinstance(value, TYPES[choice][0]) and (choice == "bool" or not isinstance(value, bool))
