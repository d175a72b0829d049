"""Interrupted downloads, against a local HTTP server: continued by a later process, checked, and cleaned up."""

from __future__ import annotations

import errno
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoint_files import ROOT, fault

from glean_ext.utils import http_transfer
from glean_ext.utils.downloads import DAYS_KEPT, cached_name, download

CONTENT = bytes(range(256)) * 1024  # 256 KiB
DIGITS = hashlib.sha256(CONTENT).hexdigest()[:8]
HALF = len(CONTENT) // 2


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.content`` with ranges; the first answers are cut after ``server.cuts`` bytes each."""

    def do_GET(self) -> None:
        server, content = self.server, self.server.content  # type: ignore[attr-defined]
        wanted, version = self.headers.get("Range"), self.headers.get("If-Range")
        server.requests.append((self.path, wanted, version))
        if server.faults:
            return self.send_error(server.faults.pop(0))
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and version in (None, server.etag) else 0
        if first >= len(content):
            return self.send_error(416)
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(content[first : first + server.cuts.pop(0)] if server.cuts else content[first:])
        if server.stall:
            self.wfile.flush()
            server.stall.wait(10)

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    content, etag = CONTENT, '"one"'
    stall: threading.Event | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, str | None]] = []
        self.cuts: list[int] = []
        self.faults: list[int] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(http_transfer, "SECONDS_BEFORE_RETRY", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def partial_files(url: str, cache: Path) -> tuple[Path, Path]:
    partial = cache / f".{cached_name(url)}.partial"
    return partial, partial.with_name(f"{partial.name}.json")


def interrupted(server: Server, url: str, cache: Path) -> None:
    """Half a download: the server ends every answer after the first one at once."""
    server.cuts = [HALF, 0, 0]
    fault(download, url, cache)
    partial, _ = partial_files(url, cache)
    assert partial.stat().st_size == HALF
    server.requests.clear()


@pytest.mark.parametrize("name", ["bank.pth", f"bank-{DIGITS}.pth"])
def test_a_later_run_receives_only_what_is_missing(server, tmp_path, name):
    url = server.url(name)
    interrupted(server, url, tmp_path)
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.requests == [(f"/{name}", f"bytes={HALF}-", '"one"')]
    assert not any(path.exists() for path in partial_files(url, tmp_path))


def test_a_file_that_changed_on_the_server_is_received_from_its_start(server, tmp_path):
    url = server.url("bank.pth")
    interrupted(server, url, tmp_path)
    server.content, server.etag = CONTENT[::-1], '"two"'
    assert download(url, tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_version_only_a_file_with_a_hash_is_continued(server, tmp_path, etag):
    server.etag = etag
    checked, unchecked = server.url(f"bank-{DIGITS}.pth"), server.url("bank.pth")
    interrupted(server, checked, tmp_path)
    assert download(checked, tmp_path).read_bytes() == CONTENT
    assert server.requests == [(f"/bank-{DIGITS}.pth", f"bytes={HALF}-", None)]
    server.cuts = [HALF, 0, 0]
    fault(download, unchecked, tmp_path)
    assert not any(path.exists() for path in partial_files(unchecked, tmp_path))


def test_a_part_that_was_damaged_is_received_again(server, tmp_path):
    url = server.url(f"bank-{DIGITS}.pth")
    interrupted(server, url, tmp_path)
    partial, _ = partial_files(url, tmp_path)
    partial.write_bytes(b"x" * HALF)
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.requests] == [f"bytes={HALF}-", None]


def test_a_shorter_file_on_the_server_is_received_from_its_start(server, tmp_path):
    server.etag = None
    short = CONTENT[: HALF // 2]
    url = server.url(f"bank-{hashlib.sha256(short).hexdigest()[:8]}.pth")
    interrupted(server, url, tmp_path)
    server.content = short
    assert download(url, tmp_path).read_bytes() == short
    assert [wanted for _, wanted, _ in server.requests] == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("facts", ["", "[]", "{}", '{"other": 1}', json.dumps({"validator": None, "length": 3})])
def test_a_part_of_which_nothing_is_known_is_replaced(server, tmp_path, facts):
    url = server.url("bank.pth")
    partial, described = partial_files(url, tmp_path)
    partial.write_bytes(b"half")
    described.write_text(facts)
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/bank.pth", None, None)]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, tmp_path):
    server.faults = [503, 429]
    assert download(server.url("bank.pth"), tmp_path).read_bytes() == CONTENT
    server.faults = [503, 503, 503]
    assert "(HTTP Error 503" in fault(download, server.url("a.pth"), tmp_path)
    server.faults, server.requests = [403], []
    assert "(HTTP Error 403" in fault(download, server.url("a.pth"), tmp_path)
    assert len(server.requests) == 1


def test_more_failures_than_attempts_are_survived_while_bytes_arrive(server, tmp_path):
    server.cuts = [50_000] * 5
    assert download(server.url("bank.pth"), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 6


def test_a_server_that_stalls_is_left_and_its_part_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr(http_transfer, "TIMEOUT", 0.1)
    server.stall, server.cuts = threading.Event(), [HALF, 0, 0]
    url = server.url("bank.pth")
    assert "timed out" in fault(download, url, tmp_path)
    server.stall.set()
    server.stall = None
    assert download(url, tmp_path).read_bytes() == CONTENT


def test_a_killed_process_is_continued(server, tmp_path):
    server.stall, server.cuts = threading.Event(), [HALF]
    url = server.url(f"bank-{DIGITS}.pth")
    code = "import sys; from pathlib import Path; from glean_ext.utils.downloads import download\n"
    code += "download(sys.argv[1], Path(sys.argv[2]))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    process = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path)], env=environment)
    partial, _ = partial_files(url, tmp_path)
    end = time.monotonic() + 100
    while not (partial.exists() and partial.stat().st_size == HALF):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.stall.set()
    server.stall = None
    server.requests.clear()
    assert download(url, tmp_path).read_bytes() == CONTENT
    assert server.requests == [(f"/bank-{DIGITS}.pth", f"bytes={HALF}-", '"one"')]


def test_leftovers_of_other_downloads_are_removed_after_days(server, tmp_path):
    names = [".0-old.pth.partial", ".0-old.pth.partial.json", ".1-new.pth.partial", "2-kept.pth"]
    for name in names:
        (tmp_path / name).touch()
    days = time.time() - (DAYS_KEPT + 1) * 24 * 3600
    for name in names[0], names[1], names[3]:
        os.utime(tmp_path / name, (days, days))
    download(server.url("bank.pth"), tmp_path)
    assert [name for name in names if (tmp_path / name).exists()] == names[2:]


def test_a_disk_without_space_is_found_before_anything_is_received(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 100_000))
    url = server.url("bank.pth")
    message = fault(download, url, tmp_path)
    assert message.startswith(f"{url} cannot be kept in {tmp_path} (it takes 0 MB, but 0 MB are free). Free space")
    assert not any(path.exists() for path in partial_files(url, tmp_path))


def test_what_is_there_already_needs_no_space(server, tmp_path, monkeypatch):
    interrupted(server, server.url("bank.pth"), tmp_path)
    missing = len(CONTENT) - HALF
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, missing))
    assert download(server.url("bank.pth"), tmp_path).read_bytes() == CONTENT


def test_a_disk_that_becomes_full_keeps_nothing(server, tmp_path):
    """A limit of the size of files stands for the disk."""
    url = server.url("bank.pth")
    code = "import resource, sys; from pathlib import Path; from glean_ext.utils.downloads import download\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({HALF}, {HALF})); download(sys.argv[1], Path(sys.argv[2]))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    reason = os.strerror(errno.EFBIG)
    assert f"{url} cannot be kept in {tmp_path} ({reason}). Free space there" in done.stderr.splitlines()[-1]
    assert not any(path.exists() for path in partial_files(url, tmp_path))


def test_a_read_only_cache_is_used_for_what_it_has(server, tmp_path, monkeypatch):
    url = server.url(f"bank-{DIGITS}.pth")
    path = download(url, tmp_path)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(os, "open", refuse)
    assert download(url, tmp_path) == path
    message = fault(download, server.url("other.pth"), tmp_path)
    assert f"cannot be kept in {tmp_path} (Read-only file system). Free space there, or set TORCH_HOME" in message


def test_the_proxy_of_the_environment_is_asked(server, tmp_path):
    code = "import sys; from pathlib import Path; from glean_ext.utils.downloads import download\n"
    code += "print(download(sys.argv[1], Path(sys.argv[2])))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "http_proxy": server.url("")}
    url = "http://weights.invalid/bank.pth"
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()).read_bytes() == CONTENT, done.stderr
    assert [path for path, _, _ in server.requests] == [url]


def test_who_waits_for_another_process_says_so(server, tmp_path, caplog):
    server.stall, server.cuts = threading.Event(), [HALF]
    url = server.url("bank.pth")
    first = threading.Thread(target=download, args=(url, tmp_path))
    first.start()
    end = time.monotonic() + 60
    while not server.requests:
        assert time.monotonic() < end
        time.sleep(0.01)
    second = threading.Thread(target=download, args=(url, tmp_path))
    second.start()
    while f"another process downloads {url}; this one waits for it" not in caplog.messages:
        assert time.monotonic() < end
        time.sleep(0.01)
    server.stall.set()
    first.join()
    second.join()
    assert [wanted for _, wanted, _ in server.requests] == [None, f"bytes={HALF}-"]
