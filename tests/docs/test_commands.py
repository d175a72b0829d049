"""Every command of README, docs and integrations: the real parsers take it, and it is run as it stands.

Those that need what is not in the repository say so on their page, in a comment ``# needs WHAT``. One that needs
nothing but weights is run with another model.
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

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("integrations/*/README.md"))]
NEEDS = re.compile(r"#.*\bneeds ([^:;]+)")  # in the comment of a command
SHELL = re.compile(r"^ *```(?:shell|bash|sh)\n(.*?)^ *```", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4,}\S.*\n(?:\n(?= {4}))?)+", re.M)
PROGRAMS = ("apt-get", "bash", "docker", "git", "glean", "make", "mkdocs", "npm", "pip", "python", "python3", "source")
SET_UP = ("apt-get", "bash", "docker", "git", "make", "npm", "pip", "source")  # of these only the names are checked
MINUTES = ("export", "test", "train", "web", "--workers")
MODEL = "demo_lightglean_x8"  # stands for models whose weights are not shipped
STAND_INS = {  # for what pages leave open
    "CONFIG": MODEL,
    "CHECKPOINT": f"glean-ext://{MODEL}.safetensors",
    "FOLDER": "photos",
    "INPUT": "face.png",
    "NAME": MODEL,
    "OUT": "prepared",
    "OUTPUT": "out/",
    "SOURCE": "large",
}
TOOLS = {"infer": "restore", "evaluate": "evaluate"} | {name.replace("-", "_"): name for name in COMMANDS}


def commands(page: Path) -> Iterator[tuple[list[str], str]]:
    """The commands of a page, in words, and what each needs; empty for nothing."""
    text = page.read_text()
    blocks = SHELL.findall(text) + INDENTED.findall(re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S))
    for block in blocks:
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            need = NEEDS.search(line)
            for part in line.split(" && "):
                part = re.sub(r"^\s*(?:[A-Z_]+=[\w.]+ )+", "", part)  # variables
                if part.split()[:1] and part.split()[0] in PROGRAMS:
                    yield shlex.split(part, comments=True), need[1].strip() if need else ""


ALL = [(page.relative_to(ROOT).as_posix(), *command) for page in PAGES for command in commands(page)]


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


@pytest.mark.parametrize("words", [pytest.param(words, id=" ".join((page, *words))[:120]) for page, words, _ in ALL])
def test_the_parsers_take_it(words, monkeypatch):
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


def runnable(words: list[str], need: str) -> list[str] | None:
    """A command as ``glean`` takes it, with names for what the page leaves open; None for one that is not run."""
    arguments = as_glean(words)
    if arguments is None or (need and (need, arguments[0]) != ("weights", "restore")):
        return None
    arguments = [STAND_INS.get(word, word) for word in arguments if word != "..."]
    if not need:
        return arguments
    if "--model" in arguments:
        arguments[arguments.index("--model") + 1] = MODEL
        return arguments
    return ["restore", "--model", MODEL, "--photo", *arguments[1:]]  # of the default one


@pytest.fixture
def no_network(monkeypatch):
    """What needs nothing downloads nothing."""
    for name in "http_proxy", "https_proxy":
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there


@pytest.fixture
def place(tmp_path, monkeypatch, no_network) -> Path:
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
    (tmp_path / "large").mkdir()
    photo.resize((1100, 1100)).save(tmp_path / "large/0.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# One after another, as a reader does it: a later command may need what an earlier one made.
@pytest.mark.parametrize("page", sorted({page for page, *_ in ALL}))
def test_it_runs(page, place, monkeypatch, capsys):
    """Within this process, so that torch is loaded once."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for number, (words, need) in enumerate(command for name, *command in ALL if name == page):
        arguments = runnable(words, need)
        if arguments and arguments[0] == "train":
            break  # the rest needs what is trained: test_the_training_tutorial
        if not arguments or set(MINUTES) & set(arguments):
            continue
        if "film.mp4" in arguments:
            pytest.importorskip("support.videos").write_video(place / "film.mp4", 2)
        if arguments[0] == "restore":  # none of them meets what another one wrote
            output = arguments.index("-o") + 1
            arguments[output] = f"made/{number}/{arguments[output]}"
        with pytest.raises(SystemExit) as end, redirect_stdout(StringIO()) as out:
            cli.run(lambda arguments=arguments: main(arguments))
        assert not end.value.code, f"{shlex.join(words)}: {out.getvalue()} {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["docs/cluster.md", "docs/restoring.md"])
def test_what_takes_minutes_runs(page, place):
    lines = [runnable(words, need) for name, words, need in ALL if name == page]
    lines = [arguments for arguments in lines if arguments and set(MINUTES) & set(arguments)]
    assert len(lines) == 2
    for number, arguments in enumerate(lines):
        run_glean([word.replace("out/", f"out{number}/").replace("model.onnx", f"{number}.onnx") for word in arguments])


def run_glean(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glean_ext", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, shlex.join(arguments) + done.stdout + done.stderr


def test_none_is_left_out():
    """Each is run, only sets things up, or says on its page what it needs."""
    minutes = {"docs/cluster.md", "docs/restoring.md", "docs/tutorials/train.md"}
    for page, words, need in ALL:
        arguments = runnable(words, need)
        set_up = words[0] in SET_UP or words[1:3] in (["-m", "venv"], ["-m", "pip"], ["-m", "http.server"])
        assert need or arguments or (set_up and not as_glean(words)), f"{page}: {shlex.join(words)} # needs what?"
        assert not (arguments and set(MINUTES) & set(arguments)) or page in minutes, f"{page}: {shlex.join(words)}"
    assert not [page for page in PAGES if re.search(r"^(?: *)```\n(?:glean|python) ", page.read_text(), re.M)]


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
    lines = [words for page, words, _ in ALL if page == "docs/tutorials/train.md" and words[0] == "glean"]
    assert [words[1] for words in lines] == (
        ["prepare-data", "model-info", "train", "train", "train", "test", "restore", "evaluate"]
    )
    for words in lines:
        words = [word.replace("iter_500", "iter_2") for word in words[1:]]
        if words[0] == "train":
            words += ["--cfg-options", "train_cfg.max_iters=2"]
        run_glean(words)
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
