"""glean_ext.checkpoints: a file is read completely and safely, or refused in one line that says what to do."""

from __future__ import annotations

import json
import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.checkpoint_files import ROOT, assert_same, fault

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path, write_json

pytest_plugins = ["support.checkpoint_files"]


# ---------------------------------------------------------------- where files come from


@pytest.mark.parametrize("source", ["no.pth", "", "file:///no.pth"])
def test_missing_file(source):
    message = fault(checkpoints.read, source)
    assert message == f"{source}: there is no such file. Give the path or URL of a checkpoint."


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    name = "x" * 5000 + ".pth"
    reasons = " cannot be read (File name too long)", ": there is no such file"  # the second from Python 3.14 on
    assert fault(checkpoints.read, name).startswith(tuple(name + reason for reason in reasons))
    (tmp_path / "x.pth").write_bytes(b"PK")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert fault(checkpoints.read, tmp_path / "x.pth") == (
        f"{tmp_path / 'x.pth'} cannot be read (Permission denied). Give another file."
    )


def test_shipped_files_have_a_scheme_of_their_own():
    path = ROOT / "glean_ext/assets/no.safetensors"
    assert fault(checkpoints.read, "glean-ext://no.safetensors") == (
        f"{path}: there is no such file. Give the path or URL of a checkpoint."
    )
    shipped = checkpoints.read("glean-ext://demo_bank.safetensors")
    assert_same(shipped, load_file(ROOT / "glean_ext/assets/demo_bank.safetensors"))


# ---------------------------------------------------------------- what is in files


def test_safetensors_round_trip(tmp_path, bank):
    state = bank.state_dict() | {"half": torch.rand(3).half(), "turned": torch.rand(2, 3).T, "one": torch.tensor(5)}
    checkpoints.save(state, tmp_path / "new/bank.safetensors", {"made_by": "a test"})
    assert_same(checkpoints.read(tmp_path / "new/bank.safetensors"), state)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bank.safetensors"]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(bank, bank_file, tmp_path, part):
    checkpoints.save(bank.state_dict(), tmp_path / "bank.safetensors")
    for path in bank_file, tmp_path / "bank.safetensors":
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        message = fault(checkpoints.read, path)
        kind = "truncated, damaged or no checkpoint" if path.suffix == ".pth" else "damaged or no safetensors file"
        if not path.stat().st_size and path.suffix == ".pth":
            assert message == f"{path} is empty. Get it again."
        else:
            assert message.startswith(f"{path} is {kind} (") and message.endswith("). Get it again.")


@pytest.mark.parametrize("text", ["", "just a text\n", "<html>404</html>", "(no", "}"])
def test_text_files(tmp_path, text):
    for name in "x.pth", "x.safetensors":
        path = tmp_path / name
        path.write_text(text)
        message = fault(checkpoints.read, path)
        assert re.fullmatch(
            r"is (empty|no checkpoint: neither torch\.save nor pickle wrote it|"
            r".*no (checkpoint|safetensors file) \(.*\))\. Get it again\.",
            message.removeprefix(f"{path} "),
        ), message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "PATH holds a list, not a state dict."),
        (torch.zeros(1), "PATH holds a Tensor, not a state dict."),
        ({}, "PATH holds no tensors. Is it a checkpoint of a network?"),
        ({"state_dict": {"epoch": 3}}, "PATH holds no tensors. Is it a checkpoint of a network?"),
        ({0: torch.zeros(1)}, "PATH holds no tensors. Is it a checkpoint of a network?"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    assert fault(checkpoints.read, path) == message.replace("PATH", str(path))


@pytest.mark.parametrize("protocol", [0, 1])
@pytest.mark.parametrize("kind", [dict, OrderedDict])
def test_old_pickles(tmp_path, protocol, kind):
    path, state = tmp_path / "x.pth", kind(w=torch.arange(6.0).reshape(2, 3))
    path.write_bytes(pickle.dumps(state, protocol))
    assert_same(checkpoints.read(path), state)
    for zipped in True, False:
        torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        if protocol == 1:
            assert_same(checkpoints.read(path), state)
        else:  # torch.load cannot read it, either
            assert fault(checkpoints.read, path) == (
                f"{path} is truncated, damaged or no checkpoint (it is of pickle protocol 0, in which torch.save loses "
                "tensors). Get it again."
            )


def test_prefix_of_distributed_training_is_taken_off(tmp_path):
    """Around the model, and around each network of it as MMagic has it."""
    state = {"module.a.weight": torch.ones(2), "generator.module.b": torch.ones(3), "epoch": 1}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    assert_same(checkpoints.read(tmp_path / "x.pth"), {"a.weight": torch.ones(2), "generator.b": torch.ones(3)})


class Touch:
    """Is pickled as code that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, new_format):
    path, touched = tmp_path / "evil.pth", tmp_path / "touched"
    content = {"state_dict": {"weight": torch.zeros(1)}, "meta": Touch(touched)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert fault(checkpoints.read, path) == (
        f"{path} holds Python objects besides weights, and reading them could run code, so it was not read. If you "
        "trust it, convert it once: torch.save(torch.load(path, weights_only=False)['state_dict'], new)."
    )
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "the pickle does nothing, so this test shows nothing"


# ---------------------------------------------------------------- writing


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoints.save({"a": torch.zeros(2)}, path)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        checkpoints.save({"a": shared, "b": shared}, path)
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial_path:
        partial_path.write_bytes(b"half of it")
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert_same(checkpoints.read(path), {"a": torch.zeros(2)})


def test_the_old_file_stays_whole_for_who_reads_it(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoints.save({"a": torch.zeros(2)}, path)
    content = path.read_bytes()
    with path.open("rb") as reader:
        checkpoints.save({"a": torch.ones(2)}, path)
        assert reader.read() == content != path.read_bytes()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for name in "file/x.safetensors", "folder.safetensors", f"{'x' * 250}.safetensors":
        target = tmp_path / name
        message = fault(checkpoints.save, {"a": torch.zeros(2)}, target)
        assert message.startswith(f"{target} cannot be written (") and message.endswith("Choose another output.")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]
    assert fault(write_json, {}, tmp_path / "file/x.json") == (
        f"{tmp_path}/file/x.json cannot be written (File exists). Choose another output."
    )


def test_json_is_written_whole(tmp_path):
    write_json({"PSNR": 1.5}, tmp_path / "new/m.json")
    assert json.loads((tmp_path / "new/m.json").read_text()) == {"PSNR": 1.5}
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "new/m.json")
    assert json.loads((tmp_path / "new/m.json").read_text()) == {"PSNR": 1.5}
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_saved_files_have_the_permissions_of_any_new_file(tmp_path):
    checkpoints.save({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


# ---------------------------------------------------------------- what the package names


def test_shipped_configs_name_weights_by_https_and_hash():
    """So that nobody on the way can change them."""
    from glean_ext.utils.downloads import expected_hash

    texts = [path.read_text() for path in (ROOT / "configs").rglob("*") if path.suffix in (".py", ".yml")]
    texts = [re.sub(r"'\s*'", "", text) for text in texts]  # joins what is written in two lines
    urls = {url for text in texts for url in re.findall(r"https?://[^\s'\"]+\.(?:pth|pt|pkl|safetensors)", text)}
    assert len(urls) == 11
    for url in urls:
        assert url.startswith("https://") and len(expected_hash(url)) in (8, 64), url
    assert not [text for text in texts if "http://" in text]


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint4])
def test_data_types_whose_values_would_change_are_refused(dtype):
    net = torch.nn.Linear(2, 1)
    before = net.weight.clone()
    weight = torch.zeros(16, dtype=torch.uint8).view(dtype)[:2].reshape(1, 2)
    with pytest.raises(InputError, match=rf"1 have another data type \(weight {dtype} instead of torch.float32\)"):
        checkpoints.load_strict(net, {"weight": weight, "bias": torch.zeros(1)}, "x.safetensors")
    assert torch.equal(net.weight, before)
    checkpoints.load_strict(net, {"weight": torch.ones(1, 2, dtype=torch.int8), "bias": torch.zeros(1)}, "x")
    assert net.weight.tolist() == [[1.0, 1.0]]
