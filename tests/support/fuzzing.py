"""Damaged checkpoints: python tests/support/fuzzing.py COUNT SEED reads that many; only an InputError may stop it."""

from __future__ import annotations

import io
import random
import resource
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from support import nvidia_pickles as nvidia
from support.bombs import data_pickle, saved
from support.conversion_sources import nvidia_content, rosinality_content
from support.hostile_files import write

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.errors import InputError

MEMORY = 4 << 30  # bytes


def sources(folder: Path) -> list[tuple[str, bytes]]:
    """Whole files, each with its suffix."""
    small = {
        "state_dict": {"a": torch.rand(3, 4), "b": torch.arange(5), "c": torch.nn.Parameter(torch.rand(2).half())},
        "meta": {"iter": 7, "names": ["x", "y"], "set": {1, 2}, "array": np.arange(4.0), "one": np.float32(0.5)},
    }  # fmt: skip
    files = [
        (".pth", write(small, folder / "x", how).read_bytes()) for how in ("zip", "legacy", "pickle 2", "pickle 5")
    ]
    files.append((".pt", saved(rosinality_content())))
    files += [(".pkl", nvidia.write(nvidia_content(), folder / "x", protocol).read_bytes()) for protocol in (2, 4)]
    files.append((".safetensors", safetensors.torch.save({"a": torch.rand(3, 4), "b": torch.arange(5)}, {"k": "v"})))
    files.append(("data.pkl", data_pickle(small)))
    return files


def mutated(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """With one to eight changes, many of them near the beginning, where the structure is."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 8))):
        end = min(len(changed), draw.choice((16, 200, 2000, len(changed))))
        at = draw.randrange(end) if end else 0
        length = draw.choice((1, 1, 2, 4, 8, 30))
        match draw.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = draw.randbytes(length)
            case 3:
                start = draw.randrange(max(1, end))
                changed[at : at + length] = changed[start : start + length]
            case 4:
                other = draw.choice(others)
                start = draw.randrange(max(1, min(len(other), 2000)))
                changed[at : at + length] = other[start : start + length]
            case 5:
                changed[at : at + length] = draw.choice((b"\xff", b"\0", b"\x7f")) * length
    if draw.random() < 0.1:
        del changed[draw.randrange(len(changed) + 1) :]
    return bytes(changed)


def rezipped(pickled: bytes) -> bytes:
    """A zip archive of ``torch.save`` with another pickle, whose checksum fits."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, nbytes in enumerate((48, 40, 4)):
            archive.writestr(f"archive/data/{key}", bytes(nbytes))
    return file.getvalue()


def fuzz(count: int, seed: int) -> Counter[str]:
    """Read ``count`` damaged files by each reader; how often each outcome came.

    Raises:
        Exception: What a reader raised that is no InputError.
    """
    outcomes: Counter[str] = Counter()
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sources(folder)
        contents = [content for _, content in files]
        for number in range(count):
            suffix, content = files[number % len(files)]
            damaged = mutated(content, contents, draw)
            path = folder / f"{number}{suffix.replace('data.pkl', '.pth')}"
            path.write_bytes(rezipped(damaged) if suffix == "data.pkl" else damaged)
            for reader in checkpoints.read, checkpoints.metadata, lambda p: convert_bank(p, folder / "o.safetensors"):
                try:
                    reader(path)
                    outcomes["read"] += 1
                except InputError:
                    outcomes["refused"] += 1
            path.unlink()
    return outcomes


if __name__ == "__main__":
    checkpoints.read("glean-ext://demo_bank.safetensors")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(*(f"{outcome} {count}" for outcome, count in sorted(fuzz(*map(int, sys.argv[1:])).items())))
