"""The page's addresses: what the browser gets, and what it may ask for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from glean_ext.errors import InputError
from glean_ext.web.job_queue import Busy, Job, Jobs, Kind, Order
from glean_ext.web.limits import Limits, check_image, clean_name
from glean_ext.web.request_guard import Guard
from glean_ext.web.worker import ModelWorker

STATIC = resources.files("glean_ext.web") / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
PAGE = {"/": "index.html"} | {f"/{name}": name for name in ("app.js", "compare.js", "style.css", "icon.svg")}
EXAMPLES = (
    {"file": "face-1.png", "label": "Cartoon face 1, 8x8 pixels", "kind": "face", "model": "Demo GLEAN"},
    {"file": "face-2.png", "label": "Cartoon face 2, 8x8 pixels", "kind": "face", "model": "Demo LightGLEAN"},
    {"file": "face-3.png", "label": "Cartoon face 3, 8x8 pixels", "kind": "face", "model": "Demo LightGLEAN"},
    {"file": "astronaut.jpg", "label": "Photograph of an astronaut", "kind": "photo", "model": "Demo GLEAN"},
)
DECODERS = 2  # uploads that are looked at at the same time


def make_app(bench: ModelWorker, root: Path, limits: Limits, names: Iterable[str]) -> Guard:
    """The page as an ASGI application.

    Args:
        bench: Restores.
        root: Folder for results; it must be nobody else's.
        limits: What is taken and kept.
        names: Host names it answers to, besides addresses.
    """
    jobs = Jobs(bench.restore, root, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(jobs.close)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _tell_errors(app)
    _serve_files(app, bench, limits)
    _serve_jobs(app, bench, jobs, limits)
    return Guard(app, names)


def _tell_errors(app: FastAPI) -> None:
    """Every error is one line in ``error``."""

    @app.exception_handler(StarletteHTTPException)
    async def told(_: Request, error: StarletteHTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def misused(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}."}, 400)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": "The server failed. What happened is in its terminal."}, 500)


def _serve_files(app: FastAPI, bench: ModelWorker, limits: Limits) -> None:
    """The page and its examples, read once."""
    paths = PAGE | {f"/examples/{example['file']}": f"examples/{example['file']}" for example in EXAMPLES}
    for address, path in paths.items():
        content, media_type = (STATIC / path).read_bytes(), TYPES[Path(path).suffix]
        app.add_api_route(address, _constant(content, media_type), methods=["GET", "HEAD"])

    @app.get("/api/options")
    def options() -> dict[str, Any]:
        models = [{"name": name, "about": m.about, "photos": m.photos} for name, m in bench.models.items()]
        return {
            "models": models,
            "examples": EXAMPLES,
            "upload_bytes": limits.upload_bytes,
            "keep_minutes": round(limits.keep_seconds / 60),
        }


def _constant(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, media_type=media_type)

    return answer


def _serve_jobs(app: FastAPI, bench: ModelWorker, jobs: Jobs, limits: Limits) -> None:
    decoders = CapacityLimiter(DECODERS)

    def found(token: str) -> Job:
        if (job := jobs.get(token)) is None:
            minutes = f"{limits.keep_seconds / 60:g}"
            raise HTTPException(404, f"This is gone: results are kept for up to {minutes} minutes. Restore it again.")
        return job

    @app.post("/api/jobs", status_code=201)
    async def create(
        request: Request,
        model: str,
        kind: Kind,
        name: str = "",
        fidelity: Annotated[float, Query(ge=0, le=1)] = 0,
    ) -> dict[str, str]:
        """The body is the image file."""
        name = clean_name(name)
        if model not in bench.models:
            raise HTTPException(400, f"There is no model {clean_name(model)}. Reload the page.")
        if kind == "photo" and not bench.models[model].photos:
            raise HTTPException(400, f"{model} takes no squares, so it cannot restore the faces of photos.")
        try:
            jobs.check_room()
            content = await asyncio.wait_for(_body(request, name, limits), limits.upload_seconds)
            size = await to_thread.run_sync(check_image, content, name, limits, limiter=decoders)
            job = jobs.add(Order(name, model, kind, fidelity, size), content)
        except Busy:
            raise HTTPException(503, "The queue is full. Try again in a minute.", {"Retry-After": "60"}) from None
        except InputError as error:
            raise HTTPException(400, str(error)) from error
        except asyncio.TimeoutError:
            raise HTTPException(408, f"{name} took too long to arrive. Try again.") from None
        except ClientDisconnect:
            raise HTTPException(400, f"{name} did not arrive whole. Try again.") from None
        return {"id": job.id}

    @app.get("/api/jobs/{token}")
    def status(token: str) -> dict[str, Any]:
        return jobs.status(found(token))

    @app.delete("/api/jobs/{token}", status_code=204)
    def cancel(token: str) -> None:
        jobs.cancel(found(token))

    @app.get("/api/jobs/{token}/{picture}.png")
    def picture(token: str, picture: str) -> Response:
        job = found(token)
        if job.result is None or picture not in _pictures(job):
            raise HTTPException(404, "There is no such picture.")
        try:
            return Response((job.folder / f"{picture}.png").read_bytes(), media_type="image/png")
        except FileNotFoundError:  # thrown away meanwhile
            raise HTTPException(404, "This is gone. Restore it again.") from None


def _pictures(job: Job) -> list[str]:
    """Names of what a job made."""
    faces = range(job.result["faces"]) if job.result else ()
    return ["before", "result", *(f"{which}-{number}" for which in ("crop", "face") for number in faces)]


async def _body(request: Request, name: str, limits: Limits) -> bytes:
    """The request's body; reading ends as soon as it is too long.

    Raises:
        HTTPException: It is.
    """
    fault = HTTPException(413, f"{name} is larger than {limits.upload_bytes / 1e6:g} MB. Scale it down.")
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told) > limits.upload_bytes:
        raise fault
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limits.upload_bytes:
            raise fault
        body += chunk
    return bytes(body)
