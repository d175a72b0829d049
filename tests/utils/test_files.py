"""Files that are whole or not there, whatever ends the process that writes them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from glean_ext.errors import InputError
from glean_ext.utils import files
from glean_ext.utils.files import atomic_path, temporary_folder_beside, write_json

ROOT = Path(__file__).parents[2]
WRITER = """
import os, signal, sys
from pathlib import Path
from glean_ext.utils.files import atomic_path, temporary_folder_beside
with atomic_path("a.png") as partial, temporary_folder_beside(Path("b.png")) as folder:
    partial.write_text("half")
    (folder / "weights").write_text("half")
    print(partial, folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_searched", set())
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def writer() -> subprocess.Popen:
    """A process that is writing a file and a folder."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", WRITER], env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


def test_what_a_killed_process_left_is_removed_by_the_next_one(folder):
    with writer() as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    left = names(folder)
    assert len(left) == 2
    others = [".b-0a1b2c3d.json", ".b-0a1b2c3.png", ".b-0A1B2C3D.png", "b-0a1b2c3d.png", ".b-0a1b2c3d.png.txt"]
    for name in others:
        (folder / name).touch()
    (folder / ".link-0a1b2c3d.png").symlink_to(others[0])
    with atomic_path("c.png") as partial:
        partial.write_text("c")
    assert names(folder) == sorted([*others, ".link-0a1b2c3d.png", "c.png"])
    write_json({}, "d.json")
    assert ".b-0a1b2c3d.json" not in names(folder)


def test_what_a_living_process_writes_is_left_alone(folder):
    with writer() as process:
        process.stdout.readline()
        before = names(folder)
        with atomic_path("c.png") as partial:
            partial.touch()
        assert names(folder) == sorted([*before, "c.png"]) and len(before) == 2
        process.stdin.close()
    assert names(folder) == ["a.png", "c.png"] and (folder / "a.png").read_text() == "half"


def test_threads_write_beside_each_other(folder):
    def write(number: int) -> None:
        for _ in range(20):
            files._searched.clear()  # as if each were another process
            with atomic_path(f"{number}.png") as partial:
                partial.write_text(str(number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(folder) == [f"{number}.png" for number in range(6)]
    assert all((folder / f"{number}.png").read_text() == str(number) for number in range(6))


def test_a_folder_is_searched_once(folder, monkeypatch):
    searched, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: searched.append(path) or scandir(path))
    for index in range(5):
        with atomic_path(f"{index}.png"):
            pass
    assert len(searched) == 1


def test_a_block_that_fails_leaves_nothing(folder):
    (folder / "a.png").write_text("before")
    for error in ZeroDivisionError, KeyboardInterrupt:
        with pytest.raises(error), atomic_path("a.png") as partial:
            partial.write_text("half")
            raise error
    with pytest.raises(ZeroDivisionError), temporary_folder_beside(Path("a.png")) as beside:
        (beside / "x").touch()
        raise ZeroDivisionError
    assert names(folder) == ["a.png"] and (folder / "a.png").read_text() == "before"
    with pytest.raises(InputError, match=r"^a\.png/b\.png cannot be written \("), atomic_path("a.png/b.png"):
        pass


def test_rights_are_those_of_any_new_file(folder):
    before = os.umask(0o027)
    try:
        with atomic_path("a.png") as partial:
            partial.write_text("a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "a.png").stat().st_mode) == 0o640


def test_file_systems_without_locks(folder, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    (folder / ".b-0a1b2c3d.png").touch()
    with atomic_path("a.png") as partial:
        partial.write_text("a")
    assert names(folder) == [".b-0a1b2c3d.png", "a.png"]
