"""What lies in a folder: the files that are read, and everything that is left out, so that it can be named."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.utils.messages import summarize_names


@dataclass(frozen=True)
class Listing:
    """The content of a folder, each list sorted.

    Attributes:
        files: Those with one of the extensions.
        left_out: Other files, pipes, devices, links to folders and, where only one level is listed, folders.
        hidden: Files with one of the extensions and folders whose names start with a dot, as ``.Trash-0``.
    """

    files: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

    @property
    def links(self) -> list[Path]:
        """Of what is left out, the links to folders, which might lead around in a circle."""
        return [path for path in self.left_out if path.is_symlink() and path.is_dir()]

    def describe_left_out(self, folder: str | os.PathLike, extensions: Collection[str]) -> str:
        """What of a folder of images is not used, in words; empty where that is nothing."""
        left_out = sorted([*self.left_out, *self.hidden])
        if not left_out:
            return ""
        names = summarize_names([os.path.relpath(path, folder) for path in left_out])
        return (
            f"{folder}: {len(self.files)} images are used, {len(left_out)} other files or folders are left out: "
            f"{names}. Images are {' '.join(extensions)}; names that begin with a dot are hidden."
        )


def list_files(
    folder: str | os.PathLike,
    extensions: Collection[str],
    recursive: bool = True,
    skip: str | os.PathLike | None = None,
    follow_links: bool = False,
) -> Listing:
    """List a folder by extension.

    Hidden names (those that start with a dot) are left out, and so is all that lies in a hidden folder.

    Args:
        folder: It may itself be hidden, or a link.
        extensions: Of the files to list, with the dot, such as ``.png``; upper and lower case are the same.
        recursive: Also list the folders within it.
        skip: A folder within it that is not looked at, such as that of the results.
        follow_links: Also list folders that links lead to, each folder once.

    Raises:
        InputError: There is no such folder, or it or a folder within it cannot be read or lies too deep.
    """
    try:
        return _list(Path(folder), extensions, recursive, skip, follow_links)
    except RecursionError as error:
        raise InputError(f"{folder} has folders in folders, more than can be listed. Give one of them.") from error


def _list(
    folder: Path, extensions: Collection[str], recursive: bool, skip: str | os.PathLike | None, follow_links: bool
) -> Listing:
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder. Give a folder.")
    wanted = {extension.lower() for extension in extensions}
    listing = Listing()
    seen: set[tuple[int, int]] = set()

    def stop(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}). Correct its rights.") from error

    for root, folders, names in os.walk(folder, onerror=stop, followlinks=follow_links):
        here = Path(root)
        if follow_links:
            status = os.stat(root)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort(key=lambda name: ((here / name).is_symlink(), name))  # a folder itself before links to it
        listing.hidden.extend(here / name for name in folders if name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".") and not _same(here / name, skip)]
        for name in names:
            readable = os.path.splitext(name)[1].lower() in wanted and not is_special(here / name)
            if not name.startswith("."):
                (listing.files if readable else listing.left_out).append(here / name)
            elif readable:
                listing.hidden.append(here / name)
        if not recursive:
            listing.left_out.extend(here / name for name in folders)
            break
        if not follow_links:
            listing.left_out.extend(here / name for name in folders if (here / name).is_symlink())
    return Listing(sorted(listing.files), sorted(listing.left_out), sorted(listing.hidden))


def is_special(path: Path) -> bool:
    """Whether this is a pipe, socket or device, reading which may never end. Links to nowhere count as files."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _same(path: Path, other: str | os.PathLike | None) -> bool:
    return other is not None and os.path.exists(other) and path.exists() and path.samefile(other)
