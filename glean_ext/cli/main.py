"""``glean``: one command for all of this package. ``glean restore --help`` and so on say more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import glean_ext
from glean_ext import cli
from glean_ext.errors import did_you_mean

COMMANDS = {  # name -> module of glean_ext.cli with a main(argv), and what it does
    "restore": ("restore", "restore images, folders, videos and photographs"),
    "models": ("models", "list the models: what they are for, sizes, licences"),
    "web": ("web", "serve a page on which images are restored"),
    "train": ("train", "train a restorer or a bank by a config"),
    "test": ("test", "measure a restorer on its test set"),
    "evaluate": ("evaluate", "measure folders of restored images, by any restorer"),
    "prepare-data": ("prepare_data", "make a data set from raw images"),
    "convert-bank": ("convert_bank", "convert a StyleGAN2 checkpoint into a bank"),
    "export": ("export", "write a network as one ONNX or torch.export file"),
    "model-info": ("model_info", "show what a config's network costs"),
}


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command that the arguments name, by default those of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        sys.stdout.write(f"glean-ext {glean_ext.__version__}\n")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        cli.fail(f"glean has no command {name!r}. {did_you_mean(name, COMMANDS)}glean --help lists all.")
    sys.argv = [f"glean {name}", *rest]  # what the command calls itself in its help
    return import_module(f"glean_ext.cli.{COMMANDS[name][0]}").main(rest)


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "\n".join(["usage: glean COMMAND ...", "", *lines, "", "glean COMMAND --help says more of each.", ""])


def console_script() -> None:
    """The ``glean`` that ``pip`` installs."""
    cli.run(main)
