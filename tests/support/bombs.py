"""Small files that say they are large, or that refer to one large thing very often."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import torch
from support import nvidia_pickles as nvidia

from glean_ext.bank_conversion.key_maps import FORMATS

HUGE = 1 << 40
MIB = 1 << 20


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def zipped(content: bytes, storage: bytes, method: int = zipfile.ZIP_STORED, copies: int = 0) -> bytes:
    """The zip format of ``torch.save`` with one storage; ``copies`` is how often the archive lists it again."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/data/0", storage)
        archive.filelist += [archive.getinfo("a/data/0")] * copies
    return file.getvalue()


def saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def data_pickle(content: object) -> bytes:
    with zipfile.ZipFile(io.BytesIO(saved(content))) as archive:
        return archive.read("archive/data.pkl")


def tensor_of(storage_length: int, size: tuple, stride: tuple) -> bytes:
    """A tensor in the zip format, whose storage has one MiB."""
    honest = data_pickle({"w": torch.zeros(7, 11)})
    assert honest.count(b"KM") == 1 and honest.count(b"K\x07K\x0b\x86") == 1 and honest.count(b"K\x0bK\x01\x86") == 1
    number = b"\x8a\x08" + struct.pack("<q", storage_length)
    shape, steps = (
        b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in numbers) + b"t" for numbers in (size, stride)
    )
    changed = honest.replace(b"KM", number).replace(b"K\x07K\x0b\x86", shape).replace(b"K\x0bK\x01\x86", steps)
    return zipped(changed, bytes(MIB))


def deep(levels: int, width: int) -> dict:
    """Dicts in dicts, each level ``width`` times the same one."""
    content: dict = {"w": torch.zeros(1)}
    for _ in range(levels):
        content = {str(number): content for number in range(width)}
    return content


class TwiceIn(nvidia.Persistent):
    """A module that is two children of another one."""

    def __init__(self, child: object):
        super().__init__("Generator")
        self.state["_modules"] = {"a": child, "b": child}


def modules(levels: int) -> nvidia.Persistent:
    module = nvidia.Persistent("Generator")
    for _ in range(levels):
        module = TwiceIn(module)
    return module


def chain(levels: int) -> nvidia.Persistent:
    module = nvidia.Persistent("Generator")
    for _ in range(levels):
        parent = nvidia.Persistent("Generator")
        parent.state["_modules"] = {"a": module}
        module = parent
    return module


def lists(levels: int) -> list:
    content: list = []
    for _ in range(levels):
        content = [content] * 8
    return content


def repeated_call(module: str, name: str, argument: bytes, count: int) -> bytes:
    """``[f(x), f(x), ...]``"""
    call = b"h\x00h\x01\x85R"
    return pickled(
        f"c{module}\n{name}\n".encode(), b"\x940", argument, b"\x940", b"](", call * count, b"e"
    )  # fmt: skip


def prefixed(opcode: bytes, content: bytes) -> bytes:
    """An object of a pickle whose length of four bytes comes first."""
    return opcode + struct.pack("<I", len(content)) + content


def pickles() -> dict[str, bytes]:
    """Pickles whose instructions ask for a lot of memory."""
    storage = saved(torch.zeros(MIB // 4).untyped_storage(), _use_new_zipfile_serialization=False)
    numbers = b"](" + b"".join(b"J" + struct.pack("<i", number) for number in range(99_999)) + b"e"
    text, large_number = prefixed(b"X", b"a" * MIB), b"J\xff\xff\xff\x7f"
    return {
        "memo": pickled(b"Nr", struct.pack("<I", 0xFFFFFFF)),
        "bytes": pickled(b"\x8e", struct.pack("<Q", HUGE)),
        "text": pickled(b"\x8d", struct.pack("<Q", HUGE)),
        "bytearray": pickled(b"\x96", struct.pack("<Q", HUGE)),
        "frame": pickled(b"\x95", struct.pack("<Q", HUGE)),
        "number": pickled(b"\x8b", struct.pack("<i", 0x7FFFFFFF)),
        "string": pickled(b"T", struct.pack("<i", 0x7FFFFFFF)),
        "sets": pickled(b"]", b"(" + b"\x8f" * 4 * MIB + b"e"),
        "memos": pickled(b"N", b"\x94" * 8 * MIB),
        "encode": repeated_call("_codecs", "encode", text, 4000),
        "bytearrays": repeated_call("builtins", "bytearray", large_number, 1),
        "copied set": repeated_call("builtins", "set", numbers, 4000),
        "storages": repeated_call("torch.storage", "_load_from_bytes", prefixed(b"B", storage), 4000),
        "tensor": repeated_call("torch", "Tensor", large_number, 1),
    }


def archives() -> dict[str, bytes]:
    """Files of ``torch.save`` with storages or tensors that are not as large as they say."""
    honest = data_pickle({"w": torch.zeros(MIB // 4)})
    legacy = saved({"w": torch.zeros(7, 11)}, _use_new_zipfile_serialization=False)
    return {
        "deflated": zipped(honest, bytes(250 * MIB), zipfile.ZIP_DEFLATED),
        "listed often": zipped(honest, bytes(MIB), copies=1000),
        "long storage": tensor_of(HUGE, (1,), (1,)),
        "expanded": tensor_of(MIB // 4, (1 << 35, 1), (0, 1)),
        "overflowing": tensor_of(MIB // 4, (1 << 32, 1 << 32), (1 << 32, 1 << 32)),
        "legacy storage": legacy.replace(b"KM", b"\x8a\x08" + struct.pack("<q", HUGE), 1),
        "views": saved({str(number): torch.zeros(1).expand(MIB) for number in range(100)}),
        "deep": saved(deep(3, 300)),
        "many": saved({"g_ema": generator(1, 3000, {"style.": torch.zeros(256, 256)})}),
        "large": saved({"g_ema": generator(14, 2)}),
        "wide": saved({"g_ema": generator(1, 2, {"conv1.conv.modulation.weight": torch.zeros(1, MIB)})}),
        "groups": saved({"g_ema": generator(1, 2, {"input.input": torch.zeros(1, MIB, 1, 1)})}),
    }


def generator(blocks: int, layers: int, changes: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """All keys of a generator of rosinality's but the noise, each the same tiny tensor, or that of ``changes``."""
    keys = FORMATS["rosinality"].generator
    names = [row.source for row in keys.once if "noise_" not in row.source]
    names += [row.source.format(layer=i + 1) for row in keys.layers for i in range(layers)]
    names += [
        row.source.format(i=i, up=2 * i, same=2 * i + 1)
        for row in keys.blocks if "noise_" not in row.source for i in range(blocks)
    ]  # fmt: skip
    tiny = torch.zeros(1, 1, 1, 1)
    found = changes or {}
    return {name: next((found[start] for start in found if name.startswith(start)), tiny) for name in names}


def write_all(folder: Path) -> list[Path]:
    """All of them, each smaller than 10 MiB."""
    for name, content in (pickles() | archives()).items():
        (folder / f"{name}.pth").write_bytes(content)
    for name, network in {"modules": modules(20), "chain": chain(80)}.items():
        nvidia.write({"G_ema": network}, folder / f"{name}.pth")
    nvidia.write({"G_ema": nvidia.Persistent("Generator", c_dim=lists(12))}, folder / "lists.pth")
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", HUGE) + b"{}")
    header = b'{"w":{"dtype":"F32","shape":[99999999],"data_offsets":[0,4]}}'
    (folder / "offsets.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert all(path.stat().st_size < 10 * MIB for path in folder.iterdir())
    return sorted(folder.iterdir())
