"""glean_ext.utils.downloads against a local HTTP server: files by URL, whole, with the right hash, each its own."""

from __future__ import annotations

import base64
import hashlib
import http.server
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoint_files import ROOT, assert_same, fault, pretrained, tiny

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.utils import downloads, http_transfer
from glean_ext.utils.downloads import cached_name, download, expected_hash, without_secrets
from glean_ext.utils.http_transfer import make_request
from glean_ext.utils.weight_files import local_path

pytest_plugins = ["support.checkpoint_files"]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``, by path with query, and some answers that go wrong."""

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        content = self.server.files.get(self.path)  # type: ignore[attr-defined]
        if self.path == "/nonsense.pth":
            self.wfile.write(b"nonsense\r\n\r\n")
        elif self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        elif content is None:
            self.send_error(404)
        elif self.path.startswith("/breaks/") and self.headers.get("Range"):
            first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[first:])
        elif self.path.startswith(("/breaks/", "/restarts/")) and len(self.server.requests) == 1:  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) * 3 // 4])
        else:
            self.send_response(200)
            missing = 10 if self.path.startswith("/cut/") else 0  # bytes that are announced but not sent
            self.send_header("Content-Length", str(len(content) + missing))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    files: dict[str, bytes]
    requests: list[tuple[str, str | None]]

    def url(self, path: str, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}{path}"

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.files, server.requests = {}, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_wait(monkeypatch) -> None:
    monkeypatch.setattr(http_transfer, "SECONDS_BEFORE_RETRY", 0.0)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Where :mod:`glean_ext.checkpoints` keeps downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home/hub/checkpoints/glean-ext"


def files_in(folder: Path) -> list[Path]:
    """Without the files by which processes wait for each other, and those that name what was downloaded."""
    found = folder.iterdir() if folder.exists() else ()
    return [path for path in found if path.suffix not in (".lock", ".sha256")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def not_downloaded(url: str, reason: str, cache: Path, shown: str = "") -> str:
    return (
        f"{shown or url} could not be downloaded ({reason}). Download it elsewhere and give the path of the file, or "
        f"save it as {cache / cached_name(url)}."
    )


# ---------------------------------------------------------------- hashes


def test_url_is_downloaded_once_and_its_hash_checked(server, cache, bank, bank_file):
    content = bank_file.read_bytes()
    name = f"bank_20210327-{sha256(content)[:8]}.pth"
    server.files[f"/{name}"] = content
    for _ in range(2):
        net = tiny(init_cfg=pretrained(server.url(f"/{name}"), "generator"))
        net.init_weights()
        assert_same(net.generator.state_dict(), bank.state_dict())
    assert server.paths == [f"/{name}"]
    (path,) = files_in(cache)
    assert path.name.endswith(f"-{name}") and path.read_bytes() == content


@pytest.mark.parametrize("name", ["bank-01234567.pth", f"bank-{'0' * 64}.pth", f"bank.pth#sha256={'0' * 64}"])
def test_url_with_another_hash_is_refused_and_not_kept(server, cache, bank_file, name):
    content, source = bank_file.read_bytes(), server.url(f"/{name}")
    server.files["/" + name.partition("#")[0]] = content
    digits = "01234567" if "0123" in name else "0" * 64
    for _ in range(2):
        assert fault(checkpoints.read, source) == not_downloaded(
            source.partition("#")[0], f'invalid hash value (expected "{digits}", got "{sha256(content)}")', cache
        )
    assert files_in(cache) == []
    assert len(server.paths) == 2


@pytest.mark.parametrize(
    "name", ["bank-{0:.8}.pth", "bank-{0}.pth", "bank.pth#sha256={0}", "b-{0:.8}.pth?download=1", "bank.pth"]
)
def test_a_cached_file_that_was_damaged_is_downloaded_again(server, tmp_path, name, caplog):
    content = b"weights"
    url = server.url("/" + name.format(sha256(content)))
    server.files["/" + name.format(sha256(content)).partition("#")[0]] = content
    path = download(url, tmp_path)
    path.write_bytes(b"wEights" if ":.8" in name else b"weigh")
    assert download(url, tmp_path) == path and path.read_bytes() == content
    digits = sha256(content)[:8] if ":.8" in name else sha256(content)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path} is damaged: its SHA-256 does not begin with {digits}. It is downloaded again."
    ]
    assert len(server.paths) == 2


def test_a_cached_file_that_changes_at_its_source_and_one_of_an_earlier_version(server, tmp_path):
    url, server.files["/bank.pth"] = server.url("/bank.pth"), b"old"
    path = download(url, tmp_path)
    server.files["/bank.pth"] = b"new"
    assert download(url, tmp_path).read_bytes() == b"old"
    path.write_bytes(b"ol")
    assert download(url, tmp_path).read_bytes() == b"new"
    for digest in tmp_path.glob(".*.sha256"):
        digest.unlink()
    assert download(url, tmp_path).read_bytes() == b"new" and len(server.paths) == 2


def test_a_damaged_file_is_not_used_when_there_is_no_other(server, tmp_path):
    content = b"weights"
    url = server.url(f"/bank-{sha256(content)[:8]}.pth")
    server.files["/" + url.rpartition("/")[2]] = content
    download(url, tmp_path).write_bytes(b"wEights")
    server.files.clear()
    assert fault(download, url, tmp_path) == not_downloaded(url, "HTTP Error 404: Not Found", tmp_path)


@pytest.mark.parametrize(
    ("url", "digits"),
    [
        ("https://x.org/a-8cfe053c.pth", "8cfe053c"),
        ("https://x.org/a-8cfe053c.pth?download=true", "8cfe053c"),
        ("https://x.org/a-8cfe053c.pth?name=b-01234567.pth", "8cfe053c"),
        (f"https://x.org/a-8cfe053c.pth#sha256={'a' * 64}", "a" * 64),
        (f"https://x.org/a-{'b' * 64}.safetensors", "b" * 64),
        ("https://x.org/a-8CFE053C.pth", ""),
        ("https://x.org/a-8cfe053.pth", ""),
        ("https://x.org/a-config-f.pth", ""),
        ("https://x.org/a-20210327.pth", ""),  # a date
        ("https://x.org/8cfe053c.pth", ""),
        ("https://x.org/a-8cfe053c/model.pth", ""),
    ],
)
def test_the_hash_that_a_url_promises(url, digits):
    assert expected_hash(url) == digits


@pytest.mark.parametrize("name", ["bank.pth", "bank-0123456.pth", "bank-config-f.pth", "bank-20210327.pth"])
def test_url_without_a_hash_in_its_name(server, cache, bank_file, name):
    server.files[f"/{name}"] = bank_file.read_bytes()
    assert_same(checkpoints.read(server.url(f"/{name}")), checkpoints.read(bank_file))


# ---------------------------------------------------------------- the cache


def test_a_hash_in_capitals_is_checked_and_another_one_is_refused(tmp_path):
    assert expected_hash(f"https://a.org/m.pth#SHA256={'AB' * 32}") == "ab" * 32
    for wrong in "sha256=abc", "sha256=", f"sha256={'g' * 64}", f"sha256={'a' * 65}":
        with pytest.raises(InputError) as error:
            download(f"http://127.0.0.1:1/m.pth#{wrong}", tmp_path)
        assert str(error.value) == not_downloaded(
            "http://127.0.0.1:1/m.pth", f"#{wrong} is not sha256= and 64 hexadecimal digits", tmp_path
        )


def test_urls_with_spaces_and_other_letters_are_quoted():
    assert make_request("http://a.org/é ü/m%20x.pth?a=b c#sha256=0").full_url == (
        "http://a.org/%C3%A9%20%C3%BC/m%20x.pth?a=b%20c"
    )


def test_urls_with_the_same_last_part_are_different_files(server, cache, tmp_path):
    names = [
        "/a/model.safetensors", "/b/model.safetensors", "/b/model.safetensors?v=1", "/b/model.safetensors?v=2",
        "/a%2Fmodel.safetensors", "/download?file=model.safetensors", "/download?file=other.safetensors",
    ]  # fmt: skip
    for number, name in enumerate(names):
        save_file({"weight": torch.tensor([float(number)])}, tmp_path / "x")
        server.files[name] = (tmp_path / "x").read_bytes()
    for _ in range(2):
        read = [checkpoints.read(server.url(name))["weight"].item() for name in names]
        assert read == list(range(len(names)))
    assert server.paths == names  # each once
    with pytest.raises(checkpoints.InputError, match=r"/c/model\.safetensors could not be downloaded \(HTTP Error 404"):
        checkpoints.read(server.url("/c/model.safetensors"))


def test_another_host_or_port_is_another_file(server, tmp_path):
    server.files["/model.pth"] = b"one"
    other = Server(("127.0.0.1", 0), Handler)
    other.files, other.requests = {"/model.pth": b"two"}, []
    thread = threading.Thread(target=other.serve_forever, args=(0.01,))
    thread.start()
    try:
        paths = [download(which.url("/model.pth"), tmp_path) for which in (server, other)]
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    assert [path.read_bytes() for path in paths] == [b"one", b"two"]


def test_a_cached_file_needs_no_server(server, cache):
    server.files["/bank.pth"] = b"weights"
    path = local_path(server.url("/bank.pth"))
    server.files.clear()
    assert local_path(server.url("/bank.pth")) == path
    assert path.parent == cache


@pytest.mark.parametrize("name", ["x" * 300 + ".safetensors", "ä ö.safetensors", "..", "a:b*c.safetensors", ""])
def test_names_that_no_file_system_takes(name):
    cached = cached_name(f"https://x.org/{name}?x=/y")
    assert len(cached.encode()) < 200 and "/" not in cached and ":" not in cached
    assert cached.endswith(name[-12:]) or name == "ä ö.safetensors"


def test_two_processes_at_once_get_one_whole_file(server, tmp_path):
    content = bytes(range(256)) * 20_000
    server.files["/big.pth"] = content
    code = "import sys; from pathlib import Path; from glean_ext.utils.downloads import download\n"
    code += "print(download(sys.argv[1], Path(sys.argv[2])))"
    start = [sys.executable, "-c", code, server.url("/big.pth"), str(tmp_path / "cache")]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    processes = [subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {process.communicate(timeout=100)[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    (path,) = paths
    assert files_in(tmp_path / "cache") == [Path(path)]
    assert Path(path).read_bytes() == content
    assert server.paths == ["/big.pth"]  # the others waited for the first


# ---------------------------------------------------------------- what goes wrong


def test_url_that_gives_nothing(server, cache):
    missing = server.url("/no.pth")
    assert fault(checkpoints.read, missing) == not_downloaded(missing, "HTTP Error 404: Not Found", cache)
    for source in server.url("/nonsense.pth"), "http://127.0.0.1:9/x.pth", "http://[x/x.pth", "http://", "https://?":
        message = fault(checkpoints.read, source)
        assert message.startswith(f"{source} could not be downloaded (") and "give the path of the file" in message
    assert files_in(cache) == []


def test_a_failed_download_leaves_the_file_of_another_url(server, tmp_path):
    server.files["/a/bank.pth"] = b"weights"
    path = download(server.url("/a/bank.pth"), tmp_path)
    fault(download, server.url("/b/bank.pth"), tmp_path)
    assert files_in(tmp_path) == [path] and path.read_bytes() == b"weights"


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    message = fault(download, server.url("/bank.pth"), tmp_path / "file/cache")
    assert message == (
        f"{server.url('/bank.pth')} cannot be kept in {tmp_path}/file/cache (Not a directory). Free space there, or "
        "set TORCH_HOME to another folder."
    )
    assert server.paths == []


def test_a_redirect_is_followed(server, tmp_path):
    server.files["/bank.pth"] = b"weights"
    path = download(server.url("/moved/bank.pth", "me:secret@"), tmp_path)
    assert path.read_bytes() == b"weights"
    # The password is for the host of the URL, and not for where it redirects to.
    assert [bool(authorization) for _, authorization in server.requests] == [True, False]


def test_user_and_password_reach_the_server_but_no_message(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.files["/bank.pth?token=hidden"] = b"weights"
    url = server.url("/bank.pth?token=hidden", "me%40x:secret@")
    path = download(url, tmp_path)
    expected = base64.b64encode(b"me@x:secret").decode()
    assert server.requests == [("/bank.pth?token=hidden", f"Basic {expected}")]
    server.files.clear()
    path.unlink()
    texts = [caplog.text, fault(download, url, tmp_path), str(path)]
    assert f"http://127.0.0.1:{server.server_port}/bank.pth?token=..." in texts[0]
    assert texts[1] == not_downloaded(
        url, "HTTP Error 404: Not Found", tmp_path, shown=server.url("/bank.pth?token=...")
    )
    assert not any(word in text for text in texts for word in ("secret", "me%40x", "hidden"))


def test_no_error_about_the_content_has_the_password(server, cache, bank_file):
    server.files["/bank.pth"] = bank_file.read_bytes()
    server.files["/empty.pth"] = b""
    for path, prefix in (("/bank.pth", "no"), ("/bank.pth", None), ("/empty.pth", "g"), ("/no.pth", "g")):
        url = server.url(path, "me:secret@")
        message = fault(tiny(init_cfg=pretrained(url, prefix)).init_weights)
        assert "secret" not in message
        assert "secret" not in fault(checkpoints.load_network_weights, tiny(), url)
        assert "secret" not in fault(checkpoints.load_pretrained, tiny(), pretrained(url, prefix, typo=1))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://x.org/a.pth", "https://x.org/a.pth"),
        ("https://u:p@x.org:8/a@b.pth", "https://x.org:8/a@b.pth"),
        ("https://u@x.org", "https://x.org"),
        ("HTTPS://u:p@x.org/a?x=1&y", "HTTPS://x.org/a?x=...&y"),
        ("work/iter_1.pth", "work/iter_1.pth"),
        ("a@b.pth?c=d", "a@b.pth?c=d"),
    ],
)
def test_urls_in_messages(url, text):
    assert without_secrets(url) == text


# ---------------------------------------------------------------- interruptions and progress


@pytest.mark.parametrize("how", ["breaks", "restarts"])
def test_a_connection_that_ends_early_is_continued(server, tmp_path, how):
    """With Range where the server knows it, else from the start."""
    content = bytes(range(256)) * 8192
    name = f"/{how}/bank-{sha256(content)[:8]}.pth"
    server.files[name] = content
    calls = []
    downloads.show_progress.set(lambda *call: calls.append(call))
    try:
        path = download(server.url(name), tmp_path)
    finally:
        downloads.show_progress.set(None)
    assert path.read_bytes() == content and len(server.paths) == 2
    assert {(file, total) for file, _, total in calls} == {(name.rpartition("/")[2], len(content))}
    done = [done for _, done, _ in calls]
    assert done[-1] == len(content) and (sorted(done) == done) == (how == "breaks")


def test_three_attempts_are_made(server, tmp_path):
    server.files["/cut/a.pth"] = b"weights"
    assert fault(download, server.url("/cut/a.pth"), tmp_path) == not_downloaded(
        server.url("/cut/a.pth"), "the connection ended after 7 of 17 bytes", tmp_path
    )
    assert len(server.paths) == http_transfer.ATTEMPTS and files_in(tmp_path) == []


def test_progress_in_a_log_is_a_line_at_times(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(downloads.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO, "glean_ext.utils.downloads")
    show = downloads.ProgressLog()
    for now[0], done in (5, 10_000_000), (20, 40_000_000), (30, 50_000_000), (40, 80_000_000):
        show("a.pth", done, 160_000_000)
    assert [record.getMessage() for record in caplog.records] == [
        "a.pth: 40/160 MB, 60 s left",
        "a.pth: 80/160 MB, 40 s left",
    ]
    now[0] = 60
    show("b.pth", 3_000_000, None)
    assert caplog.records[-1].getMessage() == "b.pth: 3 MB"
