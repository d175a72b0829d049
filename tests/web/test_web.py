"""The web page over HTTP: what it restores, and the queue."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastapi import HTTPException
from PIL import Image
from support.networks import TINY, randomize
from support.web_server import EXAMPLES, FACE, LIMITS, STRIP, encode, noise, restorer, serving

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.faces.detection import FaceFinder
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.networks import build_network
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize
from glean_ext.web import job_queue as jobs_module
from glean_ext.web.app import convert
from glean_ext.web.job_queue import Job, JobQueue, Order
from glean_ext.web.limits import Limits
from glean_ext.web.model_specs import SHIPPED, ModelSpec
from glean_ext.web.worker import ModelWorker

CARTOONS = "demo_glean_x8: A small demonstration that was trained on cartoon faces only: photographs become cartoons."


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
    expected_result = {
        "from": f"{size}x{size}",
        "size": f"{width}x{width}",
        "width": width,
        "height": width,
        "faces": 0,
    }
    assert status["result"] == expected_result
    notice = [f"a.png has {size}x{size} pixels; it was resized to the model's 8x8."]
    assert status["notices"] == (notice if (model, size) == ("Demo GLEAN", 20) else [])


def test_results_come_in_the_format_that_is_asked_for(site):
    job = site.submit(FACE, name="me.tar.png")
    site.wait(job)
    exact = site.picture(job)
    for extension, kind, off in ("jpg", "JPEG", 3), ("webp", "WEBP", 8):
        for _ in range(2):  # it is made once
            answer = site.get(f"/api/jobs/{job}/result.{extension}")
            assert answer.status == 200 and answer.headers["content-type"] == f"image/{kind.lower()}"
            assert f'filename="me.tar-restored.{extension}"' in answer.headers["content-disposition"]
        with Image.open(io.BytesIO(answer.body)) as image:
            assert image.format == kind and image.size == exact.shape[1::-1]
            assert np.abs(np.asarray(image).astype(int) - exact).mean() < off
    assert f"{job}/result.jpg" in site.files()
    for missing in "result.gif", "result.", "face-0.jpg", "no.jpg":
        assert site.get(f"/api/jobs/{job}/{missing}").status == 404
    site.ask("DELETE", f"/api/jobs/{job}")
    assert site.get(f"/api/jobs/{job}/result.jpg").status == 404
    assert not [file for file in site.files() if file.startswith(job)]


def test_a_format_that_has_no_place_for_the_result(tmp_path):
    (tmp_path / "job").mkdir()
    Image.new("L", (16384, 1)).save(tmp_path / "job" / "result.png")
    with pytest.raises(HTTPException) as caught:
        convert(tmp_path / "job" / "result.png", tmp_path / "job" / "result.webp", "wide.png")
    assert (caught.value.status_code, caught.value.detail) == (400, "wide.png could not be written as webp. Take PNG.")
    assert sorted(path.name for path in (tmp_path / "job").iterdir()) == ["result.png"]


def test_a_job_that_is_cancelled_after_its_last_report_leaves_no_result(tmp_path):
    def work(job: Job) -> dict:
        (job.folder / "result.png").write_bytes(b"12345")
        jobs.cancel(job)
        return {}

    jobs = JobQueue(work, tmp_path, LIMITS)
    job = jobs.add(Order("a.png", "Demo GLEAN", "face", 0, (8, 8)), b"")
    while (state := jobs.status(job)["state"]) in ("waiting", "running"):
        time.sleep(0.01)
    assert state == "cancelled" and not job.folder.exists()
    jobs.close()


def test_files_of_a_result_that_is_forgotten_meanwhile_are_removed(tmp_path):
    jobs = JobQueue(lambda job: {}, tmp_path, LIMITS)
    job = jobs.add(Order("a.png", "Demo GLEAN", "face", 0, (8, 8)), b"")
    while job.state != "done":
        time.sleep(0.01)
    (job.folder / "result.jpg").write_bytes(b"12345")
    jobs.count_files(job)
    assert job.stored_bytes == 5
    jobs.cancel(job)
    job.folder.mkdir()  # by what is written into it
    jobs.count_files(job)
    assert not job.folder.exists()
    jobs.close()


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


def test_another_fidelity_of_a_gated_model_loads_nothing(tmp_path, monkeypatch):
    generator = {**TINY, "fidelity_gate": True}
    files = [str(tmp_path / f"gated.{ending}") for ending in ("py", "safetensors")]
    (tmp_path / "gated.py").write_text(f"model = dict(type='GLEAN', generator={generator})\n")
    torch.manual_seed(0)
    checkpoints.save(randomize(build_network(generator)).state_dict(), files[1])
    with monkeypatch.context() as patch:
        patch.setattr("glean_ext.inference.backend_choice.choose", lambda *_: pytest.fail("perhaps an engine"))
        worker = ModelWorker([ModelSpec("Gated", *files)], "cpu", LIMITS)
    monkeypatch.setattr("glean_ext.web.worker.load_backend", lambda *_: pytest.fail("loaded again"))
    image = read_rgb(EXAMPLES / "face-1.png")
    orders = [Order("a.png", "Gated", "face", w, (8, 8)) for w in (0, 0.5, 1.0)]
    results = [worker._restorer(order).network.restore([image])[0] for order in orders]
    for w, result in zip((0, 0.5, 1.0), results, strict=True):
        expected = ImageRestorer(*files, "cpu", fidelity=w).restore(image)
        assert np.abs(result.astype(int) - expected).max() <= 1
    assert not np.array_equal(results[0], results[1]) and not np.array_equal(results[1], results[2])
    with pytest.raises(InputError, match="has no gate that fidelity could set"):
        worker._restorer(orders[1]).network.with_fidelity(1)


def test_colours(site, monkeypatch):
    """By the colorizer; each variant is another answer, in both modes, of the network that is loaded already."""
    monkeypatch.setattr("glean_ext.web.worker.load_backend", lambda *_: pytest.fail("loaded again"))
    face = (EXAMPLES / "gray-face.png").read_bytes()
    model = "Demo colorizer"
    assert {one["name"]: one["colorizes"] for one in site.get("/api/options").json["models"]}[model]
    pictures = []
    for kind, seed in ("face", None), ("face", 3), ("photo", 3):
        more = {} if seed is None else {"seed": seed}
        job = site.submit(face, model=model, kind=kind, name="gray.png", **more)
        status = site.wait(job)
        colorizer = ImageRestorer("demo_glean_color", seed=seed)
        expected = colorizer.restore(read_rgb(EXAMPLES / "gray-face.png"))
        pictures.append(site.picture(job))
        assert np.abs(pictures[-1].astype(int) - expected).max() <= 1  # luminance was rounded once more
        notice = "gray.png: no face was found; it was coloured as a whole."
        about = CARTOONS.replace("demo_glean_x8", "demo_glean_color"), FaceFinder().about
        assert status["notices"] == ([*about, notice] if kind == "photo" else [])
    assert not np.array_equal(pictures[0], pictures[1])
    answer = site.post(FACE, seed=3)
    assert (answer.status, answer.error) == (400, "Demo GLEAN has one result for an image. Leave the variant out.")


def test_photo(site):
    job = site.submit((EXAMPLES / "astronaut.jpg").read_bytes(), kind="photo", name="astronaut.jpg")
    status = site.wait(job)
    assert (status["state"], status["result"]["faces"]) == ("done", 1)
    assert status["notices"] == [CARTOONS, FaceFinder().about]
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
    about = FaceFinder().about
    assert site.wait(job)["notices"] == [CARTOONS, about, "wall.png: no face was found; nothing was restored."]
    np.testing.assert_array_equal(site.picture(job), image)


def test_more_faces_than_are_shown_one_by_one(tmp_path):
    two = np.tile(read_rgb(EXAMPLES / "astronaut.jpg"), (1, 2, 1))
    limits = replace(LIMITS, max_faces=2, faces=1)
    with serving(ModelWorker(SHIPPED[:1], "cpu", limits), tmp_path, limits) as site:
        job = site.submit(encode(two), kind="photo", name="two.png")
        status = site.wait(job)
        assert (status["state"], status["result"]["faces"]) == ("done", 1)
        assert [site.get(f"/api/jobs/{job}/face-{number}.png").status for number in (0, 1)] == [200, 404]
    assert status["notices"][2:] == ["1 of 2 faces are shown one by one; all are in the result."]


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


def test_what_the_result_lacks_is_reported(site):
    frames = [Image.fromarray(noise(8, 8, number)) for number in range(3)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    (notice,) = site.wait(site.submit(animation.getvalue(), name="a.gif"))["notices"]
    assert notice == "a.gif: the result does not have 2 more frames of the animation."
    glass, file, exif = frames[0].convert("RGBA"), io.BytesIO(), Image.Exif()
    glass.putpixel((0, 0), (0, 0, 0, 100))
    exif[0x010F] = "Canon"
    glass.save(file, "PNG", exif=exif)
    (notice,) = site.wait(site.submit(file.getvalue(), name="b.png"))["notices"]
    assert notice == "b.png: the result does not have its transparency (it is laid over white) and its metadata."
    opaque = encode(np.dstack([noise(8, 8), np.full((8, 8), 255, np.uint8)]))
    assert site.wait(site.submit(opaque))["notices"] == []


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


def test_waiting_jobs_show_when_it_is_their_turn(site):
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
    left, later, times = [], [], []

    def work(job):
        job.report("looking")
        time.sleep(0.3)
        for done in range(1, 5):
            job.report("faces", done, 4)
            times.append(time.monotonic())
            left.append(jobs.estimate(job)[1])
            time.sleep(0.2)
            later.append(jobs.estimate(job)[1])
        return {}

    jobs = JobQueue(work, tmp_path, Limits())
    job = jobs.add(Order("a.png", "Demo GLEAN", "photo", 0, (8, 8)), b"")
    while job.state in ("waiting", "running"):
        time.sleep(0.05)
    jobs.close()
    second, third = times[1] - times[0], (times[2] - times[0]) / 2
    assert left[0] is None
    assert left[1:] == pytest.approx([2 * second, third, 0], abs=0.05)
    assert 0 <= later[1] < left[1] - 0.19, "it also falls between two reports"


def test_a_full_queue_is_reported(site_with):
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


def test_an_end_is_never_shown_by_half(site, monkeypatch):
    """Whoever asks while a job ends, here for longer than usual, sees before or after."""
    estimate = JobQueue.estimate

    def set_slowly(job, name, value):
        object.__setattr__(job, name, value)
        time.sleep(0.3 if name == "state" else 0)

    def estimate_slowly(jobs, job):
        found = estimate(jobs, job)
        time.sleep(0.2)
        return found

    monkeypatch.setattr(Job, "__setattr__", set_slowly)
    monkeypatch.setattr(JobQueue, "estimate", estimate_slowly)
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
    monkeypatch.setattr(jobs_module, "FORGET_SECONDS", 0)  # a minute later
    assert [site.get(f"/api/jobs/{job}").status for job in (done, *ended)] == [200] + [404] * 4
