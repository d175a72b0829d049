"""From raw images to a data set: every pixel, every reject, every duplicate, through interruptions."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from glean_ext import cli
from glean_ext.datasets import duplicates
from glean_ext.datasets.framing import PRESETS, Options, Unusable, frame
from glean_ext.datasets.prepare import assign_names, prepare
from glean_ext.datasets.sources import listed, open_source, read_list
from glean_ext.errors import InputError
from glean_ext.images import decode_rgb, read_rgb
from glean_ext.imresize import imresize

REPO = Path(__file__).parents[1]
TOOL = REPO / "tools/prepare_data.py"


def picture(seed: int, height: int = 32, width: int | None = None, grid: int = 6) -> np.ndarray:
    """Smooth colours, different for every seed: (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (grid, grid, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width or height, height), Image.Resampling.BICUBIC))


def save(image: np.ndarray | Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


@pytest.fixture
def raw(tmp_path) -> Path:
    """``0.png`` ... ``9.png``: pictures with seeds 0 to 9, 32x32."""
    for seed in range(10):
        save(picture(seed), tmp_path / f"raw/{seed}.png")
    return tmp_path / "raw"


def run(source: Path, out: Path, size: int = 32, **options) -> dict:
    lists, workers = options.pop("lists", None), options.pop("workers", 1)
    return prepare(source, out, Options((size, size), **options), lists, workers)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("*/*/*.png"))}


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- framing


def test_center_crop_takes_the_middle_and_resizes_as_matlab():
    wide, tall = picture(1, 40, 90), picture(2, 90, 40)
    options = Options((20, 20))
    np.testing.assert_array_equal(frame(wide, options), imresize(np.ascontiguousarray(wide[:, 25:65]), size=(20, 20)))
    np.testing.assert_array_equal(frame(tall, options), imresize(np.ascontiguousarray(tall[25:65]), size=(20, 20)))
    cars = Options((16, 12))
    middle = np.ascontiguousarray(wide[:, 18:71])  # 53 is 4/3 of 40
    np.testing.assert_array_equal(frame(wide, cars), imresize(middle, size=(12, 16)))


def test_an_image_of_the_right_size_stays_as_it_is():
    image = picture(1, 24)
    for crop in "center", "none":
        np.testing.assert_array_equal(frame(image, Options((24, 24), crop=crop)), image)


def test_letterbox_lays_the_image_on_a_black_square():
    framed = frame(picture(1, 48, 64), Options((32, 24), letterbox=True))
    assert framed.shape == (32, 32, 3)
    assert not framed[:4].any() and not framed[28:].any()
    np.testing.assert_array_equal(framed[4:28], imresize(picture(1, 48, 64), size=(24, 32)))


@pytest.mark.parametrize("fit", ["black", "white", "edge", "reflect"])
def test_whole_images_are_filled_up(fit):
    image = picture(1, 20, 40)
    framed = frame(image, Options((20, 20), crop="none", fit=fit))
    small = imresize(image, size=(10, 20))
    np.testing.assert_array_equal(framed[5:15], small)
    expected = {"black": 0, "white": 255, "edge": small[0], "reflect": small[0]}[fit]
    np.testing.assert_array_equal(framed[4], np.broadcast_to(expected, (20, 3)))
    if fit == "reflect":
        np.testing.assert_array_equal(framed[0], small[4])


def test_whole_images_are_stretched_or_rejected():
    image = picture(1, 20, 40)
    framed = frame(image, Options((16, 16), crop="none", fit="stretch"))
    np.testing.assert_array_equal(framed, imresize(image, size=(16, 16)))
    with pytest.raises(Unusable) as error:
        frame(image, Options((16, 16), crop="none"))
    assert error.value.args == (
        "other shape",
        "it is 40x20, not of the shape 16x16: --crop center cuts, --fit fills up",
    )


def test_nothing_is_enlarged_unless_asked_for():
    image = picture(1, 20, 40)
    with pytest.raises(Unusable) as error:
        frame(image, Options((24, 24)))
    assert error.value.args == ("too small", "the middle is 20x20, smaller than 24x24")
    with pytest.raises(Unusable, match="too small"):
        frame(image, Options((24, 24), crop="none", fit="stretch"))
    assert frame(image, Options((24, 24), crop="none", fit="black")).shape == (24, 24, 3)  # 40 is reduced to 24
    middle = np.ascontiguousarray(image[:, 10:30])
    np.testing.assert_array_equal(frame(image, Options((24, 24), enlarge=True)), imresize(middle, size=(24, 24)))


def test_one_colour_is_no_image():
    with pytest.raises(Unusable, match="all pixels have one colour"):
        frame(np.full((9, 9, 3), 7, np.uint8), Options((8, 8)))


def test_face_crop_is_used_and_its_size_counts():
    aligned = picture(3, 16)
    options = Options((16, 16), crop="face")
    np.testing.assert_array_equal(frame(picture(1), options, lambda image, size: (aligned, 16.2)), aligned)
    with pytest.raises(Unusable, match="the face with its surroundings is 15x15, smaller than 16x16"):
        frame(picture(1), options, lambda image, size: (aligned, 15.2))
    with pytest.raises(Unusable, match="no face was found"):
        frame(picture(1), options, lambda image, size: None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": "top"}, "crop is 'top', but it must be one of center, face, none."),
        ({"fit": "black"}, "fit is for whole images, but crop is center. Leave fit out, or give --crop none."),
        ({"split": 99.0}, "split is 99.0, but it is the share of training images, 0 to 1. Give 0.99, say."),
        ({"size": (0, 4)}, "size is 0x4, but both sides must be positive."),
        ({"size": (8, 4), "crop": "face"}, "aligned faces are square, but size is 8x4. Give one number."),
        (
            {"lr_scale": 3},
            "lr_scale is 3, which does not divide 16x16 into smaller whole pixels. Give a divisor of both sides.",
        ),
    ],
)
def test_options_that_make_no_sense(values, message):
    assert fault(Options, **({"size": (16, 16)} | values)) == message


def test_presets_are_valid_options():
    shapes = {name: Options(**values).shape for name, values in PRESETS.items()}
    assert shapes == {
        "ffhq": (1024, 1024),
        "celebahq": (1024, 1024),
        "lsun-cat": (256, 256),
        "lsun-car": (512, 512),
        "cat": (256, 256),
    }


# ---------------------------------------------------------------- sources


def test_bytes_are_read_as_files_are(tmp_path):
    path = save(picture(1), tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_rgb(path.read_bytes(), "a.jpg"), read_rgb(path))
    assert fault(decode_rgb, b"", "x/a.png") == "x/a.png is empty (0 bytes). Get the file anew."
    assert fault(decode_rgb, b"text", "x/a.png").startswith("x/a.png is no image, or of a format that is not read (BMP")
    half = path.read_bytes()[:400]
    assert fault(decode_rgb, half, "a.jpg").startswith("a.jpg is truncated or damaged (")


def test_folders_are_searched_to_the_ground(tmp_path):
    for name in "b.png", "a/c.JPG", "a/b/d.webp", "a/notes.txt", "a/._c.jpg", ".hidden.png":
        save(picture(1), tmp_path / "raw" / name, format="PNG")
    (tmp_path / "elsewhere").mkdir()
    save(picture(2), tmp_path / "elsewhere/e.png")
    (tmp_path / "raw/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw/loop").symlink_to(tmp_path / "raw")
    (tmp_path / "raw/nowhere.png").symlink_to(tmp_path / "gone")
    source = open_source(tmp_path / "raw")
    entries, others = source.find()
    assert [entry.key for entry in entries] == ["a/b/d.webp", "a/c.JPG", "b.png", "link/e.png", "nowhere.png"]
    assert others == 3
    assert source.read(entries[2]) == (tmp_path / "raw/b.png").read_bytes()
    assert fault(source.read, entries[4]) == "nowhere.png cannot be read (No such file or directory)."


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def test_a_zip_gives_what_the_folder_gives(tmp_path, raw):
    make_zip(tmp_path / "raw.zip", {f"a/{path.name}": path.read_bytes() for path in raw.iterdir()})
    run(raw, tmp_path / "one", lr_scale=8)
    run(tmp_path / "raw.zip", tmp_path / "two", lr_scale=8)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == 20


def test_a_zip_writes_nowhere_but_into_the_output(tmp_path):
    bad = {"../../up.png": png(picture(1)), "/etc/x.png": png(picture(2)), "C:\\a b.png": png(picture(3))}
    with pytest.warns(UserWarning, match="Duplicate name"):
        make_zip(tmp_path / "raw.zip", bad)
        with zipfile.ZipFile(tmp_path / "raw.zip", "a") as file:
            file.writestr("/etc/x.png", png(picture(4)))
    run(tmp_path / "raw.zip", tmp_path / "deep/er/out", split=1.0)
    assert names(tmp_path / "deep/er/out/train/GT") == ["C_a_b.png", "etc_x.png", "up.png", "x.png"]
    assert names(tmp_path) == ["deep", "raw.zip"] and names(tmp_path / "deep") == ["er"]
    found = {path.name: read_rgb(path) for path in (tmp_path / "deep/er/out/train/GT").iterdir()}
    np.testing.assert_array_equal(found["x.png"], picture(2))
    np.testing.assert_array_equal(found["etc_x.png"], picture(4))


def test_members_that_cannot_be_read_are_rejected(tmp_path, raw, monkeypatch):
    from glean_ext.datasets import sources

    path = make_zip(tmp_path / "raw.zip", {"good.png": png(picture(1)), "big.png": bytes(50_000), "bad.png": b""})
    damaged = bytearray(path.read_bytes())
    damaged[len(b"PK") + 40 + len("good.png")] ^= 255  # in the packed data of the first member
    path.write_bytes(damaged)
    monkeypatch.setattr(sources, "LARGEST", 49_999)
    source = open_source(path)
    by_key = {entry.key: entry for entry in source.find()[0]}
    assert fault(source.read, by_key["big.png"]) == (
        "big.png has 50000 bytes, and 49999 are the most that is read. Scale the image down."
    )
    assert "good.png is truncated or damaged (" in fault(source.read, by_key["good.png"])
    message = fault(run, path, tmp_path / "out")
    assert message.startswith(
        f"{path}: none of 3 images can be used: 3 unreadable. The first: bad.png is empty (0 bytes)"
    )


def test_not_a_source(tmp_path, raw):
    (tmp_path / "a.tar").write_bytes(b"something")
    out = tmp_path / "out"
    assert fault(run, tmp_path / "a.tar", out) == (
        f"{tmp_path}/a.tar is neither a folder nor a zip file. Unpack it, and give the folder."
    )
    assert fault(run, tmp_path / "no", out) == (
        f"{tmp_path}/no: there is no such folder or zip file. Give where the images are."
    )
    (tmp_path / "empty").mkdir()
    assert fault(run, tmp_path / "empty", out).startswith(f"{tmp_path}/empty has no images (.bmp .gif .jpg")
    assert not out.exists()
    assert fault(run, raw, out, 64).startswith(
        f"{raw}: none of 10 images can be used: 10 too small. The first: 0.png: it is 32x32, smaller than 64x64. "
        "Give a smaller --size, or --enlarge."
    )


def test_lsun_like_databases_are_read(tmp_path):
    with lmdb.open(str(tmp_path / "cat_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as writer:
        for seed in range(3):
            writer.put(f"{seed:040x}".encode(), png(picture(seed)))
    run(tmp_path / "cat_lmdb", tmp_path / "out", split=1.0)
    for seed in range(3):
        np.testing.assert_array_equal(read_rgb(tmp_path / f"out/train/GT/{seed:040x}.png"), picture(seed))


def test_names_differ_and_suit_every_reader():
    keys = ["a.png", "b/a.jpg", "b/A.png", "b/b a.png", "c/a.png", "猫.png", "犬.png", "d/..png"]
    assigned = assign_names(keys, {})
    hashed = [hashlib.sha256(key.encode()).hexdigest()[:12] + ".png" for key in keys]
    assert list(assigned.values()) == [
        "a.png", "b_a.png", f"A_{hashed[2]}", "b_b_a.png", "c_a.png", hashed[5], hashed[6], "d.png"
    ]  # fmt: skip
    assert len({name.lower() for name in assigned.values()}) == len(keys)
    assert assign_names([*keys, "e/a.png"], assigned) == assigned | {"e/a.png": "e_a.png"}


def test_two_images_with_one_name_both_stay(tmp_path):
    save(picture(1), tmp_path / "raw/a/x.png")
    save(picture(2), tmp_path / "raw/b/x.png")
    run(tmp_path / "raw", tmp_path / "out", split=1.0)
    np.testing.assert_array_equal(read_rgb(tmp_path / "out/train/GT/x.png"), picture(1))
    np.testing.assert_array_equal(read_rgb(tmp_path / "out/train/GT/b_x.png"), picture(2))


# ---------------------------------------------------------------- lists


def test_lists_of_the_published_kind(tmp_path):
    (tmp_path / "list.txt").write_text("00000.png (1024, 1024, 3)\n\nx y.jpg (256,256,3) 1\nplain\n")
    assert read_list(tmp_path / "list.txt") == ["00000.png", "x y.jpg", "plain"]
    (tmp_path / "list.txt").write_text("\n")
    assert fault(read_list, tmp_path / "list.txt") == (f"{tmp_path}/list.txt names no files. Put a name on each line.")
    assert "the list cannot be read (No such file or directory)" in fault(read_list, tmp_path / "no.txt")


def test_list_entries_are_found_by_path_or_name(tmp_path):
    for name in "a/1.png", "a/2.jpg", "b/2.png", "b/3.png":
        save(picture(1), tmp_path / "raw" / name)
    entries, _ = open_source(tmp_path / "raw").find()

    def keys(text: str) -> set[str]:
        (tmp_path / "list.txt").write_text(text)
        return listed(entries, tmp_path / "list.txt")

    assert keys("1.png\na/2.jpg\n3.jpg") == {"a/1.png", "a/2.jpg", "b/3.png"}
    assert keys("2.png") == {"b/2.png"}
    assert fault(keys, "2.webp") == (
        f"{tmp_path}/list.txt names 2.webp, which a/2.jpg and b/2.png both are. Give the whole path."
    )
    assert fault(keys, "1.png\n7.png\n8.png") == (
        f"{tmp_path}/list.txt names 7.png and 1 more, which SOURCE does not have. Correct the list or SOURCE."
    )


def test_lists_say_what_is_used_and_where(tmp_path, raw):
    (tmp_path / "test.txt").write_text("3.png\n4.png\n")
    (tmp_path / "train.txt").write_text("1.png\n2.png\n5.png\n")
    lists = {"test": str(tmp_path / "test.txt"), "train": str(tmp_path / "train.txt")}
    report = run(raw, tmp_path / "both", lists=lists)
    assert names(tmp_path / "both/test/GT") == ["3.png", "4.png"]
    assert names(tmp_path / "both/train/GT") == ["1.png", "2.png", "5.png"]
    assert report["not listed"] == 5
    run(raw, tmp_path / "rest", lists=lists | {"train": "rest"})
    assert names(tmp_path / "rest/test/GT") == ["3.png", "4.png"]
    assert len(names(tmp_path / "rest/train/GT")) == 8
    run(raw, tmp_path / "all", lists={"all": lists["train"]}, split=0.0)
    assert names(tmp_path / "all/test/GT") == ["1.png", "2.png", "5.png"] and not (tmp_path / "all/train").exists()
    (tmp_path / "train.txt").write_text("1.png\n3.png\n")
    assert fault(run, raw, tmp_path / "x", lists=lists) == (
        f"3.png is in both {tmp_path}/train.txt and {tmp_path}/test.txt. Take it out of one."
    )


# ---------------------------------------------------------------- duplicates


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
    from glean_ext.demo.faces import render_face

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


def test_the_split_depends_on_pixels_and_seed_alone(tmp_path, raw):
    run(raw, tmp_path / "one", split=0.7)
    (tmp_path / "moved/sub").mkdir(parents=True)
    for path in raw.iterdir():
        path.rename(tmp_path / "moved/sub" / f"x{path.name}")
    run(tmp_path / "moved", tmp_path / "two", split=0.7)
    run(tmp_path / "moved", tmp_path / "three", split=0.7, seed=1)
    one, two, three = (names(tmp_path / out / "test/GT") for out in ("one", "two", "three"))
    assert len(one) == 3 and [f"x{name}" for name in one] == two and len(three) == 3 and three != two


# ---------------------------------------------------------------- what is written


def test_everything_that_is_written(tmp_path, raw):
    (raw / "0.png").unlink()
    save(picture(0, 40, 60), raw / "0.jpg", quality=95)
    (raw / "broken.png").write_bytes((raw / "1.png").read_bytes()[:100])
    save(picture(11, 20), raw / "small.png")
    save(picture(1), raw / "copy.bmp")
    (raw / "notes.txt").write_text("x")
    out = tmp_path / "out"
    report = run(raw, out, lr_scale=8, split=0.9)
    assert (report["images"], report["other files"], report["train"], report["test"]) == (13, 1, 9, 1)
    assert report["rejected"] == {"unreadable": 1, "too small": 1}
    assert report["duplicates dropped"] == {"equal": 1} and report["duplicates kept"] == {}
    assert [(reject["file"], reject["kind"]) for reject in report["rejects"]] == [
        ("broken.png", "unreadable"), ("small.png", "too small")
    ]  # fmt: skip
    assert report["rejects"][1]["reason"] == "small.png: it is 20x20, smaller than 32x32."
    assert json.loads((out / "report.json").read_text()) == report
    for split, count in ("train", 9), ("test", 1):
        found = names(out / split / "GT")
        assert names(out / split / "LQ") == found and len(found) == count
        lines = (out / f"meta_info_{split}.txt").read_text().splitlines()
        assert lines == [f"{name} (32,32,3)" for name in found]
        for name in found:
            gt = read_rgb(out / split / "GT" / name)
            np.testing.assert_array_equal(read_rgb(out / split / "LQ" / name), imresize(gt, size=(4, 4)))
            if name != "0.png":
                np.testing.assert_array_equal(gt, read_rgb(raw / name))
    original = np.ascontiguousarray(read_rgb(raw / "0.jpg")[:, 10:50])
    np.testing.assert_array_equal(read_rgb(next(out.glob("*/GT/0.png"))), imresize(original, size=(32, 32)))
    rows = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert {row["name"]: row["file"] for row in rows}["0.png"] == "0.jpg" and len(rows) == 10
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 9 * 96 and sheet.size[1] > 5 * 96  # train, test, two of a pair, rejected
    assert names(out) == [
        "contact_sheet.png", "images.csv", "manifest.sqlite", "meta_info_test.txt", "meta_info_train.txt",
        "report.json", "test", "train",
    ]  # fmt: skip


def test_mmagic_reads_what_was_written(tmp_path, raw):
    """Folders through this package's dataset, LMDB through MMagic's LoadImageFromFile, as configs would."""
    from mmagic.registry import DATASETS
    from mmengine.registry import DefaultScope

    import glean_ext.plugin  # noqa: F401  (makes MMagic importable)

    run(raw, tmp_path / "folders", lr_scale=8, split=0.8)
    run(raw, tmp_path / "databases", lr_scale=8, split=0.8, lmdb=True)
    root = tmp_path / "databases"
    assert names(root / "train_GT.lmdb") == ["data.mdb", "lock.mdb", "meta_info.txt"]
    assert (root / "train_GT.lmdb/meta_info.txt").read_text().splitlines()[0] == (
        f"{names(tmp_path / 'folders/train/GT')[0]} (32,32,3) 4"
    )

    def load(key: str, database: str) -> dict:
        backend = {"backend": "lmdb", "db_path": str(root / database)}
        return {"type": "LoadImageFromFile", "key": key, "channel_order": "rgb", "backend_args": backend}

    def samples(kind: str, root: Path, prefix: dict, pipeline: list[dict], **more) -> list[dict]:
        cfg = {"type": kind, "data_root": str(root), "data_prefix": prefix, "ann_file": "meta_info_train.txt"}
        with DefaultScope.overwrite_default_scope("mmagic"):
            dataset = DATASETS.build(cfg | {"pipeline": pipeline} | more)
        return [dataset[i] for i in range(len(dataset))]  # an LMDB is open once in a process; now it is closed again

    gt, img = load("gt", "train_GT.lmdb"), load("img", "train_LQ.lmdb")
    alone, both = {"gt": "train_GT.lmdb"}, {"gt": "train_GT.lmdb", "img": "train_LQ.lmdb"}
    folders = {"gt": "train/GT", "img": "train/LQ"}
    from_files = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}]
    expected = samples("SRFolderDataset", tmp_path / "folders", folders, from_files, scale=8)
    made = samples("SRFolderDataset", root, alone, [gt, {"type": "LoadOrMakeLQ"}], scale=8)
    pairs = samples("SRFolderDataset", root, both, [gt, img], scale=8)
    theirs = samples("BasicImageDataset", root, both, [gt, img])
    assert [len(one) for one in (expected, made, pairs, theirs)] == [8] * 4
    for wanted, *found in zip(expected, made, pairs, theirs, strict=True):
        name = Path(wanted["gt_path"]).name
        np.testing.assert_array_equal(wanted["gt"], read_rgb(raw / name))
        for sample in found:
            assert Path(sample["gt_path"]).name == name
            np.testing.assert_array_equal(sample["gt"], wanted["gt"])
            np.testing.assert_array_equal(sample["img"], wanted["img"])


# ---------------------------------------------------------------- going on


def test_a_second_run_has_nothing_to_do_and_mends_what_is_lost(tmp_path, raw, capsys):
    for kind, lmdb_too in ("folder", False), ("database", True):
        out = tmp_path / kind
        report = run(raw, out, lr_scale=8, lmdb=lmdb_too)
        capsys.readouterr()
        assert run(raw, out, lr_scale=8, lmdb=lmdb_too) == report
        assert "is complete, there is nothing to do." in " ".join(capsys.readouterr().err.split())
    before = content(tmp_path / "folder")
    victims = sorted((tmp_path / "folder/train/GT").iterdir())[:3]
    victims[0].unlink()
    victims[1].write_bytes(victims[1].read_bytes()[:-9])
    run(raw, tmp_path / "folder", lr_scale=8)
    assert content(tmp_path / "folder") == before


@pytest.mark.parametrize("lmdb_too", [False, True])
def test_the_source_may_change_between_runs(tmp_path, raw, lmdb_too):
    """What was added, changed and taken away shows; the result is that of a run from nothing."""
    run(raw, tmp_path / "out", split=0.5, lmdb=lmdb_too)
    for seed in range(20, 30):
        save(picture(seed), raw / f"more/{seed}.png")
    (raw / "3.png").unlink()
    save(picture(4, 40), raw / "4.png")
    save(picture(5, 64), raw / "5_larger.png")
    report = run(raw, tmp_path / "out", split=0.5, lmdb=lmdb_too)
    fresh = run(raw, tmp_path / "fresh", split=0.5, lmdb=lmdb_too)
    for key in "train", "test", "duplicates dropped", "duplicates", "images":
        assert report[key] == fresh[key]
    assert content(tmp_path / "out") == content(tmp_path / "fresh")
    for split in "train", "test":
        lines = [(tmp_path / out / f"meta_info_{split}.txt").read_text() for out in ("out", "fresh")]
        assert lines[0] == lines[1] and lines[0].count("\n") == report[split]
        if lmdb_too:
            keys = []
            for out in "out", "fresh":
                with lmdb.open(str(tmp_path / f"{out}/{split}_GT.lmdb"), readonly=True) as database:
                    keys.append({bytes(key): bytes(value) for key, value in database.begin().cursor()})
            assert keys[0] == keys[1] and len(keys[0]) == report[split]


def test_other_options_and_other_folders_are_refused(tmp_path, raw):
    out = tmp_path / "out"
    run(raw, out)
    before = content(out)
    assert fault(run, raw, out, 16) == (
        f"{out} was begun with size = 32x32, but now it is 16x16. Give the same options, or a new folder as OUT."
    )
    (tmp_path / "list.txt").write_text("1.png\n")
    assert "was begun with list of all = None, but now it is" in fault(
        run, raw, out, lists={"all": tmp_path / "list.txt"}
    )
    assert content(out) == before
    save(picture(1), tmp_path / "mine/a.png")
    assert fault(run, raw, tmp_path / "mine") == (
        f"{tmp_path}/mine is not empty, and this tool did not make it. Give a new folder as OUT."
    )
    assert fault(run, raw, raw / "out") == f"{raw}/out and {raw} lie within each other. Give an OUT beside SOURCE."
    assert fault(run, raw, tmp_path).endswith("lie within each other. Give an OUT beside SOURCE.")
    assert fault(run, raw, tmp_path / "list.txt") == f"{tmp_path}/list.txt is a file. Give a new folder as OUT."
    (out / "manifest.sqlite").write_bytes(b"no database " * 99)
    assert fault(run, raw, out) == (
        f"{out}/manifest.sqlite is damaged (file is not a database). Give a new folder as OUT."
    )


def test_two_runs_do_not_write_at_once(tmp_path, raw):
    from glean_ext.datasets.manifest import Manifest

    first = Manifest(tmp_path / "out", {})
    assert (
        fault(Manifest, tmp_path / "out", {}) == f"{tmp_path}/out is being written by another run. Wait for it to end."
    )
    first.close()


def test_processes_and_one_process_make_the_same(tmp_path):
    for seed in range(20):
        save(picture(seed), tmp_path / f"raw/{seed}.png")
    run(tmp_path / "raw", tmp_path / "one", lr_scale=4)
    run(tmp_path / "raw", tmp_path / "two", lr_scale=4, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two") and len(content(tmp_path / "one")) == 40


def start(source: Path, out: Path, *options: str, **popen) -> subprocess.Popen:
    command = [sys.executable, str(TOOL), str(source), str(out), *options]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **popen)


def wait_for_images(out: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(names(out / ".staging/GT")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(tmp_path, how):
    for seed in range(400):
        save(picture(seed, 192), tmp_path / f"raw/{seed}.png")
    run(tmp_path / "raw", tmp_path / "whole", 96, lr_scale=8)
    out = tmp_path / "out"
    listens = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  (jobs of a shell may have it ignored)
    options = "--size", "96", "--lr-scale", "8", "--workers", "2"
    process = start(tmp_path / "raw", out, *options, start_new_session=True, preexec_fn=listens)
    wait_for_images(out, 10)
    children = subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split()
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert len(children) >= 3
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Interrupted. The same command goes on from here.\n" in errors and errors.endswith("\ninterrupted\n")
        assert "Traceback" not in errors
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children):  # nobody is left behind
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (out / "report.json").exists()
    run(tmp_path / "raw", out, 96, lr_scale=8)
    assert content(out) == content(tmp_path / "whole") and len(content(out)) == 800
    assert not (out / ".staging").exists()


def test_a_full_disk_stops_with_one_line_and_the_run_goes_on(tmp_path):
    """The system refuses to write beyond 60 kB of a file: what a full disk does, at the same place."""
    for seed in range(4):
        save(np.random.default_rng(seed).integers(0, 256, (160, 160, 3), dtype=np.uint8), tmp_path / f"raw/{seed}.png")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # noqa: E731
    out = tmp_path / "out"
    process = start(tmp_path / "raw", out, "--size", "160", "--workers", "1", preexec_fn=limit)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1] == (
        f"error: {out}/.staging/GT/0.png cannot be written (File too large). Free some space or correct its rights, "
        "and run the same command again: it goes on."
    )
    assert "Traceback" not in errors
    assert run(tmp_path / "raw", out, 160)["train"] == 3


# ---------------------------------------------------------------- the tool


def tool(capsys, *arguments: object) -> tuple[int, str, str]:
    spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    prepare_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare_data)
    with pytest.raises(SystemExit) as end:
        cli.run(lambda: prepare_data.main([str(argument) for argument in arguments]))
    streams = capsys.readouterr()
    return end.value.code, streams.out, streams.err


def test_tool(tmp_path, raw, capsys):
    code, printed, _ = tool(capsys, raw, tmp_path / "out", "--size", "16", "--split", "0.8", "--workers", "1")
    assert code == 0
    assert printed.startswith("8 training and 2 test images of 10 in ")
    assert printed.splitlines()[-1] == f"{tmp_path}/out: report.json, images.csv, contact_sheet.png"


def test_tool_preset_and_what_is_given_beside_it(tmp_path, raw, capsys):
    (tmp_path / "list.txt").write_text("1.png (256,256,3)\n2.png (256,256,3)\n")
    arguments = "--preset", "cat", "--size", "16x16", "--list", tmp_path / "list.txt", "--workers", "1"
    assert tool(capsys, raw, tmp_path / "out", *arguments)[0] == 0
    assert names(tmp_path / "out/test/GT") == ["1.png", "2.png"]
    np.testing.assert_array_equal(read_rgb(tmp_path / "out/test/GT/1.png"), imresize(picture(1), size=(16, 16)))
    assert tool(capsys, raw, tmp_path / "cut", *arguments, "--crop", "center")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--size is needed, or a --preset."),
        (["--size", "1x2x3"], "argument --size: 1x2x3 is no size: give 256, or WIDTHxHEIGHT such as 512x384."),
        (
            ["--size", "8", "--list", "a", "--list", "b"],
            "argument --list: give one FILE, or one for each of train= and",
        ),
        (["--size", "8", "--workers", "0"], "argument --workers: give 1 or more."),
        (["--size", "8", "--list", "train=no.txt"], "no.txt: the list cannot be read (No such file or directory)."),
        (["--size", "8", "--split", "2"], "split is 2.0, but it is the share of training images, 0 to 1."),
        (["--preset", "dogs"], "argument --preset: invalid choice: 'dogs'"),
    ],
)
def test_tool_bad_usage(tmp_path, raw, capsys, options, message):
    code, _, errors = tool(capsys, raw, tmp_path / "out", *options)
    assert code == 2 and errors.startswith(f"error: {message}") and errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_faces_are_cut_out_of_photographs(tmp_path, capsys):
    from skimage import data

    save(data.astronaut(), tmp_path / "raw/astronaut.png")
    save(data.coffee(), tmp_path / "raw/coffee.png")
    arguments = "--size", "128", "--crop", "face", "--split", "1", "--workers", "2"
    code, printed, _ = tool(capsys, tmp_path / "raw", tmp_path / "out", *arguments)
    assert code == 0 and printed.startswith("1 training and 0 test images of 2")
    from glean_ext.apis.faces import FaceFinder

    (face,) = FaceFinder().find(read_rgb(tmp_path / "out/train/GT/astronaut.png"))
    quad = face.quad  # an aligned face is aligned
    np.testing.assert_allclose(quad, [[0, 0], [0, 128], [128, 128], [128, 0]], atol=6)
