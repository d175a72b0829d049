"""Classes of images, from folders and from JSON files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checkpoint_files import fault

from glean_ext.datasets.image_labels import image_labels

NAMES = ["dog/a.png", "cat/b.png", "dog/inner/c.png", "bee/d.png"]


def test_from_folders():
    assert image_labels(NAMES, "folders", "") == {
        "dog/a.png": 2,
        "cat/b.png": 1,
        "dog/inner/c.png": 2,
        "bee/d.png": 0,
    }
    assert image_labels(NAMES, "folders", "", ["dog", "bee"]) == {"dog/a.png": 0, "dog/inner/c.png": 0, "bee/d.png": 1}
    assert image_labels(NAMES, "folders", "", 3) == image_labels(NAMES, "folders", "")


def test_from_a_file(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"a": "x", "b.png": "y", "other": "z"}))
    assert image_labels(["a.png", "b.png"], "classes.json", str(tmp_path)) == {"a.png": 0, "b.png": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_from_windows(tmp_path, encoding):
    (tmp_path / "classes.json").write_text(json.dumps({"a": "x"}), encoding=encoding)
    assert image_labels(["a.png"], "classes.json", str(tmp_path)) == {"a.png": 0}


def test_mistakes_are_named(tmp_path):
    file = tmp_path / "classes.json"

    def message(content: str, names=("a.png",)) -> str:
        file.write_text(content)
        return fault(image_labels, list(names), "classes.json", str(tmp_path))

    assert message("[" * 200_000).startswith(f"{file} cannot be read as JSON (")
    assert message("{").startswith(f"{file} cannot be read as JSON (")
    assert fault(image_labels, ["a.png"], "none.json", str(tmp_path)).startswith(f"{tmp_path / 'none.json'} cannot be ")
    assert message("[1]") == f"{file} must hold an object with the name of a class for each image. Correct it."
    assert message('{"b": "x"}') == f"{file} has no class for a.png. Add it, or remove the image."
    assert fault(image_labels, NAMES, "folders", "", ["cat", "cow"]) == (
        "There are no images of the class 'cow'; the classes are bee, cat, dog. Correct classes."
    )
    assert fault(image_labels, NAMES, "folders", "", 1000) == (
        "The images have 3 classes, but classes=1000. Correct the folder or the number."
    )
    for name in "a.png", "/elsewhere/dog/a.png":
        message_of_loose = fault(image_labels, [name], "folders", "")
        assert message_of_loose.startswith(f"{name}: labels='folders' takes the class from the folder of an image, but")


@pytest.mark.usefixtures("mmagic_models")
def test_samples_have_the_label(tmp_path):
    from mmagic.registry import DATASETS
    from mmengine.registry import DefaultScope

    for name, kind in ("a", "dog"), ("b", "cat"), ("c", "cow"):
        (tmp_path / "GT" / kind).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "GT" / kind / f"{name}.png")
    pipeline = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}, {"type": "PackInputs"}]
    arguments = {"type": "SRFolderDataset", "data_root": str(tmp_path), "data_prefix": {"gt": "GT"}, "scale": 2}
    with DefaultScope.overwrite_default_scope("mmagic"):
        data = DATASETS.build(
            {**arguments, "recursive": True, "labels": "folders", "classes": ["dog", "cat"], "pipeline": pipeline}
        )
        found = {Path(sample["data_samples"].gt_path).stem: sample["data_samples"].gt_label.label for sample in data}
        assert {name: label.tolist() for name, label in found.items()} == {"a": [0], "b": [1]}
        assert fault(DATASETS.build, {**arguments, "classes": ["dog"], "pipeline": pipeline}).startswith(
            "SRFolderDataset.classes goes with labels"
        )
