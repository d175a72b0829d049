"""What the command-line tools share. Imports nothing heavy, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from traceback import walk_tb
from typing import Any, NoReturn

from glean_ext.cli import signals, streams
from glean_ext.cli.download_bar import DownloadBar
from glean_ext.cli.signals import LAUNCHED
from glean_ext.errors import InputError, did_you_mean, first_line
from glean_ext.utils.downloads import show_progress
from glean_ext.utils.files import expand_home
from glean_ext.utils.hardware import may_have_cuda
from glean_ext.utils.messages import printable
from glean_ext.utils.optional_packages import installed_version
from glean_ext.utils.url_files import local_part

EXTRAS = {  # package -> the extra that brings it
    **dict.fromkeys(("mmagic", "mmcv", "torchvision", "albumentations"), "mmagic"),
    **dict.fromkeys(("fastapi", "starlette", "uvicorn"), "web"),
    **dict.fromkeys(("onnx", "onnxscript"), "export"),
    "ai_edge_litert": "faces",
    "av": "video",
    "huggingface_hub": "hub",
    "lpips": "lpips",
    "onnxruntime": "onnx",
    "openvino": "openvino",
}
# Libraries whose warnings are about their own code, and mean nothing to who runs a command.
CHATTY = "PIL|albumentations|controlnet_aux|diffusers|mmagic|mmcv|mmengine|timm|transformers"
DEVICES = ("cpu", "cuda", "mps", "xpu", "npu", "hpu")
OPENCV = "cv2"
UNIX = ("fcntl", "resource")  # modules that Python does not have on Windows
LIBRARY = re.compile(r"lib[\w.+-]+: cannot open shared object file")
ONE_BY_ONE = {"references": "reference"}  # options that name one of several
MAY_BE_EMPTY = ("--suffix",)  # options whose value may be
POSITIONALS = {"config", "checkpoint", "input", "source", "out"}  # parameters that are no options


def as_option(parameter: str, value: str | None = None) -> str:
    """How a command line knows a Python parameter.

    >>> as_option("size_policy", "resize"), as_option("photo", "True"), as_option("checkpoint")
    ('--size-policy resize', '--photo', 'CHECKPOINT')
    >>> as_option("discriminator", "False"), as_option("model", "list"), as_option("references")
    ('--no-discriminator', 'glean models', '--reference')
    """
    if (parameter, value) == ("model", "list"):
        return "glean models"
    if parameter in POSITIONALS:
        return value or parameter.upper()
    name = ONE_BY_ONE.get(parameter, parameter).replace("_", "-")
    name = f"--{'no-' if value == 'False' else ''}{name}"
    return name if value in (None, "True", "False") else f"{name} {value}"


def fail(reason: object) -> NoReturn:
    """Print one line on stderr and exit with code 2. One of several processes leaves the line to the launcher."""
    line = printable(reason.render(as_option) if isinstance(reason, InputError) else " ".join(str(reason).split()))
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # where torchrun looks
    if report and LAUNCHED in os.environ:
        with open(report, "w") as file:
            json.dump({"message": line, "timestamp": int(time.time())}, file)
    else:
        write_error(f"error: {line}")
    raise SystemExit(2)


class Parser(argparse.ArgumentParser):
    """Reports bad usage in one line, with the options that are nearest to an unknown one.

    In arguments without a type, and in those of type ``Path``, which take no URLs, ``~`` stands for a home folder. Text
    that may begin with it for another reason has the type ``str``.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.register("type", None, _path_or_text)
        self.register("type", Path, _path)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, which takes an empty argument, as of a variable of the shell that is not set, for a value."""
        given = list(sys.argv[1:] if args is None else args)
        for before, argument in itertools.pairwise(["", *given]):
            if not argument and before not in MAY_BE_EMPTY:
                after = f" after {before}" if before else ""
                self.error(f"there is an empty argument{after}: a variable of the shell may not be set")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        hint = did_you_mean(unknown[1], self._option_string_actions) if unknown else ""
        fail(f"{message.rstrip('.')}. {hint}See {self.prog} --help.")

    def print_help(self, file: Any = None) -> None:
        """As argparse's, which ignores that a file cannot be written to."""
        print(self.format_help(), end="", file=file, flush=True)


def _path_or_text(text: str) -> str:
    try:
        return expand_home(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _path(text: str) -> Path:
    path = local_part(_path_or_text(text))
    if isinstance(path, str):
        raise argparse.ArgumentTypeError(f"{text} is a URL; give a path of this machine")
    return path.absolute() if path.parts[:1] and path.parts[0].startswith("~") else path  # it was ./~


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """What every tool that reads a config takes."""
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="changes to the config"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What the tools that start mmengine's runner take; ``config.load_run_config`` reads it."""
    add_config_options(parser)
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<name of the config>)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help="set by the launcher")


def device_name(text: str) -> str:
    """A device by one of torch's usual names, which torch itself would only know after seconds.

    Others with a colon are left to torch, and so is whether the device is there, where that is not plain.
    """
    if ":" not in text and text not in DEVICES:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; give {', '.join(DEVICES)}, or cuda:1 and so on")
    if reason := why_no_device(text.partition(":")[0]):
        raise argparse.ArgumentTypeError(f"{text} cannot be used here ({reason}); use cpu")
    return text


def why_no_device(kind: str) -> str:
    """Why no device of a kind can be here, where that is plain without torch; else empty."""
    if kind == "mps" and sys.platform != "darwin":
        return "only Apple's machines have it"
    if kind == "cuda" and not may_have_cuda():
        return "neither NVIDIA's driver nor AMD's is installed"
    return ""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool: 0 when done, 2 and one line for bad input; anything else is a bug and raises.

    Ctrl-C, SIGTERM and SIGHUP end it in the same way: what is open is closed, and the code is 128 and the signal's
    number. A tool also runs without stdin, stdout or stderr. Where stdout cannot be written to, it ends with one line,
    and without a line, as if by SIGPIPE, where nobody reads stdout any more. Where the system
    refuses a file, it ends with one line, too.
    """
    streams.open_missing()
    silence_other_libraries()
    # For torch, which is not loaded yet: on busy processors, threads that spin while they wait for others take the time
    # of those. Two threads on two cores with 15 busy processes were 4.8 times as fast as with PyTorch's default.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may have any bytes, which no encoding can print
        sys.stdout.reconfigure(errors="backslashreplace")
    bar = DownloadBar()
    show_progress.set(bar)
    try:
        with signals.as_exceptions(), closing(bar):
            code = main()
            streams.flush_stdout()
    except InputError as error:
        fail(error)
    except ImportError as error:
        if OPENCV in modules_at_fault(error) and LIBRARY.search(str(error)):  # in small containers
            fail(
                f"OpenCV does not work here ({first_line(error)}). Install what it needs, on Debian and Ubuntu by "
                "apt-get install libgl1 libglib2.0-0"
            )
        if error.name in UNIX:
            fail("This needs Linux or macOS. On Windows run it in its subsystem for Linux (WSL).")
        package = package_at_fault(error)
        if package is None:
            raise
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            fail(f"{package} is not installed. pip install 'glean-ext[{EXTRAS[package]}]'")
        fail(
            f"{package} {installed_version(package)} does not work ({first_line(error)}). "
            f"Install another version: pip install 'glean-ext[{EXTRAS[package]}]'"
        )
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, signals.Terminated) else signal.SIGINT
        write_error("terminated" if isinstance(error, signals.Terminated) else "interrupted")
        raise SystemExit(128 + number) from None
    except OSError as error:
        reason = streams.discard_broken_stdout()
        if isinstance(reason, BrokenPipeError):  # its reader has seen enough
            raise SystemExit(128 + signal.SIGPIPE) from None
        if reason is not None:
            fail(f"stdout cannot be written to ({reason.strerror}). Results that were written before are complete.")
        if error.filename is None:
            raise
        fail(f"{error.filename} cannot be used ({error.strerror}). Correct its name or its rights, or give another.")
    raise SystemExit(code or 0)


def silence_other_libraries() -> None:
    """Hide what other libraries say to their developers, unless ``python -W`` or ``PYTHONWARNINGS`` asks for it."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    if not sys.warnoptions:
        for category in FutureWarning, DeprecationWarning, PendingDeprecationWarning:
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", module=rf"({CHATTY})\b")


def package_at_fault(error: ImportError) -> str | None:
    """The optional package whose import failed."""
    return next((package for package in modules_at_fault(error) if package in EXTRAS), None)


def modules_at_fault(error: ImportError) -> list[str]:
    """The packages whose import failed: the error names them, or was raised within them."""
    modules = [error.name or ""]
    modules += [str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)]
    return [module.partition(".")[0] for module in modules]


def write_error(line: str) -> None:
    """Write a line to stderr, if that can be."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)
