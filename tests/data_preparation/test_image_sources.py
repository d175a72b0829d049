"""Where raw images come from: folders, zips, databases, and lists of names."""

from __future__ import annotations

import hashlib
import io
import re
import time
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image
from support.preparation import content, fault, names, picture, run, save

from glean_ext.data_preparation import readers
from glean_ext.data_preparation.readers import _entries, open_source
from glean_ext.data_preparation.selection import assign_names, find_listed
from glean_ext.utils.file_lists import read_file_list
from glean_ext.utils.image_io import decode_rgb, read_rgb

# ---------------------------------------------------------------- sources


def test_bytes_are_read_as_files_are(tmp_path):
    path = save(picture(1), tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode_rgb(path.read_bytes(), "a.jpg"), read_rgb(path))
    assert fault(decode_rgb, b"", "x/a.png") == "x/a.png is empty (0 bytes). Get the file again."
    assert fault(decode_rgb, b"text", "x/a.png").startswith(
        "x/a.png is no image, or of a format that is not read (AVIF"
    )
    half = path.read_bytes()[:400]
    assert fault(decode_rgb, half, "a.jpg").startswith("a.jpg is truncated or damaged (")


def test_folders_are_searched_with_all_subfolders(tmp_path):
    for name in "b.png", "a/c.JPG", "a/b/d.webp", "a/notes.txt", "a/._c.jpg", ".hidden.png":
        save(picture(1), tmp_path / "raw" / name, format="PNG")
    (tmp_path / "elsewhere").mkdir()
    save(picture(2), tmp_path / "elsewhere/e.png")
    (tmp_path / "raw/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw/loop").symlink_to(tmp_path / "raw")
    (tmp_path / "raw/nowhere.png").symlink_to(tmp_path / "gone")
    source = open_source(tmp_path / "raw")
    entries, left_out = source.find()
    assert [entry.key for entry in entries] == ["a/b/d.webp", "a/c.JPG", "b.png", "link/e.png", "nowhere.png"]
    assert left_out == [".hidden.png", "a/._c.jpg", "a/notes.txt"] and len(left_out) == 3
    assert source.read(entries[2]) == (tmp_path / "raw/b.png").read_bytes()
    assert fault(source.read, entries[4]) == "nowhere.png cannot be read (No such file or directory)."


def test_one_rule_for_formats_and_hidden_names(tmp_path):
    """Folders, zips and training take the same files."""
    used = ["a.png", "b.webp", "c.Jpg", "d.gif", "sub/e.TIFF"]
    for name in *used, ".hidden.png", ".Trash-0/f.png", "sub/.ipynb_checkpoints/g.png", "notes.txt", "sub/h.svg":
        save(picture(1), tmp_path / "raw" / name, format="PNG")
    files = [path for path in (tmp_path / "raw").rglob("*") if path.is_file()]
    make_zip(tmp_path / "raw.zip", {str(path.relative_to(tmp_path)): path.read_bytes() for path in files})
    entries, left_out = open_source(tmp_path / "raw").find()
    assert [entry.key for entry in entries] == used
    assert left_out == [".Trash-0", ".hidden.png", "notes.txt", "sub/.ipynb_checkpoints", "sub/h.svg"]
    entries, left_out = open_source(tmp_path / "raw.zip").find()
    assert [entry.key for entry in entries] == [f"raw/{name}" for name in used]
    assert left_out == [
        "raw/.Trash-0/f.png", "raw/.hidden.png", "raw/notes.txt", "raw/sub/.ipynb_checkpoints/g.png", "raw/sub/h.svg"
    ]  # fmt: skip
    save(picture(2), tmp_path / "raw/a.png")
    report = run(tmp_path / "raw", tmp_path / "out")
    assert report["left out"] == [".Trash-0", ".hidden.png", "notes.txt", "sub/.ipynb_checkpoints", "sub/h.svg"]
    assert report["images"] == report["other files"] == 5


def test_a_name_that_many_members_of_a_zip_have_takes_no_quadratic_time(tmp_path):
    found = [("a.png", number, 0, "") for number in range(20_000)]
    start = time.process_time()
    entries = _entries(found)
    assert time.process_time() - start < 3
    assert len({entry.key for entry in entries}) == 20_000


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
    from glean_ext.data_preparation import readers

    path = make_zip(tmp_path / "raw.zip", {"good.png": png(picture(1)), "big.png": bytes(50_000), "bad.png": b""})
    damaged = bytearray(path.read_bytes())
    damaged[len(b"PK") + 40 + len("good.png")] ^= 255  # in the packed data of the first member
    path.write_bytes(damaged)
    monkeypatch.setattr(readers, "MAX_BYTES", 49_999)
    source = open_source(path)
    by_key = {entry.key: entry for entry in source.find()[0]}
    assert fault(source.read, by_key["big.png"]) == (
        "big.png has 50000 bytes, and 49999 is the limit. Scale the image down."
    )
    assert "good.png is truncated or damaged (" in fault(source.read, by_key["good.png"])
    message = fault(run, path, tmp_path / "out")
    assert message.startswith(
        f"{path}: none of 3 images can be used: 3 unreadable. The first: bad.png is empty (0 bytes)"
    )


def test_encrypted_members_are_named_as_such(tmp_path):
    path = make_zip(tmp_path / "raw.zip", {"a.png": png(picture(1))})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\3\4") + 6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    source = open_source(path)
    assert fault(source.read, source.find()[0][0]) == (
        "a.png is encrypted. Unpack the zip with its password, and give the folder."
    )


def test_a_damaged_database_is_one_line(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/data.mdb").write_bytes(b"no database" * 999)
    message = fault(open_source, tmp_path / "raw")
    assert message.startswith(f"{tmp_path}/raw is a damaged LMDB (") and message.endswith(" Download or copy it again.")


def test_any_exception_of_a_decoder_rejects_that_file_only(tmp_path, raw, monkeypatch):
    """A PNG without its palette, and an error that no decoder documents."""
    Image.fromarray(picture(1)).convert("P").save(raw / "3.png")
    content = (raw / "3.png").read_bytes()
    start = content.index(b"PLTE") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    (raw / "3.png").write_bytes(content[:start] + content[start + 12 + length :])
    save(picture(20), raw / "4.webp")

    def broken(*arguments: object) -> None:
        raise ArithmeticError("from inside the decoder")

    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", broken)
    report = run(raw, tmp_path / "out", split=1.0)
    assert report["rejected"] == {"unreadable": 2} and report["train"] == 9
    assert [reject["file"] for reject in report["rejects"]] == ["3.png", "4.webp"]
    assert report["rejects"][0]["reason"].startswith("3.png is ")
    assert "from inside the decoder" in report["rejects"][1]["reason"]


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
    assert fault(run, tmp_path / "empty", out).startswith(f"{tmp_path}/empty has no images (.avif .bmp .gif .heic")
    assert not out.exists()
    assert fault(run, raw, out, 64).startswith(
        f"{raw}: none of 10 images can be used: 10 too small. The first: 0.png: it is 32x32, smaller than 64x64. "
        "Give a smaller size, or set enlarge=True."
    )


def test_lsun_like_databases_are_read(tmp_path):
    with lmdb.open(str(tmp_path / "cat_lmdb"), map_size=1 << 20) as database, database.begin(write=True) as writer:
        for seed in range(3):
            writer.put(f"{seed:040x}".encode(), png(picture(seed)))
    run(tmp_path / "cat_lmdb", tmp_path / "out", split=1.0)
    for seed in range(3):
        np.testing.assert_array_equal(read_rgb(tmp_path / f"out/train/GT/{seed:040x}.png"), picture(seed))


def test_names_differ_and_suit_every_reader():
    keys = ["a.png", "b/a.jpg", "b/A.png", "b/b a.png", "c/a.png", "猫.png", "犬.png", "d/-.png"]
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
    assert read_file_list(tmp_path / "list.txt") == ["00000.png", "x y.jpg", "plain"]
    (tmp_path / "list.txt").write_text("\n")
    assert fault(find_listed, [], tmp_path / "list.txt") == (
        f"{tmp_path}/list.txt names no files. Put a name on each line."
    )
    assert "the list cannot be read (No such file or directory)" in fault(find_listed, [], tmp_path / "no.txt")


def test_list_entries_are_found_by_path_or_name(tmp_path):
    for name in "a/1.png", "a/2.jpg", "b/2.png", "b/3.png":
        save(picture(1), tmp_path / "raw" / name)
    entries, _ = open_source(tmp_path / "raw").find()

    def keys(text: str) -> set[str]:
        (tmp_path / "list.txt").write_text(text)
        return find_listed(entries, tmp_path / "list.txt")

    assert keys("1.png\na/2.jpg\n3.jpg") == {"a/1.png", "a/2.jpg", "b/3.png"}
    assert keys("2.png") == {"b/2.png"}
    assert fault(keys, "2.webp") == (
        f"{tmp_path}/list.txt names 2.webp, which a/2.jpg and b/2.png both are. Give the whole path."
    )
    assert fault(keys, "1.png\n7.png\n8.png") == (
        f"{tmp_path}/list.txt names 7.png and 1 more, which source does not have. Correct the list or source."
    )


def test_a_whole_path_comes_before_a_name_that_several_files_have(tmp_path):
    for name in "1.png", "a/1.png", "a/1.jpg":
        save(picture(1), tmp_path / "raw" / name)
    entries, _ = open_source(tmp_path / "raw").find()
    (tmp_path / "list.txt").write_text("1.png\na/1.jpg\n")
    assert find_listed(entries, tmp_path / "list.txt") == {"1.png", "a/1.jpg"}


def test_lists_of_every_spelling(tmp_path, monkeypatch):
    """Spaces, comments, Windows' encoding and line ends, absolute paths, and paths relative to different folders."""
    for name in "my cat.png", "sub/b.png", "c # d.png", "e.png", "f.png":
        save(picture(1), tmp_path / "raw" / name)
    entries, _ = open_source(tmp_path / "raw").find()
    monkeypatch.chdir(tmp_path)
    lines = (
        "# all cats",
        "my cat.png (8,8,3)",
        f"{tmp_path}/raw/sub/b.png",
        "",
        "c # d.png",
        "./e.png # good",
        "raw/f.png",
    )
    for encoding in "utf-8", "utf-8-sig", "utf-16":
        (tmp_path / "list.txt").write_bytes("\r\n".join(lines).encode(encoding))
        found = find_listed(entries, tmp_path / "list.txt", tmp_path / "raw")
        assert found == {"my cat.png", "sub/b.png", "c # d.png", "e.png", "f.png"}
    (tmp_path / "list.txt").write_text("my dog.png\n.\n")
    assert fault(find_listed, entries, tmp_path / "list.txt", tmp_path / "raw") == (
        f"{tmp_path}/list.txt names my dog.png and 1 more, which source does not have. Correct the list or source."
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


def test_a_member_that_is_packed_too_well_is_rejected_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "HARMLESS_BYTES", 100_000)
    with zipfile.ZipFile(tmp_path / "raw.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", bytes(200_000))
    source = open_source(tmp_path / "raw.zip")
    (entry,) = source.find()[0]
    assert re.fullmatch(r"bomb\.png unpacks from \d+ to 200000 bytes, as no image\.", fault(source.read, entry))
