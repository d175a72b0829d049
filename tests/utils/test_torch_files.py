"""glean_ext.utils.torch_files and safe_unpickler: what a file says is checked before it is used."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bombs import data_pickle, saved, zipped
from support.hostile_files import EMPTY_ARRAY, HOW, Rebuilt, multiarray, write

from glean_ext.utils.torch_files import read_torch_file
from glean_ext.utils.weight_files import MAGIC_NUMBER


def refusal(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((pickle.UnpicklingError, EOFError)) as error:
        read_torch_file(path)
    return str(error.value)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "x.pth"


CONTENT = {
    "view": torch.arange(12.0).reshape(3, 4).T[1:],
    "shared": [torch.zeros(2)] * 2,
    "none": torch.empty(0, 3),
    "scalar": torch.tensor(4),
    "types": [torch.tensor([1, 0]).to(getattr(torch, name)) for name in (
        "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64",
        "complex128", "uint16",
    )],
    "attributes": torch.nn.Parameter(torch.ones(2)),
    "plain": {"a": [1, 2.5, None, True, "ü", b"\0\xff", 1 + 2j, {3}, (4,), torch.Size([5]), torch.float16, 1 << 70]},
}  # fmt: skip
CONTENT["attributes"].note = "somebody's"


@pytest.mark.parametrize("how", [*HOW, "pickle 3", "pickle 5"])
def test_what_is_written_is_read(path, how):
    found = read_torch_file(write(CONTENT, path, how))
    assert found["plain"] == CONTENT["plain"]
    pairs = [(found[name], CONTENT[name]) for name in ("view", "none", "scalar", "attributes")]
    for own, expected in [*pairs, *zip(found["types"], CONTENT["types"], strict=True)]:
        assert torch.equal(own, expected) and own.dtype == expected.dtype and own.shape == expected.shape
    assert found["shared"][0] is found["shared"][1]


@pytest.mark.parametrize("nbytes", [0, 12, 20])
def test_a_storage_of_another_length(path, nbytes):
    content = zipped(data_pickle({"w": torch.zeros(4)}), bytes(nbytes))
    assert refusal(path, content) == f"storage '0' has {nbytes} bytes instead of 16"


def test_a_storage_that_ends_too_early(path):
    content = saved({"w": torch.zeros(4)}, _use_new_zipfile_serialization=False)
    assert refusal(path, content[:-1]) == "it ends in the middle of a storage"


def test_storages_that_are_together_larger_than_the_file(path):
    """Each alone would fit; all of them are allocated before the first one is read."""
    content = saved({name: torch.zeros(1000) for name in "abc"}, _use_new_zipfile_serialization=False)
    assert refusal(path, content[:-8000]).endswith(" has 4000 bytes, more than the file")


def test_a_storage_with_a_wrong_checksum(path):
    content = bytearray(saved({"w": torch.tensor([1234.5])}))
    at = content.index(torch.tensor([1234.5]).numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_torch_file(path)


def test_another_byte_order(path):
    reason = "it is of a machine with another byte order"
    legacy = saved({"w": torch.zeros(1)}, _use_new_zipfile_serialization=False)
    start, name, rest = legacy.partition(b"little_endian")
    assert refusal(path, start + name + rest.replace(b"\x88", b"\x89", 1)) == reason  # False for True
    file = io.BytesIO(zipped(data_pickle({"w": torch.zeros(1)}), bytes(4)))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("a/byteorder", "big")
    assert refusal(path, file.getvalue()) == reason


def test_other_zip_archives(path):
    for names in (), ("a/x.pkl",), ("a/data.pkl", "b/data.pkl"), ("a/data.pkl", "a/constants.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("first", *names):
                archive.writestr(name, b"\x80\x02N.")
        assert refusal(path) == "it is another zip archive than those of torch.save"


def test_compressed_archives(path):
    """A small file could be a huge one; torch.save never compresses."""
    content = zipped(data_pickle({"w": torch.zeros(4)}), bytes(16), zipfile.ZIP_DEFLATED)
    assert refusal(path, content) == "its content is compressed, which torch.save never does"


def test_archives_whose_files_are_larger_than_they(path):
    content = zipped(data_pickle({"w": torch.zeros(256)}), bytes(1024), copies=1000)
    assert refusal(path, content) == "its content is larger than the file"


def test_items_without_a_value(path):
    path.write_bytes(b"\x80\x02}(K\1K\2K\3u.")
    with pytest.raises(ValueError, match="shorter"):
        read_torch_file(path)


def tensor_pickle(*steps: bytes) -> bytes:
    """A pickle of one tensor of two zeros, after which ``steps`` change it."""
    return pickle.dumps(torch.zeros(2), 2)[:-1] + b"".join(steps) + b"."


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (b")b", "it changes a Tensor"),
        (b"(K\0K\1u", "it sets items of a Tensor"),
        (b"K\0K\1s", "it sets items of a Tensor"),
        (b"(K\0\x90", "it adds items to a Tensor"),
        (b")R", "it calls a Tensor"),
        (b")\x81", "it calls a Tensor"),
        (b"0])b", "it changes a list"),
        (b"0ctorch\nSize\nK\7R", "it calls a Function"),
        (b"0ctorch\nSize\nN}X\1\0\0\0aK\1s\x86b", "it sets a of a function"),
        (b"\x82\1", "it has an unknown instruction b'\\x82'"),
        (b"\x07", "it has an unknown instruction b'\\x07'"),
        (b"Q", "it refers to data outside the file"),
        (b"cos\nsystem\n", "it names os.system"),
        (b"c__builtin__\neval\n", "it names builtins.eval"),
        (b"ctorch\nload\n", "it names torch.load"),
        (b"ctorch\nserialization.load\n", "it names torch.serialization.load"),
    ],
)
def test_instructions_that_change_or_call_something(path, steps, reason):
    assert refusal(path, tensor_pickle(steps)) == reason


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((3,), (1,), 0), ((2,), (1,), 1), ((2,), (2,), 0), ((1,), (1,), 2), ((2, 2), (1, 1), 0), ((-1,), (1,), 0),
     ((1,), (-1,), 1), ((1,), (1,), -1), ((1,), (), 0), ((1.0,), (1,), 0), ((True,), (1,), 0)],
)  # fmt: skip
def test_tensors_beyond_their_storage(path, size, stride, offset):
    tensor = torch.zeros(2)
    function, arguments = tensor.__reduce_ex__(2)
    arguments = (arguments[0], offset, size, stride, *arguments[4:])
    reason = refusal(write({"w": Rebuilt(function, arguments)}, path, "pickle 2"))
    assert reason in ("it has a tensor out of bounds for storage of 2 elements", "it has a tensor of no valid shape")


@pytest.mark.parametrize(
    "code", ["f4,O8", "O8,f4", "f4, f4", "(2,)f4", "f16", "S4", "U1", "V4", "M8[s]", "m8", "O", 7, None]
)
def test_data_types_that_are_no_plain_numbers(path, code):
    dtype = Rebuilt(np.dtype, (code, False, True))
    content = Rebuilt(multiarray._reconstruct, EMPTY_ARRAY, (1, (1,), dtype, False, bytes(12)))
    assert refusal(write({"a": content}, path, "zip")) == (
        f"it holds a NumPy array of {str(code)!r}, which is no plain number"
    )


def test_the_magic_number_is_torchs():
    """It is known without loading torch."""
    assert torch.serialization.MAGIC_NUMBER == MAGIC_NUMBER
