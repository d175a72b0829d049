"""Makes models for engines, each in a process of its own.

Making one takes several times the memory of the network's weights. A process that ends gives all of it back; and where
memory is short, the system ends that process and not the caller's.

The caller sends what is to be made as a pickle to the stdin of the process, which then stays open: its end says that
the caller has ended. The process answers with lines of JSON, a kind and the arguments of what it stands for.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.spawn import get_executable  # what programs that embed Python have set, too
from pathlib import Path
from typing import IO, Any

from glean_ext.errors import InputError, Notice, first_line
from glean_ext.inference.backend import NetworkSource
from glean_ext.inference.engines import EXTRAS, OPTIMIZED, optimize_model
from glean_ext.utils.files import temporary_folder_beside
from glean_ext.utils.optional_packages import import_optional

MAKERS = ("onnx", "onnxscript")  # packages that write ONNX
# Modules are found where the caller finds them, and nothing of its main script is run.
START = "import sys; sys.path[:] = sys.argv[1:]; from glean_ext.inference.model_maker import serve; serve()"
NOTICE, ERROR = "notice", "error"
HINT = "{backend=torch} needs no such model."
KILLED = -9  # what ended by SIGKILL returns
MESSAGE = 500  # characters of an unexpected error
SCORE = Path("/proc/self/oom_score_adj")  # of Linux; 1000: to be ended first

logger = logging.getLogger(__name__)


def make_model(source: NetworkSource, path: Path, engine: str, notify: Callable[[Notice], None]) -> None:
    """Write the network as the ONNX model that an engine runs, in another process, which ends with this one.

    Args:
        source: The network.
        path: The file; weights that do not fit into it come beside it. Nothing stays there where it fails.
        engine: Of :data:`~glean_ext.inference.engines.ENGINES`. A model whose name ends with
            :data:`~glean_ext.inference.engines.OPTIMIZED` is for onnxruntime on this machine.
        notify: Gets a notice before each step.

    Raises:
        InputError: The network cannot be used, a package is missing, the results differ from the network's, the file
            cannot be written, or the process failed, as for want of memory.
    """
    notify(Notice(f"making the model for {engine}, which takes a minute or more; later runs find it in a cache"))
    local = NetworkSource({"model": {"generator": source.generator()}}, source.weights)
    with temporary_folder_beside(path) as folder:
        _run(pickle.dumps((local, folder / path.name, engine)), engine, notify)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):  # the model after its weights
            file.replace(path.with_name(file.name))


def _run(order: bytes, engine: str, notify: Callable[[Notice], None]) -> None:
    """Start a process with an order, pass its notices on, and raise its error."""
    with tempfile.TemporaryFile() as errors, _started(engine, errors) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(OSError):  # it has failed already
                os.write(process.stdin.fileno(), order)
            error = _listen(process.stdout, notify)
        except BaseException:  # Ctrl-C, too
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    logger.debug("the process that made the model for %s wrote: %s", engine, said)
    if error is not None:
        raise error
    if code:
        hint = f"Free some memory. {HINT}" if code == KILLED else HINT
        raise InputError(f"The process that makes the model for {engine} {_end(code, said)}.", "backend", hint)


def _started(engine: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        command = [os.fsdecode(get_executable()), "-c", START, *sys.path]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    except (OSError, TypeError) as error:  # too little memory; Python is embedded, and nobody has said where it is
        reason = first_line(error)
        raise InputError(
            f"The process that makes the model for {engine} cannot be started ({reason}).", "backend", HINT
        ) from error


def _listen(answers: IO[bytes], notify: Callable[[Notice], None]) -> InputError | None:
    """Pass notices on until the process closes its end; the error that it gave."""
    error = None
    for line in answers:
        kind: str | None = None
        arguments: list[Any] = []
        with suppress(ValueError, TypeError):  # something that is loaded at its start writes lines, too
            kind, arguments = json.loads(line)
        if kind == NOTICE:
            notify(Notice(*arguments))
        elif kind == ERROR:
            error = InputError(*arguments)
    return error


def _end(code: int, said: str) -> str:
    """How a process has ended, as part of a sentence."""
    if code == KILLED:
        return "was killed, as happens when memory is short"
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    return f"failed ({(said.splitlines() or [how])[-1][:MESSAGE].rstrip('.')})"


def serve() -> None:
    """The process: makes what stdin says."""
    with suppress(OSError):
        SCORE.write_text("1000")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the caller as well, which ends this process
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries write is no answer

    def say(kind: str, *arguments: object) -> None:
        answers.write(json.dumps([kind, arguments]) + "\n")
        answers.flush()

    source, path, engine = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    try:
        write_model(source, path, engine, lambda it: say(NOTICE, it.message, it.parameter, it.hint, it.level))
    except InputError as error:
        say(ERROR, error.message, error.parameter, error.hint)


def _end_with_caller() -> None:
    os.read(0, 1)  # not by sys.stdin: its lock would be in use when Python ends
    os._exit(1)


def write_model(source: NetworkSource, path: Path, engine: str, notify: Callable[[Notice], None]) -> None:
    """As :func:`make_model`, in this process."""
    for package in MAKERS:
        import_optional(package, f"{{backend={engine}}}", EXTRAS[engine], "backend")
    from glean_ext.inference.export import export_network
    from glean_ext.inference.torch_backend import load_network

    net = load_network(source.config, source.checkpoint, source.cfg_options)
    others = {"checkpoint": Path(source.checkpoint).name}
    if not path.name.endswith(OPTIMIZED):
        export_network(net, path, others=others, notify=notify, engine=engine)
        return
    with temporary_folder_beside(path) as folder:
        export_network(net, plain := folder / "plain.onnx", others=others, notify=notify, engine=engine)
        optimize_model(plain, path)
