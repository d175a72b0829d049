"""Lists of files: text files with one file name on each line, as ``ann_file`` and the published ``meta_info`` lists."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from glean_ext.errors import InputError

# The byte order marks of the encodings that have one; UTF-32's begin with UTF-16's.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
LINE_END = re.compile(r"\r\n|\n|\r")  # str.splitlines also splits at characters that names may contain
SIZE = re.compile(r"\s+\(\d+,\s*\d+(,\s*\d+)?\).*$")  # (height, width, channels) after a name, as MMagic writes it
COLUMN = re.compile(r"[\s,;]+")  # what may stand between columns, and in names
COMMENT = re.compile(r"\s+#\s.*$")


def read_file_list(path: str | os.PathLike, exists: Callable[[str], bool] = lambda name: False) -> list[str]:
    """The names in a list of files.

    Empty lines and lines that begin with ``#`` are left out, and so is what follows a name: its size, ``(1024, 1024,
    3)``, and a comment, ``# ...``. Names may contain spaces. The encoding is UTF-8 or, recognized by its zero bytes or
    byte order mark, UTF-16 or UTF-32; lines end as on Unix, Windows or old Macs.

    Args:
        path: The list.
        exists: Whether there is a file of that name. It decides where a line can be read in several ways: the longest
            name that exists is taken, so that ``a # b.png`` can be a name, and ``my cat.png 5`` an image with its
            label.

    Raises:
        InputError: The file cannot be read.
    """
    lines = (line.strip() for line in LINE_END.split(_read_text(Path(path))))
    return [_find_name(line, exists) for line in lines if line and (not line.startswith("#") or exists(line))]


def _read_text(path: Path) -> str:
    reason = "it is no text in UTF-8 or UTF-16"
    try:
        content = path.read_bytes()
        encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
        if encoding is None and b"\0" in content:  # UTF-16 without a mark: names are ASCII for the most part
            encoding = "utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"
        text = content.decode(encoding or "utf-8")
        if "\0" not in text:
            return text
    except UnicodeDecodeError:
        pass
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{path}: the list cannot be read ({reason}). Give a text file with a name a line.")


def _find_name(line: str, exists: Callable[[str], bool]) -> str:
    """The longest reading of a line that exists; if none does, the name without size and comment."""
    name = SIZE.sub("", COMMENT.sub("", line))
    return next((reading for reading in _readings(line) if exists(reading)), name)


def _readings(line: str) -> Iterator[str]:
    """All that a line may mean, the longest first."""
    uncommented = re.sub(r"\s+#.*$", "", line)
    for text in line, SIZE.sub("", line), uncommented, SIZE.sub("", uncommented):
        yield text
        yield text.strip("\"'")
        yield text.replace("\\", "/")  # Windows
    for end in reversed([match.start() for match in COLUMN.finditer(line)]):  # a label or other columns follow
        first = line[:end].strip("\"'")
        if Path(first).suffix:  # else a folder's name might be taken for the image
            yield first
            yield first.replace("\\", "/")
