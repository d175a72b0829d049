"""The page with the demo models, and pages with other limits."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from support.web_server import LIMITS, serving

from glean_ext.web.model_specs import SHIPPED
from glean_ext.web.worker import ModelWorker


@pytest.fixture(scope="session")
def worker() -> ModelWorker:
    return ModelWorker(SHIPPED, "cpu", LIMITS)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def site(worker, root):
    with serving(worker, root, LIMITS) as site:
        yield site


@pytest.fixture
def site_with(worker, tmp_path):
    """Start another one, with limits of its own."""
    with ExitStack() as stack:
        yield lambda **limits: stack.enter_context(serving(worker, tmp_path, replace(LIMITS, **limits)))
