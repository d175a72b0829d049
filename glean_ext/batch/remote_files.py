"""Inputs and outputs behind URLs: planned by their listings, and copied here while they are worked on."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from glean_ext.batch.output_plan import READABLE, Job, Naming, Plan, add_comparisons, require_own_files
from glean_ext.batch.pipeline import EndsRun
from glean_ext.errors import InputError
from glean_ext.utils.file_listing import list_files
from glean_ext.utils.image_writer import OutputFormat
from glean_ext.utils.outcome import Outcome
from glean_ext.utils.url_files import IN_A_ROW, UrlPath, answers, deliver, existing_below, fetch, is_file_url, list_url


def plan_remote_outputs(
    inputs: Sequence[str | os.PathLike], output: str, suffix: str, compare: bool, format: OutputFormat
) -> Plan:
    """As :func:`glean_ext.batch.output_plan.plan_outputs`, where inputs or the output are URLs. The output is a folder.

    Raises:
        InputError: There is nothing to restore, a URL cannot be read, or an input or another output would be
            overwritten.
    """
    place = cast(Path, UrlPath(output)) if is_file_url(output) else Path(output)
    naming = Naming(place, suffix, compare, format)
    jobs, left_out = [], []
    for source in [os.fspath(text) for text in inputs]:
        for file, within in _listed(source, output):
            if Path(within).suffix.lower() in READABLE:
                jobs.append(Job(cast(Path, file), naming.target(cast(Path, within))))
            else:
                left_out.append(cast(Path, file))
    if not jobs:
        raise InputError(f"{inputs[0]} has no images. Give a folder of images.")
    if compare:
        jobs = add_comparisons(jobs)
    require_own_files(jobs)
    existing = existing_below(output) if is_file_url(output) else None
    return Plan(jobs, place, left_out, existing=existing)


def _listed(source: str, output: str) -> list[tuple[Any, Any]]:
    """Files, and their paths within what is given; hidden ones and results are left out."""
    if is_file_url(source):
        below = f"{output.rstrip('/')}/"
        found = [(file.url, file.within) for file in list_url(source) if not str(file.url).startswith(below)]
        if not found:
            raise InputError(f"{source} is in {output}, where the results come. Give another folder as output.")
        return [(file, within) for file, within in found if not any(part.startswith(".") for part in within.parts)]
    path = Path(source)
    if path.is_file():
        return [(path, Path(path.name))]
    files = list_files(path, READABLE, skip=None if is_file_url(output) else output).files
    return [(file, file.relative_to(path)) for file in files]


class LocalCopies:
    """Copies of remote files in a temporary folder, while they are worked on.

    Any thread may use them. Jobs without URLs stay as they are.
    """

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory | None = None
        self._making = threading.Lock()
        self._urls: dict[str, str] = {}  # of the copies
        self._counting = threading.Lock()
        self._failed = {"read": 0, "write": 0}  # files in a row

    def fetch(self, job: Job) -> Job:
        """The job with local files, of which the source is copied here.

        Raises:
            InputError: It cannot be read.
            EndsRun: Nor can others.
        """
        if not any(isinstance(path, UrlPath) for path in (job.source, job.target)):
            return job
        with self._making:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="glean-ext-")
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))

        def local(path: Path, kind: str) -> Path:
            if not isinstance(path, UrlPath):
                return path
            copy = folder / kind / path.name
            self._urls[str(copy)] = str(path)
            return copy

        compare = None if job.compare is None else local(job.compare, "out")
        copied = Job(local(job.source, "in"), local(job.target, "out"), compare)
        try:
            if isinstance(job.source, UrlPath):
                copied.source.parent.mkdir()
                with self._counted("read", job.source):
                    fetch(job.source, copied.source)
        except BaseException:
            self.drop(copied)
            raise
        return copied

    def deliver(self, job: Job, copied: Job) -> None:
        """Copy the outputs to their URLs, the result last: where it is, all is.

        Raises:
            InputError: They cannot be written.
            EndsRun: Nor can others.
        """
        for url, path in reversed(list(zip(job.outputs, copied.outputs, strict=True))):
            if isinstance(url, UrlPath) and path.exists():
                with self._counted("write", url):
                    deliver(path, url)

    @contextmanager
    def _counted(self, kind: str, url: UrlPath) -> Iterator[None]:
        """A run ends where its store takes no file any more, or gives neither files nor their folder."""
        try:
            yield
        except InputError as error:
            with self._counting:
                self._failed[kind] = (self._failed[kind] + 1) % IN_A_ROW
                check = self._failed[kind] == 0
            if check and (kind == "write" or not answers(str(url.parent))):
                raise EndsRun(error.message, error.parameter, error.hint) from error
            raise
        else:
            with self._counting:
                self._failed[kind] = 0

    def drop(self, copied: Job) -> None:
        """Remove the copies of a job."""
        for path in (copied.source, *copied.outputs):
            if self._urls.pop(str(path), None) is not None:
                shutil.rmtree(path.parent, ignore_errors=True)

    def renamed(self, message: str) -> str:
        """A message with URLs in place of their copies."""
        for copy, url in list(self._urls.items()):
            message = message.replace(copy, url)
        return message

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors in the block name URLs."""
        try:
            yield
        except InputError as error:
            raise self._about_urls(error) from error

    def _about_urls(self, error: InputError) -> InputError:
        return type(error)(self.renamed(error.message), error.parameter, error.hint)

    def outcome(self, outcome: Outcome[Any]) -> Outcome[Any]:
        """An outcome whose error names URLs."""
        return outcome if outcome.error is None else Outcome(error=self._about_urls(outcome.error))


@dataclass(frozen=True, eq=False)
class _Copied:
    """A prepared job, and the same with local files."""

    job: Job
    local: Job
    content: Any


class RemoteStages:
    """Stages for jobs whose files may be URLs, by stages for local files; see :class:`glean_ext.batch.pipeline.Stages`.

    Args:
        stages: What is done with the copies.
        copies: The copies.
    """

    def __init__(self, stages: Any, copies: LocalCopies):
        self.stages, self.copies = stages, copies

    def prepare(self, job: Job) -> _Copied:
        local = self.copies.fetch(job)
        try:
            with self.copies.errors():
                return _Copied(job, local, self.stages.prepare(local))
        except BaseException:
            self.copies.drop(local)
            raise

    def restore(self, batch: Sequence[_Copied]) -> list[Outcome[Any]]:
        outcomes = [self.copies.outcome(outcome) for outcome in self.stages.restore([item.content for item in batch])]
        for item, outcome in zip(batch, outcomes, strict=True):
            if outcome.error is not None:
                self.copies.drop(item.local)
        return outcomes

    def finish(self, prepared: _Copied, result: Any) -> None:
        try:
            with self.copies.errors():
                self.stages.finish(prepared.content, result)
            self.copies.deliver(prepared.job, prepared.local)
        finally:
            self.copies.drop(prepared.local)

    def size(self, prepared: _Copied, result: Any) -> int:
        return int(self.stages.size(prepared.content, result))
