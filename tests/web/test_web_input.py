"""The web page over HTTP: bad files and bad requests are answered in one line."""

from __future__ import annotations

import io
import re
import socket
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.web_server import (
    FACE,
    LIMITS,
    assert_no_path,
    encode,
    noise,
    serving,
)

from glean_ext.errors import InputError
from glean_ext.size_requirements import SizeRequirements
from glean_ext.web import connection_timeouts
from glean_ext.web.limits import check_image
from glean_ext.web.model_specs import SHIPPED
from glean_ext.web.worker import ModelWorker, takes_squares


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
        "photo.png is no image, or of a format that is not read (AVIF, BMP, GIF, HEIF, JPEG, JPEG2000",
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
def test_bad_files_are_refused_in_one_line(site, kind):
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
def test_bad_orders_are_refused(site, order, message):
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
    refused = site.post(None, {"Content-Length": "50001"})  # the body never comes
    assert (refused.status, refused.error) == (413, message)

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
    monkeypatch.setattr(connection_timeouts, "HEADER_SECONDS", 1)

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
    worker = ModelWorker(SHIPPED, "cpu", LIMITS)
    worker.models["Demo GLEAN"] = replace(worker.models["Demo GLEAN"], photos=False)
    with serving(worker, tmp_path, LIMITS) as site:
        answer = site.post(FACE, kind="photo")
    assert answer.status == 400
    assert answer.error == "Demo GLEAN takes no squares, so it cannot restore the faces of photos."
