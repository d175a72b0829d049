"""Every command of README, docs and integrations: the real parsers take it, and what is cheap is run.

A command is run unless it needs weights that are not shipped, hours, or another program; ``why_not`` says which.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image

from glean_ext import cli
from glean_ext.cli.main import COMMANDS, main
from glean_ext.zoo import find_model

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("integrations/*/README.md"))]
SHELL = re.compile(r"^ *```(?:shell|bash|sh)\n(.*?)^ *```", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n(?:\n(?= {4}))?)+", re.M)
PROGRAMS = ("apt-get", "bash", "docker", "git", "glean", "make", "mkdocs", "npm", "pip", "python", "python3", "source")
LONG = {"train", "test", "web", "convert-bank", "export"}  # hours, for ever, or files that only their users have
MODEL = "demo_lightglean_x8"  # stands for models whose weights are not shipped
STAND_INS = {  # for what pages leave open
    "CONFIG": MODEL,
    "CHECKPOINT": f"glean-ext://{MODEL}.safetensors",
    "NAME": MODEL,
    "INPUT": "face.png",
    "OUTPUT": "out/",
}
TOOLS = {"infer": "restore", "evaluate": "evaluate"} | {name.replace("-", "_"): name for name in COMMANDS}


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page, in words, without comments."""
    text = page.read_text()
    blocks = SHELL.findall(text) + INDENTED.findall(re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))
    for block in blocks:
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            for part in line.split(" && "):
                if part.split()[:1] and part.split()[0] in PROGRAMS:
                    yield shlex.split(part, comments=True)


ALL = [(page.relative_to(ROOT).as_posix(), words) for page in PAGES for words in commands(page)]
SET_UP = [pytest.param(*one, id=" ".join((one[0], *one[1]))[:120]) for one in ALL]


class Parsed(Exception):
    """Raised in place of what a command does after it has read its arguments."""


def as_glean(words: list[str]) -> list[str] | None:
    """A command as ``glean`` takes it; None for another program."""
    if words[0] == "glean":
        return words[1:]
    if words[0] in ("python", "python3") and words[1:] and (match := re.fullmatch(r"tools/(\w+)\.py", words[1])):
        return [TOOLS[match[1]], *words[2:]] if match[1] in TOOLS else None
    if words[:2] == ["bash", "tools/dist_train.sh"]:  # CONFIG GPUS
        return ["train", words[2], *words[4:]]
    if words[:2] == ["bash", "tools/slurm_train.sh"]:  # PARTITION JOB_NAME CONFIG GPUS
        return ["train", words[4], *words[6:]]
    return None


@pytest.mark.parametrize(("page", "words"), SET_UP)
def test_the_parsers_take_it(page, words, monkeypatch):
    arguments = as_glean(words)
    if arguments is None:
        check_program(words)
        return
    if arguments[0].startswith("-"):
        assert arguments in (["--help"], ["--version"])
        return
    name, *rest = arguments
    assert name in COMMANDS or name == "COMMAND", f"there is no glean {name}"
    if name == "COMMAND":
        return
    parse = ArgumentParser.parse_args

    def stop(self: ArgumentParser, argv=None, namespace=None) -> Namespace:
        parse(self, argv, namespace)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    with pytest.raises(Parsed):
        import_module(f"glean_ext.cli.{COMMANDS[name][0]}").main(rest)


def check_program(words: list[str]) -> None:
    """What can be said of a command that is none of ``glean``'s."""
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets)
    if program == "pip" and any("[" in word for word in rest):
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert set(extras.split(",")) <= set(setup["options.extras_require"])
    if program.startswith("python") and rest[0] == "-m" and rest[1] not in ("venv", "pip"):
        assert find_spec(rest[1]), rest[1]
    for path in rest:
        if re.match(r"(tools|docs|requirements)/", path):
            assert (ROOT / path).exists(), path


# ---------------------------------------------------------------- what is run


def runnable(words: list[str]) -> list[str] | None:
    """A command as ``glean`` takes it, with names for what the page leaves open, and a model whose weights are here."""
    arguments = as_glean(words)
    if arguments is None:
        return None
    arguments = [STAND_INS.get(word, word) for word in arguments if word != "..."]
    if arguments[0] == "restore":
        own = arguments[1] == MODEL or any(word.endswith((".py", ".onnx", ".pth")) for word in arguments)
        if not own and "--model" not in arguments:  # the default one
            return ["restore", "--model", MODEL, "--photo", *arguments[1:]]
    return arguments


def why_not(words: list[str], place: Path) -> str:
    """Why a command is not run; empty for one that is."""
    arguments = runnable(words)
    if arguments is None:
        return "another program"
    name, *rest = arguments
    if name in LONG:
        return "takes long, or needs a trained model"
    if any(re.fullmatch(r"[A-Z][A-Z_]+(\.onnx)?", word) for word in rest):
        return "a pattern"
    if name == "restore" and any(word.endswith((".py", ".onnx", ".pth")) for word in rest):
        return "needs weights"
    if name == "restore" and "--model" in rest and not find_model(rest[rest.index("--model") + 1]).demo:
        return "needs weights"
    if "--workers" in rest or ("--reference" in rest and name == "restore"):
        return "tested elsewhere: needs processes, or a model that takes references"
    if any("data/mine" in word for word in rest) and name == "evaluate":
        return "needs a trained model"
    if any("pyiqa:" in word for word in rest):
        return "needs weights"
    if name == "prepare-data" and any("://" in word for word in rest):
        return "needs a store"
    if name == "prepare-data" and "face" in rest:
        return "needs photographs with large faces"
    inputs = [word for word in rest if "*" not in word and re.fullmatch(r"[\w/.-]+\.(png|jpg|mp4)|photos/?", word)]
    outputs = [rest[i + 1] for i, word in enumerate(rest) if word in ("-o", "--report")]
    missing = [word for word in inputs if word not in outputs and not (place / word).exists()]
    return f"needs {missing[0]}" if missing else ""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with the files that the pages name, beside those of a checkout."""
    for name in "glean_ext", "configs", "tools":
        (tmp_path / name).symlink_to(ROOT / name)
    examples = ROOT / "glean_ext/web/static/examples"
    face, photo = Image.open(examples / "face-1.png").convert("RGB"), Image.open(examples / "astronaut.jpg")
    for name in "face.png", "noisy_cartoon.png", "emoji.png":
        face.save(tmp_path / name)
    face.convert("L").resize((64, 64)).save(tmp_path / "gray_cartoon.png")
    for name in "photo.jpg", "group.jpg":
        photo.save(tmp_path / name)
    for folder in "photos", "raw", "restored", "originals", "glean", "codeformer":
        (tmp_path / folder).mkdir()
        for i in range(4):
            side = 256 if folder == "raw" else 64
            photo.crop((64 * i, 0, 64 * i + side, side)).save(tmp_path / folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# One after another, as a reader does it: a later command may need what an earlier one made.
@pytest.mark.parametrize("page", sorted({page for page, _ in ALL}))
def test_it_runs(page, place, monkeypatch, capsys):
    """Within this process, so that torch is loaded once."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for number, words in enumerate(words for name, words in ALL if name == page):
        if why_not(words, place):
            continue
        arguments = runnable(words)
        if arguments[0] == "restore":  # none of them meets what another one wrote
            output = arguments.index("-o") + 1
            arguments[output] = f"made/{number}/{arguments[output]}"
        with pytest.raises(SystemExit) as end, redirect_stdout(StringIO()) as out:
            cli.run(lambda arguments=arguments: main(arguments))
        assert not end.value.code, f"{shlex.join(words)}: {out.getvalue()} {capsys.readouterr().err}"


def test_enough_is_run(place):
    """The rule of ``why_not`` leaves the commands of the tutorials that need nothing."""
    run = {shlex.join(words) for _, words in ALL if not why_not(words, place)}
    assert {as_glean(shlex.split(line))[0] for line in run} >= {"restore", "evaluate", "models", "prepare-data"}
    assert {"glean restore photo.jpg -o restored.png", "glean restore CONFIG CHECKPOINT INPUT ... -o OUTPUT"} <= run


# ---------------------------------------------------------------- Python, cards, the site


def test_the_python_of_the_library_tutorial(place, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/tutorials/library.md").read_text(), re.M | re.S)
    assert len(blocks) == 4
    (place / "faces").mkdir()
    (place / "face.png").rename(place / "faces/face.png")
    for block in blocks:
        exec(block, {})
    assert (place / "restored/face.png").is_file()
    *lines, psnr = capsys.readouterr().out.splitlines()  # logs may be among them
    assert any("no model is called 'demo_glean_x9'" in line for line in lines) and float(psnr) == float(
        "inf"
    )  # copies of one photograph


def test_the_model_cards_are_up_to_date():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        expected = import_module("cards").pages()
    finally:
        sys.path.remove(str(ROOT / "docs"))
    folder = ROOT / "docs/model_cards"
    found = {path.name: path.read_text() for path in folder.glob("*.md")}
    assert found == expected, "run python docs/cards.py"


@pytest.mark.slow
def test_the_training_tutorial(place):
    """All of its commands, but for those of several GPUs, with two training steps instead of 500."""
    (place / "configs").unlink()
    shutil.copytree(ROOT / "configs", place / "configs")
    (config,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/tutorials/train.md").read_text(), re.M | re.S)
    (place / "configs/my_images.py").write_text(config)
    shutil.rmtree(place / "restored")
    lines = [words for page, words in ALL if page == "docs/tutorials/train.md" and words[0] == "glean"]
    assert [words[1] for words in lines] == (
        ["prepare-data", "model-info", "train", "train", "train", "test", "restore", "evaluate"]
    )
    for words in lines:
        words = [word.replace("iter_500", "iter_2") for word in words[1:]]
        if words[0] == "train":
            words += ["--cfg-options", "train_cfg.max_iters=2"]
        done = subprocess.run(
            [sys.executable, "-m", "glean_ext", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, shlex.join(words) + done.stdout + done.stderr
    assert (place / "evaluation.html").is_file() and (place / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocstrings") is None, reason="mkdocs is not installed: the extra docs")
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    commands = (tmp_path / "site/reference/commands/index.html").read_text()
    assert all(f"glean {name}" in commands for name in COMMANDS)
