"""Packages that only some features need: missing, or of a version that does not work, they end in one line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from glean_ext.errors import InputError, first_line

UNKNOWN = "of an unknown version"


def import_optional(package: str, needed_by: str, extra: str, parameter: str | None = None) -> ModuleType:
    """Import a package.

    Args:
        package: Its name.
        needed_by: What does not work without it, as the beginning of the message.
        extra: The command that installs it.
        parameter: That ``needed_by`` names in braces.

    Raises:
        InputError: It is not installed, or its import fails.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or error.name in (None, package):
            raise InputError(f"{needed_by} needs {package}, which is not installed: {extra}", parameter) from error
        raise _unusable((package,), needed_by, extra, parameter, error) from error
    except Exception as error:  # of a package that does not fit to the others
        raise _unusable((package,), needed_by, extra, parameter, error) from error


@contextmanager
def version_errors(
    packages: tuple[str, ...], needed_by: str, extra: str, parameter: str | None = None
) -> Iterator[None]:
    """Any error in the block is one of the versions of these packages.

    Raises:
        InputError: It names the versions and the reason.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise _unusable(packages, needed_by, extra, parameter, error) from error


def _unusable(
    packages: tuple[str, ...], needed_by: str, extra: str, parameter: str | None, error: Exception
) -> InputError:
    versions = ", ".join(f"{package} {installed_version(package) or UNKNOWN}" for package in packages)
    return InputError(
        f"{needed_by} does not work with {versions} ({type(error).__name__}: {first_line(error)}). "
        f"Install other versions: {extra}",
        parameter,
    )


def installed_version(package: str) -> str:
    """The version of an installed package; empty where that is unknown.

    >>> installed_version("rich") > "13", installed_version("no_such_package")
    (True, '')
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
