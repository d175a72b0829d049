"""Images that show the same: found, and never in both splits."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from support.preparation import names, picture, run, save

from glean_ext.data_preparation import duplicate_search as duplicates
from glean_ext.utils.imresize import imresize


def copies(image: np.ndarray) -> dict[str, np.ndarray]:
    """What becomes of an image on its way through the world."""
    pil = Image.fromarray(image)
    stream = io.BytesIO()
    pil.save(stream, "JPEG", quality=90)
    n = image.shape[0]
    cubic = Image.Resampling.BICUBIC
    return {
        "jpeg": np.asarray(Image.open(stream)),
        "smaller": np.asarray(pil.resize((n * 3 // 4, n * 3 // 4), cubic).resize((n, n), cubic)),
        "larger": np.asarray(pil.resize((n * 3 // 2, n * 3 // 2), cubic).resize((n, n), cubic)),
        "darker": np.asarray(ImageEnhance.Brightness(pil).enhance(0.9)),
        "lighter": np.asarray(ImageEnhance.Brightness(pil).enhance(1.1)),
        "contrast": np.asarray(ImageEnhance.Contrast(pil).enhance(0.8)),
        "mirrored": image[:, ::-1],
    }


def test_hash_knows_brightness_contrast_and_mirror():
    images = np.stack([duplicates.thumbnail(picture(seed, 64)) for seed in range(30)])
    hashes = duplicates.perceptual_hashes(images)
    np.testing.assert_allclose(np.linalg.norm(hashes, axis=1), 1, rtol=1e-5)
    half = duplicates.perceptual_hashes((images // 2 + 50).astype(np.uint8))
    assert (hashes * half).sum(1).min() > 0.999
    mirrored = duplicates.perceptual_hashes(images[:, :, ::-1])
    np.testing.assert_allclose(duplicates._mirrored(hashes), mirrored, atol=1e-5)
    assert np.triu(hashes @ hashes.T, 1).max() < duplicates.ALIKE


def test_difference_by_hand():
    a = np.full((2, 16, 16, 3), 100, np.uint8)
    a[:, ::2] = 120  # stripes: each 2x2 block has a variance of 100
    b = a.copy()
    b[1, 4:6, 6:8, 0] += 12  # one colour of one block
    found = duplicates.differences(a, b)
    assert found[0] == 0
    # The fit moves by far less than a grey level. Error 144 / 3 over contrast 100 + 100 + 20 squared.
    assert found[1] == pytest.approx(48 / 600, rel=0.03)


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    from demo.render_faces import render_face

    return [np.asarray(render_face(f"duplicates-{i}")) for i in range(60)]


def test_copies_of_rendered_faces_are_found_and_other_faces_stay(faces):
    images = list(faces)
    expected = {}
    for i, face in enumerate(faces[:20]):
        for kind, copy in copies(face).items():
            expected[len(images)] = i, kind
            images.append(copy)
    thumbnails = np.stack([duplicates.thumbnail(image) for image in images])
    first, matches = duplicates.find(thumbnails, chains=False)
    assert first[:60].tolist() == list(range(60))
    missed = [expected[i] for i in expected if first[i] != expected[i][0]]
    assert missed == []
    assert {match.copy for match in matches if match.mirrored} == {i for i in expected if expected[i][1] == "mirrored"}


def test_blocks_of_rows_make_no_difference(faces, monkeypatch):
    images = [*faces, *(copy for face in faces[:5] for copy in copies(face).values())]
    thumbnails = np.stack([duplicates.thumbnail(image) for image in images])
    one, matches = duplicates.find(thumbnails, chains=False)
    monkeypatch.setattr(duplicates, "CELLS", 7 * len(images))
    monkeypatch.setattr(duplicates, "PAIRS", 3)
    many, same = duplicates.find(thumbnails, chains=False)
    np.testing.assert_array_equal(one, many)
    assert matches == same and len(matches) == 35


def test_chains_of_similar_images():
    """0 is like 1, 1 like 2, but 0 is not like 2: without chains 0 and 2 stay."""
    steps = np.stack([picture(1, 16)] * 3).astype(np.int16)
    for i in range(3):
        steps[i, 2:6, 2:6] += 9 * i - 9
    thumbnails = steps.clip(0, 255).astype(np.uint8)
    a, b, c = thumbnails[:1], thumbnails[1:2], thumbnails[2:]
    assert duplicates.differences(a, b)[0] < duplicates.SAME > duplicates.differences(b, c)[0]
    assert duplicates.differences(a, c)[0] > duplicates.SAME
    assert duplicates.find(thumbnails, chains=False)[0].tolist() == [0, 0, 2]
    assert duplicates.find(thumbnails, chains=True)[0].tolist() == [0, 0, 0]
    assert duplicates.find(thumbnails, chains=False, fixed=2)[0].tolist() == [0, 1, 1]


def test_many_equal_thumbnails_end_soon():
    thumbnails = np.repeat(duplicates.thumbnail(picture(1))[None], 1500, 0)
    start = time.process_time()
    first, matches = duplicates.find(thumbnails, chains=False)
    assert not first.any() and len(matches) == 1499
    assert time.process_time() - start < 5


@pytest.mark.parametrize("mode", ["drop", "exact", "keep"])
def test_what_shows_the_same_is_never_in_both_splits(tmp_path, mode):
    raw = tmp_path / "raw"
    for seed in range(12):
        image = picture(seed, 48)
        save(image, raw / f"{seed}.png")
        save(image, raw / f"{seed}_equal.bmp")
        save(image, raw / f"{seed}_jpeg.jpg", quality=90)
        save(np.ascontiguousarray(image[:, ::-1]), raw / f"{seed}_mirrored.png")
    report = run(raw, tmp_path / "out", 48, duplicates=mode, split=0.5)
    splits = {split: names(tmp_path / f"out/{split}/GT") for split in ("train", "test")}
    count = {"drop": 1, "exact": 3, "keep": 4}[mode]
    assert len(splits["train"]) == len(splits["test"]) == 6 * count
    assert not {name.split("_")[0] for name in splits["train"]} & {name.split("_")[0] for name in splits["test"]}
    found = {"drop": "dropped", "exact": "kept", "keep": "kept"}[mode]
    assert report[f"duplicates {found}"]["similar"] == report[f"duplicates {found}"]["mirrored"] == 12
    assert report["duplicates kept" if mode == "keep" else "duplicates dropped"]["equal"] == 12
    assert {
        d["of"].split(".")[0].split("_")[0] == d["file"].split(".")[0].split("_")[0] for d in report["duplicates"]
    } == {True}


def test_the_largest_copy_stays_and_listed_test_images_always(tmp_path):
    image = picture(1, 64)
    save(image, tmp_path / "raw/large.png")
    save(imresize(image, size=(32, 32)), tmp_path / "raw/a_small.png")
    save(picture(2), tmp_path / "raw/b.png")
    report = run(tmp_path / "raw", tmp_path / "out", split=1.0)
    assert names(tmp_path / "out/train/GT") == ["b.png", "large.png"]
    assert report["duplicates"][0] | {"difference": 0} == {
        "file": "a_small.png", "of": "large.png", "kind": "equal", "difference": 0, "dropped": True
    }  # fmt: skip
    (tmp_path / "test.txt").write_text("a_small.png\n")
    for mode in "drop", "keep":
        lists = {"test": str(tmp_path / "test.txt"), "train": "rest"}
        run(tmp_path / "raw", tmp_path / mode, lists=lists, duplicates=mode)
        assert names(tmp_path / mode / "test/GT") == ["a_small.png"]
        assert names(tmp_path / mode / "train/GT") == ["b.png"]


def test_what_is_cropped_off_does_not_tell_copies_apart(tmp_path):
    image, raw = picture(1, 48), tmp_path / "raw"
    save(image, raw / "a.png")
    lighter = np.clip(image.astype(int) + 4, 0, 255).astype(np.uint8)
    save(np.hstack([picture(2, 48), lighter, picture(3, 48)]), raw / "b.png")
    run(raw, tmp_path / "out", split=1.0)
    assert len(names(tmp_path / "out/train/GT")) == 1


@pytest.mark.parametrize("mode", ["drop", "exact", "keep"])
def test_what_shows_the_same_as_a_listed_test_image_is_no_training_image(tmp_path, mode):
    raw, image = tmp_path / "raw", picture(1, 48)
    save(image, raw / "a.png")
    save(image, raw / "a_jpeg.jpg", quality=90)
    save(np.ascontiguousarray(image[:, ::-1]), raw / "a_mirrored.png")
    save(picture(2, 48), raw / "b.png")
    (tmp_path / "test.txt").write_text("a.png\n")
    run(raw, tmp_path / "out", lists={"test": str(tmp_path / "test.txt"), "train": "rest"}, duplicates=mode)
    assert names(tmp_path / "out/test/GT") == ["a.png"] and names(tmp_path / "out/train/GT") == ["b.png"]


def test_the_split_depends_on_pixels_and_seed_alone(tmp_path, raw):
    run(raw, tmp_path / "one", split=0.7)
    (tmp_path / "moved/sub").mkdir(parents=True)
    for path in raw.iterdir():
        path.rename(tmp_path / "moved/sub" / f"x{path.name}")
    run(tmp_path / "moved", tmp_path / "two", split=0.7)
    run(tmp_path / "moved", tmp_path / "three", split=0.7, seed=1)
    one, two, three = (names(tmp_path / out / "test/GT") for out in ("one", "two", "three"))
    assert len(one) == 3 and [f"x{name}" for name in one] == two and len(three) == 3 and three != two
