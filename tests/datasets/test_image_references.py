"""Which references an image has, and how they are loaded."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.checkpoint_files import fault

from glean_ext.datasets.image_references import MOST, LoadReferences, image_references
from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.utils.imresize import imresize

NAMES = ["anna/1.png", "anna/2.png", "ben/1.png", "ben/2.png", "ben/3.png", "cleo/1.png", "loose.png", "other.png"]


def test_from_folders(caplog):
    with caplog.at_level(logging.WARNING):
        found = image_references(NAMES, "folders", "")
    assert found == {
        "anna/1.png": ["anna/2.png"],
        "anna/2.png": ["anna/1.png"],
        "ben/1.png": ["ben/2.png", "ben/3.png"],
        "ben/2.png": ["ben/3.png", "ben/1.png"],
        "ben/3.png": ["ben/1.png", "ben/2.png"],
    }
    assert "3 images have no references and are left out: cleo/1.png, loose.png, other.png." in caplog.text


def test_of_a_large_folder_the_next_ones():
    names = [f"anna/{number}.png" for number in range(100)]
    found = image_references(names, "folders", "")
    assert found[names[0]] == names[1 : MOST + 1] and found[names[98]] == [names[99], *names[: MOST - 1]]
    assert {len(others) for others in found.values()} == {MOST}
    few = image_references(names[: MOST + 1], "folders", "")
    assert all({*others, name} == set(few) and name not in others for name, others in few.items())


def test_from_a_file(tmp_path):
    file = tmp_path / "references.json"
    file.write_text(json.dumps({"a.png": ["x/1.png", "b.png"], "b.png": [], "more": []}))
    assert image_references(["a.png", "b.png"], file.name, str(tmp_path)) == {"a.png": ["x/1.png", "b.png"]}


def test_mistakes_are_named(tmp_path):
    file = tmp_path / "references.json"

    def message(content: str) -> str:
        file.write_text(content)
        return fault(image_references, ["a.png"], file.name, str(tmp_path))

    assert message("{").startswith(f"{file} cannot be read as JSON (")
    for wrong in "[1]", '{"a.png": "b.png"}', '{"a.png": [1]}':
        assert message(wrong) == f"{file} must hold an object with a list of images for each image. Correct it."
    assert message('{"b.png": []}') == f"{file} has no list for a.png. Add it, or remove the image."
    assert message('{"a.png": ["b.png", "a.png"]}') == (
        f"{file} names a.png as its own reference. Remove it from its list."
    )
    for names, references in (["a.png", "b.png"], "folders"), (["a.png"], file.name):
        file.write_text('{"a.png": []}')
        assert fault(image_references, names, references, str(tmp_path)).startswith("No image has references.")
    assert "must be a whole number" in fault(LoadReferences, 0)
    assert fault(LoadReferences().transform, {"gt": np.zeros((8, 8, 3))}).startswith("LoadReferences needs a dataset")


def noise(seed: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return str(path)


def test_they_are_drawn_and_sized(tmp_path):
    large = noise(9, 16, 16)
    images = [noise(0), noise(1), imresize(large, size=(8, 8))]
    paths = [save(tmp_path / f"{i}.png", image) for i, image in enumerate([images[0], images[1], large])]
    sample = {"gt": noise(5), "ref_paths": paths}
    first = LoadReferences(5, shuffle=False).transform(sample)["ref"]
    for loaded, expected in zip(first, [*images, *images[:2]], strict=True):
        np.testing.assert_array_equal(loaded, expected)
    assert first[0] is not first[3], "each may be flipped by itself"
    draws = []
    for seed in range(8):
        with seeded(seed):
            (one, two) = LoadReferences(2).transform(sample)["ref"]
        draws += [[i for i, image in enumerate(images) if np.array_equal(image, loaded)] for loaded in (one, two)]
        assert draws[-1] != draws[-2], "none twice"
    assert {i for (i,) in draws} == {0, 1, 2}
    sample["gt"] = noise(5, 8, 16)
    assert fault(LoadReferences(shuffle=False).transform, sample) == (
        f"{paths[0]} has 8x8 pixels, another aspect than the ground truth's 16x8. Crop it."
    )


@pytest.mark.usefixtures("mmagic_models")
def test_samples_have_their_references(tmp_path):
    """A pair of folders; a damaged reference is skipped with its image, and named."""
    from mmagic.registry import DATASETS
    from mmengine.registry import DefaultScope

    for name in "anna/1", "anna/2", "anna/3", "ben/4", "ben/5":
        save(tmp_path / f"GT/{name}.png", noise(int(name[-1])))
    pipeline = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadReferences", "number": 2, "shuffle": False}]
    pipeline += [{"type": "LoadOrMakeLQ"}, {"type": "Flip", "keys": ["img", "gt", "ref"], "flip_ratio": 1}]
    arguments = {"type": "SRFolderDataset", "data_root": str(tmp_path), "data_prefix": {"gt": "GT"}, "scale": 2}
    arguments |= {"recursive": True, "references": "folders", "pipeline": [*pipeline, {"type": "PackInputs"}]}
    with DefaultScope.overwrite_default_scope("mmagic"):
        data = DATASETS.build(arguments | {"unreadable": "skip"})
        assert len(data) == 5
        references = data[1]["data_samples"].ref_img  # of 2.png: 3 and 1, mirrored
        expected = np.stack([noise(3)[:, ::-1], noise(1)[:, ::-1]]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(references.numpy(), expected)
        damaged = tmp_path / "GT/anna/3.png"
        damaged.write_bytes(b"")
        assert set(data[0]["data_samples"].skipped) == {str(damaged)}
        found = [str(path.relative_to(tmp_path / "GT")) for path in tmp_path.rglob("*.png")]
        (tmp_path / "names.json").write_text(json.dumps({name: ["anna/4.png"] for name in found}))
        message = fault(DATASETS.build, arguments | {"references": "names.json"})
        assert message.startswith(f"{tmp_path / 'GT/anna/4.png'}: no such file, but names.json names it.")
        (tmp_path / "list.txt").write_text("\n".join(found))
        listed = arguments | {"references": "names.json", "ann_file": "list.txt"}
        assert "but names.json names it" in fault(DATASETS.build, listed)
        (tmp_path / "GT.lmdb").mkdir()
        message = fault(DATASETS.build, listed | {"data_prefix": {"gt": "GT.lmdb"}})
        assert message.startswith("SRFolderDataset.references needs files, but data_prefix.gt is ")
