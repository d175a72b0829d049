"""Classes of images in tar shards, from files beside them."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from datasets.test_tar_shards import fault, png, scope, shards, write_tar  # noqa: F401  (scope is a fixture)

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)

pytestmark = pytest.mark.usefixtures("fast")


def write(path: Path, *labels: bytes | None, ending: str = "cls") -> Path:
    """A shard with an image for each label, ``d/00.png`` with ``d/00.cls`` and so on."""
    files: dict[str, bytes] = {}
    for number, label in enumerate(labels):
        files |= {f"d/{number:02d}.png": png(number)} | ({} if label is None else {f"d/{number:02d}.{ending}": label})
    write_tar(path, files)
    return path


def numbers(dataset) -> dict[str, int]:
    return {
        Path(sample["gt_path"]).stem: sample["gt_label"] for sample in map(dataset.get_data_info, range(len(dataset)))
    }


def test_numbers_and_names(tmp_path):
    counted = write(tmp_path / "a.tar", b"12", b"\xef\xbb\xbf3\r\n", b" 0 ")
    assert numbers(shards(counted, labels="cls")) == numbers(shards(counted, labels="cls", classes=1000)) == {
        "00": 12, "01": 3, "02": 0
    }  # fmt: skip
    named = write(tmp_path / "b.tar", b"dog", b"cat", b"dog", b"bee")
    assert numbers(shards(named, labels="cls")) == {"00": 2, "01": 1, "02": 2, "03": 0}
    assert numbers(shards(named, labels="CLS", classes=["dog", "bee"])) == {"00": 0, "02": 0, "03": 1}
    assert numbers(shards(counted, labels="cls", classes=["3", "12"])) == {"00": 1, "01": 0}
    zeros = write(tmp_path / "z.tar", b"010", b"002")
    assert numbers(shards(zeros, labels="cls")) == {"00": 10, "01": 2}
    assert numbers(shards(zeros, labels="cls", classes=["002", "010"])) == {"00": 1, "01": 0}
    mixed = write(tmp_path / "m.tar", b"02", b"2", b"cat")
    assert numbers(shards(mixed, labels="cls")) == {"00": 0, "01": 1, "02": 2}
    objects = write(tmp_path / "c.tar", b'{"label": 2, "kind": "x"}', b'{"label": 0, "kind": "a"}', ending="json")
    assert numbers(shards(objects, labels="json")) == {"00": 2, "01": 0}
    assert numbers(shards(objects, labels="json:kind")) == {"00": 1, "01": 0}


def test_samples_and_urls(tmp_path):
    memory = fsspec.filesystem("memory")
    for name, labels in ("a", (b"1", b"0")), ("b", (b"2",)):
        memory.pipe(f"/labelled/{name}.tar", write(tmp_path / f"{name}.tar", *labels).read_bytes())
    for source in tmp_path / "{a,b}.tar", "memory://labelled/{a,b}.tar":
        dataset = shards(source, labels="cls")
        assert [int(dataset[index]["data_samples"].gt_label.label) for index in range(3)] == [1, 0, 2]
    memory.store.clear()


@pytest.mark.parametrize(
    ("content", "labels", "classes", "message"),
    [
        (
            (b"1", None),
            "cls",
            None,
            "/d/01.png has no class: there is no .cls of its name after it, as of 1 of 2 images. ",
        ),
        ((b"1", b""), "cls", None, "/d/01.cls has no class: it must hold the number or name of a class. Correct it."),
        ((b"1", b"\xff"), "cls", None, "/d/01.cls has no class: it must hold "),
        ((b"1", b"7"), "cls", 7, "/d/01.cls has the class 7; they count from 0 to 6. Correct it or classes."),
        ((b"1", b"-1"), "cls", None, "/d/01.cls has the class -1; they count from 0 on. "),
        ((b'{"a": 1}',), "json", None, "/d/00.json has no class: it must hold a JSON object with the number or name "),
        ((b'{"label": [1]}',), "json", None, "/d/00.json has no class: it must hold a JSON object "),
        ((b'{"label": true}',), "json", None, "/d/00.json has no class: it must hold a JSON object "),
        ((b"[" * 20_000,), "json", None, "/d/00.json has no class: it must hold a JSON object "),
        ((b"a\0",), "cls", None, "/d/00.cls has no class: it must hold the number or name of a class. Correct it."),
        ((b"1" * 70_000,), "cls", None, "/d/00.cls has 70000 bytes, too many for a class. Correct it or labels='cls'."),
        ((b"[1]",), "json", None, "/d/00.json has no class: it must hold a JSON object "),
    ],
)
def test_mistakes_name_shard_and_member(tmp_path, content, labels, classes, message):
    path = write(tmp_path / "a.tar", *content, ending=labels)
    assert fault(shards, path, labels=labels, classes=classes).startswith(f"{path}{message}")


def test_wrong_settings(tmp_path):
    path = write(tmp_path / "a.tar", b"dog", b"cat")
    assert "has no class: there is no .json" in fault(shards, path, labels="json")
    assert fault(shards, path, classes=2).startswith("SRShardDataset.classes goes with labels")
    assert fault(shards, path, labels="cls:a").startswith("SRShardDataset.labels is 'cls:a', but only 'json' has keys.")
    assert fault(shards, path, labels="cls", classes=3).startswith("The images have 2 classes, but classes=3.")
    assert fault(shards, path, labels="cls", classes=["cow"]).startswith("There are no images of the class 'cow'; ")
