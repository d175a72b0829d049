"""Damaged images by the hundred through a folder run: nothing crashes or hangs, and every file is accounted for."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FORMATS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif", "GIF": "gif", "BMP": "bmp", "AVIF": "avif"}


def originals(random: np.random.Generator) -> list[tuple[str, bytes]]:
    """8x8 pictures: (extension, content), three modes of each format that has them."""
    made = []
    for name, extension in FORMATS.items():
        for mode in ("RGB", "L", "RGBA") if name in ("PNG", "TIFF", "WEBP") else ("RGB", "L", "P"):
            if (name, mode) in (("JPEG", "P"), ("WEBP", "L")):
                continue
            image = Image.fromarray(random.integers(0, 256, (8, 8, 4), dtype=np.uint8)).convert(mode)
            stream = io.BytesIO()
            image.save(stream, name, **({"compression": "tiff_lzw"} if name == "TIFF" and mode == "L" else {}))
            made.append((extension, stream.getvalue()))
    return made


def mutated(content: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One of: flipped bits anywhere, flipped bits near the start, cut, another format's header, lengths set to 255."""
    kind, data = random.integers(5), bytearray(content)
    if kind in (0, 1):
        end = len(data) if kind == 0 else min(len(data), 64)
        for _ in range(random.integers(1, 12)):
            data[random.integers(end)] ^= 1 << random.integers(8)
    elif kind == 2:
        del data[random.integers(1, len(data)) :]
    elif kind == 3:
        length = random.integers(4, 33)
        data[:length] = other[:length]
    else:
        start = random.integers(4, min(len(data) - 4, 60))
        data[start : start + random.integers(1, 4)] = b"\xff" * 3
    return bytes(data)


def make_folder(folder: Path, count: int) -> list[str]:
    random = np.random.default_rng(20261125)
    sources, names = originals(random), []
    for index in range(count):
        (extension, content), (_, other) = (sources[i] for i in random.integers(len(sources), size=2))
        names.append(f"{index:03d}.{extension}")
        (folder / names[-1]).write_bytes(mutated(content, other, random))
    return names


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_images(tmp_path, count, record_property):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = make_folder(folder, count)
    arguments = "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors", folder, "-o", out, "--device", "cpu"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", ROOT / "tools" / "infer.py", *arguments, "--batch", "8"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    failed = re.findall(rf"^failed: {folder}/(\d+\.\w+)\b.*\.$", done.stdout, re.MULTILINE)
    written = [path.name[:3] for path in out.iterdir()]
    assert sorted([*failed, *(name for name in names if name[:3] in written)]) == names
    assert len(failed) > count / 3 and len(written) > count / 8
    assert f"{len(failed)} of {count} images in {folder} failed" in done.stderr
    assert f"{len(written)} restored; {len(failed)} failed; " in done.stdout
    for path in out.iterdir():
        with Image.open(path) as image:
            image.load()
    record_property("written", len(written))
    record_property("failed", len(failed))
