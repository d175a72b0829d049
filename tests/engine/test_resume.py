"""Training through interruptions: checkpoints, resuming bit for bit, kill -9, a full disk, collapse, damaged files."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tarfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from support.fake_gpu import load_to_fake_gpu, on_fake_gpu
from support.networks import quick_config_dump
from support.training import DISCRIMINATOR, same, small_config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.datasets import ResumableSampler
from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.engine import runner as runners
from glean_ext.engine.checkpoint_resume import AtomicBackend, newest_whole_checkpoint
from glean_ext.engine.hooks.checkpoint_hook import DeferredRemoval
from glean_ext.engine.hooks.random_state_hook import generator_states, set_generator_states
from glean_ext.errors import InputError
from glean_ext.metrics.base import SavedImageMetric
from glean_ext.utils.files import temporary_name

INTERVAL = 4  # iterations between checkpoints; the discriminator trains every third, so at another point of its round
CONFIG = small_config(
    "train_cfg = dict(max_iters=16)",
    "param_scheduler = dict(T_max=16)",
    f"default_hooks = dict(checkpoint=dict(interval={INTERVAL}, save_best=None), logger=dict(interval=1))",
    "custom_hooks = [dict(type='FrozenBankHook', interval=100),",
    "    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)]",
    model=f"{DISCRIMINATOR}, train_cfg=dict(disc_steps=3)",
    validate=False,
)
IMAGES = 7


class Count(Hook):
    """Writes down how many iterations are done, last of all hooks."""

    priority = "LOWEST"

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        Path("done.txt").write_text(str(runner.iter + 1))


class Poison(Hook):
    """Makes a weight infinite before or after an iteration."""

    def __init__(self, iteration: int, after: bool = False) -> None:
        self.iteration, self.after = iteration, after

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == self.iteration and not self.after:
            next(runner.model.generator.decoder.parameters()).data[0] = torch.inf

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration and self.after:
            next(runner.model.generator.decoder.parameters()).data[0] = torch.inf


pytestmark = pytest.mark.usefixtures("fast")


def train(work_dir: str, *options: str, resume: bool = False, hooks: tuple[dict, ...] = ()):
    from mmagic.registry import HOOKS

    for hook in Count, Poison:
        HOOKS.register_module(module=hook, force=True)
    cfg = load_config("config.py", options)
    cfg.work_dir, cfg.resume = work_dir, resume
    cfg.log_level = "INFO" if "log_level=INFO" in options else "ERROR"
    cfg.experiment_name = f"{Path.cwd().name}-{work_dir}-{time.time_ns()}"
    cfg.custom_hooks += [{"type": "Count"}, *hooks]
    return runners.train(cfg)


# ---------------------------------------------------------------- the order of the data


def test_sampler_shows_every_image_once_an_epoch():
    sampler = ResumableSampler(range(5), seed=3)
    items = list(islice(sampler, 10))
    first, second = [i for i, _ in items[:5]], [i for i, _ in items[5:]]
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4] and first != second
    assert len({seed for _, seed in items}) == 10
    assert [i for i, _ in islice(ResumableSampler(range(3), shuffle=False, seed=3), 7)] == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("start", [0, 1, 4, 5, 13])
def test_sampler_starts_anywhere(start):
    whole = list(islice(ResumableSampler(range(5), seed=3), 20))
    sampler = ResumableSampler(range(5), seed=3)
    sampler.start = start
    assert list(islice(sampler, 20 - start)) == whole[start:]


def test_two_processes_share_the_order_of_one():
    whole = list(islice(ResumableSampler(range(5), seed=3), 24))
    for rank in 0, 1:
        sampler = ResumableSampler(range(5), seed=3)
        sampler.rank, sampler.world_size = rank, 2
        assert list(islice(sampler, 12)) == whole[rank::2]


def test_seeded_leaves_the_random_states_alone():
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), torch.rand(()).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = [draw(), draw()]
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first = draw()
    with seeded(7):
        inside = draw()
    with seeded(7):
        assert draw() == inside
    assert [first, draw()] == expected


def test_random_numbers_continue_where_their_states_were_taken():
    """Also the second one of two normal numbers, which Python and NumPy draw in pairs."""

    def draw() -> tuple[float, ...]:
        python, numpy = (random.random(), random.gauss(0, 1)), (np.random.rand(), np.random.normal())
        return *python, *numpy, torch.rand(()).item()

    with seeded(3):
        draw()
        states = generator_states()
        expected = [draw() for _ in range(3)]
        set_generator_states(states)
        assert [draw() for _ in range(3)] == expected


def test_flips_depend_on_the_position_alone(home):
    """The same batch again, though other random numbers were drawn in between."""
    runner = train("work", "train_cfg.max_iters=1")
    dataset = runner.train_dataloader.dataset
    packed = {seed: dataset[0, seed]["inputs"] for seed in range(8)}
    np.random.rand(3)
    assert all(torch.equal(dataset[0, seed]["inputs"], image) for seed, image in packed.items())
    plain = dataset[0]["inputs"]
    flipped = [not torch.equal(image, packed[0]) for image in packed.values()]
    assert any(flipped) and any(torch.equal(plain, image) for image in packed.values())


# ---------------------------------------------------------------- resuming


PARTS_TRAINED = "generator", "discriminator"
PARTS = "state_dict", "ema_state_dict", "optimizer", "param_schedulers", "random_states"


def assert_same_end(one: str, other: str) -> None:
    """Weights, average, optimisers, schedule and random numbers after 16 iterations, bit for bit."""
    a, b = (torch.load(f"{work}/iter_16.pth", weights_only=True) for work in (one, other))
    for part in PARTS:
        assert same(a[part], b[part]), part


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_interrupted_training_ends_like_an_uninterrupted_one(home, workers):
    options = f"train_dataloader.num_workers={workers}", "randomness.seed=5"
    train("straight", *options)
    train("halves", *options)
    for name in "iter_12.pth", "iter_16.pth":
        Path("halves", name).unlink()
    runner = train("halves", *options, resume=True)
    assert runner.iter == 16
    assert not multiprocessing.active_children()  # workers end with the training
    assert_same_end("straight", "halves")


def test_a_random_seed_is_resumed_too(home):
    train("straight")
    shutil.copytree("straight", "resumed")
    Path("resumed/iter_16.pth").unlink()
    train("resumed", resume=True)
    assert_same_end("straight", "resumed")


def test_training_from_shards_is_training_from_the_folder_and_resumes(home):
    train("straight", "randomness.seed=5")
    for number, start in enumerate(range(0, IMAGES, 3)):
        with tarfile.open(f"faces-{number}.tar", "w") as tar:
            for image in range(start, min(start + 3, IMAGES)):
                tar.add(f"data/GT/{image}.png", f"{image}.png")
    source = "_delete_=True, type='SRShardDataset', shards='faces-{0..2}.tar', scale=2, pipeline=_base_.train_pipeline"
    changed = re.sub(r"(train_dataloader = .*)dataset=data\)", rf"\1dataset=dict({source}))", CONFIG)
    assert changed != CONFIG
    Path("config.py").write_text(changed)
    shutil.rmtree("data")
    train("shards", "randomness.seed=5", "train_cfg.max_iters=16")
    assert_same_end("straight", "shards")
    for name in "iter_12.pth", "iter_16.pth":
        Path("shards", name).unlink(missing_ok=True)
    train("shards", "randomness.seed=5", resume=True)
    assert_same_end("straight", "shards")


def test_settings_that_stay_those_of_the_checkpoint_are_reported(home):
    """mmengine restores the schedule and the optimisers whatever the config says by now."""
    train("work", "train_cfg.max_iters=4")

    earlier: list[str] = []

    def resumed(*options: str) -> list[str]:
        """The warnings of a resumed run."""
        train("work", "log_level=INFO", *options, resume=True)
        logs = "".join(path.read_text() for path in sorted(Path("work").glob("*/*.log")))
        warnings = re.findall(r"WARNING - (The settings of the checkpoint stay.*|An iteration had.*)", logs)
        new = warnings[len(earlier) :]
        earlier.extend(new)
        return new

    assert resumed("train_cfg.max_iters=4") == []
    assert resumed("train_cfg.max_iters=4", "train_dataloader.batch_size=3") == [
        "An iteration had 2 images and has 3 from here on: the learning rates were for 2, and the run "
        "continues at another position in the data."
    ]
    changed = "train_cfg.max_iters=6", "param_scheduler.T_max=6", "optim_wrapper.discriminator.optimizer.lr=0.5"
    kept = (f"{name} schedule T_max 16 instead of 6, {name} schedule end 4 instead of 6" for name in PARTS_TRAINED)
    assert resumed(*changed) == [
        f"The settings of the checkpoint stay, those of the config do not count: {', '.join(kept)}, discriminator "
        "optimizer lr 0.0001 instead of 0.5. For others start a new run from the weights: load_from='<checkpoint>' "
        "without resume."
    ]


def test_the_fake_gpu_refuses_what_a_gpu_refuses():
    tensor = on_fake_gpu({"x": [torch.arange(3)]})["x"][0]
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\) first"):
        tensor.numpy()
    with pytest.raises(TypeError):
        np.asarray(tensor)
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(3).add_(tensor)
    assert type(tensor.cpu()) is torch.Tensor and tensor.cpu().numpy().tolist() == [0, 1, 2]
    assert (tensor + torch.tensor(1)).tolist() == [1, 2, 3] and torch.ones(3).copy_(tensor).tolist() == [0, 1, 2]


def test_a_checkpoint_that_mmengine_loads_to_the_gpu_is_resumed(home, monkeypatch):
    """mmengine maps checkpoints to the device of the model: all that reads them has to take tensors from there."""
    train("straight", "randomness.seed=5")
    shutil.copytree("straight", "halves")
    Path("halves/iter_16.pth").unlink()
    load_to_fake_gpu(monkeypatch)
    train("halves", "randomness.seed=5", resume=True)
    assert_same_end("straight", "halves")


def damage(path: str, kind: str) -> None:
    content = Path(path).read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    Path(path).write_bytes({"truncated": content[:-100], "flipped": flipped, "empty": b""}[kind])


def test_the_newest_whole_checkpoint_is_found(home, caplog):
    assert newest_whole_checkpoint("work") is None
    train("work", "default_hooks.checkpoint.max_keep_ckpts=-1")
    assert newest_whole_checkpoint("work") == Path("work/iter_16.pth")
    damage("work/iter_16.pth", "truncated")
    damage("work/iter_12.pth", "flipped")
    assert newest_whole_checkpoint("work") == Path("work/iter_8.pth")
    skipped = [record.message for record in caplog.records if record.message.startswith("skipped")]
    assert [line.split(" (")[0] for line in skipped] == ["skipped work/iter_16.pth", "skipped work/iter_12.pth"]
    damage("work/iter_8.pth", "empty")
    torch.save({"weights": torch.ones(3)}, "work/iter_4.pth")
    with pytest.raises(InputError, match=r"no checkpoint can be resumed: work/iter_16.pth .*it holds no message_hub, "):
        newest_whole_checkpoint("work")


# ---------------------------------------------------------------- kill -9


def train_in_child(home: Path, work_dir: str, resume: bool) -> None:
    """What a killed process runs."""
    os.chdir(home)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    gc.freeze()
    quick_config_dump(pytest.MonkeyPatch())
    train(work_dir, "randomness.seed=5", resume=resume)


@pytest.fixture(scope="module")
def children():
    """Processes that need not import MMagic each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["glean_ext.plugin", "test_resume"])
    return context


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_loses_at_most_the_iterations_since_the_last_checkpoint(home, children, kills):
    def start(work_dir: str, resume: bool):
        child = children.Process(target=train_in_child, args=(home, work_dir, resume))
        child.start()
        return child

    def done() -> int:
        return int(Path("done.txt").read_text() or 0) if Path("done.txt").exists() else 0

    straight = start("straight", False)
    straight.join(300)
    assert straight.exitcode == 0

    moments, begun = random.Random(0), 0
    for _ in range(kills):
        if begun >= 15:  # nothing is left to kill: once more from the start
            shutil.rmtree("killed")
            begun = 0
        Path("done.txt").unlink()
        child = start("killed", True)
        until = moments.randint(begun + 1, 15)
        while done() < until:
            assert child.is_alive(), child.exitcode
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))  # somewhere in the next iterations, or in writing a checkpoint
        child.kill()
        child.join()
        newest = newest_whole_checkpoint("killed")
        begun = int(newest.stem.removeprefix("iter_")) if newest else 0
        assert begun > done() - INTERVAL
    last = start("killed", True)
    last.join(300)
    assert last.exitcode == 0
    assert_same_end("straight", "killed")


# ---------------------------------------------------------------- a full disk, collapse, damaged files


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "iter_4.pth"
    backend = AtomicBackend()
    backend.put(b"old", path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as if the disk had 1000 bytes left
    try:
        with pytest.raises(InputError, match=r"iter_4.pth cannot be written \(File too large\)"):
            backend.put(bytes(5000), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_stops_training_and_leaves_the_last_checkpoint(home):
    train("work", "train_cfg.max_iters=4")
    size = Path("work/iter_4.pth").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(InputError, match=r"iter_8.pth cannot be written \(File too large\)"):
            train("work", resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert newest_whole_checkpoint("work") == Path("work/iter_4.pth")
    assert train("work", resume=True).iter == 16


VALIDATION = """
train_cfg['val_interval'] = 4
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
val_evaluator = [dict(type='Given')]
default_hooks['checkpoint'].update(save_best='Given', max_keep_ckpts=1)
"""


class Given(SavedImageMetric):
    """Gives the values of the validations one after another."""

    metric = "Given"
    values: list[float]

    def measure(self, output, sample) -> float:
        return 0.0

    def compute_metrics(self, results) -> dict[str, float]:
        return {"Given": Given.values.pop(0)}


@pytest.fixture
def validating(home) -> None:
    """Validations every 4 iterations, in which Given.values are measured; one checkpoint is kept besides the best."""
    from mmagic.registry import METRICS

    METRICS.register_module(module=Given, force=True)
    config = Path("config.py")
    text = config.read_text().replace("val_dataloader = val_cfg = val_evaluator = ", "")
    config.write_text(text + VALIDATION)


def checkpoint_files() -> set[str]:
    return {path.name for path in Path("work").glob("*.pth")}


@pytest.mark.parametrize(
    ("rule", "values", "best"),
    [("greater", [3.0, 4.0, 2.0, 1.0], 8), ("less", [3.0, 4.0, 2.0, 5.0], 12), ("greater", [1.0, 2.0, 3.0, 4.0], 16)],
)
def test_the_best_checkpoint_by_its_rule_is_kept(validating, rule, values, best):
    Given.values = list(values)
    train("work", f"default_hooks.checkpoint.rule={rule}")
    assert checkpoint_files() == {"iter_16.pth", f"best_Given_iter_{best}.pth"}
    assert torch.load(f"work/best_Given_iter_{best}.pth", weights_only=True)["meta"]["iter"] == best


class Disk(Exception):
    """The disk is full, or the process is killed."""


@pytest.mark.parametrize("name", ["iter_8.pth", "best_Given_iter_8.pth"])
def test_no_checkpoint_is_deleted_before_its_successor_is_written(validating, name):
    put = AtomicBackend.put

    def fail(self, obj: bytes, filepath: str | Path) -> None:
        if Path(filepath).name == name:
            raise Disk
        put(self, obj, filepath)

    Given.values = [1.0, 2.0, 3.0, 4.0]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Disk):
        patch.setattr(AtomicBackend, "put", fail)
        train("work", "default_hooks.checkpoint.rule=greater")
    last = 4 if name.startswith("iter") else 8
    assert checkpoint_files() == {f"iter_{last}.pth", "best_Given_iter_4.pth"}
    Given.values = [2.0, 3.0, 4.0]
    assert train("work", "default_hooks.checkpoint.rule=greater", resume=True).iter == 16
    assert checkpoint_files() == {"iter_16.pth", "best_Given_iter_16.pth"}


@pytest.mark.parametrize("left", ["iter_4.pth", "best_Given_iter_4.pth"])
def test_what_a_killed_run_did_not_delete_is_deleted_by_the_next(validating, left):
    remove_now = DeferredRemoval.remove_now

    def killed(self, keep) -> None:
        if any(path.endswith(f"/{left}") for path in self.files):
            raise Disk
        remove_now(self, keep)

    Given.values = [1.0, 2.0]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Disk):
        patch.setattr(DeferredRemoval, "remove_now", killed)
        train("work", "default_hooks.checkpoint.rule=greater")
    assert {left, "iter_8.pth"} <= checkpoint_files()
    Path("work/iter_1.pth").touch()  # not of this run
    Given.values = [0.0, 0.0, 0.0]
    train("work", "default_hooks.checkpoint.rule=greater", resume=True)
    best = "best_Given_iter_4.pth" if left == "iter_4.pth" else "best_Given_iter_8.pth"
    assert checkpoint_files() == {"iter_16.pth", "iter_1.pth", best}


def kill_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """End the run before its files are changed for the ``step``-th time, by writing or deleting a checkpoint."""
    put, remove, steps = AtomicBackend.put, LocalBackend.remove, itertools.count(1)

    def count() -> None:
        if next(steps) == step:
            raise Disk

    patch.setattr(AtomicBackend, "put", lambda *arguments: (count(), put(*arguments)))
    patch.setattr(LocalBackend, "remove", lambda *arguments: (count(), remove(*arguments)))


# Eight iterations write iter_4, best_4, iter_4 and iter_8, delete iter_4, write best_8 and iter_8, and delete best_4.
@pytest.mark.parametrize("step", [7, *(pytest.param(step, marks=pytest.mark.slow) for step in (2, 3, 4, 5, 6, 8))])
def test_a_run_killed_at_any_step_leaves_what_the_next_one_needs(validating, step):
    rule = "default_hooks.checkpoint.rule=greater"
    Given.values = [1.0, 3.0]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Disk):
        kill_at(step, patch)
        train("work", rule)
    assert any(name.startswith("best_") for name in checkpoint_files()) == (step > 2)
    validated = newest_whole_checkpoint("work").name
    Given.values = {"iter_4.pth": [3.0, 2.0], "iter_8.pth": [2.0]}[validated]
    train("work", rule, "train_cfg.max_iters=12", resume=True)
    # Until best_8 is written, nothing but the validation after iteration 8 knows of it.
    best = 12 if step in (5, 6) else 8
    assert checkpoint_files() == {"iter_12.pth", f"best_Given_iter_{best}.pth"}


def test_the_best_checkpoint_of_an_earlier_run_is_not_taken_over(validating):
    """It is in the same folder, and of the iteration that the run is resumed from."""
    rule = "default_hooks.checkpoint.rule=greater"
    Given.values = [2.0, 1.0]
    train("work", rule, "train_cfg.max_iters=8")
    earlier = torch.load("work/iter_8.pth", weights_only=False)
    values = earlier["message_hub"]["runtime_info"]
    (name,) = (name for name in values if name.startswith("best_ckpt"))
    values |= {name: "work/best_Given_iter_8.pth", name.replace("best_ckpt", "best_score"): 3.0}
    earlier["meta"]["time"] = "20200101_000000"
    torch.save(earlier, "work/best_Given_iter_8.pth")
    Given.values = [2.5]
    train("work", rule, "train_cfg.max_iters=12", resume=True)
    assert checkpoint_files() == {"iter_12.pth", "best_Given_iter_8.pth", "best_Given_iter_12.pth"}


def test_partial_checkpoints_of_a_killed_run_are_removed_by_the_next(home):
    Path("work").mkdir()
    others = [".iter_8.pth", ".mine-0a1b2c3d.pth", "iter_8-0a1b2c3d.pth.txt"]
    for name in others:
        Path("work", name).touch()
    for name in "iter_8.pth", "best_PSNR_iter_8.pth":
        temporary_name(Path("work", name)).touch()
    train("work", "train_cfg.max_iters=1")
    left = {path.name for path in Path("work").iterdir() if path.is_file()}
    assert left == {*others, "iter_1.pth", "last_checkpoint", "config.py"}


def test_collapse_is_reported_with_what_is_needed(home):
    message = (
        r"training collapsed at iteration 6: .*loss\w* is nan.*; the batch was data/GT/\d.png, data/GT/\d.png. "
        r"The last good checkpoint is \S+/iter_4.pth. Lower the learning rates"
    )
    with pytest.raises(InputError, match=message):
        train("work", hooks=({"type": "Poison", "iteration": 6},))
    assert newest_whole_checkpoint("work") == Path("work/iter_4.pth")


def test_weights_that_are_not_finite_are_not_saved(home):
    message = r"collapsed at iteration 8: \d+ tensors are not finite, \S+ for one; nothing was saved.*/iter_4.pth"
    with pytest.raises(InputError, match=message):
        train("work", hooks=({"type": "Poison", "iteration": 8, "after": True},))
    assert not Path("work/iter_8.pth").exists()
    assert newest_whole_checkpoint("work") == Path("work/iter_4.pth")


def test_a_damaged_file_stops_training_or_is_skipped(home, caplog):
    damage("data/GT/3.png", "empty")
    with pytest.raises(InputError, match=r"data/GT/3.png is empty"):
        train("work")
    runner = train("skipping", "train_dataloader.dataset.unreadable=skip")
    assert runner.iter == 16
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "SkippedFilesHook")
    assert hook.files == {"data/GT/3.png"} and hook.times >= 2


def test_a_list_that_names_missing_files(home):
    Path("data/list.txt").write_text("0.png\n9.png\n8.png\n")
    with pytest.raises(InputError, match=r"data/GT/9.png and 1 more: no such file, but data/list.txt names it"):
        train("work", "train_dataloader.dataset.ann_file=list.txt")
