"""Errors and notices that know their reader.

The library names a setting by its Python parameter, as ``{size_policy}`` or, with a value, ``{size_policy=resize}``.
Each front end spells it in its own way: ``size_policy='resize'`` in Python, ``--size-policy resize`` on a command line.
"""

from __future__ import annotations

import logging
import re
from ast import literal_eval
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import get_close_matches

PLACEHOLDER = re.compile(r"\{(\w+)(?:=([^{}]*))?\}")
MAX_REASON = 200  # characters of a library's reason that a message repeats

Spell = Callable[[str, str | None], str | None]  # parameter, its value -> how a reader knows it; None: it has no such


def as_keyword(parameter: str, value: str | None = None) -> str:
    """How Python knows a parameter.

    >>> as_keyword("model", "list")
    'glean_ext.list_models()'
    >>> as_keyword("size_policy"), as_keyword("size_policy", "resize"), as_keyword("batch", "4")
    ('size_policy', "size_policy='resize'", 'batch=4')
    """
    if value is None:
        return parameter
    if (parameter, value) == ("model", "list"):
        return "glean_ext.list_models()"
    try:
        literal_eval(value)
    except (ValueError, SyntaxError):
        value = repr(value)
    return f"{parameter}={value}"


class Notice:
    """One line for the user: what happened and what can be done about it.

    Args:
        message: What happened; it names the file or thing.
        parameter: The Python parameter, or parameters, that ``message`` and ``hint`` name in braces.
        hint: What the user can do, as whole sentences.
        level: Of :mod:`logging`, for those who log it.
    """

    def __init__(
        self,
        message: str,
        parameter: str | Sequence[str] | None = None,
        hint: str = "",
        level: int = logging.INFO,
    ):
        self.message, self.parameter, self.hint, self.level = message, parameter, hint, level

    def render(self, spell: Spell = as_keyword) -> str:
        """The line in a front end's own terms; a hint about a parameter that the front end lacks is left out."""
        message, _ = self._spelled(self.message, spell)
        hint, known = self._spelled(self.hint, spell)
        return f"{message} {hint}" if hint and known else message

    def _spelled(self, text: str, spell: Spell) -> tuple[str, bool]:
        names = {self.parameter} if isinstance(self.parameter, str) else set(self.parameter or ())
        known = True

        def replace(match: re.Match[str]) -> str:
            nonlocal known
            if match[1] not in names:  # a file's name may have braces, too
                return match[0]
            spelled = spell(match[1], match[2])
            known &= spelled is not None
            return spelled or as_keyword(match[1], match[2])

        return PLACEHOLDER.sub(replace, text), known

    def __str__(self) -> str:
        return self.render()


class InputError(ValueError):
    """Bad input: a file, a key, a size. One line that names it, says what is wrong and how to correct it.

    Command-line tools print it without a traceback and exit with code 2.

    >>> try:
    ...     glean_ext.read_image("missing.jpg")
    ... except glean_ext.InputError as error:
    ...     print(error)
    missing.jpg: there is no such file. Give the path of an image.

    Args:
        message: What is wrong, starting with the file or parameter at fault.
        parameter: As for :class:`Notice`; the first one is at fault, or decides what happens.
        hint: As for :class:`Notice`. It may also be part of ``message`` where it names no parameter.
    """

    def __init__(self, message: str, parameter: str | Sequence[str] | None = None, hint: str = ""):
        super().__init__(message, parameter, hint)  # what pickle calls the class with again
        self.message, self.parameter, self.hint = message, parameter, hint

    def render(self, spell: Spell = as_keyword) -> str:
        """As :meth:`Notice.render`."""
        return Notice(self.message, self.parameter, self.hint).render(spell)

    def __str__(self) -> str:
        return self.render()

    def about(self, name: str) -> InputError:
        """The same error with the thing it is about named first, unless the message starts with that name."""
        message = self.message if self.message.startswith(name) else f"{name}: {self.message}"
        return type(self)(message, self.parameter, self.hint)


class UnreadableImageError(InputError):
    """An image file that is damaged, empty, or of a format that is not read."""


def require_one_of(parameter: str, value: object, choices: Collection[str]) -> None:
    """Raise InputError for a value of a parameter that is not among the choices."""
    if value not in choices:
        raise InputError(f"{{{parameter}}} is {value!r}, but it must be one of {', '.join(choices)}.", parameter)


def require_at_least(parameter: str, number: float, least: int) -> None:
    """Raise InputError for a parameter's number that is too small."""
    if number < least:
        raise InputError(f"{{{parameter}}} is {number}, but it must be at least {least}.", parameter)


def _plain(name: str) -> str:
    """Without upper case, and without an option's dashes."""
    return name.lower().strip("-")


def require_fidelity(fidelity: float) -> None:
    """Raise InputError for a fidelity outside of [0, 1]."""
    if not 0 <= fidelity <= 1:
        raise InputError(
            f"{{fidelity}} is {fidelity}, but it must be between 0 (restores) and 1 (keeps the input).", "fidelity"
        )


def did_you_mean(
    name: str, known: Iterable[str], most: int = 2, cutoff: float = 0.6, plain: Callable[[str], str] = _plain
) -> str:
    """A sentence that asks whether one of the nearest of ``known`` names was meant, and a space; else nothing.

    Names are compared as ``plain`` makes them.

    >>> did_you_mean("Trian", ["train", "test"])
    'Did you mean train? '
    """
    by_plain = {plain(each): each for each in known}
    near = [by_plain[each] for each in get_close_matches(plain(name), list(by_plain), most, cutoff)]
    return f"Did you mean {' or '.join(near)}? " if near else ""


def first_line(error: BaseException, keys: bool = False) -> str:
    """The reason that a library gives, for use in a message: its first line without the full stop, or its type.

    Args:
        error: The library's error.
        keys: What a ``KeyError`` has is the reason, not only a key.
    """
    content: object = error
    if isinstance(error, KeyError):
        content = error.args[0] if keys and error.args else ""  # str(error) would add quotes
    line = str(content).strip().split("\n")[0][:MAX_REASON].rstrip(". ")
    return line or type(error).__name__
