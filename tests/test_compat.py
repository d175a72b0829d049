"""glean_ext.compat: the stand-in for mmcv's ops, mmengine's checkpoints, and what else it corrects."""

from __future__ import annotations

import collections
import json
import os
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glean_ext import compat, mmcv_ops
from glean_ext.errors import InputError

compat.apply()

STAND_IN = isinstance(sys.modules.get(mmcv_ops.MMCV_OPS), mmcv_ops.MMCVOps)
needs_stand_in = pytest.mark.skipif(not STAND_IN, reason="this mmcv has compiled ops")
# mmengine asks pkgutil.find_loader, deprecated since Python 3.12.
asks_find_loader = pytest.mark.filterwarnings("ignore:'pkgutil.find_loader'")
ROOT = Path(__file__).resolve().parents[1]


def python(code: str, cwd: Path, *path: Path) -> str:
    """What ``code`` prints on stdout in a fresh interpreter, with ``path`` before this repository."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# The stand-in: its place in the system


@needs_stand_in
def test_a_missing_op_is_there_until_called() -> None:
    from mmcv.ops.roi_align import ext_module

    assert ext_module is sys.modules["mmcv._ext"]
    with pytest.raises(InputError) as error:
        ext_module.roi_align_forward(1, aligned=True)
    assert str(error.value) == (
        "The op 'roi_align_forward' needs mmcv's compiled ops, which mmcv-lite does not have. Put the full mmcv in its "
        "place: pip uninstall mmcv-lite, then pip install --no-build-isolation 'mmcv>=2.0,<2.2'."
    )
    with pytest.raises(AttributeError, match=r"^module 'mmcv\._ext' has no attribute '__path__'$"):
        _ = ext_module.__path__


@needs_stand_in
@asks_find_loader
def test_mmcv_and_mmengine_know_that_nothing_is_compiled() -> None:
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils import mmcv_full_available

    assert mmcv_full_available() is False
    assert check_ops_exist() is False
    assert (get_compiler_version(), get_compiling_cuda_version()) == ("n/a", "n/a")


FULL_MMCV = "def upfirdn2d(): return 'compiled'\n"


def test_a_full_mmcv_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv/__init__.py").write_text("")
    (tmp_path / "mmcv/_ext.py").write_text(FULL_MMCV)
    code = """
import sys
from glean_ext.compat import supply_mmcv_ops
supply_mmcv_ops()
assert not [m for m in sys.modules if m.startswith(("mmcv", "torch"))], "it imports nothing heavy"
import mmcv._ext
supply_mmcv_ops()
print(sys.modules["mmcv._ext"].upfirdn2d(), mmcv._ext.__file__)
"""
    assert python(code, tmp_path, tmp_path).split() == ["compiled", str(tmp_path / "mmcv/_ext.py")]


def test_ops_that_another_put_there_are_left_alone(tmp_path: Path) -> None:
    code = """
import sys, types
theirs = sys.modules["mmcv._ext"] = types.ModuleType("mmcv._ext")
from glean_ext.compat import supply_mmcv_ops
supply_mmcv_ops()
print(sys.modules["mmcv._ext"] is theirs)
"""
    assert python(code, tmp_path) == "True\n"


def test_without_mmcv_there_is_no_stand_in(tmp_path: Path) -> None:
    code = """
import sys
sys.path = [p for p in sys.path if "site-packages" not in p]
from glean_ext.compat import supply_mmcv_ops
supply_mmcv_ops()
print("mmcv._ext" in sys.modules)
"""
    assert python(code, tmp_path) == "False\n"


def test_importing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import glean_ext.compat, sys; print({'torch', 'numpy', 'mmcv', 'mmengine', 'mmagic'} & set(sys.modules))"
    assert python(code, tmp_path) == "set()\n"


def test_applying_twice_changes_nothing() -> None:
    from mmengine.dataset import base_dataset

    def state() -> tuple:
        allowed = collections.Counter(map(str, torch.serialization.get_safe_globals()))
        return sys.modules.get("mmcv._ext"), base_dataset.list_from_file, allowed, vars(np).get("bool8")

    before = state()
    compat.apply()
    assert state() == before


# numpy


def test_pkgutil_finds_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.14 has no find_loader; the one of earlier versions stays."""
    first = getattr(pkgutil, "find_loader", None)
    compat.name_find_loader()
    assert first is None or pkgutil.find_loader is first
    monkeypatch.delattr(pkgutil, "find_loader")
    compat.name_find_loader()
    assert pkgutil.find_loader("json") is not None and pkgutil.find_loader("no_such_module") is None


def test_numpy_2_gets_bool8_and_numpy_1_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(np), "bool8", raising=False)
    monkeypatch.setattr(np, "__version__", "1.26.4")
    compat.name_numpy_bool8()
    assert "bool8" not in vars(np)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    compat.name_numpy_bool8()
    assert vars(np)["bool8"] is np.bool_
    del np.bool8


# mmengine's training checkpoints

TRAINING = """
import json, torch
from torch.utils.data import Dataset
from glean_ext import compat, mmcv_ops
compat.apply()
from mmengine.model import BaseModel
from mmengine.runner import Runner, load_checkpoint

class Numbers(Dataset):
    def __len__(self): return 8
    def __getitem__(self, i): return dict(x=torch.tensor([float(i), 1.0]))

class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(2, 1)
        for p in self.parameters():
            torch.nn.init.constant_(p, 0.5)
    def forward(self, x, mode="tensor"):
        y = self.line(x)
        return dict(loss=(y - 1).square().mean()) if mode == "loss" else y

def train(name, iterations, **kwargs):
    runner = Runner(
        Line(), work_dir=name, experiment_name=name, log_level="ERROR", randomness=dict(seed=0),
        train_dataloader=dict(dataset=Numbers(), batch_size=2, num_workers=0, collate_fn=dict(type="default_collate"),
                              sampler=dict(type="InfiniteSampler", shuffle=False)),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.1)),
        param_scheduler=dict(type="MultiStepLR", by_epoch=False, end=9, milestones=[3, 5], gamma=0.5),
        default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=4),
                           logger=dict(type="LoggerHook", interval=2)), **kwargs)
    runner.train()
    losses = runner.message_hub.get_scalar("train/loss").data[0].tolist()
    return dict(iter=runner.iter, losses=losses, lr=runner.optim_wrapper.get_lr()["lr"],
                weight=runner.model.line.weight.flatten().tolist())

half = train("half", 4)
resumed = train("resumed", 6, resume=True, load_from="half/iter_4.pth")
out = dict(half=half, resumed=resumed, straight=train("straight", 6))
net = Line()
load_checkpoint(net, "half/iter_4.pth", strict=True)
out["loaded"] = net.line.weight.flatten().tolist()
json.dump(out, open("out.json", "w"))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``half/iter_4.pth`` of a real mmengine runner, and ``out.json`` of what it did with it."""
    folder = tmp_path_factory.mktemp("trained")
    python(TRAINING, folder)
    return folder


@pytest.fixture
def strict_torch() -> Iterator[None]:
    """torch as it comes: nothing allow-listed."""
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    yield
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(allowed)


def test_training_resumes_from_its_own_checkpoint(trained: Path) -> None:
    out = json.loads((trained / "out.json").read_text())
    resumed, straight = out["resumed"], out["straight"]
    assert (out["half"]["iter"], resumed["iter"]) == (4, 6)
    assert out["loaded"] == out["half"]["weight"]
    # Weights, Adam's moments, the learning rate and the log all go on where they stopped.
    assert out["half"]["weight"] != resumed["weight"] == straight["weight"]
    assert resumed["lr"] == straight["lr"] == [0.025]
    assert resumed["losses"] == straight["losses"]
    assert len(resumed["losses"]) == 6


@pytest.mark.usefixtures("strict_torch")
def test_the_allow_list_is_what_reads_a_training_checkpoint(trained: Path) -> None:
    from mmengine.logging.history_buffer import HistoryBuffer

    path = trained / "half/iter_4.pth"
    with pytest.raises(pickle.UnpicklingError, match=r"mmengine\.logging\.history_buffer\.HistoryBuffer"):
        torch.load(path)
    compat.allow_training_checkpoints()
    log = torch.load(path)["message_hub"]["log_scalars"]["train/loss"]
    assert type(log) is HistoryBuffer
    assert log.data[0].shape == (4,)
    assert log.statistics("mean", 2) == log.data[0][-2:].mean()


@pytest.mark.parametrize("core", ["core", "_core"])  # numpy 1 writes the first path, numpy 2 the second
def test_numpy_scalars_of_either_numpy_are_read(core: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.pth"
    own = np.float64.__reduce__(np.float64(0))[0].__module__.encode()
    data = pickle.dumps({"best": np.float32(0.5), "iter": np.int64(7)}, protocol=2)
    renamed = data.replace(own, f"numpy.{core}.multiarray".encode())
    assert renamed.count(f"numpy.{core}.multiarray".encode()) >= 1
    path.write_bytes(legacy_checkpoint(renamed))
    assert torch.load(path) == {"best": 0.5, "iter": 7}


def legacy_checkpoint(content: bytes) -> bytes:
    """The old format of ``torch.save``: magic number, version, system, content, storages, each a pickle."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    return b"".join(pickle.dumps(part, protocol=2) for part in head) + content + pickle.dumps([], protocol=2)


class Calls:
    """Is pickled as the call of ``function`` with ``args``."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def test_a_checkpoint_that_runs_code_is_still_refused(tmp_path: Path) -> None:
    from mmengine.runner.checkpoint import load_checkpoint

    path, touched = tmp_path / "evil.pth", tmp_path / "touched"
    torch.save({"state_dict": {}, "meta": Calls(Path.touch, touched)}, path)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_checkpoint(torch.nn.Linear(1, 1), str(path))
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "the pickle does nothing, so this test shows nothing"


@pytest.mark.parametrize("owner, name", [("buffer", "register_statistics"), ("buffer", "__init__"), ("tensor", "mean")])
def test_a_checkpoint_gets_no_other_attribute(owner: str, name: str, tmp_path: Path) -> None:
    from mmengine.logging.history_buffer import HistoryBuffer

    cls = {"buffer": HistoryBuffer, "tensor": torch.Tensor}[owner]
    path = tmp_path / "asks.pth"
    torch.save({"meta": Calls(getattr, cls, name)}, path)
    assert torch.load(path, weights_only=False)["meta"] == getattr(cls, name)
    with pytest.raises(pickle.UnpicklingError) as error:
        torch.load(path)
    assert f"A checkpoint may not ask for the attribute {name!r} of {cls!r}." in str(error.value)


# metainfo


def test_metainfo_may_name_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmengine.dataset import BaseDataset

    (tmp_path / "ffhq").mkdir()
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    metainfo = {"dataset_type": "ffhq", "task_name": "sr", "classes": "classes.txt", "size": 1024}
    dataset = BaseDataset(metainfo=metainfo, lazy_init=True)
    assert dataset.metainfo == {**metainfo, "classes": ["cat", "dog"]}


# What mmengine keeps private


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> int:
        return i


def test_infinite_iterator_starts_again_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # mmengine pauses between two epochs
    batches = compat.infinite_iterator(torch.utils.data.DataLoader(Numbers(), batch_size=2))
    assert [next(batches).tolist() for _ in range(5)] == [[0, 1], [2], [0, 1], [2], [0, 1]]


def test_end_workers_ends_the_processes_of_a_loader() -> None:
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, persistent_workers=True)
    (worker,) = iter(loader)._workers
    assert worker.is_alive()
    compat.end_workers(loader)
    assert not worker.is_alive()
    compat.end_workers(None)


@pytest.mark.parametrize("resume", [True, False])
def test_what_a_runner_is_set_to(tmp_path: Path, resume: bool) -> None:
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    class Model(BaseModel):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs

    runner = Runner(
        Model(), str(tmp_path), val_dataloader={"dataset": Numbers(), "sampler": {"type": "DefaultSampler"}},
        val_cfg={}, val_evaluator={"type": "Evaluator", "metrics": []}, resume=resume, experiment_name=tmp_path.name,
        log_level="ERROR",
    )  # fmt: skip
    assert compat.is_resuming(runner) is resume
    assert compat.built_val_dataloader(runner) is None
    loader = runner.val_loop.dataloader
    assert compat.built_val_dataloader(runner) is loader


def test_backward_passes_that_count_as_one_accumulate_as_one() -> None:
    from mmengine.optim import OptimWrapper

    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    wrapper = OptimWrapper(torch.optim.SGD([weight], lr=1.0), accumulative_counts=2, clip_grad={"max_norm": 1.0})
    for count, update in ((0, False), (0, False), (1, True)):
        compat.set_backward_count(wrapper, count)
        wrapper.backward(weight.square().sum() / 2)
        assert (wrapper.inner_count, wrapper.should_update()) == (count + 1, update)
    compat.clip_gradients(wrapper)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))


# MMagic itself


@pytest.mark.slow
def test_mmagic_imports_and_collects_its_environment(tmp_path: Path) -> None:
    code = """
from glean_ext import compat, mmcv_ops
compat.apply()
import mmagic.models, mmagic.apis, mmagic.datasets, mmagic.evaluation
from mmagic.utils.collect_env import collect_env
env = collect_env()
print("\\nresult", mmagic.__version__, env["MMCV Compiler"] == env["MMCV CUDA Compiler"] == "n/a")
"""
    expected = f"result 1.2.0 {STAND_IN}"
    assert python(code, tmp_path).splitlines()[-1] == expected
