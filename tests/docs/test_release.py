"""What a release needs: the changelog has the version and its date, and the workflows and the Dockerfile are sound."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest
import yaml

import glean_ext

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_the_changelog_has_the_version():
    first = re.search(r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert first and first[1] == glean_ext.__version__
    date.fromisoformat(first[2])


def test_the_workflows_call_what_there_is():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    steps = [
        step for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values() for step in job["steps"]
    ]
    assert {name for step in steps for name in re.findall(r"^make (\S+)", step.get("run", ""))} <= set(targets)
    versions = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert versions["python"] == [f"3.{minor}" for minor in range(10, 15)]


@pytest.mark.parametrize(
    ("linter", "files"),
    [("actionlint", WORKFLOWS), ("hadolint", [ROOT / "Dockerfile"])],
    ids=["actionlint", "hadolint"],
)
def test_linters_find_nothing(linter, files):
    program = shutil.which(linter)
    if program is None:
        pytest.skip(f"{linter} is not installed")
    done = subprocess.run([program, *files], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
