"""Reference images in the library: what the network gets of them, and which are refused before it is loaded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import TINY
from support.references import CONFIG, noise, save, save_network

from glean_ext.errors import InputError
from glean_ext.inference import backend_choice
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.references import list_references, read_references
from glean_ext.network_settings import max_references
from glean_ext.networks import build_network
from glean_ext.networks import references as interface
from glean_ext.utils.array_conversion import from_tensor, to_tensor
from glean_ext.utils.imresize import imresize


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_network(folder)
    return folder / "net.safetensors"


def make(weights: Path, *references: object, **arguments) -> ImageRestorer:
    arguments = {"device": "cpu", "dtype": "float32", "notify": lambda notice: None, **arguments}
    return ImageRestorer(CONFIG, weights, references=references, **arguments)


def test_every_image_gets_all_references(weights, tmp_path):
    """A folder, a file and an array; what has another size is resized, and named in one notice."""
    save(tmp_path / "folder" / "b.png", 32, seed=2)
    save(tmp_path / "folder" / "a.png", 64, seed=1)
    save(tmp_path / "c.png", 32, seed=3)
    notices: list = []
    restorer = make(weights, tmp_path / "folder", tmp_path / "c.png", noise(seed=4), notify=notices.append)
    assert [str(notice) for notice in notices] == [
        f"1 of 4 references were resized to the model's 32x32: {tmp_path / 'folder' / 'a.png'} (the first has 64x64 "
        "pixels)."
    ]
    images = [noise(8, seed=5), noise(8, seed=6)]
    pixels = [imresize(noise(64, seed=1), size=(32, 32)), noise(seed=2), noise(seed=3), noise(seed=4)]
    references = torch.cat([to_tensor(image) for image in pixels])[None].repeat(2, 1, 1, 1, 1)
    net = make(weights).network.net
    with torch.no_grad():
        expected = net(torch.cat([to_tensor(image) for image in images]), references)
    for result, output in zip(restorer.restore_batch(images), expected, strict=True):
        np.testing.assert_array_equal(result, from_tensor(output, np.uint8))
    plain = make(weights).restore(images[0])
    assert np.abs(restorer.restore(images[0]).astype(int) - plain).max() > 5
    np.testing.assert_array_equal(restorer.with_references([]).restore(images[0]), plain)


def test_references_are_refused_before_a_network_is_loaded(tmp_path):
    def fault(config: object, *references: object, checkpoint: object = "none.pth", **options) -> str:
        with pytest.raises(InputError) as error:
            ImageRestorer(config, checkpoint, references=references, **options)
        return str(error.value)

    none = "references has no effect: this model takes no reference images. Leave it out."
    assert fault({"model": {"generator": TINY}}, noise()) == none
    assert fault("none.onnx", noise(), checkpoint=None) == none
    assert fault(CONFIG, *[noise()] * 9) == (
        "9 reference images are given, but this model takes at most 8. Give fewer with references."
    )
    (tmp_path / "empty").mkdir()
    assert fault(CONFIG, tmp_path / "empty").startswith(f"{tmp_path / 'empty'} has no images (.avif")
    (tmp_path / "text.png").write_text("no image")
    assert fault(CONFIG, tmp_path / "text.png").startswith(f"{tmp_path / 'text.png'} is no image")
    assert fault(CONFIG, noise(), backend="openvino").startswith(
        "references=True has no effect with backend='openvino'"
    )
    with pytest.raises(TypeError, match="references takes a path"):
        read_references([3])  # type: ignore[list-item]


def test_auto_takes_pytorch_for_a_model_that_takes_references(weights, monkeypatch):
    """Also without any: they may be given later, as the page and photographs do."""
    monkeypatch.setattr(backend_choice, "is_cached", lambda source, engine: True)
    monkeypatch.setattr(backend_choice, "choose", lambda source, options: "openvino")
    assert make(weights).network.max_references == 8


def test_threads_do_not_mix_references(weights):
    plain, image = make(weights), noise(8, seed=5)
    restorers = [plain, *(plain.with_references([noise(seed=seed)]) for seed in (1, 2))]
    expected = [one.restore(image) for one in restorers]
    with ThreadPoolExecutor(3) as pool:
        for number, result in enumerate(pool.map(lambda i: restorers[i % 3].restore(image), range(24))):
            np.testing.assert_array_equal(result, expected[number % 3])


def test_how_many_a_network_takes_is_known_without_it(weights):
    for generator in TINY, CONFIG["model"]["generator"]:
        assert interface.max_references(build_network(generator)) == max_references(generator)


def test_files_of_folders_are_sorted(tmp_path):
    for name in "b.png", "a.jpg", "A.webp":
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [one.name for one in read_references(str(tmp_path / "b.png"))] == [str(tmp_path / "b.png")]
    found = [tmp_path / name for name in ("A.webp", "a.jpg", "b.png")]
    assert list_references([tmp_path, tmp_path / "b.png"]) == [*found, tmp_path / "b.png"]
