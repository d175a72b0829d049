"""Models for engines are made in a process of their own, whatever becomes of it."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support.exports import KINDS

from glean_ext.errors import InputError, Notice
from glean_ext.inference import backend_choice, model_maker
from glean_ext.inference.backend import NetworkSource
from glean_ext.inference.image_restorer import ImageRestorer

pytest.importorskip("onnxruntime")
READ = "import pickle, sys; pickle.load(sys.stdin.buffer); "
SAY = """print('a line of a library\\n["notice", ["half done", null, "", 20]]', flush=True); """


@pytest.fixture
def source(home) -> NetworkSource:
    return NetworkSource(home / "light.py", home / "light.pth")


def start(monkeypatch, code: str) -> None:
    """Let the process run ``code``."""
    monkeypatch.setattr(model_maker, "START", "import sys; sys.path[:] = sys.argv[1:]; " + READ + code)


def make(source: NetworkSource, folder: Path, notify=lambda notice: None) -> None:
    model_maker.make_model(source, folder / "model.onnx", "onnxruntime", notify)


WRITES = """
from pathlib import Path
from glean_ext.inference import model_maker

def write(source, path, engine, notify):
    path.write_text(f"{source.generator()['type']} {source.checkpoint.name} {engine}")
    path.with_name("model.onnx.data").write_text("weights")
    print("of a library")
    notify(model_maker.Notice("written", "backend", "a hint", 30))
    if engine == "openvino":
        raise model_maker.InputError("{backend=openvino} is wrong.", ("backend", "dtype"), "Leave {backend} out.")

model_maker.write_model = write
model_maker.serve()
"""


def test_notices_files_and_errors_arrive(source, tmp_path, monkeypatch):
    monkeypatch.setattr(model_maker, "START", f"import sys; sys.path[:] = sys.argv[1:]; exec({WRITES!r})")
    notices: list[Notice] = []
    make(source, tmp_path, notices.append)
    assert (tmp_path / "model.onnx").read_text() == f"{KINDS['light']['type']} light.pth onnxruntime"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    first, last = notices
    assert first.message.startswith("making the model for onnxruntime")
    assert (last.message, last.parameter, last.hint, last.level) == ("written", "backend", "a hint", 30)
    with pytest.raises(InputError) as caught:
        model_maker.make_model(source, tmp_path / "other.onnx", "openvino", notices.append)
    assert str(caught.value) == "backend='openvino' is wrong. Leave backend out."
    assert not (tmp_path / "other.onnx").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "was killed, as happens when memory is short. Free ",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed (SIGSEGV). backend='torch' needs no such "),
        ("raise MemoryError('no room')", "failed (MemoryError: no room). backend='torch' needs no such model."),
        ("sys.exit(3)", "failed (exit code 3)."),
    ],
)
def test_a_process_that_fails_is_one_line(source, tmp_path, monkeypatch, code, message):
    start(monkeypatch, SAY + code)
    notices: list[str] = []
    with pytest.raises(InputError) as caught:
        make(source, tmp_path, lambda notice: notices.append(str(notice)))
    assert str(caught.value).startswith(f"The process that makes the model for onnxruntime {message}")
    assert notices[1:] == ["half done"] and not list(tmp_path.iterdir())


def test_a_python_that_is_not_there(source, tmp_path, monkeypatch):
    monkeypatch.setattr(model_maker, "get_executable", lambda: str(tmp_path / "python"))
    with pytest.raises(InputError, match=r"onnxruntime cannot be started \(.*No such file"):
        make(source, tmp_path)


def test_auto_falls_back_to_pytorch(home, tmp_path, monkeypatch):
    start(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(backend_choice, "choose", lambda source, options: "onnxruntime")
    lines: list[str] = []
    restorer = ImageRestorer(home / "light.py", home / "light.pth", notify=lambda it: lines.append(str(it)))
    assert not hasattr(restorer.network, "engine")
    assert lines[1:] == [
        "PyTorch runs the network instead of onnxruntime: The process that makes the model for onnxruntime was killed, "
        "as happens when memory is short."
    ]


def test_ctrl_c_ends_the_process(source, tmp_path, monkeypatch):
    start(monkeypatch, SAY + "import time; time.sleep(600)")
    others = set(psutil.Process().children())  # of earlier tests
    children: set[psutil.Process] = set()

    def interrupt(notice: Notice) -> None:
        if notice.message == "half done":
            children.update(set(psutil.Process().children()) - others)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(source, tmp_path, interrupt)
    assert children and not any(child.is_running() for child in children)
    assert not list(tmp_path.iterdir())


WAITS = """
import time
from glean_ext.inference import model_maker

def write(source, path, engine, notify):
    notify(model_maker.Notice("started"))
    time.sleep(600)

model_maker.write_model = write
model_maker.serve()
"""


def test_the_process_ends_with_its_caller(source, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WAITS], **pipes) as process:
        process.stdin.write(pickle.dumps((source, tmp_path / "model.onnx", "onnxruntime")))
        process.stdin.flush()
        assert b"started" in process.stdout.readline()
        process.send_signal(signal.SIGINT)  # the terminal's, which is for the caller
        time.sleep(0.2)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(60) == 1


SCRIPT = """
import sys
from glean_ext import ImageRestorer

restorer = ImageRestorer(sys.argv[1], sys.argv[2], backend="onnxruntime")
print(restorer.network.engine, "torch" in sys.modules)
"""


@pytest.mark.slow  # makes a model
def test_a_script_without_guard_makes_a_model_and_loads_no_pytorch(home, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (script := tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(script), str(home / "light.py"), str(home / "light.pth")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "onnxruntime False\n"), done.stderr
    assert len(list((tmp_path / "hub").rglob("*.onnx"))) == 1
