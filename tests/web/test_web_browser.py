"""The web page in a real browser, headless Chromium: `make test-browser`. Screenshots go to work_dirs/web."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, save_shot
from support.web_server import EXAMPLES, Site, encode, serving

pytestmark = pytest.mark.browser
SHOTS = Path("work_dirs/web")
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 360, "height": 740}
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
WAIT = 60_000  # milliseconds


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from glean_ext.web.limits import Limits
    from glean_ext.web.model_specs import SHIPPED
    from glean_ext.web.worker import ModelWorker

    limits = Limits(tile=8, upload_bytes=500_000)
    with serving(ModelWorker(SHIPPED, "cpu", limits), tmp_path_factory.mktemp("page"), limits) as site:
        yield site


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "There is no Chromium. apt-get install chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=QUIET.split(),
            viewport=DESKTOP,
            accept_downloads=True,
        )
        yield context
        context.close()


@pytest.fixture
def page(context, site):
    """The page, just opened; nothing may be asked for elsewhere, and no script may fail."""
    page = context.new_page()
    faults, addresses = [], []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("request", lambda request: addresses.append(request.url))
    page.set_viewport_size(DESKTOP)
    page.goto(site.url)
    page.wait_for_selector("#examples button")
    yield page
    page.close()
    assert faults == []
    assert addresses and all(address.startswith((site.url, f"blob:{site.url}")) for address in addresses)


def shot(page, name: str) -> None:
    save_shot(page, SHOTS / f"{name}.png")


def choose(page, content: bytes, name: str) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def restore(page) -> None:
    page.click("#run")
    page.wait_for_selector("#result:not([hidden])", timeout=WAIT)
    until(page, "document.querySelector('#after').naturalWidth > 0")


def until(page, condition: str) -> None:
    """Wait for a condition in JavaScript. Playwright's own way wants eval, which the page forbids."""
    for _ in range(WAIT // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise TimeoutError(condition)


def shown(page, selector: str) -> str:
    """The text of something that can be seen."""
    element = page.wait_for_selector(selector, state="visible", timeout=WAIT)
    return element.inner_text()


def noise(height: int, width: int) -> bytes:
    return encode(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_upload_run_and_download(page, site: Site, tmp_path):
    content = (EXAMPLES / "face-2.png").read_bytes()
    choose(page, content, "Anna & <i>Bo</i>.png".replace("/", ""))
    assert shown(page, "#preview-caption") == "Anna & <i>Bo<i>.png: 8x8 pixels"
    shot(page, "chosen")
    restore(page)
    assert shown(page, "#caption").startswith("Anna & <i>Bo<i>.png: 8x8 → 64x64 pixels")
    assert page.query_selector("#stage i") is None
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.endswith("-restored.png")
    download.value.save_as(tmp_path / "got.png")
    job = page.get_attribute("#download", "href").split("/")[3]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "got.png")), site.picture(job))
    page.select_option("#format", "jpg")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename.endswith("-restored.jpg")
    download.value.save_as(tmp_path / "got.jpg")
    with Image.open(tmp_path / "got.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (64, 64))
    page.select_option("#format", "png")
    shot(page, "face")


def colours(page, x: float) -> np.ndarray:
    """Of a column of pixels in the comparison, at a share of its width."""
    picture = np.asarray(Image.open(io.BytesIO(page.locator("#compare").screenshot())).convert("RGB"))
    return picture[60:-60, round(x * (picture.shape[1] - 1))].astype(int)


def test_slider_shows_before_and_after(page):
    white, black = np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)
    choose(page, encode(white), "white.png")
    restore(page)
    # the server's pictures are like each other; in their place come two that are not
    page.route("**/white", lambda route: route.fulfill(body=encode(white), content_type="image/png"))
    page.route("**/black", lambda route: route.fulfill(body=encode(black), content_type="image/png"))
    page.evaluate("before.src = '/white'; after.src = '/black'; Promise.all([before.decode(), after.decode()])")
    assert colours(page, 0.25).min() > 250 and colours(page, 0.75).max() < 5
    box = page.locator("#compare").bounding_box()
    middle = box["y"] + 0.3 * box["height"]
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.85 * box["width"], middle, steps=5)
    page.mouse.up()
    assert float(page.input_value("#split")) == pytest.approx(85, abs=1)
    assert colours(page, 0.75).min() > 250 and colours(page, 0.95).max() < 5
    page.mouse.click(box["x"] + 0.1 * box["width"], middle)
    assert colours(page, 0.25).max() < 5
    page.focus("#split")
    page.keyboard.press("End")
    assert colours(page, 0.9).min() > 250
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#split") == "99.5"
    assert page.get_attribute("#split", "aria-valuetext") == "100 percent original"


def test_example_by_keyboard_alone(page):
    page.focus("#file")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the first example
    assert shown(page, "#preview-caption") == "face-1.png: 8x8 pixels"
    for _ in range(6):  # four more examples, the kind, the model
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "model"
    page.keyboard.press("ArrowDown")
    assert page.input_value("#model") == "Demo LightGLEAN"
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert shown(page, "#fidelity-value") == "0.15"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "face-1.png: 8x8 → 64x64 pixels" in shown(page, "#caption")
    assert page.evaluate("document.activeElement.id") == "result"


def test_photo(page, site: Site):
    page.click("#examples li:nth-child(4) button")
    page.wait_for_selector("#preview-image:not([hidden])")
    assert page.is_checked('input[value="photo"]')
    restore(page)
    assert shown(page, "#faces-title") == "The face"
    until(page, "[...document.querySelectorAll('#faces img')].every((one) => one.naturalWidth)")
    sizes = page.evaluate("[...document.querySelectorAll('#faces img')].map((one) => one.naturalWidth)")
    assert sizes == [8, 64]
    with page.expect_download() as download:
        page.click("#faces a")
    assert download.value.suggested_filename == "astronaut-face-1.png"
    shot(page, "photo")
    choose(page, noise(40, 60), "wall.png")
    restore(page)
    assert shown(page, "#notices li:last-child") == "wall.png: no face was found; nothing was restored."
    assert page.is_hidden("#faces-part")
    shot(page, "no-face")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"hello",
            "<img src=x onerror=alert(1)>.png is no image, or of a format that is not read (AVIF, BMP, GIF, HEIF",
        ),
        (bytes(500_001), "<img src=x onerror=alert(1)>.png is larger than 0.5 MB. Scale it down."),
        (noise(40, 40)[:-900], "<img src=x onerror=alert(1)>.png is truncated or damaged"),
    ],
)
def test_wrong_files(page, content, message):
    choose(page, content, "<img src=x onerror=alert(1)>.png")
    if page.is_hidden("#alert"):  # too large ones are not even sent
        page.click("#run")
    assert shown(page, "#alert").startswith(message)
    assert page.query_selector("#alert img") is None
    shot(page, "wrong")
    page.click("#examples li:nth-child(1) button")  # and it goes on
    page.wait_for_selector("#alert", state="hidden")
    restore(page)


def test_nothing_chosen(page):
    page.click("#run")
    assert shown(page, "#alert") == "Choose an image first."


def test_dropping(page):
    data = page.evaluate_handle(
        """async () => {
            const content = await (await fetch("/examples/face-3.png")).blob();
            const data = new DataTransfer();
            data.items.add(new File([content], "dropped.png", { type: "image/png" }));
            return data;
        }"""
    )
    page.dispatch_event("#drop", "dragenter", {"dataTransfer": data})
    assert "over" in page.get_attribute("#drop", "class")
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    assert shown(page, "#preview-caption") == "dropped.png: 8x8 pixels"
    restore(page)
    assert "dropped.png" in shown(page, "#caption")


def test_formats_that_browsers_do_not_show(page):
    choose(page, encode(np.full((8, 8, 3), 90, np.uint8), "PPM"), "scan.ppm")
    assert shown(page, "#preview-caption") == "scan.ppm cannot be shown here before it is restored."
    restore(page)
    assert "scan.ppm: 8x8 → 64x64 pixels" in shown(page, "#caption")


def test_queue_progress_and_cancel(page, context, site: Site):
    page.select_option("#model", "Demo LightGLEAN")
    choose(page, noise(67, 99), "large.png")
    page.click("#run")
    until(page, "/^Tiles [1-9]\\d* of 45, about .* left$/.test(document.querySelector('#progress-text').innerText)")
    assert page.evaluate("document.querySelector('#bar').position") > 0
    shot(page, "progress")
    second = context.new_page()
    second.goto(site.url)
    second.click("#examples li:nth-child(1) button")
    second.wait_for_selector("#preview:not([hidden])")
    second.click("#run")
    until(second, "document.querySelector('#progress-text').innerText.startsWith('Waiting: one image is before')")
    shot(second, "waiting")
    page.click("#cancel")
    page.wait_for_selector("#progress", state="hidden")
    assert page.is_hidden("#alert") and page.is_visible("#preview") and page.is_enabled("#run")
    second.wait_for_selector("#result:not([hidden])", timeout=WAIT)
    second.close()


def test_files_that_come_while_one_is_restored(page, site: Site):
    """It can be followed and cancelled as before, whether they can be taken or not."""
    orders, deleted = [], []
    page.on("request", lambda request: deleted.append(request.url) if request.method == "DELETE" else None)
    page.route(re.compile(r"/api/jobs\?"), lambda route: orders.append(route))  # held back: it is being sent
    page.select_option("#model", "Demo LightGLEAN")
    choose(page, noise(67, 99), "slow.png")
    page.click("#run")
    assert shown(page, "#progress-text") == "Sending"
    for content, name in ((noise(8, 8), "other.png"), (bytes(500_001), "large.png")):
        choose(page, content, name)
        page.wait_for_selector("#alert", state="visible" if name == "large.png" else "hidden")
        assert page.is_visible("#progress") and page.is_disabled("#run")
    page.dispatch_event("#form", "submit")  # say a key was pressed
    assert len(orders) == 1
    orders[0].continue_()
    until(page, "document.querySelector('#progress-text').innerText.startsWith('Tiles')")
    choose(page, bytes(500_001), "large.png")
    assert shown(page, "#alert") == "large.png is larger than 0.5 MB. Scale it down."
    assert page.is_visible("#progress") and page.is_disabled("#run")
    page.dispatch_event("#form", "submit")
    page.click("#cancel")
    page.wait_for_selector("#progress", state="hidden")
    assert len(deleted) == len(orders) == 1
    assert page.is_hidden("#alert") and page.is_visible("#preview") and page.is_enabled("#run")
    page.unroute_all()
    restore(page)
    assert shown(page, "#caption").startswith("other.png: 8x8")


def test_leaving_cancels(page, context, site: Site):
    """A job nobody can ask for any more makes nobody wait."""
    page.select_option("#model", "Demo LightGLEAN")
    choose(page, noise(67, 99), "large.png")
    with page.expect_response("**/api/jobs?*") as sent:
        page.click("#run")
    job = sent.value.json()["id"]
    until(page, "document.querySelector('#progress-text').innerText.startsWith('Tiles')")
    page.reload()
    assert site.wait(job)["state"] == "cancelled"


def test_examples_of_a_server_that_is_gone(page):
    page.route("**/examples/face-1.png", lambda route: route.abort())
    page.click("#examples li:nth-child(1) button")
    assert shown(page, "#alert") == "The server does not answer. Is it still running?"


def test_results_that_are_gone(page, site: Site):
    page.click("#examples li:nth-child(1) button")
    page.wait_for_selector("#preview:not([hidden])")
    page.route("**/result.png", lambda route: route.fulfill(status=404))
    page.click("#run")
    assert shown(page, "#alert") == "The result is gone, or the server does not answer. Restore it again."


def touch(context, page, points: list[tuple[float, float]]) -> None:
    """Lay a finger on the first point, and lift it at the last."""
    session = context.new_cdp_session(page)
    for number, (x, y) in enumerate(points):
        session.send(
            "Input.dispatchTouchEvent",
            {"type": "touchMove" if number else "touchStart", "touchPoints": [{"x": x, "y": y}]},
        )
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone(page, context, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(PHONE)
    shot(page, f"phone-{scheme}")
    page.click("#examples li:nth-child(4) button")
    page.wait_for_selector("#preview-image:not([hidden])")
    restore(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    until(page, "document.querySelector('#compare').getBoundingClientRect().top < 100")
    small = """[...document.querySelectorAll("button, select, a.button, .choice label")]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 36).map((one) => one.outerHTML)"""
    assert page.evaluate(small) == []
    shot(page, f"phone-{scheme}-result")
    box = page.locator("#compare").bounding_box()
    middle = box["y"] + 0.3 * box["height"]
    touch(context, page, [(box["x"] + share * box["width"], middle) for share in (0.3, 0.5, 0.6, 0.7, 0.8)])
    assert float(page.input_value("#split")) == pytest.approx(80, abs=2)
