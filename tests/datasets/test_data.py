"""Folders of images into pairs: values, alignment, and each mistake in one line that names the file."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.datasets import LoadOrMakeLQ, LoadRGB, SRFolderDataset
from glean_ext.errors import InputError
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.imresize import imresize

LOAD = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}]
PACK = [*LOAD, {"type": "PackInputs"}]


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """mmengine's datasets call ``gc.collect``, which would look through all of MMagic's modules."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmagic"):
        yield


def noise(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(image: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """``GT/0.png`` ... ``GT/2.png``: noise with seeds 0, 1, 2."""
    for i in range(3):
        save(noise(i), tmp_path / f"GT/{i}.png")
    return tmp_path


def dataset(root: Path, prefix: dict | None = None, scale: int = 2, pipeline: list | None = None, **more):
    return SRFolderDataset(str(root), prefix or {"gt": "GT"}, scale, pipeline or PACK, **more)


def by_name(data: SRFolderDataset) -> dict[str, dict]:
    return {Path(data.get_data_info(i)["gt_path"]).name: data[i] for i in range(len(data))}


def to_array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy()


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_low_resolution_images_are_made_as_matlab_does(folder, scale):
    from mmagic.datasets.transforms import MATLABLikeResize

    samples = by_name(dataset(folder, scale=scale))
    assert sorted(samples) == ["0.png", "1.png", "2.png"]
    for seed in range(3):
        sample, gt = samples[f"{seed}.png"], noise(seed)
        assert sample["inputs"].dtype == torch.uint8
        assert sample["inputs"].shape == (3, 16 // scale, 16 // scale)
        np.testing.assert_array_equal(to_array(sample["data_samples"].gt_img), gt)
        np.testing.assert_array_equal(to_array(sample["inputs"]), imresize(gt, scale=1 / scale))
        theirs = MATLABLikeResize(keys=["gt"], scale=1 / scale)({"gt": gt.astype(np.float64)})["gt"]
        difference = np.abs(to_array(sample["inputs"]) - theirs.clip(0, 255))
        assert difference.max() <= 1.5  # theirs is not rounded; MATLAB rounds uint8 after each axis


def test_pairs_are_read_from_files(folder):
    for i in range(3):
        save(noise(10 + i, 8, 8), folder / f"LR/x2/{i}.png")
    samples = by_name(dataset(folder, {"gt": "GT", "img": "LR/x2"}))
    for i in range(3):
        np.testing.assert_array_equal(to_array(samples[f"{i}.png"]["inputs"]), noise(10 + i, 8, 8))
        np.testing.assert_array_equal(to_array(samples[f"{i}.png"]["data_samples"].gt_img), noise(i))


@pytest.mark.parametrize("paired", [False, True])
def test_channel_order_is_recorded(folder, paired):
    """MMagic's preprocessor takes images of unknown order for BGR and turns only the ground truth: false metrics."""
    save(noise(9, 8, 8), folder / "LR/0.png")
    prefix = {"gt": "GT", "img": "LR"} if paired else {"gt": "GT"}
    (folder / "one.txt").write_text("0.png\n")
    meta = dataset(folder, prefix, ann_file="one.txt")[0]["data_samples"].metainfo
    assert meta["gt_channel_order"] == meta["img_channel_order"] == "rgb"
    assert meta["gt_color_type"] == meta["img_color_type"] == "color"
    assert meta["gt_path"] == str(folder / "GT/0.png")


def test_inference_has_no_ground_truth(tmp_path):
    path = save(noise(1, 8, 8), tmp_path / "lq.png")
    results = LoadOrMakeLQ()({"img_path": str(path)})
    np.testing.assert_array_equal(results["img"], noise(1, 8, 8))


@pytest.mark.parametrize("flipped", [True, False])
def test_flip_keeps_pairs_aligned(folder, flipped):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save(np.stack([ramp, ramp[::-1], ramp.T], 2), folder / "ramp/0.png")
    flip = {"type": "Flip", "keys": ["img", "gt"], "flip_ratio": float(flipped), "direction": "horizontal"}
    (plain,) = dataset(folder, {"gt": "ramp"}, pipeline=PACK)
    (turned,) = dataset(folder, {"gt": "ramp"}, pipeline=[*LOAD, flip, {"type": "PackInputs"}])
    for name in "inputs", "gt_img":
        before, after = (s[name] if name == "inputs" else s["data_samples"].gt_img for s in (plain, turned))
        assert torch.equal(after, before.flip(2) if flipped else before), name
    assert not torch.equal(plain["inputs"], plain["inputs"].flip(2))


def test_the_flip_of_the_configs_turns_both_or_none(folder):
    from mmengine import Config

    cfg = Config.fromfile(Path(__file__).parents[2] / "configs/_base_/data.py", import_custom_modules=False)
    data = dataset(folder, pipeline=cfg.train_pipeline)
    random.seed(0)
    np.random.seed(0)
    seen = []
    for _ in range(12):
        sample, gt = data[0], noise(0)
        image = to_array(sample["data_samples"].gt_img)
        seen.append(not np.array_equal(image, gt))
        np.testing.assert_array_equal(image, gt[:, ::-1] if seen[-1] else gt)
        # Turning commutes with the resize but for the rounding of ties.
        assert np.abs(to_array(sample["inputs"]).astype(int) - imresize(image, scale=0.5).astype(int)).max() <= 1
    assert set(seen) == {True, False}
    assert not any(t["type"] == "Flip" for t in cfg.test_pipeline)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_any_kind_of_pixels(tmp_path, mode):
    gray = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    image = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257) if mode == "I;16" else gray
    (tmp_path / "GT").mkdir()
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "GT/0.tif")
    (sample,) = dataset(tmp_path)
    np.testing.assert_array_equal(to_array(sample["data_samples"].gt_img), np.stack([np.array(gray)] * 3, 2))


# ---------------------------------------------------------------- which files


def test_annotation_file(folder):
    (folder / "meta").mkdir()
    (folder / "meta/some.txt").write_text("2.png\n\n0.png (16,16,3)\n")
    data = dataset(folder, ann_file="meta/some.txt")
    assert [Path(data.get_data_info(i)["gt_path"]).name for i in range(len(data))] == ["2.png", "0.png"]


def files(data: SRFolderDataset, key: str = "gt_path") -> list[str]:
    return [data.get_data_info(i)[key] for i in range(len(data))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_annotation_files_of_every_spelling(folder, encoding):
    for name in "my cat.png", "sub/c # d.png":
        save(noise(1), folder / "GT" / name)
        save(noise(1, 8, 8), folder / "LR" / name)
    for i in range(3):
        save(noise(1, 8, 8), folder / f"LR/{i}.png")
    lines = "# cats", "my cat.png (16,16,3)", "", f"{folder}/GT/0.png", "GT/1.png", "sub/c # d.png  ", "/2.png # last"
    (folder / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
    names = ["my cat.png", "0.png", "1.png", "sub/c # d.png", "2.png"]
    data = dataset(folder, {"gt": "GT", "img": "LR"}, ann_file="list.txt")
    assert files(data) == [f"{folder}/GT/{name}" for name in names]
    assert files(data, "img_path") == [f"{folder}/LR/{name}" for name in names]
    assert len(data[3]["inputs"]) == 3


def test_annotation_files_may_name_images_elsewhere_but_not_of_pairs(folder, monkeypatch):
    save(noise(1), folder / "elsewhere/a.png")
    (folder / "lists").mkdir()
    save(noise(2), folder / "lists/b.png")
    (folder / "lists/list.txt").write_text(f"{folder}/elsewhere/a.png\nb.png\n")
    assert files(dataset(folder, ann_file="lists/list.txt")) == [f"{folder}/elsewhere/a.png", f"{folder}/lists/b.png"]
    monkeypatch.chdir(folder)
    assert files(dataset(Path(), ann_file="lists/list.txt")) == [f"{folder}/elsewhere/a.png", f"{folder}/lists/b.png"]
    (folder / "LR").mkdir()
    assert fault(dataset, folder, {"gt": "GT", "img": "LR"}, ann_file="lists/list.txt") == (
        f"{folder}/lists/list.txt names {folder}/elsewhere/a.png, which is not in {folder}/GT, so that its "
        "low-resolution image is unknown. Move it there, or leave data_prefix.img out."
    )


def test_all_formats_are_used_and_what_is_left_out_is_named(tmp_path, caplog):
    for name in "a.png", "b.webp", "c.Jpg", "d.gif", "e.JP2", ".hidden.png", ".Trash-0/f.png", "sub/g.PNG":
        path = tmp_path / "GT" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(1)).save(path)
    (tmp_path / "GT/notes.txt").write_text("no image")
    data = dataset(tmp_path)
    assert [Path(path).name for path in files(data)] == ["a.png", "b.webp", "c.Jpg", "d.gif", "e.JP2"]
    assert len([data[i] for i in range(len(data))]) == 5
    formats = f"Images are {' '.join(EXTENSIONS)}; names that begin with a dot "
    assert [record.getMessage() for record in caplog.records if record.name.startswith("glean_ext")] == [
        f"{tmp_path}/GT: 5 images are used, 4 other files or folders are left out: .Trash-0, .hidden.png, notes.txt, "
        f"sub. {formats}are hidden. Set recursive=True to look in subfolders, too."
    ]
    caplog.clear()
    assert [Path(path).name for path in files(dataset(tmp_path, recursive=True))][-1] == "g.PNG"
    assert "3 other files or folders are left out: .Trash-0, .hidden.png, notes.txt. " in caplog.text
    assert "recursive" not in caplog.text


def test_many_other_files_take_linear_time(folder, monkeypatch):
    """Not one look at the folder, or at another file, for each file."""
    for i in range(2000):
        (folder / f"GT/{i}.txt").touch()
    calls = {"stat": 0, "scandir": 0}
    for name in calls:
        original = getattr(os, name)

        def count(*arguments, name=name, original=original, **more):
            calls[name] += 1
            return original(*arguments, **more)

        monkeypatch.setattr(os, name, count)
    assert len(dataset(folder)) == 3
    assert calls["stat"] < 3 * 2000 and calls["scandir"] < 10


def test_one_of_several_processes_warns(folder, caplog, monkeypatch):
    (folder / "GT/notes.txt").touch()
    for rank, warnings in (0, 1), (1, 0):
        monkeypatch.setattr("glean_ext.datasets.sr_folder_dataset.get_dist_info", lambda rank=rank: (rank, 2))
        caplog.clear()
        dataset(folder)
        assert caplog.text.count("notes.txt") == warnings


def test_images_are_ordered_by_their_paths_as_text(folder):
    """The order decides what a seed means, so that it must stay."""
    for name in "sub/2.png", "sub-x/1.png", "Sub.png":
        save(noise(1), folder / "GT" / name)
    names = [str(Path(path).relative_to(folder / "GT")) for path in files(dataset(folder, recursive=True))]
    assert names == ["0.png", "1.png", "2.png", "Sub.png", "sub-x/1.png", "sub/2.png"]


def test_linked_folders_are_read_once(folder):
    save(noise(5), folder / "elsewhere/5.png")
    (folder / "GT/link").symlink_to(folder / "elsewhere")
    (folder / "GT/loop").symlink_to(folder / "GT")
    names = [str(Path(path).relative_to(folder / "GT")) for path in files(dataset(folder, recursive=True))]
    assert names == ["0.png", "1.png", "2.png", "link/5.png"]


@pytest.mark.parametrize("recursive", [False, True])
def test_subfolders(folder, recursive):
    save(noise(5), folder / "GT/sub/5.png")
    (folder / "GT/notes.txt").write_text("no image")
    assert len(dataset(folder, recursive=recursive)) == 3 + recursive


# ---------------------------------------------------------------- mistakes


def test_missing_and_empty_folders(folder):
    assert fault(dataset, folder, {"gt": "no"}) == (
        f"{folder}/no: there is no such folder. Set data_root and data_prefix.gt of the dataset to where the images "
        "are."
    )
    assert fault(dataset, folder, {"gt": "GT", "img": "LR"}) == (
        f"{folder}/LR: there is no such folder. Set data_root and data_prefix.img of the dataset to where the images "
        "are."
    )
    (folder / "GT.lmdb").mkdir()
    assert fault(dataset, folder, {"gt": "GT.lmdb"}) == (
        f"{folder}/GT.lmdb is a database, whose images a list has to name. Set ann_file of the dataset."
    )
    (folder / "empty").mkdir()
    (folder / "empty/notes.txt").write_text("")
    assert fault(dataset, folder, {"gt": "empty"}) == (f"{folder}/empty holds no images. Put PNG or JPEG files there.")


@pytest.mark.parametrize("prefix", [{"img": "GT"}, {"gt": "GT", "lq": "GT"}])
def test_misspelt_prefix(folder, prefix):
    assert fault(dataset, folder, prefix) == (
        f"SRFolderDataset.data_prefix is {prefix}, but it must be dict(gt='<folder>') or dict(gt='<folder>', "
        "img='<folder>')."
    )


@pytest.mark.parametrize("scale", [0, -2, 2.0, "2", None])
def test_scales_that_make_no_sense(folder, scale):
    assert fault(dataset, folder, scale=scale) == (
        f"SRFolderDataset.scale is {scale!r}, but it must be a whole number, 1 or more."
    )
    assert fault(dataset, folder, unreadable="ignore") == (
        "SRFolderDataset.unreadable is 'ignore', but it must be 'stop' or 'skip'."
    )


def test_annotation_file_that_is_missing_or_wrong(folder):
    assert fault(dataset, folder, ann_file="no.txt") == (
        f"{folder}/no.txt: there is no such annotation file. Set ann_file='' to take all images."
    )
    (folder / "wrong.txt").write_text("7.png\n")
    assert fault(dataset, folder, ann_file="wrong.txt") == (
        f"{folder}/GT/7.png: no such file, but {folder}/wrong.txt names it. Correct the list or the files."
    )
    (folder / "empty.txt").write_text("\n")
    assert fault(dataset, folder, ann_file="empty.txt") == (
        f"{folder}/empty.txt names no images. Put a file name on each line, or set ann_file=''."
    )


@pytest.mark.parametrize(("height", "width"), [(15, 16), (16, 18), (2, 2)])
def test_sides_that_are_no_multiples(tmp_path, height, width):
    path = save(noise(0, height, width), tmp_path / "GT/0.png")
    data = dataset(tmp_path, scale=4)
    assert fault(lambda: data[0]) == (
        f"{path} has {width}x{height} pixels, which 4 does not divide. Crop or resize the ground truth, or change the "
        "dataset's scale."
    )


def test_pairs_that_do_not_fit(folder):
    path = save(noise(9, 8, 4), folder / "LR/0.png")
    (folder / "one.txt").write_text("0.png\n")
    data = dataset(folder, {"gt": "GT", "img": "LR"}, ann_file="one.txt")
    assert fault(lambda: data[0]) == (
        f"{path} has 4x8 pixels, but the ground truth {folder}/GT/0.png has 16x16, which is not 2 times as much. "
        "Correct the files or the dataset's scale."
    )
    assert fault(dataset, folder, {"gt": "GT", "img": "LR"}) == (
        f"{folder}/LR/1.png and 1 more: no such file, but {folder}/GT names it. Correct the list or the files."
    )


def test_damaged_images_are_named(folder):
    content = (folder / "GT/0.png").read_bytes()
    for bad in b"", b"text named png", content[:-60], content[:40]:
        (folder / "GT/0.png").write_bytes(bad)
        message = fault(LoadRGB("gt"), {"gt_path": str(folder / "GT/0.png")})
        assert message.startswith(f"{folder}/GT/0.png is ")


def palette_without_colours(path: Path) -> None:
    """A PNG whose palette is gone: Pillow raises an AssertionError, which is none of its documented errors."""
    save(noise(0), path)
    Image.fromarray(noise(0)).convert("P").save(path)
    content = path.read_bytes()
    start = content.index(b"PLTE") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    path.write_bytes(content[:start] + content[start + 12 + length :])


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "size", "no palette"])
def test_only_damaged_files_are_skipped(folder, damage):
    path = folder / "GT/1.png"
    if damage == "no palette":
        palette_without_colours(path)
    else:
        contents = {"cut": path.read_bytes()[:-60], "empty": b"", "text": b"text", "size": b"P6 99999 99999 255\n"}
        path.write_bytes(contents[damage])
    data = dataset(folder, unreadable="skip")
    sample = data[1]["data_samples"]
    assert sample.gt_path != str(path) and set(sample.skipped) == {str(path)}
    assert data[0]["data_samples"].skipped == []
    for options in {"unreadable": "stop"}, {"unreadable": "skip", "test_mode": True}:
        assert fault(lambda options=options: dataset(folder, **options)[1]).startswith(f"{path} ")


def test_a_damaged_low_resolution_file_is_skipped_by_its_own_name(folder):
    for i in range(3):
        save(noise(i, 8, 8), folder / f"LR/{i}.png")
    (folder / "LR/2.png").write_bytes(b"")
    data = dataset(folder, {"gt": "GT", "img": "LR"}, unreadable="skip")
    assert set(data[2]["data_samples"].skipped) == {str(folder / "LR/2.png")}


def test_mistakes_in_the_config_are_not_skipped(folder):
    """One image that the scale does not divide, a pair of the wrong size, a file that is gone, the wrong loader."""
    path = save(noise(1, 15, 16), folder / "GT/1.png")
    assert fault(lambda: dataset(folder, unreadable="skip")[1]) == (
        f"{path} has 16x15 pixels, which 2 does not divide. Crop or resize the ground truth, or change the dataset's "
        "scale."
    )
    for i in range(3):
        save(noise(i, 4, 4), folder / f"LR/{i}.png")
    assert fault(lambda: dataset(folder, {"gt": "GT", "img": "LR"}, unreadable="skip")[0]).startswith(
        f"{folder}/LR/0.png has 4x4 pixels, but the ground truth {folder}/GT/0.png has 16x16"
    )
    data = dataset(folder, unreadable="skip")
    (folder / "GT/2.png").unlink()
    assert fault(lambda: data[2]).startswith(f"{folder}/GT/2.png: there is no such file.")
    load = {"type": "LoadImageFromFile", "key": "gt", "color_type": "color", "channel_order": "bgr"}
    assert fault(lambda: dataset(folder, pipeline=[load, *PACK[1:]], unreadable="skip")[0]).startswith("GLEAN works in")


def test_a_folder_of_damaged_files_stops_training(folder):
    for path in (folder / "GT").iterdir():
        path.write_bytes(b"")
    assert fault(lambda: dataset(folder, unreadable="skip")[0]).endswith(".png is empty (0 bytes). Get the file again.")


def test_gt_in_bgr_is_refused(folder):
    load = {"type": "LoadImageFromFile", "key": "gt", "color_type": "color", "channel_order": "bgr"}
    data = dataset(folder, pipeline=[load, {"type": "LoadOrMakeLQ"}, {"type": "PackInputs"}])
    assert fault(lambda: data[0]) == ("GLEAN works in RGB, but gt was loaded as BGR. Load it with channel_order='rgb'.")


def test_mmagics_loader_may_load_the_ground_truth(folder):
    load = {"type": "LoadImageFromFile", "key": "gt", "color_type": "color", "channel_order": "rgb"}
    for theirs, ours in zip(dataset(folder, pipeline=[load, *PACK[1:]]), dataset(folder), strict=True):
        assert torch.equal(theirs["inputs"], ours["inputs"])
        assert torch.equal(theirs["data_samples"].gt_img, ours["data_samples"].gt_img)
