"""The page that restores in the visitor's browser: built by `npm run build`, and served, in headless Chromium.

Screenshots go to work_dirs/web_demo.
"""

from __future__ import annotations

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, save_shot

import glean_ext

ROOT = Path(__file__).parents[2]
DIST = ROOT / "web_demo/dist"
SHOTS = ROOT / "work_dirs/web_demo"
EXAMPLE = ROOT / "glean_ext/web/static/examples/face-1.png"
WAIT = 120_000  # milliseconds
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (DIST / "index.html").is_file(), reason="the page is not built: npm ci, npm run build"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=DIST))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, url):
    """The page; only its own files may be asked for, with GET, and no script may fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, accept_downloads=True)
    page, faults, requests = context.new_page(), [], []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: requests.append((request.method, request.url, request.post_data)))
    yield page
    context.close()
    assert faults == []
    assert requests and all(
        method == "GET" and address.startswith((url, f"blob:{url}")) and body is None
        for method, address, body in requests
    )


def restored(page) -> np.ndarray:
    """What the page lets one download."""
    page.wait_for_selector("#result:visible, #alert:visible", timeout=WAIT)
    assert not page.is_visible("#alert"), page.inner_text("#alert")
    page.wait_for_selector("#progress", state="hidden", timeout=WAIT)
    with page.expect_download() as download:
        page.click("#download")
    return np.array(Image.open(download.value.path()).convert("RGB"))


def shot(page, name: str) -> None:
    save_shot(page, SHOTS / f"{name}.png")


def test_an_example_is_restored_as_by_the_package(page, url):
    page.goto(url)
    page.click("#examples button >> nth=0")
    output = restored(page)
    restorer = glean_ext.ImageRestorer("demo_lightglean_x8", dtype="float32", notify=lambda notice: None)
    expected = restorer.restore(np.array(Image.open(EXAMPLE).convert("RGB")))
    assert output.shape == expected.shape and np.abs(output.astype(int) - expected).max() <= 1
    assert "8 × 8 to 64 × 64" in page.inner_text("#caption")
    page.wait_for_function("document.getElementById('after').naturalWidth === 64")
    shot(page, "restored")


def test_a_dropped_image_is_reduced_to_the_chosen_size(page, url):
    page.goto(url)
    page.fill("#side", "16")
    content = io.BytesIO()
    Image.open(EXAMPLE).convert("RGB").resize((300, 150)).save(content, "PNG")
    data = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
            return transfer;
        }""",
        list(content.getvalue()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert restored(page).shape == (64, 128, 3)
    assert "mine.png (300 × 150)" in page.inner_text("#chosen")
    assert page.get_attribute("#download", "download") == "mine_restored.png"


def test_what_is_no_image_is_one_line(page, url):
    page.goto(url)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"mine"})
    page.wait_for_selector("#alert:visible")
    assert page.inner_text("#alert") == ("notes.txt is no image that this browser can show. Save it as PNG or JPEG.")
    assert page.is_disabled("#run")


@pytest.mark.parametrize(
    ("lacks", "line"),
    [
        ("WebAssembly.validate = () => false", "This browser has no WebAssembly SIMD, which the model needs."),
        ("delete self.WebAssembly", "This browser has no WebAssembly, or it is switched off."),
    ],
)
def test_a_browser_without_simd_shows_one_line(page, url, lacks, line):
    page.add_init_script(lacks)
    page.goto(url)
    page.wait_for_selector("#alert:visible")
    assert page.inner_text("#alert").startswith(line)
    assert page.is_disabled("#file") and page.is_disabled("#run")
    shot(page, "no-simd" if "SIMD" in line else "no-wasm")
