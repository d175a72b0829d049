"""Raw images behind URLs: the data set is that of the same images in a folder."""

from __future__ import annotations

import threading
import zipfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
from support.preparation import content, fault, picture, run, save
from support.restoring import needs_s3, s3_bucket
from support.tools import load_tool, only_error, run_main

from glean_ext.utils import url_files

needs_http = pytest.mark.skipif(find_spec("aiohttp") is None, reason="needs aiohttp")


@pytest.fixture
def memory(raw):
    """fsspec's files in memory, the raw images among them, a hidden one, a text and a damaged image."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    (raw / "a").mkdir()
    (raw / "9.png").rename(raw / "a" / "9.png")
    (raw / "notes.txt").write_text("text")
    (raw / "bad.png").write_bytes(b"no image")
    save(picture(20), raw / ".hidden" / "b.png")
    for path in raw.rglob("*.*"):
        if path.is_file():
            system.pipe(f"/raw/{path.relative_to(raw)}", path.read_bytes())
    yield system
    system.store.clear()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(folder: Path):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_store_that_fails_in_between_rejects_no_images(memory, tmp_path, monkeypatch):
    real, calls = type(memory).cat_file, []

    def refuse(*_, **__):
        raise PermissionError("The provided token has expired.")

    def cat_file(*args, **kwargs):
        calls.append(args)
        if len(calls) > 3:
            monkeypatch.setattr(type(memory), "info", refuse)
            refuse()
        return real(*args, **kwargs)

    with monkeypatch.context() as monkeypatch:
        monkeypatch.setattr(type(memory), "cat_file", cat_file)
        error = fault(run, "memory://raw", tmp_path / "out")
    assert error.startswith("memory://raw/") and "cannot be used (The provided token has expired)." in error
    assert error.endswith("The same command continues from here.") and not (tmp_path / "out/report.json").exists()
    run("memory://raw", tmp_path / "new")
    assert run("memory://raw", tmp_path / "out")["images"] == 11 and len(content(tmp_path / "out")) == 10
    assert content(tmp_path / "out") == content(tmp_path / "new")


def test_the_data_set_is_that_of_a_folder(raw, memory, tmp_path):
    local, report = run(raw, tmp_path / "local"), run("memory://raw", tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "local") and len(content(tmp_path / "out")) == 10
    differs = "source", "options", "seconds", "left out", "other files"
    assert {key: report[key] for key in report if key not in differs} == {
        key: local[key] for key in local if key not in differs
    }
    assert report["options"]["source"] == "memory://raw" and report["left out"] == [".hidden/b.png", "notes.txt"]


def test_changes_are_followed(raw, memory, tmp_path):
    (tmp_path / "list.txt").write_text("1.png\na/9.png\n")
    lists = {"all": str(tmp_path / "list.txt")}
    run("memory://raw", tmp_path / "out", lists=lists, split=1.0)
    before = content(tmp_path / "out")
    save(picture(30), tmp_path / "new.png")
    memory.put(str(tmp_path / "new.png"), "/raw/1.png")
    run("memory://raw", tmp_path / "out", lists=lists, split=1.0)
    after = content(tmp_path / "out")
    assert before.keys() == after.keys() and sum(before[name] != after[name] for name in before) == 1


def test_patterns_and_local_urls(raw, memory, tmp_path):
    assert run("memory://raw/[0-4].png", tmp_path / "some")["images"] == 5
    run(f"file://{raw}", tmp_path / "out")
    run(raw, tmp_path / "local")
    assert content(tmp_path / "out") == content(tmp_path / "local")


def test_what_cannot_be_read_is_tried_again_by_the_next_run(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(url_files, "PAUSE", 0.0)
    read, tries = type(memory).cat_file, []

    def fail(self, path, **options):
        if path.endswith("3.png"):
            tries.append(path)
            raise ConnectionResetError("connection reset")
        return read(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "cat_file", fail)
        assert run("memory://raw", tmp_path / "out")["rejected"] == {"unreadable": 2} and len(tries) == 3
    assert run("memory://raw", tmp_path / "out")["rejected"] == {"unreadable": 1}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://nothing", "memory://nothing: there is no such file, and no such folder with files. "),
        ("nothing://bucket", "nothing://bucket cannot be used (ValueError: Protocol not known: nothing). "),
        ("https://me:secret@127.0.0.1:9/raw/", "https://127.0.0.1:9/raw/ cannot be used ("),
        ("memory://raw/notes.txt", "memory://raw/notes.txt has no images ("),
        ("memory://raw.zip", "memory://raw.zip is a zip behind a URL. Download it, or give a folder of images."),
    ],
)
def test_bad_urls(memory, tmp_path, source, message):
    assert fault(run, source, tmp_path / "out").startswith(message)
    assert not (tmp_path / "out").exists()


def test_the_output_is_on_this_machine(memory, raw, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fault(run, raw, "memory://out").startswith("memory://out is a URL. Give a folder of this machine as out.")
    main = load_tool("prepare_data").main
    line = only_error(*run_main(main, capsys, raw, "memory://out", "--size", "32"))
    assert line.startswith("argument OUT: memory://out is a URL; give a path of this machine. See ")
    assert (
        run_main(main, capsys, "memory://raw", "file:///" + str(tmp_path / "out"), "--size", "32", "--workers", "1")[0]
        == 0
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


@needs_http
def test_a_web_server_that_lists_its_folders(raw, memory, tmp_path):
    with zipfile.ZipFile(raw / "more.zip", "w"), web_server(raw.parent) as url:
        report = run(f"{url}/raw/", tmp_path / "out")
        assert (report["images"], report["rejected"]) == (11, {"unreadable": 1})
        assert report["left out"] == [".hidden/b.png", "more.zip", "notes.txt"]
        run(raw, tmp_path / "local")
        assert content(tmp_path / "out") == content(tmp_path / "local")
        assert fault(run, f"{url}/none/", tmp_path / "no").startswith(f"{url}/none/")
    assert fault(run, f"{url}/raw/", tmp_path / "gone").startswith(f"{url}/raw/")


@needs_s3
def test_a_bucket(raw, memory, tmp_path, monkeypatch):
    with s3_bucket(tmp_path / "log") as (store, environment):
        store.put(str(raw), "bucket/raw", recursive=True)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert run("s3://bucket/raw", tmp_path / "out")["images"] == 11
        assert fault(run, "s3://another/raw", tmp_path / "no").startswith("s3://another/raw")
