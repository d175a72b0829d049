"""The cartoon people: pictures of one differ in expression and pose only."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from demo.render_faces import avatar
from demo.render_people import EXPRESSION, main, make_people, person
from glean_ext.errors import InputError

POSE = {"rotate", "translateX", "translateY"}


@pytest.mark.parametrize("seed", ["a", "b", "c", "d"])
def test_pictures_differ_in_expression_and_pose_only(seed):
    """Also what a person does not have, such as a beard, stays away."""
    whole = avatar(seed).to_json()["options"]
    pictures = [person(seed, number).to_json()["options"] for number in range(4)]
    for options in pictures:
        assert set(options) == set(whole)
        assert {name for name in whole if options[name] != whole[name]} <= {*EXPRESSION, *POSE}
        assert all(abs(options["rotate"]) <= 8 and abs(options[name]) <= 3 for name in POSE - {"rotate"})
    assert len({tuple(options[name] for name in (*EXPRESSION, *POSE)) for options in pictures}) == 4
    assert person(seed, 1).to_string() == person(seed, 1).to_string()


def test_a_folder_for_each_person(tmp_path):
    make_people(tmp_path, {"train": 2, "test": 1}, pictures=2)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    train = [f"train/GT/0000{person}/{number}.png" for person in (0, 1) for number in (0, 1)]
    assert files == ["test/GT/00000/0.png", "test/GT/00000/1.png", *train]
    images = [np.asarray(Image.open(tmp_path / file)) for file in files]
    assert all(image.shape == (64, 64, 3) for image in images)
    assert len({image.tobytes() for image in images}) == 6
    before = (tmp_path / files[0]).stat().st_mtime_ns
    make_people(tmp_path, {"train": 2, "test": 1}, pictures=2)
    assert (tmp_path / files[0]).stat().st_mtime_ns == before, "finished"
    with pytest.raises(InputError, match="holds other people"):
        make_people(tmp_path, {"train": 1, "test": 1}, pictures=2)
    (tmp_path / "manifest.json").unlink()  # as a killed run leaves it
    with pytest.raises(InputError, match="holds other people"):
        make_people(tmp_path, {"train": 1, "test": 1}, pictures=2)
    make_people(tmp_path, {"train": 2, "test": 1}, pictures=2)
    assert (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("arguments", [("--people", "-1"), ("--pictures", "0"), ("--pictures", "1")])
def test_too_few_are_refused(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["render_people", str(tmp_path / "people"), *arguments])
    with pytest.raises(InputError, match=f"{arguments[1]}, but it must be at least"):
        main()
    assert not (tmp_path / "people").exists()
