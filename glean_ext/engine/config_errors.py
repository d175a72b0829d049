"""Mistakes in a config as one line that names the setting, instead of a traceback through mmengine."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import Config
from mmengine.utils import import_modules_from_strings

from glean_ext.errors import InputError

PLUGIN = "glean_ext.plugin"  # imported by name, as a config does: it stands above this module
NOT_REGISTERED = re.compile(r"(?P<name>\S+) is not in the \S+::(?P<kind>.+?) registry")
MAX_LENGTH = 300  # characters of another library's message that are repeated

# What wrong settings make constructors raise. A RuntimeError comes from torch, for a negative size for example.
MISTAKES = (
    TypeError, ValueError, AssertionError, AttributeError, KeyError, IndexError, ArithmeticError, NotImplementedError,
    RuntimeError,
)  # fmt: skip


@contextmanager
def config_mistakes_as_input_errors() -> Iterator[None]:
    """Turn what a wrong config makes mmengine, or a constructor that it calls, raise into an InputError.

    This concerns errors that are raised while something is built from the config; all others pass unchanged.
    """
    try:
        yield
    except InputError as error:
        message = _message(error)
        if message == str(error).strip():
            raise
        raise type(error)(message) from error
    except FileNotFoundError as error:
        raise InputError(f"{_message(error).rstrip('.')}. Correct the path in the config.") from error
    except MISTAKES as error:
        built = _what_was_built(error)
        if not built or (built == "runner" and isinstance(error, RuntimeError)):  # of the network between processes
            raise
        raise InputError(f"config: {_explain(error, built)}") from error


def _message(error: Exception) -> str:
    """The message of an error. The text of one from a data worker is a whole traceback that ends with the message."""
    text = str(error).strip()
    return re.sub(r"^[\w.]+Error: ", "", text.splitlines()[-1]) if "Traceback (most recent call last)" in text else text


def _what_was_built(error: Exception) -> str:
    """What mmengine was building when ``error`` was raised: a type of the config, or a setting of the runner."""
    built = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == "mmengine.registry.build_functions":
            cfg = frame.f_locals.get("cfg")
            kind = cfg.get("type") if isinstance(cfg, dict) else None
            built = str(getattr(kind, "__name__", kind) or built or "type")
        elif module == "mmengine.runner.runner" and function.startswith("build_"):
            built = function.removeprefix("build_")
        elif module == "mmengine.runner.runner" and function == "from_cfg":
            built = "runner"
    return built


def _explain(error: Exception, built: str) -> str:
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    if unknown := NOT_REGISTERED.match(text):
        return (
            f"there is no {unknown['kind']} {unknown['name']!r}. Correct the type, or name the module that has it in "
            "custom_imports."
        )
    if isinstance(error, KeyError) and " " not in text:
        text = f"there is no {text!r}"
    named = text.startswith(built) or f"{built}." in text.split("(")[0]
    return f"{text[:MAX_LENGTH]} (in {built})" if not named else text[:MAX_LENGTH]


def import_plugins(cfg: Config) -> None:
    """Import this package's plug-in and the modules that the config's ``custom_imports`` names.

    Raises:
        InputError: A module cannot be imported.
    """
    custom = cfg.get("custom_imports", None) or {"imports": None}
    try:
        import_modules_from_strings(PLUGIN)
        import_modules_from_strings(**custom)
    except (ImportError, TypeError) as error:
        raise InputError(f"config: custom_imports: {error}. Correct it, or install what is missing.") from error
