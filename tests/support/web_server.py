"""The web page on a free port of this machine, in a thread, for the tests that ask it."""

from __future__ import annotations

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.utils.imresize import imresize
from glean_ext.web.app import make_app
from glean_ext.web.limits import Limits
from glean_ext.web.request_guard import allowed_names
from glean_ext.web.server import listen, make_server
from glean_ext.web.worker import ModelWorker

EXAMPLES = Path("glean_ext/web/static/examples")
FACE = (EXAMPLES / "face-1.png").read_bytes()
MODELS = {"Demo GLEAN": "demo_glean_x8", "Demo LightGLEAN": "demo_lightglean_x8", "Demo colorizer": "demo_glean_color"}
LIMITS = Limits(tile=8)  # tiles of 35 pixels, the smallest: a strip of 35 x 51 has 3, each takes up to a second


class Answer:
    def __init__(self, response: http.client.HTTPResponse):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> dict:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]

    @property
    def image(self) -> np.ndarray:
        assert self.status == 200 and self.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(self.body)))


class Site:
    """A client that sends exactly what it is given."""

    def __init__(self, port: int, root: Path):
        self.port = port
        self.root = root
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: object = None, headers: dict | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, content: object, headers: dict | None = None, **order: object) -> Answer:
        order = {"model": "Demo GLEAN", "kind": "face", "name": "a.png"} | order
        return self.ask("POST", f"/api/jobs?{urlencode(order, doseq=True)}", content, headers)

    def submit(self, content: bytes, **order: object) -> str:
        answer = self.post(content, **order)
        assert answer.status == 201, answer.body
        return answer.json["id"]

    def status(self, job: str) -> dict:
        return self.get(f"/api/jobs/{job}").json

    def wait(self, job: str, *states: str) -> dict:
        """The status once it is one of these; by default once the job has ended."""
        for _ in range(1200):
            status = self.status(job)
            if status["state"] in (states or ("done", "failed", "cancelled")):
                return status
            time.sleep(0.05)
        raise TimeoutError(status)

    def picture(self, job: str, which: str = "result") -> np.ndarray:
        return self.get(f"/api/jobs/{job}/{which}.png").image

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def assert_no_path(answer: Answer, site: Site) -> None:
    """Assert that an answer does not say where the server's files are."""
    for path in (str(site.root), str(Path.cwd()), "/tmp", "site-packages", ".py"):
        assert path not in answer.body.decode()


@contextmanager
def serving(worker: ModelWorker, root: Path, limits: Limits) -> Iterator[Site]:
    with listen("127.0.0.1", 0) as listener:
        server = make_server(make_app(worker, root, limits, allowed_names("127.0.0.1")))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Site(listener.getsockname()[1], root)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def encode(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def restorer(model: str, policy: SizePolicy | str = "auto") -> ImageRestorer:
    """What the page restores with, in the library."""
    name = MODELS[model]
    return ImageRestorer(f"configs/{name}.py", f"glean-ext://{name}.safetensors", "cpu", policy, notify=lambda _: None)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random image, (height, width, 3) uint8."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return imresize(small, size=(height, width))


STRIP = encode(noise(35, 51))
