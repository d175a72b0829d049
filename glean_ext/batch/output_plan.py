"""Which file is written for which input, and that none is written twice or over an input."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.utils.file_listing import Listing, is_special, list_files
from glean_ext.utils.files import tells_case
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.image_writer import IMAGE_OUTPUTS, OUTPUT_FORMATS, OutputFormat, output_format
from glean_ext.utils.url_files import OBJECT_STORES, is_file_url
from glean_ext.video.formats import VIDEO_OUTPUTS, VIDEOS

READABLE = frozenset((*EXTENSIONS, *VIDEOS))  # extensions
ANIMATED = ".gif"  # an image, or, where the output is named as one, a video
DEFAULT_FORMAT = "png"
COMPARE = "_compare"  # what the names of before/after pictures end with


@dataclass(frozen=True)
class Job:
    """A file to restore, the file to write, and the before/after picture to write, if one is wanted."""

    source: Path
    target: Path
    compare: Path | None = None

    def __str__(self) -> str:
        return str(self.source)

    @property
    def is_video(self) -> bool:
        return self.target.suffix.lower() in VIDEO_OUTPUTS

    @property
    def outputs(self) -> list[Path]:
        return [self.target] if self.compare is None else [self.target, self.compare]

    def name_within(self, root: Path) -> str:
        """What its output is called in the folder of all outputs, with ``/`` after each folder."""
        return self.target.relative_to(root).as_posix()

    def face_path(self, faces: Path, root: Path, ending: str) -> Path:
        """Where one of its faces is written: in the folder of faces, as the output is within ``root``."""
        return faces / f"{self.target.with_suffix('').relative_to(root)}_face{ending}.png"


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        jobs: In the order of the inputs, folders sorted.
        folder: Where all of it is written; None when the output is one file.
        left_out: What the input folders hold besides images and videos.
        alone: The input is one file, and was given by its name.
        source: The folder, where the input is one.
        hidden: Hidden images, videos and folders in the input folders.
        earlier: Files that a pattern matches, but which have the names of its own results.
        existing: URLs of outputs that exist; None: the outputs are files, which can be asked.
    """

    jobs: list[Job]
    folder: Path | None
    left_out: list[Path] = field(default_factory=list)
    alone: bool = False
    source: Path | None = None
    hidden: list[Path] = field(default_factory=list)
    earlier: list[Path] = field(default_factory=list)
    existing: frozenset[str] | None = None

    def exists(self, output: Path) -> bool:
        return output.exists() if self.existing is None else str(output) in self.existing

    @property
    def links(self) -> list[Path]:
        """Of what is left out, the links to folders, which might lead around in a circle."""
        return [path for path in self.left_out if path.is_symlink() and path.is_dir()]


def plan_outputs(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    suffix: str = "",
    compare: bool = False,
    recursive: bool = True,
    format: str | None = None,
) -> Plan:
    """Which file is written for which input.

    Folders keep their tree, patterns that of what they match, and files their names, see :func:`result_name`.

    Args:
        inputs: Files, folders, and patterns with ``*``, ``?``, ``[...]`` and ``**``.
        output: A file, for one file; else a folder, which need not be there. See :func:`names_folder`.
        suffix: Is put after the names.
        compare: Also plan before/after pictures, beside the outputs.
        recursive: Look into the folders of folders.
        format: A key of :data:`~glean_ext.utils.image_writer.OUTPUT_FORMATS`, of images in a folder; None: PNG.

    Raises:
        InputError: There is nothing to restore, the output is of the wrong kind, or an input or another output would be
            overwritten.
    """
    require_suffix(suffix)
    into_folder, output = names_folder(output), Path(output)
    naming = Naming(output, suffix, compare, OUTPUT_FORMATS[format or DEFAULT_FORMAT])
    matched, earlier = _without_results([pair for text in inputs for pair in _expanded(text, naming)], inputs, naming)
    expanded = [path for path, _ in matched]
    alone = len(inputs) == 1 and Path(inputs[0]).is_file()
    listing = Listing()
    if alone:
        _require_agreement(output, into_folder, suffix, format)
        jobs = [_single(expanded[0], naming, into_folder)]
        folder = None if jobs[0].target == output else output
    else:
        folder = output
        reason = "there are several inputs" if len(expanded) > 1 else "a pattern may match several files"
        _require_folder(expanded, output, into_folder, reason)
        found, listing = _listed(matched, output, recursive)
        jobs = [Job(file, naming.target(within)) for file, within in found]
    if compare:
        jobs = add_comparisons(jobs)
    require_own_files(jobs)
    source = expanded[0] if len(inputs) == 1 and expanded[0].is_dir() else None
    return Plan(jobs, folder, listing.left_out, alone, source, listing.hidden, earlier)


def add_comparisons(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, with before/after pictures of images."""
    return [job if job.is_video else Job(job.source, job.target, _compared(job.target)) for job in jobs]


def names_folder(output: str | os.PathLike) -> bool:
    """Whether an output is a folder: it is there, its name has no extension, or a slash at its end.

    >>> names_folder("run.2024/"), names_folder("run.2024"), names_folder("new")
    (True, False, True)
    """
    text = os.fspath(output)
    return os.path.basename(text) in ("", ".", "..") or Path(text).is_dir() or not Path(text).suffix


@dataclass(frozen=True)
class Naming:
    """How outputs are called.

    Attributes:
        output: The folder of the outputs.
        suffix: Is put after the names.
        compare: There are also before/after pictures.
        format: Of images.
    """

    output: Path
    suffix: str
    compare: bool
    format: OutputFormat

    def target(self, within: Path) -> Path:
        """Where the result of the file ``within`` an input folder is written."""
        return self.output / within.with_name(result_name(within, self.format, self.suffix))

    def results_among(self, found: Sequence[tuple[Path, Path]]) -> set[Path]:
        """Of files and their paths within the input, those that have the name of the result of another one."""
        made: dict[str, set[Path]] = {}
        for source, within in found:
            target = self.target(within)
            for path in (target, _compared(target)) if self.compare else (target,):
                made.setdefault(_real(path), set()).add(source)
        return {source for source, _ in found if made.get(_real(source), set()) - {source}}


def _without_results(
    found: Sequence[tuple[Path, Path]], inputs: Sequence[str | os.PathLike], naming: Naming
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """What is restored, and what is not: what patterns match that has the name of the result of another match.

    All patterns count together: ``*.jpg`` makes the results that ``*.png`` matches. A file that is given by its name is
    restored, whatever its name.
    """
    results = naming.results_among([(path, path.relative_to(base)) for path, base in found if path.is_file()])
    results -= {Path(text) for text in inputs if Path(text).exists()}
    return [(path, base) for path, base in found if path not in results], sorted(results)


def _expanded(text: str | os.PathLike, naming: Naming) -> list[tuple[Path, Path]]:
    """The files or the folder meant, each with the folder that its output's path is relative to.

    Results of an earlier run in an output folder below where a pattern looks are left out.
    """
    path = Path(text)
    if not str(text):  # a variable of the shell that is not set, say; it would be the folder at hand
        raise InputError("An input is empty. Give an image or a folder of images; . is the folder at hand.")
    if path.exists():
        if is_special(path):  # reading it might never end
            raise InputError(f"{path} is a device, pipe or socket. Give an image or a folder of images.")
        return [(path, path.parent)]
    if not glob.has_magic(str(text)):
        raise InputError(f"{text}: there is no such file or folder. Give an image or a folder of images.")
    try:
        found = [Path(match) for match in sorted(glob.glob(str(text), recursive=True))]
    except RecursionError as error:
        raise InputError(f"{text}: folders in folders, more than can be searched. Give another pattern.") from error
    found = [path for path in found if path.is_file() and path.suffix.lower() in READABLE]
    fixed = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    written = Path(_real(naming.output))
    if Path(_real(fixed)) in written.parents:
        found = [path for path in found if written not in Path(_real(path)).parents]
    if not found:
        raise InputError(f"{text}: no image or video has such a name. Correct the pattern.")
    return [(match, match.parent if ".." in match.relative_to(fixed).parts else fixed) for match in found]


def _single(source: Path, naming: Naming, into_folder: bool) -> Job:
    output, extension = naming.output, source.suffix.lower()
    job = Job(source, naming.target(Path(source.name)) if into_folder else output)
    may_be_video = extension in (*VIDEOS, ANIMATED) or extension not in READABLE
    if extension in VIDEOS and not job.is_video:
        raise InputError(f"{output}: videos are written as {', '.join(VIDEO_OUTPUTS)}. Name it {output.stem}.mp4.")
    if not (job.is_video and may_be_video):
        output_format(job.target)
    if job.target.exists() and job.target.samefile(source):
        raise InputError(f"{job.target} is the input and would be overwritten. Give another output.")
    return job


def _require_agreement(output: Path, into_folder: bool, suffix: str, format: str | None) -> None:
    """What says how results in folders are called has no effect on an output that is named."""
    if into_folder:
        return
    for parameter, value, agrees in (
        ("suffix", suffix, not suffix),
        ("format", format, format is None or IMAGE_OUTPUTS.get(output.suffix.lower()) is OUTPUT_FORMATS[format]),
    ):
        if not agrees:
            raise InputError(
                f"{{{parameter}={value}}} has no effect where the output is named. Leave it out, or give a folder.",
                parameter,
            )


def _require_folder(inputs: Sequence[Path], output: Path, into_folder: bool, reason: str) -> None:
    folder = next((path for path in inputs if path.is_dir()), None)
    reason = f"{folder} is a folder" if folder else reason
    if output.is_file() or (output.suffix.lower() in (*IMAGE_OUTPUTS, *VIDEO_OUTPUTS) and not into_folder):
        raise InputError(f"{output} is a file, but {reason}. Give a folder as output.")
    for path in inputs:
        if output.exists() and path.is_dir() and output.samefile(path):
            raise InputError(f"{output} is the input folder. Give another folder as output.")


def _listed(
    inputs: Sequence[tuple[Path, Path]], output: Path, recursive: bool
) -> tuple[list[tuple[Path, Path]], Listing]:
    """Each file to restore, once, with its path in the output folder, and what the folders hold besides."""
    found: list[tuple[Path, Path]] = []
    listed = Listing()
    for path, base in inputs:
        if not path.is_dir():
            found.append((path, path.relative_to(base)))
            continue
        listing = list_files(path, READABLE, recursive, skip=output)
        found += [(file, file.relative_to(path)) for file in listing.files]
        listed.left_out.extend(listing.left_out)
        listed.hidden.extend(listing.hidden)
        if not listing.files:
            raise InputError(f"{path} has no images ({' '.join(EXTENSIONS)}). Give a folder of images.")
    # By folder and name: a link of another name is another picture.
    once: dict[str, tuple[Path, Path]] = {}
    for file, within in found:
        once.setdefault(os.path.join(_real(file.parent), file.name), (file, within))
    return list(once.values()), listed


def result_name(source: Path, format: OutputFormat = OUTPUT_FORMATS[DEFAULT_FORMAT], suffix: str = "") -> str:
    """What the result of a file is called; it depends on the file's own name only, and differs for any two names.

    A file of the format keeps its name, others get its extension, videos .mp4 unless theirs is one that is written.

    >>> [result_name(Path(name), suffix="_x") for name in ("a.png", "a.jpg", "a.MOV", "a.avi")]
    ['a_x.png', 'a_x.jpg.png', 'a_x.mov', 'a_x.avi.mp4']
    """
    extension = source.suffix.lower()
    written = tuple(VIDEO_OUTPUTS) if extension in VIDEOS else format.extensions[:1]
    if extension in written:
        return f"{source.stem}{suffix}{extension}"
    return f"{source.stem}{suffix}{source.suffix}{written[0]}"


def _compared(target: Path) -> Path:
    return target.with_name(f"{target.stem}{COMPARE}.png")


def require_own_files(jobs: Sequence[Job]) -> None:
    """Each output is written once, and is no input. Names that differ in case count as one where the disk says so.

    Raises:
        InputError: An output would be written twice, or over an input.
    """
    sources = {_real(job.source): job.source for job in jobs}
    written: dict[str, dict[str, Path]] = {}  # by the name that a disk without case would know
    for job in jobs:
        for target in job.outputs:
            if _real(target) in sources:
                raise InputError(f"{target} is an input and would be overwritten. Give another output.")
            path = _real(target)
            others = written.setdefault(path.lower(), {})
            if path in others or (others and not _tells_case(target)):
                raise InputError(
                    f"{next(iter(others.values()))} and {job.source} would both be written to {target}. Rename one, or "
                    "restore them into two folders."
                )
            others[path] = job.source


def _tells_case(target: Path) -> bool:
    """Whether its folder may have two files whose names differ in case alone; of stores that is known of some."""
    if is_file_url(target):
        return str(target).split("://")[0].lower() in OBJECT_STORES
    return tells_case(target.parent)


def _real(path: Path) -> str:
    return str(path) if is_file_url(path) else os.path.realpath(path)


def require_suffix(suffix: str) -> None:
    """Raise InputError where what is put after names would name a folder."""
    if "/" in suffix or os.sep in suffix:
        raise InputError(f"{{suffix={suffix}}} names a folder. Give a few letters.", "suffix")
