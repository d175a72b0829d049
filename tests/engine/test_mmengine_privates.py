"""mmengine's private names are used in one file, which a new version of mmengine may force to change."""

from __future__ import annotations

import re

from support.training import ROOT

PRIVATE = re.compile(r"(runner|loader|wrapper|optim_wrapper|train_loop|val_loop)\._(?!_)|_inner_count|_Infinite\w+")
FILES = sorted(path.relative_to(ROOT) for path in (ROOT / "glean_ext").rglob("*.py") if path.name != "compat.py")


def uses(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if PRIVATE.search(line)]


def test_private_names_are_recognised():
    for line in "if runner._resume:", "loader._iterator = None", "self.runner._val_loop", "wrapper._inner_count += 1":
        assert uses(line) == [line]
    assert uses("runner.resume = runner.__class__") == []


def test_private_names_of_mmengine_are_used_in_compat_alone():
    assert len(FILES) > 100
    assert {str(path): found for path in FILES if (found := uses((ROOT / path).read_text()))} == {}
