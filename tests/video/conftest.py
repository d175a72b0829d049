"""A video, and ways to restore it in segments."""

from __future__ import annotations

import pytest
from support.videos import doubled, write_video

from glean_ext.video.restore_video import restore_video


@pytest.fixture
def lines():
    """The notices of :func:`run`."""
    return []


@pytest.fixture
def source(tmp_path):
    return write_video(tmp_path / "in.mp4", 60)


@pytest.fixture
def run(tmp_path, lines):
    def call(source, name="out.mp4", restore=doubled, **options):
        options = {"segment": 10, "batch": 4, "notify": lambda notice: lines.append(str(notice))} | options
        return restore_video(source, tmp_path / name, restore, **options)

    return call
