"""References on the page: they come after the image, and count."""

from __future__ import annotations

import numpy as np
import pytest
from support.references import noise, save_network
from support.web_server import LIMITS, encode, serving

from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.web.model_specs import ModelSpec
from glean_ext.web.worker import ModelWorker


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    save_network(folder)
    return folder


@pytest.fixture(scope="module")
def site(home, tmp_path_factory):
    specs = [
        ModelSpec("net", str(home / "net.py"), str(home / "net.safetensors")),
        ModelSpec("Demo GLEAN", "configs/demo_glean_x8.py", "glean-ext://demo_glean_x8.safetensors"),
    ]
    with serving(ModelWorker(specs, "cpu", LIMITS), tmp_path_factory.mktemp("page"), LIMITS) as site:
        yield site


def test_results_are_those_of_the_library(site, home):
    image, references = noise(8), [noise(32, seed=1), noise(48, seed=2)]
    files = [encode(reference) for reference in references]
    job = site.submit(encode(image) + b"".join(files), model="net", references=[len(file) for file in files])
    status = site.wait(job)
    assert status["notices"] == [
        "1 of 2 references were resized to the model's 32x32: reference 2 (the first has 48x48 pixels)."
    ]
    restorer = ImageRestorer(
        home / "net.py", home / "net.safetensors", "cpu", references=references, notify=lambda notice: None
    )
    np.testing.assert_array_equal(site.picture(job), restorer.restore(image))
    assert [model["references"] for model in site.get("/api/options").json["models"]] == [8, 0]


def test_what_is_refused(site):
    image, file = encode(noise(8)), encode(noise(32))

    def fault(body: bytes, sizes: list[int], model: str = "net", kind: str = "face") -> str:
        answer = site.post(body, model=model, references=sizes, kind=kind)
        assert answer.status == 400
        return answer.error

    none = "the choice of references has no effect: this model takes no reference images. Leave it out."
    assert fault(image + file, [len(file)], "Demo GLEAN") == none
    assert "but this model takes at most 8. Give fewer with the choice of references." in fault(image, [1] * 9)
    assert fault(image, [len(image) + 1]) == "The references did not arrive whole. Try again."
    assert fault(image, [0]) == "The references did not arrive whole. Try again."
    assert fault(image + b"text", [4]).startswith("reference 1 is no image")
    job = site.submit(image + file, model="net", references=[len(file)], kind="photo")
    assert (
        site.wait(job)["error"]
        == "reference 1: no face was found in this reference. Give others as the choice of references."
    )
