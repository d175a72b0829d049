"""What is listed of a folder and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glean_ext.errors import InputError
from glean_ext.utils.file_listing import list_files


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    for name in (
        *("in/b.PNG", "in/a.Jpg", "in/notes.txt", "in/deep/er/c.png", "in/deep/raw.nef", "in/d.png/e.png"),
        *("in/.hidden.png", "in/.DS_Store", "in/.Trash-0/f.png", "in/deep/.ipynb_checkpoints/g.png", "in/out/h.png"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "around").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to("in")) for path in paths]


def test_extensions_in_upper_and_lower_case_in_all_folders_but_hidden_ones(tree):
    listing = list_files("in", [".png", ".JPG"], skip="in/out")
    assert names(listing.files) == ["a.Jpg", "b.PNG", "d.png/e.png", "deep/er/c.png"]
    assert names(listing.left_out) == ["around", "deep/raw.nef", "notes.txt"]
    assert names(listing.hidden) == [".Trash-0", ".hidden.png", "deep/.ipynb_checkpoints"]
    assert names(listing.links) == ["around"]


def test_what_never_ends_is_left_out(tree):
    """Reading a pipe waits for a writer, and a device gives zeros until the memory is full."""
    os.mkfifo("in/pipe.png")
    Path("in/zero.png").symlink_to("/dev/zero")
    Path("in/lost.png").symlink_to("nowhere")
    listing = list_files("in", [".png"], recursive=False)
    assert names(listing.files) == ["b.PNG", "lost.png"]
    assert {"pipe.png", "zero.png"} <= set(names(listing.left_out))


def test_one_level(tree):
    listing = list_files(Path("in"), (".png", ".jpg"), recursive=False, skip="in/out")
    assert names(listing.files) == ["a.Jpg", "b.PNG"]
    assert names(listing.left_out) == ["around", "d.png", "deep", "notes.txt"] and names(listing.links) == ["around"]


def test_a_folder_that_is_hidden_itself_or_a_link(tree):
    assert list_files("in/.Trash-0", [".png"]).files == [Path("in/.Trash-0/f.png")]
    (tree / "link").symlink_to("in/deep")
    assert list_files("link", [".png"]).files == [Path("link/er/c.png")]


@pytest.mark.parametrize("reverse", [False, True])
def test_links_are_followed_on_request_and_each_folder_is_listed_once(tree, monkeypatch, reverse):
    """In whatever order the disk has them: under its own name, not that of a link."""
    walk = os.walk

    def in_order(*arguments, **options):
        for root, folders, files in walk(*arguments, **options):
            folders.sort(reverse=reverse)
            yield root, folders, files

    monkeypatch.setattr(os, "walk", in_order)
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere/i.png").touch()
    (tree / "in/link").symlink_to("../elsewhere")
    (tree / "in/a_link").symlink_to("deep")
    (tree / "in/gone.png").symlink_to("nowhere")
    listing = list_files("in", [".png", ".JPG"], skip="in/out", follow_links=True)
    assert names(listing.files) == ["a.Jpg", "b.PNG", "d.png/e.png", "deep/er/c.png", "gone.png", "link/i.png"]
    assert names(listing.left_out) == ["deep/raw.nef", "notes.txt"]


def test_a_missing_folder(tree):
    for name in "no", "in/a.Jpg":
        with pytest.raises(InputError) as caught:
            list_files(name, [".png"])
        assert str(caught.value) == f"{name}: there is no such folder. Give a folder."


def test_folders_too_deep_for_python_are_one_line(tree, monkeypatch):
    """As some versions of os.walk raise it at a thousand folders in each other."""

    def walk(*args: object, **options: object) -> None:
        raise RecursionError

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(InputError, match=r"has folders in folders, more than can be listed\. Give one of them"):
        list_files(tree, [".png"])


def test_no_file_is_looked_at_more_than_once(tree, monkeypatch):
    """2,000 files of other kinds: their number of system calls does not grow with each of them."""
    for index in range(2000):
        (tree / "in" / f"{index}.txt").touch()
    calls = []
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda *args, **kwargs: calls.append(args) or stat(*args, **kwargs))
    assert len(list_files("in", [".png"], skip="in/out").left_out) == 2004
    assert len(calls) < 200
