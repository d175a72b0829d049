"""For mkdocs: pages that come from files outside ``docs``, and the reference of the commands, from their parsers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
COPIES = {  # page -> the file that it shows
    "changelog.md": "CHANGELOG.md",
    "claims.md": "experiments/CLAIMS.md",
    "comfyui.md": "integrations/comfyui_glean/README.md",
    "spandrel.md": "integrations/spandrel_glean/README.md",
}


def on_config(config: MkDocsConfig) -> None:
    """Add the cards of all models to the navigation."""
    models = next(section["Models"] for section in config.nav if isinstance(section, dict) and "Models" in section)
    cards = sorted(f"model_cards/{path.name}" for path in (ROOT / "docs/model_cards").glob("*.md"))
    models += [card for card in cards if card not in models]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, source in COPIES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to files outside ``docs`` lead to the pages that show them."""
    for page, source in COPIES.items():
        markdown = re.sub(rf"\]\((?:\.\./)*{re.escape(source)}", f"]({page}", markdown)
    return markdown


def commands() -> str:
    """What ``--help`` says of each command."""
    sys.path.insert(0, str(ROOT))
    from glean_ext.cli.main import COMMANDS

    parts = ["# Commands\n"]
    for name, (_, purpose) in COMMANDS.items():
        done = subprocess.run(
            [sys.executable, "-m", "glean_ext", name, "--help"],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "100", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
        parts.append(f"## glean {name}\n\n{purpose[0].upper()}{purpose[1:]}.\n\n```text\n{done.stdout.strip()}\n```\n")
    return "\n".join(parts)
