"""No checkpoint, whoever wrote it, runs code, crashes the process, or fills the memory."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.checkpoint_files import ROOT, fault
from support.hostile_files import ATTACKS, EMPTY_ARRAY, HOW, Rebuilt, multiarray, write

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.errors import InputError
from glean_ext.utils.safe_unpickler import SkippedObject

READERS = """
import json, sys
from pathlib import Path
from glean_ext import checkpoints, compat
from glean_ext.bank_conversion.sources import read_source
import torch
compat.apply()
out = {}
for path in map(Path, sys.argv[1:]):
    for reader in checkpoints.read, read_source, torch.load:
        try:
            reader(path)
        except Exception as error:
            out[f"{path.name} {reader.__name__}"] = [type(error).__name__, str(error)]
print(json.dumps(out))
"""


def start(*arguments: object, **more) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": path, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=env, capture_output=True, text=True, **more)


# ---------------------------------------------------------------- pointers


def test_no_reader_makes_pointers_of_bytes(tmp_path):
    """Each of ``ATTACKS`` ends a process that gives NumPy's own constructors to the file."""
    files = [
        write({"state_dict": {"w": torch.zeros(1)}, "meta": attack}, tmp_path / f"{name} {how}.pth", how)
        for name, attack in ATTACKS.items()
        for how in HOW
    ]
    done = start("-c", READERS, *files)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    assert len(refused) == 3 * len(files)
    for key, (error, message) in refused.items():
        if not key.endswith(" load"):
            assert error == "InputError" and "\n" not in message
            assert "NumPy array of" in message or "changes a NumPy data type" in message, message
        assert ".pth load" not in key or error == "UnpicklingError", (key, message)


@pytest.mark.parametrize("tool", ["infer", "convert_bank"])
def test_the_tools_refuse_an_attack_in_one_line(tmp_path, tool):
    evil = write({"state_dict": {"w": torch.zeros(1)}, "meta": ATTACKS["array"]}, tmp_path / "evil.pth", "zip")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    out = tmp_path / "out.safetensors"
    arguments = {
        "infer": (ROOT / "configs/demo_glean_x8.py", evil, tmp_path / "a.png", "-o", tmp_path / "o.png"),
        "convert_bank": (evil, out),
    }
    done = start(ROOT / "tools" / f"{tool}.py", *arguments[tool], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        f"error: {evil} is truncated, damaged or no checkpoint (it holds a NumPy array of 'O8', which is no plain "
        "number). Get it again."
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "evil.pth"]


@pytest.mark.parametrize("how", HOW)
def test_numpy_arrays_of_numbers_are_read(tmp_path, how):
    content = {
        "float": np.linspace(0, 1, 5), "half": np.ones(2, np.float16), "int": np.arange(6).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)), "other order": np.arange(3, dtype=">i4"),
        "none": np.zeros((0, 3)), "bool": np.array([True, False]), "complex": np.array([1j]), "one": np.array(7),
        "scalar": np.float32(0.5), "uint": np.uint8(255),
    }  # fmt: skip
    found = checkpoints.read_torch(write(content, tmp_path / "x.pth", how))
    for name, expected in content.items():
        assert np.array_equal(found[name], expected), name
        assert found[name].dtype == expected.dtype.newbyteorder("="), name
    again = pickle.loads(pickle.dumps(found["float"]))
    assert type(again) is np.ndarray and np.array_equal(again, content["float"])


@pytest.mark.parametrize(
    "state",
    [
        (1, (2,), np.dtype("f4"), False, b"1234"),  # fewer bytes than the shape has
        (1, (-1, -1), np.dtype("i4"), False, b"1234"),
        (1, (1 << 40, 1 << 40), np.dtype("i4"), False, b"1234"),
        (1, (1.0,), np.dtype("i4"), False, b"1234"),
        (1, (1,), np.dtype("i4"), False, [1]),
        (1, (1,), "i4", False, b"1234"),
        (1, (1,), np.dtype("S4"), False, b"1234"),
        (1, (1,), np.dtype("M8[s]"), False, b"12345678"),
        (1, (1,), np.dtype([("x", "i4")]), False, b"1234"),
    ],
)
def test_other_numpy_arrays_are_refused(tmp_path, state):
    path = write({"a": Rebuilt(multiarray._reconstruct, EMPTY_ARRAY, state)}, tmp_path / "x.pth", "zip")
    assert "(it holds a NumPy array " in fault(checkpoints.read_torch, path)


# ---------------------------------------------------------------- names


class Caller:
    """Is pickled as a call, after which the result is called, and so on."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("how", HOW)
def test_getattr_in_a_file_gives_nothing(tmp_path, how):
    """mmengine's logs name their methods by ``getattr``; the real one would open the way to every function."""
    path = write({"w": torch.zeros(1), "f": Caller(getattr, dict, "fromkeys")}, tmp_path / "x.pth", how)
    with pytest.raises(InputError, match="holds Python objects"):  # dict itself is no known name
        checkpoints.read_torch(path)
    path = write({"w": torch.zeros(1), "f": Caller(getattr, torch.Size, "__subclasses__")}, tmp_path / "y.pth", how)
    found = checkpoints.read_torch(path)["f"]
    assert type(found) is SkippedObject
    assert vars(found) == {}


def test_the_result_of_getattr_cannot_be_called(tmp_path):
    calls = b"cbuiltins\ngetattr\nctorch\nSize\nX\x0e\0\0\0__subclasses__\x86R)R"  # getattr(Size, '...')()
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02}X\x01\0\0\0f" + calls + b"s.")
    assert "(it calls a SkippedObject)" in fault(checkpoints.read_torch, tmp_path / "x.pkl")
    assert pickle.loads((tmp_path / "x.pkl").read_bytes()) == {"f": []}, "the pickle does nothing"


@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, __import__, open, compile, torch.load, torch.hub.load, np.load, pickle.loads,
     torch.Tensor, torch.FloatTensor, bytearray, memoryview, np.ndarray, np.zeros, type, object, print, vars, dict],
    ids=lambda function: f"{function.__module__}.{function.__name__}",
)  # fmt: skip
@pytest.mark.parametrize("how", ["zip", "pickle 4"])
def test_other_functions_are_not_called(tmp_path, function, how):
    """Not even with arguments that they would take."""
    path = write({"w": torch.zeros(1), "f": Rebuilt(function, (100_000_000,))}, tmp_path / "x.pth", how)
    try:
        found = checkpoints.read_torch(path)["f"]
    except InputError as error:
        assert "holds Python objects" in str(error) or "damaged" in str(error)
    else:
        assert type(found) is SkippedObject
    with pytest.raises(InputError):
        convert_bank(path, tmp_path / "o.safetensors")


# ---------------------------------------------------------------- memory


LIMITED = """
import json, resource, sys
from pathlib import Path
from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
checkpoints.read("glean-ext://demo_bank.safetensors")  # loads what is loaded on demand
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (200 << 20),) * 2)
out = {}
for path in map(Path, sys.argv[1:]):
    for reader in checkpoints.read, lambda path: convert_bank(path, path.with_name("o.safetensors")):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            reader(path)
            message = "read"
        except checkpoints.InputError as error:
            message = str(error).removeprefix(str(path)).strip()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        out.setdefault(path.stem, []).append([message, grown])
print(json.dumps(out))
"""


def test_small_files_take_little_memory(tmp_path):
    """With 200 MiB at hand, none of files below 10 MiB that claim to be larger ends in a failed allocation."""
    from support import bombs

    files = bombs.write_all(tmp_path)
    done = start("-c", LIMITED, *files, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {path.stem for path in files}
    assert "nested too deeply, or in two modules" in found["modules"][1][0]
    assert "nested too deeply, or in two modules" in found["chain"][1][0]
    for name, outcomes in found.items():
        assert outcomes[1][0] != "read", name
        for message, grown in outcomes:
            assert "MemoryError" not in message and "allocate memory" not in message, (name, message)
            assert grown < 150, (name, message, grown)
            assert len(message) < 500 and "\n" not in message


def test_damaged_files_are_refused_or_read():
    """No reader raises anything but an InputError, or needs more than 4 GiB; see ``support/fuzzing.py``."""
    done = start(ROOT / "tests/support/fuzzing.py", 54, 11, timeout=300)
    assert done.returncode == 0, done.stderr
    outcomes = dict(zip(done.stdout.split()[::2], map(int, done.stdout.split()[1::2]), strict=True))
    assert sum(outcomes.values()) == 3 * 54 and outcomes["refused"] > 100 and outcomes["read"] > 0


def test_a_forbidden_name_reaches_no_terminal_raw(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04cos\x1b[31m\nsystem\r\n.")
    message = fault(convert_bank, tmp_path / "x.pkl", tmp_path / "o.safetensors")
    assert "names os?[31m.system?, which" in message and message.isprintable()


DEEP = b")" + b"\x85" * 1_000_000  # (((((...),),),),)
KEYS = {
    "item": b"}" + DEEP + b"K\x01s.",
    "items": b"}(" + DEEP + b"K\x01u.",
    "dict": b"(" + DEEP + b"K\x01d.",
    "called dict": b"ccollections\nOrderedDict\n(](" + DEEP + b"K\x01\x86etR.",
    "set": b"\x8f(" + DEEP + b"\x90.",
    "frozenset": b"(" + DEEP + b"\x91.",
    "called set": b"cbuiltins\nset\n(]" + DEEP + b"atR.",
    "called frozenset": b"cbuiltins\nfrozenset\n(]" + DEEP + b"atR.",
    "easydict": b"cdnnlib.util\nEasyDict\n(](" + DEEP + b"K\x01\x86etR.",
    "storage": b"((X\x07\0\0\0storagectorch\nFloatStorage\n" + DEEP + b"X\x03\0\0\0cpuK\x01tQt.",
}


@pytest.mark.slow
def test_deep_keys_do_not_end_the_process(tmp_path):
    """Python's hash of a tuple recurses without a limit."""
    from support.bombs import zipped

    files = [tmp_path / f"{name}.pth" for name in KEYS]
    for path, content in zip(files, KEYS.values(), strict=True):
        path.write_bytes(zipped(b"\x80\x04" + content, b"1234"))
    done = start("-c", READERS.replace(", torch.load", ""), *files)
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    assert len(refused) == 2 * len(files)
    for key, (error, message) in refused.items():
        assert error == "InputError" and "\n" not in message
        assert "a tuple in a tuple as a key" in message or "names dnnlib" in message or "holds Python" in message, key


@pytest.mark.parametrize("dtype", [torch.bits8, torch.quint4x2, torch.int4, torch.qint8])
def test_tensors_of_no_numbers_are_refused(tmp_path, dtype):
    view = Rebuilt(torch._utils._rebuild_tensor_v3, (torch.zeros(4).untyped_storage(), 0, (1,), (1,), False, {}, dtype))
    torch.save({"w": view}, tmp_path / "x.pth")
    assert f"it has a tensor of {dtype}, which is no plain number" in fault(checkpoints.read, tmp_path / "x.pth")
