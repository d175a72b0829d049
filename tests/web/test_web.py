"""The web page over HTTP: what it restores, what it refuses, and what it keeps to itself."""

from __future__ import annotations

import http.client
import importlib.util
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from support.web_server import EXAMPLES, Site, encode, serving

from glean_ext.errors import InputError
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize
from glean_ext.web import header_timeout as connections
from glean_ext.web import job_queue as jobs_module
from glean_ext.web.job_queue import Job, Jobs, Order
from glean_ext.web.limits import Limits, check_image, clean_name
from glean_ext.web.model_specs import SHIPPED, ModelSpec, offered, parse_model
from glean_ext.web.request_guard import is_loopback, names_for
from glean_ext.web.server import listen
from glean_ext.web.worker import ModelWorker, takes_squares

# Tiles of 35 pixels, the smallest: of a strip of 35 x 51 there are 3, up to a second each.
LIMITS = Limits(tile=8)
FACE = (EXAMPLES / "face-1.png").read_bytes()
MODELS = {"Demo GLEAN": "demo_glean_x8", "Demo LightGLEAN": "demo_lightglean_x8"}


@pytest.fixture(scope="module")
def bench() -> ModelWorker:
    return ModelWorker(SHIPPED, "cpu", LIMITS)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def site(bench, root):
    with serving(bench, root, LIMITS) as site:
        yield site


@pytest.fixture
def site_with(bench, tmp_path):
    """Another one, with limits of its own."""
    sites = []

    def start(**limits):
        sites.append(serving(bench, tmp_path, Limits(tile=8, **limits)))
        return sites[-1].__enter__()

    yield start
    for one in sites:
        one.__exit__(None, None, None)


def restorer(model: str, policy: SizePolicy | str = "auto") -> ImageRestorer:
    name = MODELS[model]
    return ImageRestorer(f"configs/{name}.py", f"glean-ext://{name}.safetensors", "cpu", policy, notify=lambda _: None)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return imresize(small, size=(height, width))


STRIP = encode(noise(35, 51))


# --- restoring ---


@pytest.mark.parametrize(("model", "size"), [("Demo GLEAN", 8), ("Demo GLEAN", 20), ("Demo LightGLEAN", 12)])
def test_results_are_those_of_the_library(site, model, size):
    image = noise(size, size)
    job = site.submit(encode(image), model=model)
    status = site.wait(job)
    assert status["state"] == "done"
    expected = restorer(model).restore(image)
    np.testing.assert_array_equal(site.picture(job), expected)
    np.testing.assert_array_equal(site.picture(job, "before"), imresize(image, size=expected.shape[:2]))
    width = expected.shape[1]
    told = {"from": f"{size}x{size}", "size": f"{width}x{width}", "width": width, "height": width, "faces": 0}
    assert status["result"] == told
    notice = [f"a.png has {size}x{size} pixels; it was resized to the model's 8x8."]
    assert status["notices"] == (notice if (model, size) == ("Demo GLEAN", 20) else [])


def test_tiles_are_counted_and_give_what_the_library_gives(site):
    job, seen = site.submit(STRIP, model="Demo LightGLEAN"), []
    while (status := site.status(job))["state"] in ("waiting", "running"):
        seen.append(status)
        time.sleep(0.05)
    assert status["state"] == "done"
    counted = [one for one in seen if one["step"] == "tiles"]
    assert {one["total"] for one in counted} == {3}
    assert [one["done"] for one in counted] == sorted(one["done"] for one in counted)
    policy = SizePolicy("tile", tile_size=35)
    np.testing.assert_array_equal(site.picture(job), restorer("Demo LightGLEAN", policy).restore(noise(35, 51)))


@pytest.mark.parametrize(("fidelity", "share"), [(1, 0.0), (0.25, 0.75)])
def test_fidelity_keeps_some_of_the_input(site, fidelity, share):
    job = site.submit(FACE, fidelity=fidelity)
    site.wait(job)
    image = read_rgb(EXAMPLES / "face-1.png")
    restored, before = restorer("Demo GLEAN").restore(image), imresize(image, scale=8)
    expected = before + np.float32(share) * (restored.astype(np.float32) - before)
    np.testing.assert_array_equal(site.picture(job), np.clip(np.round(expected), 0, 255))


def test_photo(site):
    job = site.submit((EXAMPLES / "astronaut.jpg").read_bytes(), kind="photo", name="astronaut.jpg")
    status = site.wait(job)
    assert (status["state"], status["result"]["faces"], status["notices"]) == ("done", 1, [])
    photo = read_rgb(EXAMPLES / "astronaut.jpg")
    expected = PhotoRestorer(restorer("Demo GLEAN"), save_faces=True).restore(photo)
    np.testing.assert_array_equal(site.picture(job), expected.image)
    np.testing.assert_array_equal(site.picture(job, "before"), photo)
    np.testing.assert_array_equal(site.picture(job, "crop-0"), expected.faces[0].crop)
    np.testing.assert_array_equal(site.picture(job, "face-0"), expected.faces[0].restored)
    assert site.get(f"/api/jobs/{job}/face-1.png").status == 404


def test_photo_without_faces(site):
    image = noise(40, 60)
    job = site.submit(encode(image), kind="photo", name="wall.png")
    assert site.wait(job)["notices"] == ["wall.png: no face was found; nothing was restored."]
    np.testing.assert_array_equal(site.picture(job), image)


def test_photos_of_too_many_faces(tmp_path):
    two = np.tile(read_rgb(EXAMPLES / "astronaut.jpg"), (1, 2, 1))
    limits = replace(LIMITS, max_faces=1)
    with serving(ModelWorker(SHIPPED[:1], "cpu", limits), tmp_path, limits) as site:
        status = site.wait(site.submit(encode(two), kind="photo", name="two.png"))
    assert status["state"] == "failed"
    assert status["error"] == "two.png has 2 faces, but at most 1 are restored here. Crop it."


def test_images_are_read_as_a_viewer_shows_them(site):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image = noise(8, 16)
    job = site.submit(encode(image, "TIFF", exif=exif.tobytes()), model="Demo LightGLEAN")
    assert site.wait(job)["result"]["from"] == "8x16"
    np.testing.assert_array_equal(site.picture(job, "before"), imresize(np.rot90(image, -1), scale=8))


def test_many_at_once(site):
    images = [noise(8, 8, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(site.submit, map(encode, images)))
        states = list(pool.map(site.wait, jobs))
    assert {one["state"] for one in states} == {"done"}
    model = restorer("Demo GLEAN")
    for image, job in zip(images, jobs, strict=True):
        np.testing.assert_array_equal(site.picture(job), model.restore(image))


# --- the queue ---


def test_queue_and_cancelling(site):
    before = set(site.files())
    first, second, third = site.submit(STRIP, model="Demo LightGLEAN"), site.submit(FACE), site.submit(FACE)
    site.wait(first, "running")
    assert [site.status(job)["ahead"] for job in (first, second, third)] == [0, 1, 2]
    assert site.ask("DELETE", f"/api/jobs/{second}").status == 204
    assert site.status(second)["state"] == "cancelled"
    assert site.status(third)["ahead"] == 1
    assert site.ask("DELETE", f"/api/jobs/{first}").status == 204
    assert site.wait(first)["state"] == "cancelled"
    assert site.get(f"/api/jobs/{first}/result.png").status == 404
    assert site.wait(third)["state"] == "done"
    assert set(site.files()) - before == {f"{third}/before.png", f"{third}/result.png"}
    assert site.ask("DELETE", f"/api/jobs/{third}").status == 204  # thrown away
    assert site.get(f"/api/jobs/{third}").status == 404
    assert set(site.files()) == before


def test_waiting_jobs_are_told_when_it_is_their_turn(site):
    for job in (site.submit(FACE), site.submit(STRIP, model="Demo LightGLEAN")):
        site.wait(job)
    slow, quick = site.submit(STRIP, model="Demo LightGLEAN"), site.submit(FACE)
    site.wait(slow, "running")
    running, waiting = site.status(slow), site.status(quick)
    assert waiting["state"] == "waiting"
    assert running["seconds"] is not None and waiting["seconds"] > 0
    site.ask("DELETE", f"/api/jobs/{slow}")
    assert site.wait(quick)["state"] == "done"


def test_time_left_is_that_of_the_steps_to_come(tmp_path):
    """The first step may take longer than the others; what came before them does."""
    left, times = [], []

    def work(job):
        job.report("looking")
        time.sleep(0.3)
        for done in range(1, 5):
            job.report("faces", done, 4)
            times.append(time.monotonic())
            left.append(jobs.outlook(job)[1])
            time.sleep(0.2)
        return {}

    jobs = Jobs(work, tmp_path, Limits())
    job = jobs.add(Order("a.png", "Demo GLEAN", "photo", 0, (8, 8)), b"")
    while job.state in ("waiting", "running"):
        time.sleep(0.05)
    jobs.close()
    second, third = times[1] - times[0], (times[2] - times[0]) / 2
    assert left[0] is None
    assert left[1:] == pytest.approx([2 * second, third, 0], abs=0.05)


def test_a_full_queue_is_told(site_with):
    site = site_with(waiting=1)
    running = site.submit(STRIP, model="Demo LightGLEAN")
    site.wait(running, "running")
    waiting = site.submit(FACE)
    refused = site.post(FACE)
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    assert refused.error == "The queue is full. Try again in a minute."
    site.ask("DELETE", f"/api/jobs/{running}")
    assert site.wait(waiting)["state"] == "done"
    site.submit(FACE)


def test_results_expire(site_with):
    site = site_with(keep_seconds=1.5)
    job = site.submit(FACE)
    assert site.wait(job)["state"] == "done"
    assert len(site.files()) == 2
    time.sleep(1.6)
    gone = site.get(f"/api/jobs/{job}")
    assert gone.status == 404
    assert gone.error == "This is gone: results are kept for up to 0.025 minutes. Restore it again."
    assert site.files() == []


def test_only_so_many_results_are_kept(site_with):
    site = site_with(keep_jobs=2)
    jobs = [site.submit(FACE) for _ in range(3)]
    assert site.wait(jobs[2])["state"] == "done"
    assert [site.get(f"/api/jobs/{job}/result.png").status for job in jobs] == [404, 200, 200]
    assert len(list(site.root.iterdir())) == 2


def test_an_end_is_never_told_by_half(site, monkeypatch):
    """Whoever asks while a job ends, here for longer than usual, is told of before or after."""
    outlook = Jobs.outlook

    def set_slowly(job, name, value):
        object.__setattr__(job, name, value)
        time.sleep(0.3 if name == "state" else 0)

    def look_slowly(jobs, job):
        found = outlook(jobs, job)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(Job, "__setattr__", set_slowly)
    monkeypatch.setattr(Jobs, "outlook", look_slowly)
    status = site.wait(site.submit(encode(noise(5, 9)), model="Demo LightGLEAN", name="dot.png"))
    assert status["state"] == "failed" and status["error"].startswith("dot.png has 9x5 pixels")


def test_jobs_without_results_take_no_place(site_with, monkeypatch):
    site = site_with(keep_jobs=1)
    done = site.submit(FACE)
    site.wait(done)
    running = site.submit(STRIP, model="Demo LightGLEAN")
    site.wait(running, "running")
    ended = [running, site.submit(FACE), site.submit(FACE), site.submit(encode(noise(5, 9)), model="Demo LightGLEAN")]
    for job in ended[:3]:
        site.ask("DELETE", f"/api/jobs/{job}")
    assert [site.wait(job)["state"] for job in ended] == ["cancelled"] * 3 + ["failed"]
    assert site.get(f"/api/jobs/{done}/result.png").status == 200
    monkeypatch.setattr(jobs_module, "FORGET", 0)  # a minute later
    assert [site.get(f"/api/jobs/{job}").status for job in (done, *ended)] == [200] + [404] * 4


# --- bad input ---


def bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge, and is."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


CUT = encode(noise(40, 40))[:-900]
BAD = {
    "nothing": (b"", "photo.png is empty (0 bytes). Get the file again."),
    "text": (
        b"hello",
        "photo.png is no image, or of a format that is not read (BMP, GIF, JPEG, JPEG2000, PNG, PPM, TI",
    ),
    "script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "photo.png is no image, or"),
    "cut": (CUT, "photo.png is truncated or damaged (image file is truncated"),
    "float": (encode(np.ones((9, 9), np.float32), "TIFF"), "photo.png has floating-point pixels, whose range is unkno"),
    "large": (
        bomb(5100),
        "photo.png has 5100x5100 pixels, but at most 25 million are taken here. Crop it or scale it d",
    ),
    "bomb": (bomb(20000), "photo.png is too large: Image size (400000000 pixels) exceeds limit of"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_told_in_one_line(site, kind):
    content, message = BAD[kind]
    answer = site.post(content, name="photo.png")
    assert answer.status == 400
    assert answer.error.startswith(message)
    assert "\n" not in answer.error and answer.error.endswith(".")
    assert_no_path(answer, site)


def test_large_files_are_refused_without_a_warning():
    with pytest.raises(InputError, match=r"^a is too large"), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_image(bomb(9999), "a", LIMITS)  # Pillow warns from 9460 on
    assert seen == []


def assert_no_path(answer, site: Site) -> None:
    for path in (str(site.root), str(Path.cwd()), "/tmp", "site-packages", ".py"):
        assert path not in answer.body.decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "PPM"])
def test_mutated_files(site, kind):
    """Flipped bits, cut ends, swapped headers: an answer to each, and no fault."""
    whole, random = encode(noise(30, 30), kind), np.random.default_rng(1)
    for number in range(12):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 1 + 2 * number):
            content[place] ^= 1 << int(random.integers(8))
        if number % 3 == 1:
            del content[int(random.integers(len(content))) :]
        if number % 3 == 2:
            content[:8] = encode(noise(2, 2), "JPEG" if kind == "PNG" else "PNG")[:8]
        answer = site.post(bytes(content), name="m")
        assert answer.status in (201, 400)
        if answer.status == 400:
            assert re.match(r"m (is|has) [^\n]+\.$", answer.error)
            assert_no_path(answer, site)
        else:
            assert site.wait(answer.json["id"])["state"] == "done"


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"model": "<b>"}, "There is no model <b>. Reload the page."),
        ({"kind": "../x"}, "kind: Input should be 'face' or 'photo'."),
        ({"fidelity": 1.01}, "fidelity: Input should be less than or equal to 1."),
        ({"fidelity": "nan"}, "fidelity: Input should be"),
        ({"fidelity": "-inf"}, "fidelity: Input should be"),
        ({"fidelity": "x"}, "fidelity: Input should be a valid number"),
    ],
)
def test_bad_orders_are_told(site, order, message):
    answer = site.post(FACE, **order)
    assert answer.status == 400
    assert answer.error.startswith(message)


def test_images_that_a_model_refuses(site):
    status = site.wait(site.submit(encode(noise(5, 9)), model="Demo LightGLEAN", name="dot.png"))
    assert status["state"] == "failed"
    assert status["error"] == (
        "dot.png has 9x5 pixels, but the model takes any size from 8x8 on. Resize it (MATLAB's antialiased bicubic is "
        "what models are trained with)."
    )
    status = site.wait(site.submit(encode(noise(800, 700)), model="Demo LightGLEAN", name="big.png"))
    assert status["error"] == (
        "big.png: the result would have 5600x6400 pixels, but at most 32 million are made here. Scale the image down."
    )


def test_too_large_uploads_are_refused_while_they_arrive(site_with):
    site = site_with(upload_bytes=50_000)
    message = "a.png is larger than 0.05 MB. Scale it down."
    told = site.post(None, {"Content-Length": "50001"})  # the body never comes
    assert (told.status, told.error) == (413, message)

    def endless():
        for _ in range(50):
            yield bytes(1000)
        yield b"!"

    chunked = site.post(endless())
    assert (chunked.status, chunked.error) == (413, message)
    assert site.post(bytes(50_000)).status == 400  # no image, but small enough
    assert site.files() == []


def test_slow_and_broken_uploads(site_with):
    site = site_with(upload_seconds=0.3)
    late = site.post(None, {"Content-Length": "100"})
    assert (late.status, late.error) == (408, "a.png took too long to arrive. Try again.")
    with socket.create_connection(("127.0.0.1", site.port)) as half:
        half.sendall(
            b"POST /api/jobs?model=Demo%20GLEAN&kind=face HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nx"
        )
    assert site.wait(site.submit(FACE))["state"] == "done"
    assert len(list(site.root.iterdir())) == 1


def test_connections_that_ask_for_nothing_end(site, monkeypatch):
    monkeypatch.setattr(connections, "HEADERS", 1)

    def connected():
        return socket.create_connection(("127.0.0.1", site.port), 30)

    with connected() as silent, connected() as begun, connected() as again:
        begun.sendall(b"GET / HTTP/1.1\r\nHost: local")
        again.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nH")
        assert silent.recv(99) == begun.recv(99) == b""
        answer = b"".join(iter(lambda: again.recv(999), b""))
        assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"\r\n\r\n")
    with connected() as slow:  # an upload may take longer
        slow.sendall(b"POST /api/jobs?model=Demo%20GLEAN&kind=face HTTP/1.1\r\nHost: localhost\r\n")
        slow.sendall(b"Content-Length: %d\r\n\r\n" % len(FACE) + FACE[:9])
        time.sleep(1.5)
        slow.sendall(FACE[9:])
        assert slow.recv(99).startswith(b"HTTP/1.1 201 ")


def test_models_without_squares_take_no_photos(tmp_path):
    assert takes_squares(SizeRequirements((8, 8), 8, any_size=False))
    assert not takes_squares(SizeRequirements((24, 32), 16, any_size=False))
    bench = ModelWorker(SHIPPED, "cpu", LIMITS)
    bench.models["Demo GLEAN"] = replace(bench.models["Demo GLEAN"], photos=False)
    with serving(bench, tmp_path, LIMITS) as site:
        answer = site.post(FACE, kind="photo")
    assert answer.status == 400
    assert answer.error == "Demo GLEAN takes no squares, so it cannot restore the faces of photos."


# --- what stays inside ---


def test_the_page_needs_nothing_from_elsewhere(site):
    page = site.get("/")
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    links = re.findall(r'(?:src|href)="([^"#]+)"', page.body.decode())
    assert set(links) == {"/icon.svg", "/style.css", "/app.js"}
    imports = re.findall(r'from "([^"]+)"', site.get("/app.js").body.decode())
    for path in (*links, *imports):
        answer = site.get(path)
        assert answer.status == 200
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", answer.body)
    assert "innerHTML" not in site.get("/app.js").body.decode()
    for example in site.get("/api/options").json["examples"]:
        content = site.get(f"/examples/{example['file']}")
        assert content.body == (EXAMPLES / example["file"]).read_bytes()
        assert example["model"] in MODELS
    assert site.ask("HEAD", "/").body == b""


def test_headers(site):
    for answer in (site.get("/"), site.get("/nowhere"), site.get("/", Host="evil.example"), site.post(b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api", "/api/jobs/x/y/z"])
def test_there_is_nothing_else(site, path):
    assert site.get(path).status == 404


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:80", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("192.168.1.7", 200),  # an address cannot be rebound
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_names_of_others_are_refused(site, host, status):
    assert site.get("/api/options", Host=host).status == status


def test_two_hosts_are_refused(site):
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.putrequest("GET", "/", skip_host=True)
    connection.putheader("Host", "localhost")
    connection.putheader("Host", "evil.example")
    connection.endheaders()
    assert connection.getresponse().status in (400, 421)
    connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://localhost:5", "Host": "localhost:5", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": "https://localhost:5", "Host": "localhost:5"}, 201),  # behind a proxy
        ({"Host": "127.0.0.1:7860", "Sec-Fetch-Site": "same-origin"}, 201),  # behind one as in docs/restoring.md
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:6", "Host": "localhost:5"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_other_pages_cannot_order(site, headers, status):
    answer = site.post(FACE, headers)
    assert answer.status == status
    if status == 201:
        site.wait(answer.json["id"])
    else:
        assert answer.error == "Only this page itself may ask for that."


def test_other_pages_cannot_cancel(site):
    job = site.submit(FACE)
    assert site.ask("DELETE", f"/api/jobs/{job}", headers={"Origin": "http://evil.example"}).status == 403
    assert site.wait(job)["state"] == "done"


def test_no_path_reaches_other_files(site):
    job = site.submit(FACE)
    other = site.submit(FACE)
    site.wait(other)
    secret = site.root / "secret.png"
    secret.write_bytes(b"SECRET")
    (site.root.parent / "secret.png").write_bytes(b"SECRET")
    climbs = [
        "..",
        "%2e%2e",
        "..%2f..",
        "..%5c..",
        "....//",
        "%252e%252e",
        "\\..",
        str(site.root),
        quote(str(site.root), ""),
    ]
    paths = [f"/{climb}/secret.png" for climb in climbs]
    paths += [f"/examples/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/{climb}%2fsecret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/{climb}/secret.png" for climb in climbs]
    paths += [f"/api/jobs/{job}/..%2f{other}%2fresult.png", f"/api/jobs/{job}/../{other}/result.png"]
    paths += [
        "/examples/..%2findex.html",
        "/examples/../../app.py",
        "/api/jobs/secret.png",
        "/etc/passwd",
        "//etc/passwd",
    ]
    paths += [f"/api/jobs/{job}/result.png%00.txt", f"/api/jobs/{job}/%00", f"/api/jobs/{'x' * 32}/result.png"]
    for path in paths:
        answer = site.get(path)
        assert answer.status == 404, path
        assert b"SECRET" not in answer.body and str(site.root).encode() not in answer.body
    secret.unlink()


def test_names_of_uploads_are_names_only(site):
    before = set(site.files())
    job = site.submit(FACE, name="../../../etc/<b>\n\u202egnp.exe")
    status = site.wait(job)
    assert status["name"] == "<b>gnp.exe"
    assert set(site.files()) - before == {f"{job}/before.png", f"{job}/result.png"}
    assert clean_name("a/") == clean_name("\0\n") == "the image"
    assert clean_name("x" * 300) == "x" * 100


def test_ids_cannot_be_guessed_nor_folders_read_by_others(site):
    jobs = {site.submit(FACE) for _ in range(4)}
    for job in jobs:
        assert re.fullmatch(r"[\w-]{32}", job)  # 192 bits
        site.wait(job)
        assert (site.root / job).stat().st_mode & 0o077 == 0


def test_faults_of_the_server_are_not_shown(site_with, capfd):
    site = site_with()
    site.root.rmdir()
    job = site.submit(FACE, name="me.png")
    assert site.wait(job)["error"] == "me.png: the server failed. What happened is in its terminal."
    assert "FileNotFoundError" in capfd.readouterr().err
    assert_no_path(site.get(f"/api/jobs/{job}"), site)
    site.root.mkdir()
    assert site.wait(site.submit(FACE))["state"] == "done"  # and it goes on


def test_faults_in_answering_are_not_shown(site_with, capfd):
    site = site_with()
    job = site.submit(FACE)
    site.wait(job)
    (site.root / job / "result.png").unlink()
    assert site.get(f"/api/jobs/{job}/result.png").status == 404
    (site.root / job / "result.png").mkdir()
    answer = site.get(f"/api/jobs/{job}/result.png")
    assert (answer.status, answer.error) == (500, "The server failed. What happened is in its terminal.")
    assert answer.headers["x-content-type-options"] == "nosniff"
    logged = ""
    for _ in range(100):  # it is logged after it is answered
        logged += capfd.readouterr().err
        if "IsADirectoryError" in logged:
            break
        time.sleep(0.05)
    assert "IsADirectoryError" in logged


def test_a_folder_that_cannot_be_written_to(bench, tmp_path):
    (tmp_path / "file").touch()
    job = Job("x", Order("me.png", "Demo GLEAN", "face", 0, (8, 8)), FACE, tmp_path / "file" / "x")
    with pytest.raises(InputError) as error:
        bench.restore(job)
    assert str(error.value) == "me.png: the server could not keep the result (Not a directory)."


def test_what_is_done_after_closing_is_not_kept(bench, tmp_path):
    job = Job("x", Order("me.png", "Demo GLEAN", "face", 0, (8, 8)), FACE, tmp_path / "gone" / "x")
    with pytest.raises(
        InputError, match=r"^me.png: the server could not keep the result \(No such file or directory\)"
    ):
        bench.restore(job)
    assert list(tmp_path.iterdir()) == []


# --- starting and ending ---


def test_models_to_offer():
    spec = parse_model(" Faces = configs/a.py , https://host/a.pth?x=1 ")
    assert spec == ModelSpec("Faces", "configs/a.py", "https://host/a.pth?x=1")
    assert offered(["Faces=a.py,a.pth"]) == [ModelSpec("Faces", "a.py", "a.pth"), *SHIPPED]
    for bad in ("Faces", "Faces=a.py", "=a.py,a.pth", "Faces=,a.pth", "Faces=a.py,"):
        with pytest.raises(InputError, match=rf"^--model {bad}: it must read NAME=CONFIG,CHECKPOINT, say"):
            parse_model(bad)
    with pytest.raises(InputError, match=r"^--model: the name Demo GLEAN is taken\. Give each model a name of its own"):
        offered(["Demo GLEAN=a.py,a.pth"])


def test_ports_that_are_taken_are_told(site):
    with pytest.raises(
        InputError, match=rf"^127.0.0.1:{site.port} cannot be listened on \(Address already in use\)\. G"
    ):
        listen("127.0.0.1", site.port)
    with pytest.raises(InputError, match=r"^--port 99999: ports go from 0 to 65535\."):
        listen("127.0.0.1", 99999)
    with pytest.raises(InputError, match=r"^192.0.2.1:0 cannot be listened on \("):
        listen("192.0.2.1", 0)


def test_own_names_are_known_only_when_others_can_ask():
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "box")] == [True] * 3 + [
        False
    ] * 2
    assert names_for("127.0.0.1") == {"localhost", "127.0.0.1"}
    assert names_for("0.0.0.0") >= {"localhost", socket.gethostname().lower()}


def tool(*arguments: str, **options) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "tools/web.py", *arguments], **pipes, **options)


@pytest.mark.parametrize("end", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_tool_serves_and_leaves_nothing(tmp_path, end):
    mine = "Mine=configs/demo_glean_x8.py,glean-ext://demo_glean_x8.safetensors"
    everyone = ["--host", "0.0.0.0"] if end == signal.SIGTERM else []
    process = tool("--port", "0", "--model", mine, *everyone, env=os.environ | {"TMPDIR": str(tmp_path)})
    try:
        line = process.stdout.readline()
        port = int(re.fullmatch(r"Open http://[\w.]+:(\d+) in a browser\. Ctrl-C ends\.\n", line)[1])
        (root,) = tmp_path.glob("glean-web-*")
        assert root.stat().st_mode & 0o077 == 0
        site = Site(port, root)
        assert [model["name"] for model in site.get("/api/options").json["models"]] == ["Mine", *MODELS]
        assert site.wait(site.submit(FACE, model="Mine"))["state"] == "done"
        slow = site.submit(encode(noise(40, 40)), model="Demo LightGLEAN")
        site.wait(slow, "running")
        process.send_signal(end)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (0 if end == signal.SIGINT else 128 + end)
    assert errors == (
        "warning: everyone who can reach this machine can use the page, or keep others from it: it has no password. "
        "On the internet it belongs behind a reverse proxy.\n"
        if everyone
        else ""
    )
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_asked_for(monkeypatch):
    spec = importlib.util.spec_from_file_location("web_tool", "tools/web.py")
    web = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(web)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "glean_ext.web.server")
    with pytest.raises(InputError, match=r"^uvicorn is not installed\. pip install 'glean-ext\[web\]'"):
        web.main([])


def test_bad_arguments_are_told():
    process = tool("--model", "x")
    output, error = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert error == "error: --model x: it must read NAME=CONFIG,CHECKPOINT, say Faces=configs/a.py,a.pth.\n"
