"""The process that serves the page: its arguments, its address, its start and its end."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

import pytest
from support.web_server import FACE, MODELS, Site, encode, noise

from glean_ext import cli
from glean_ext.cli.base import as_option
from glean_ext.cli.web import main
from glean_ext.errors import InputError
from glean_ext.web.model_specs import SHIPPED, ModelSpec, offered, parse_model
from glean_ext.web.request_guard import allowed_names, is_loopback
from glean_ext.web.server import address, end_cleanly_on_signals, listen, max_connections, results_folder, write_line
from glean_ext.zoo import find_model


def test_models_to_offer():
    spec = parse_model(" Faces = configs/a.py , https://host/a.pth?x=1 ")
    assert spec == ModelSpec("Faces", "configs/a.py", "https://host/a.pth?x=1")
    assert offered(["Faces=a.py,a.pth"]) == [ModelSpec("Faces", "a.py", "a.pth"), *SHIPPED]
    card = find_model("glean_x8_cat")
    cats = ModelSpec(card.name, card.config, card.weights, "For small, clean photographs of cats.")
    assert offered(["glean_x8_2xb8_cat"]) == [cats, *SHIPPED]
    with pytest.raises(InputError, match="no model is called 'glean_x8_cut'"):
        parse_model("glean_x8_cut")
    with pytest.raises(InputError, match="it restores no images"):
        parse_model("demo_bank")
    for bad in ("Faces=a.py", "=a.py,a.pth", "Faces=,a.pth", "Faces=a.py,"):
        with pytest.raises(InputError, match=rf"^model {bad}: it must be the name of a model, or read NAME=CONFIG"):
            parse_model(bad)
    with pytest.raises(InputError, match=r"^model: the name Demo GLEAN is taken\. Give each model a name of its own"):
        offered(["Demo GLEAN=a.py,a.pth"])


def test_ports_that_are_taken_are_reported(site):
    with pytest.raises(
        InputError, match=rf"^127.0.0.1:{site.port} cannot be listened on \(Address already in use\)\. G"
    ):
        listen("127.0.0.1", site.port)
    with pytest.raises(InputError, match=r"^port 99999: ports go from 0 to 65535\."):
        listen("127.0.0.1", 99999)
    with pytest.raises(InputError, match=r"^192.0.2.1:0 cannot be listened on \("):
        listen("192.0.2.1", 0)


def test_own_names_are_known_only_when_others_can_ask():
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "::1", "0.0.0.0", "box")] == [True] * 3 + [
        False
    ] * 2
    assert allowed_names("127.0.0.1") == {"localhost", "127.0.0.1"}
    assert allowed_names("0.0.0.0") >= {"localhost", socket.gethostname().lower()}


def tool(*arguments: str, **options) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "tools/web.py", *arguments], **pipes, **options)


SLOW_SIGHUP, SLOW_SIGINT = (pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGHUP, signal.SIGINT))


@pytest.mark.parametrize("end", [signal.SIGTERM, SLOW_SIGHUP, SLOW_SIGINT])
def test_the_tool_serves_and_leaves_nothing(tmp_path, end):
    mine = "Mine=configs/demo_glean_x8.py,glean-ext://demo_glean_x8.safetensors"
    everyone = ["--host", "0.0.0.0"] if end == signal.SIGTERM else []
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = tool("--port", "0", "--model", mine, *everyone, env=environment)
    try:
        line = process.stdout.readline()
        port = int(re.fullmatch(r"Open http://[\w.]+:(\d+) in a browser\. Ctrl-C ends\.\n", line)[1])
        (root,) = tmp_path.glob("glean-web-*")
        assert root.stat().st_mode & 0o077 == 0
        site = Site(port, root)
        assert [model["name"] for model in site.get("/api/options").json["models"]] == ["Mine", *MODELS]
        assert site.wait(site.submit(FACE, model="Mine"))["state"] == "done"
        slow = site.submit(encode(noise(40, 40)), model="Demo LightGLEAN")
        site.wait(slow, "running")
        process.send_signal(end)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == (0 if end == signal.SIGINT else 128 + signal.SIGTERM)
    assert errors == (
        "warning: everyone who can reach this machine can use the page, or keep others from it: it has no password. "
        "On the internet it belongs behind a reverse proxy.\n"
        if everyone
        else ""
    )
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_asked_for(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        cli.run(lambda: main([]))
    assert capsys.readouterr().err == "error: uvicorn is not installed. pip install 'glean-ext[web]'\n"


def test_bad_arguments_are_reported():
    process = tool("--model", "x=1")
    output, error = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, "")
    assert error == (
        "error: --model x=1: it must be the name of a model, or read NAME=CONFIG,CHECKPOINT, say "
        "Faces=configs/a.py,a.pth.\n"
    )


# --- the environment ---


def test_a_name_is_listened_on_at_the_first_address_that_works(monkeypatch):
    """Of localhost the first one is often IPv6's, which may be off."""
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    create = socket.create_server

    def without_ipv6(where, family, **options):
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(where, family=family, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with listen("localhost", 0) as listener:
        assert address(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
    with pytest.raises(InputError) as caught:
        listen("::1", 0)
    assert caught.value.render(as_option) == (
        "::1:0 cannot be listened on (Cannot assign requested address). Give another --port, or --host 127.0.0.1."
    )


def test_addresses_of_ipv6_are_put_in_brackets():
    if not socket.has_ipv6:
        pytest.skip("Python has no IPv6")
    try:
        listener = listen("::1", 0)
    except InputError:
        pytest.skip("This machine has no IPv6")
    with listener:
        assert address(listener) == f"http://[::1]:{listener.getsockname()[1]}"


def test_folders_of_killed_servers_are_removed_and_no_others(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("glean-web-killed", "glean-web-foreign", "other"):
        (tmp_path / name / "job").mkdir(parents=True)
        (tmp_path / name / "job" / "result.png").touch()
    (tmp_path / "glean-web-killed" / "lock").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / "glean-web-link").symlink_to(tmp_path / "elsewhere")
    if os.getuid() == 0:  # root could remove other users' folders
        (tmp_path / "glean-web-foreign" / "lock").touch()
        os.chown(tmp_path / "glean-web-foreign", 12345, 12345)
    with results_folder() as first, results_folder() as second:
        assert first != second and first.is_dir()
        assert first.stat().st_mode & 0o077 == 0
        names = {path.name for path in tmp_path.iterdir()}
    assert names == {first.name, second.name, "glean-web-foreign", "glean-web-link", "elsewhere", "other"}
    assert not first.exists() and not second.exists() and (tmp_path / "elsewhere" / "lock").exists()


@pytest.mark.parametrize("where", ["missing", "file"])
def test_an_unusable_temporary_folder_is_reported(monkeypatch, tmp_path, where):
    (tmp_path / "file").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / where))
    with pytest.raises(InputError) as caught, results_folder():
        pass
    reason = "No such file or directory" if where == "missing" else "Not a directory"
    assert str(caught.value) == f"The temporary folder cannot be written to ({reason}). Set TMPDIR to another one."


def test_a_full_temporary_folder_fails_the_job_and_not_the_server(site_with, monkeypatch):
    site = site_with()
    with monkeypatch.context() as patch:
        full = OSError(errno.ENOSPC, "No space left on device")
        patch.setattr("PIL.Image.Image.save", lambda *_, **__: (_ for _ in ()).throw(full))
        status = site.wait(site.submit(FACE, name="me.png"))
    assert status["error"] == "me.png: the server could not keep the result (No space left on device)."
    assert site.files() == []
    assert site.wait(site.submit(FACE))["state"] == "done"


@pytest.mark.parametrize(("files", "connections"), [(1024, 256), (-1, 256), (576, 256), (574, 255), (256, 96), (10, 2)])
def test_connections_fit_into_the_open_files(monkeypatch, files, connections):
    monkeypatch.setattr("resource.getrlimit", lambda _: (files, files))
    assert max_connections() == connections


def test_nohup_is_respected():
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        end_cleanly_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGTERM)
        assert ended.value.code == 128 + signal.SIGTERM
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        end_cleanly_on_signals()
        with pytest.raises(SystemExit):
            signal.raise_signal(signal.SIGHUP)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_lines_are_written_only_where_a_terminal_is(monkeypatch, capsys):
    write_line("out")
    write_line("error", to_stderr=True)
    assert tuple(capsys.readouterr()) == ("out\n", "error\n")
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    write_line("nobody reads this")
    write_line("nor this", to_stderr=True)
