"""Tar files of images in the layout of webdataset, read at any place: on a disk, or behind URLs that fsspec reads.

Files of one sample follow each other and share their path up to the first dot of the name; the rest says what they are:
``a/0001.gt.png`` and ``a/0001.lq.png``. A tar file has no table of contents. It is made from the headers of the files,
which is quick on a disk. Behind a URL each header may take a request, so that table is kept in the cache folder.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import logging
import os
import re
import tarfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, NamedTuple

from glean_ext.errors import InputError, UnreadableImageError
from glean_ext.utils.downloads import cache_folder, is_url
from glean_ext.utils.files import atomic_path, expand_home
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.url_files import is_file_url, list_url, open_url, read_url, stamp_of, url_errors

NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")  # of a file: the sample's, and the rest
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
PATTERN = re.compile(r"[*?\[]")
THREADS = 16  # that read headers behind URLs
HEADERS = 1 << 16  # bytes that are read with a header, for the next ones
SECONDS_BETWEEN_LINES = 15

logger = logging.getLogger(__name__)


class Member(NamedTuple):
    """A file in a shard.

    Attributes:
        shard: Path or URL.
        name: Of the file.
        offset: Where its content begins, in bytes.
        size: Of its content.
    """

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def read(self) -> bytes:
        """The content.

        Raises:
            InputError: The shard cannot be read.
            UnreadableImageError: It ends before the file does.
        """
        if is_file_url(self.shard):
            content = read_url(self.shard, self.offset, self.offset + self.size)
        else:
            content = _read_file(self)
        if len(content) < self.size:
            raise UnreadableImageError(
                f"{self} is cut off after {len(content)} of {self.size} bytes. Copy the shard again."
            )
        return content


@dataclass(frozen=True)
class Contents:
    """What a shard holds.

    Attributes:
        members: Its files, in their order.
        links: The names of its hard and symbolic links, which are not followed.
        damage: Why there may be more, in a sentence; empty for a whole shard.
    """

    members: list[Member]
    links: Sequence[str] = ()
    damage: str = ""


def list_shards(shards: str | Sequence[str]) -> list[str]:
    """The shards that patterns name, each in its order.

    Args:
        shards: Paths or URLs, with ``{000..123}``, ``{a,b}``, ``*``, ``?`` and ``[...]``.

    Raises:
        InputError: A pattern matches nothing, a file is missing, or a URL cannot be read.
    """
    texts = [shards] if isinstance(shards, str) else list(shards)
    matches = [(name, _matching(name)) for text in texts for name in expand_braces(expand_home(text))]
    found = [shard for _, paths in matches for shard in paths]
    if not found:
        raise InputError(f"shards={shards!r} names no files. Set it to tar files, such as 'data/{{000..099}}.tar'.")
    missing = [name for name, paths in matches if not paths]
    missing += [path for path in found if not is_file_url(path) and not os.path.isfile(path)]
    if missing:
        raise InputError(f"{summarize_names(missing, 1)}: there is no such file. Correct shards={shards!r}.")
    return found


def expand_braces(text: str) -> list[str]:
    """A name for each number of ``{008..123}``, with as many digits as the first, and for each of ``{a,b}``.

    >>> expand_braces("a-{08..10}.tar"), expand_braces("{a,b}.tar")
    (['a-08.tar', 'a-09.tar', 'a-10.tar'], ['a.tar', 'b.tar'])
    """
    parts: list[list[str]] = []
    position = 0
    for match in BRACES.finditer(text):
        if numbers := RANGE.fullmatch(match[1]):
            first, last = int(numbers[1]), int(numbers[2])
            values = [f"{number:0{len(numbers[1])}d}" for number in range(first, last + 1)]
        elif "," in match[1]:
            values = match[1].split(",")
        else:
            continue
        parts += [[text[position : match.start()]], values]
        position = match.end()
    return ["".join(pieces) for pieces in itertools.product(*parts, [text[position:]])]


def _matching(name: str) -> list[str]:
    """What a pattern matches. No patterns: existing files with brackets, and web addresses with ``?`` but no ``*``."""
    if PATTERN.search(name) is None or os.path.exists(name) or (is_url(name) and "*" not in name):
        return [name]
    if is_file_url(name):
        return [str(file.url) for file in list_url(name)]
    return sorted(glob.glob(name, recursive=True))


def read_contents(shards: Sequence[str]) -> list[Contents]:
    """What each shard holds.

    Raises:
        InputError: One cannot be read, or is no tar file.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found: list[Contents] = []
        said = time.monotonic()
        for contents in pool.map(_contents, shards):
            found.append(contents)
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                logger.info("read the contents of %d of %d shards", len(found), len(shards))
                said = time.monotonic()
    return found


def _contents(shard: str) -> Contents:
    if not is_file_url(shard):
        try:
            with open(shard, "rb") as file:
                return scan(file, shard)
        except OSError as error:
            raise _unreadable(shard, error) from error
    with url_errors(shard):
        system, path = open_url(shard)
        stamp = stamp_of(system.info(path))
        table = cache_folder() / "shards" / f"{hashlib.sha256(shard.encode()).hexdigest()[:32]}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = json.loads(table.read_text())
            if kept["stamp"] == stamp:
                return Contents([Member(shard, *entry) for entry in kept["members"]], kept["links"])
        with system.open(path, "rb", block_size=HEADERS) as file:
            contents = scan(file, shard)
    if not contents.damage:
        entries = [entry[1:] for entry in contents.members]
        with suppress(InputError), atomic_path(table) as partial:  # it only saves time
            partial.write_text(json.dumps({"stamp": stamp, "members": entries, "links": contents.links}))
    return contents


def scan(file: IO[bytes], shard: str) -> Contents:
    """What an open shard holds, by its headers.

    Raises:
        InputError: It is no tar file, or a compressed one.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    members: list[Member] = []
    links: list[str] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            with suppress(tarfile.ReadError):  # it is cut off, or a header is damaged
                for item in tar:
                    if item.isfile():
                        members.append(Member(shard, item.name, item.offset_data, item.size))
                    elif item.islnk() or item.issym():
                        links.append(item.name)
            end = tar.offset
    except tarfile.ReadError as error:
        raise InputError(
            f"{shard} is no tar file, or a compressed one ({error}). Unpack it with gunzip, or copy it again."
        ) from error
    whole = [member for member in members if member.offset + member.size <= size]
    file.seek(min(end, size))
    if len(whole) == len(members) and file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):  # the end's mark
        return Contents(members, links)
    after = f"after {whole[-1].name}" if whole else "at its beginning"
    return Contents(whole, links, f"{shard} is damaged or cut off {after}.")


def read_members(members: Iterable[Member]) -> dict[Member, bytes]:
    """The contents of many small files, those of a shard together.

    Raises:
        InputError: A shard cannot be read, or ends before a file does.
    """
    by_shard: dict[str, list[Member]] = {}
    for member in members:
        by_shard.setdefault(member.shard, []).append(member)
    with ThreadPoolExecutor(THREADS) as pool:
        return {member: content for part in pool.map(_read_shard, by_shard.values()) for member, content in part}


def _read_shard(members: Sequence[Member]) -> list[tuple[Member, bytes]]:
    shard = members[0].shard
    if not is_file_url(shard):
        return [(member, member.read()) for member in members]
    with url_errors(shard):
        system, path = open_url(shard)
        starts, ends = [member.offset for member in members], [member.offset + member.size for member in members]
        return list(zip(members, system.cat_ranges([path] * len(members), starts, ends, on_error="raise"), strict=True))


def group_samples(members: Iterable[Member]) -> list[tuple[str, dict[str, Member]]]:
    """The samples of a shard: the name of each, and its files by what follows the first dot, in lower case.

    A file that is there twice begins another sample.
    """
    samples: list[tuple[str, dict[str, Member]]] = []
    for member in members:
        if match := NAME.fullmatch(member.name):
            name, ending = match[1], match[2].lower()
            if not samples or samples[-1][0] != name or ending in samples[-1][1]:
                samples.append((name, {}))
            samples[-1][1][ending] = member
    return samples


def _read_file(member: Member) -> bytes:
    try:
        with open(member.shard, "rb") as file:
            file.seek(member.offset)
            return file.read(member.size)
    except OSError as error:
        raise _unreadable(member.shard, error) from error


def _unreadable(shard: str, error: OSError) -> InputError:
    return InputError(f"{shard} cannot be read ({error.strerror or error}). Correct its name or its rights.")
