"""The HTTP addresses of the page."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles

from glean_ext.errors import InputError
from glean_ext.network_settings import require_number_of_references
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.image_writer import OUTPUT_FORMATS, write_picture
from glean_ext.utils.picture import Picture
from glean_ext.web.download import Download
from glean_ext.web.job_queue import Job, JobQueue, Kind, Order, QueueFull, as_control
from glean_ext.web.limits import Limits, check_image, clean_name
from glean_ext.web.request_guard import RequestGuard
from glean_ext.web.worker import ModelWorker

STATIC = Path(__file__).parent / "static"
EXAMPLES = (
    {"file": "face-1.png", "label": "Cartoon face 1, 8x8 pixels", "kind": "face", "model": "Demo GLEAN"},
    {"file": "face-2.png", "label": "Cartoon face 2, 8x8 pixels", "kind": "face", "model": "Demo LightGLEAN"},
    {"file": "face-3.png", "label": "Cartoon face 3, 8x8 pixels", "kind": "face", "model": "Demo LightGLEAN"},
    {"file": "astronaut.jpg", "label": "Photograph of an astronaut", "kind": "photo", "model": "Demo GLEAN"},
    {"file": "gray-face.png", "label": "Gray cartoon face", "kind": "face", "model": "Demo colorizer"},
)
EXTENSION = re.compile(r"\.[^.]*$")
STORED = "png"  # what results are kept as
GONE = "This is gone. Restore it again."
DECODERS = 2  # uploads that are decoded at the same time


def make_app(worker: ModelWorker, root: Path, limits: Limits, names: Iterable[str]) -> RequestGuard:
    """The page as an ASGI application.

    Args:
        worker: The models.
        root: Folder for results, which nothing else may use.
        limits: What is accepted and kept.
        names: Host names it answers to, besides IP addresses.
    """
    jobs = JobQueue(worker.restore, root, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(jobs.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _report_errors(app)
    _serve_orders(app, worker, jobs, limits)
    _serve_jobs(app, jobs, limits)
    _serve_pictures(app, jobs, limits)
    app.mount("/examples", StaticFiles(directory=STATIC / "examples"))
    app.mount("/", StaticFiles(directory=STATIC, html=True))
    return RequestGuard(app, names)


def _report_errors(app: FastAPI) -> None:
    """Answer every error with one line, as JSON's ``error``."""

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, 400)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed. What happened is in its terminal."}, 500)


class UploadMemory:
    """Bytes of all uploads that are arriving or being checked, up to a limit."""

    def __init__(self, limit: int):
        self._limit, self._used = limit, 0

    @contextmanager
    def reserve(self) -> Iterator[Callable[[int], None]]:
        """A function that an upload calls with the size of each part; what it took is given back at the end.

        Raises:
            QueueFull: By that function: the limit is reached.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._used + size > self._limit:
                raise QueueFull
            self._used += size
            taken += size

        try:
            yield take
        finally:
            self._used -= taken


def _serve_orders(app: FastAPI, worker: ModelWorker, jobs: JobQueue, limits: Limits) -> None:
    decoders, memory = CapacityLimiter(DECODERS), UploadMemory(limits.receiving_bytes)

    @app.get("/api/options")
    def options() -> dict[str, Any]:
        models = [
            {
                "name": name,
                "about": m.about,
                "photos": m.photos,
                "colorizes": m.restorer.network.colorizes,
                "references": m.restorer.network.max_references,
            }
            for name, m in worker.models.items()
        ]
        return {
            "models": models,
            "examples": EXAMPLES,
            "upload_bytes": limits.upload_bytes,
            "keep_minutes": round(limits.keep_seconds / 60),
        }

    @app.post("/api/jobs", status_code=201)
    async def create(
        request: Request,
        model: str,
        kind: Kind,
        name: str = "",
        fidelity: Annotated[float, Query(ge=0, le=1)] = 0,
        seed: Annotated[int | None, Query(ge=0, lt=2**63)] = None,
        references: Annotated[list[int], Query()] = [],  # noqa: B006  (FastAPI copies it)
    ) -> dict[str, str]:
        """The body is the image file, after which come those of the references, of so many bytes each."""
        name = clean_name(name)
        if model not in worker.models:
            raise HTTPException(400, f"There is no model {clean_name(model)}. Reload the page.")
        if seed is not None and not worker.models[model].restorer.network.colorizes:
            raise HTTPException(400, f"{model} has one result for an image. Leave the variant out.")
        if kind == "photo" and not worker.models[model].photos:
            raise HTTPException(400, f"{model} takes no squares, so it cannot restore the faces of photos.")
        try:
            require_number_of_references(len(references), worker.models[model].restorer.network.max_references)
            jobs.check_room()
            with memory.reserve() as take:
                body = await asyncio.wait_for(_body(request, name, limits, take), limits.upload_seconds)
                content, *others = split_body(body, references)
                size = await to_thread.run_sync(check_image, content, name, limits, limiter=decoders)
                for number, reference in enumerate(others, 1):
                    await to_thread.run_sync(check_image, reference, f"reference {number}", limits, limiter=decoders)
                job = jobs.add(Order(name, model, kind, fidelity, size, seed), content, others)
        except QueueFull:
            raise HTTPException(503, "The queue is full. Try again in a minute.", {"Retry-After": "60"}) from None
        except InputError as error:
            raise HTTPException(400, error.render(as_control)) from error
        except asyncio.TimeoutError:
            raise HTTPException(408, f"{name} took too long to arrive. Try again.") from None
        except ClientDisconnect:
            raise HTTPException(400, f"{name} did not arrive whole. Try again.") from None
        return {"id": job.id}


def split_body(body: bytes, references: Sequence[int]) -> list[bytes]:
    """The image file, and those of the references, of so many bytes each, which come after it.

    >>> split_body(b"imageab", [1, 1])
    [b'image', b'a', b'b']

    Raises:
        HTTPException: There are not so many bytes.
    """
    start = len(body) - sum(references)
    if start < 0 or min(references, default=1) < 1:
        raise HTTPException(400, "The references did not arrive whole. Try again.")
    ends = [*accumulate(references, initial=start)]
    return [body[begin:end] for begin, end in pairwise([0, *ends])]


def _find(jobs: JobQueue, token: str, limits: Limits) -> Job:
    """The job with that id.

    Raises:
        HTTPException: There is none.
    """
    if (job := jobs.get(token)) is None:
        minutes = f"{limits.keep_seconds / 60:g}"
        raise HTTPException(404, f"This is gone: results are kept for up to {minutes} minutes. Restore it again.")
    return job


def _serve_jobs(app: FastAPI, jobs: JobQueue, limits: Limits) -> None:
    @app.get("/api/jobs/{token}")
    def status(token: str) -> dict[str, Any]:
        return jobs.status(_find(jobs, token, limits))

    @app.delete("/api/jobs/{token}", status_code=204)
    def cancel(token: str) -> None:
        jobs.cancel(_find(jobs, token, limits))


def _serve_pictures(app: FastAPI, jobs: JobQueue, limits: Limits) -> None:
    # One at a time, since each has a whole picture in memory. Requests that wait for it hold no thread: all answers
    # come from 40 of them.
    converter = CapacityLimiter(1)

    @app.get("/api/jobs/{token}/{picture}.{format}")
    async def picture(token: str, picture: str, format: str) -> Response:
        job = await to_thread.run_sync(_find, jobs, token, limits)
        if (ending := _pictures(job).get(picture)) is None or format not in OUTPUT_FORMATS:
            raise HTTPException(404, "There is no such picture.")
        path = job.folder / f"{picture}.{format}"
        try:
            if format != STORED and not path.exists():
                stored = path.with_suffix(f".{STORED}")
                await to_thread.run_sync(convert, stored, path, job.order.name, limiter=converter)
                await to_thread.run_sync(jobs.count_files, job)
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
        except FileNotFoundError:  # removed meanwhile
            raise HTTPException(404, GONE) from None
        # Sent in small parts as the client reads them, so that a slow client needs neither memory nor a thread.
        filename = f"{EXTENSION.sub('', job.order.name)}-{ending}.{format}"
        kind = f"image/{OUTPUT_FORMATS[format].name.lower()}"
        return Download(path, media_type=kind, stat_result=status, filename=filename, content_disposition_type="inline")


def convert(stored: Path, path: Path, name: str) -> None:
    """Write a stored picture in another format, once.

    Raises:
        HTTPException: It is gone, too large for the format, or cannot be written.
    """
    if path.exists():
        return
    try:
        write_picture(Picture(read_rgb(stored)), path)
    except InputError as error:
        if not stored.exists():
            raise HTTPException(404, GONE) from error
        raise HTTPException(400, f"{name} could not be written as {path.suffix[1:]}. Take PNG.") from error


def _pictures(job: Job) -> dict[str, str]:
    """The pictures of a job, and what the names of their downloads end with."""
    if job.result is None:
        return {}
    pictures = {"before": "before", "result": "restored"}
    for number in range(job.result["faces"]):
        pictures |= {f"crop-{number}": f"crop-{number + 1}", f"face-{number}": f"face-{number + 1}"}
    return pictures


async def _body(request: Request, name: str, limits: Limits, take: Callable[[int], None]) -> bytes:
    """The request's body; reading ends as soon as it is too long.

    Raises:
        HTTPException: It is too long.
        QueueFull: By ``take``: too much is arriving at the same time.
    """
    too_large = HTTPException(413, f"{name} is larger than {limits.upload_bytes / 1e6:g} MB. Scale it down.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.upload_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limits.upload_bytes:
            raise too_large
        take(len(chunk))
        body += chunk
    return bytes(body)
