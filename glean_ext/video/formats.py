"""Containers of videos that are read and written."""

from __future__ import annotations

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")  # inputs
VIDEO_OUTPUTS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}  # with FFmpeg's names of them
