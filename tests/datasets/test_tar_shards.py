"""Training from tar shards: the samples of a folder, in any order, and each kind of damage in one line."""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from support.restoring import needs_s3, s3_bucket
from torch.utils.data import DataLoader

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.datasets import ResumableSampler, SRFolderDataset, SRShardDataset
from glean_ext.datasets.sr_shard_dataset import IMAGES
from glean_ext.errors import InputError
from glean_ext.utils import tar_shards, url_files
from glean_ext.utils.tar_shards import Member, expand_braces, group_samples, list_shards, read_contents

FLIP = {"type": "Flip", "keys": ["img", "gt"], "flip_ratio": 0.5, "direction": "horizontal"}
PIPELINE = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}, FLIP, {"type": "PackInputs"}]


pytestmark = pytest.mark.usefixtures("fast")


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmagic"):
        yield


@pytest.fixture
def memory() -> Iterator:
    """fsspec's files in memory, none at first."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def png(seed: int, side: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def home(tmp_path) -> Path:
    """``GT/00.png`` to ``GT/10.png``, and the same in three shards, whose last has one."""
    (tmp_path / "GT").mkdir()
    for start in 0, 5, 10:
        files = {f"{seed:02d}.png": png(seed) for seed in range(start, min(start + 5, 11))}
        write_tar(tmp_path / f"faces-{start // 5:03d}.tar", files)
        for name, content in files.items():
            (tmp_path / "GT" / name).write_bytes(content)
    return tmp_path


def shards(source: object, **more) -> SRShardDataset:
    return SRShardDataset(source if isinstance(source, list) else str(source), 2, PIPELINE, **more)


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return str(error.value)


def drawn(dataset, count: int, start: int = 0, rank: int = 0, ranks: int = 1, workers: int = 0) -> list[tuple]:
    """Names and pixels of so many batches of two, from the ``start``th on."""
    sampler = ResumableSampler(dataset, seed=3)
    sampler.rank, sampler.world_size, sampler.start = rank, ranks, 2 * start
    context = "fork" if workers else None  # only forks see the files in memory
    loader = DataLoader(
        dataset, 2, sampler=sampler, num_workers=workers, collate_fn=list, multiprocessing_context=context
    )
    found = []
    for batch in islice(loader, count):
        for sample in batch:
            name = Path(sample["data_samples"].gt_path).name
            found.append((name, sample["inputs"].numpy().tobytes(), sample["data_samples"].gt_img.numpy().tobytes()))
    return found


@pytest.mark.slow
def test_loading_processes_need_not_be_forks(home):
    """They are none on Windows, on macOS, and from Python 3.14 on."""
    dataset = SRFolderDataset(str(home), {"gt": "GT"}, 2, PIPELINE)
    loader = DataLoader(dataset, 2, num_workers=1, collate_fn=list, multiprocessing_context="spawn")
    assert len(list(loader)) == 6


def test_samples_are_those_of_the_folder_in_any_order_on_any_worker_and_after_an_interruption(home, memory):
    folder = SRFolderDataset(str(home), {"gt": "GT"}, 2, PIPELINE)
    for path in home.glob("*.tar"):
        memory.put(str(path), f"/data/{path.name}")
    expected = drawn(folder, 12)
    assert len({name for name, *_ in expected[:11]}) == 11
    for source in home / "faces-{000..002}.tar", home / "*.tar", "memory://data/faces-{000..002}.tar":
        dataset = shards(source)
        assert len(dataset) == 11
        assert drawn(dataset, 12) == expected
        assert drawn(dataset, 5, start=7) == expected[14:]
    assert drawn(dataset, 8, start=4, workers=2) == expected[8:]
    both = [drawn(dataset, 6, rank=rank, ranks=2) for rank in (0, 1)]
    assert [sample for pair in zip(*both, strict=True) for sample in pair] == expected


@pytest.mark.slow
@needs_s3
def test_shards_in_a_bucket_of_s3(home, monkeypatch):
    """Processes that load are forked from one that has used the store already."""
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    with s3_bucket(home / "log") as (store, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store.put(f"{home}/faces-*.tar", "bucket/data/")
        expected = drawn(shards(home / "*.tar"), 12)
        for source in "s3://bucket/data/*.tar", "s3://bucket/data/faces-{000..002}.tar":
            assert drawn(shards(source), 12, workers=2) == drawn(shards(source), 12) == expected
        assert fault(shards, "s3://bucket/data/faces-{002..003}.tar").startswith(
            "s3://bucket/data/faces-003.tar cannot"
        )


def test_pairs_and_what_images_are_called(home, caplog):
    files = {f"a/{seed}.{kind}": png(seed, side) for seed in (1, 2) for kind, side in (("gt.PNG", 16), ("lq.png", 8))}
    write_tar(home / "pairs.tar", files | {"a/3.json": b"{}", ".hidden.png": b"", "a/4.lq.png": png(4, 8)})
    with caplog.at_level(logging.INFO, "glean_ext"):
        pairs = shards(home / "pairs.tar", members={"gt": "jpg;gt.png", "img": "lq.png"})
    assert caplog.messages == [
        f"1 shards: 2 samples with an image, 2 without one are left out: {home}/pairs.tar/a/3.json and 1 more."
    ]
    sample = pairs[1]
    assert sample["data_samples"].img_path == f"{home}/pairs.tar/a/2.lq.png"
    assert sample["inputs"].shape == (3, 8, 8) and sample["data_samples"].gt_img.shape == (3, 16, 16)
    assert fault(shards, home / "pairs.tar") == (
        f"{home}/pairs.tar: no sample has {IMAGES}; there is {home}/pairs.tar/a/1.gt.png. Correct shards, or set "
        "members."
    )
    assert fault(shards, home / "faces-000.tar", members={"gt": "png", "img": "lq.png"}) == (
        f"{home}/faces-000.tar/00.png has no lq.png. Add it, or leave members.img out."
    )
    assert "SRShardDataset.members is {'img': 'png'}, but it must be dict(gt=" in fault(
        shards, home / "*.tar", members={"img": "png"}
    )
    assert fault(shards, home / "*.tar", unreadable="no") == (
        "SRShardDataset.unreadable is 'no', but it must be 'stop' or 'skip'."
    )


def test_braces_and_patterns(home):
    assert expand_braces("a{1..3}-{x,y}.tar") == [f"a{i}-{j}.tar" for i in (1, 2, 3) for j in "xy"]
    assert expand_braces("{09..11}") == ["09", "10", "11"] and expand_braces("a{b}.tar") == ["a{b}.tar"]
    both = [f"{home}/faces-{{001..002}}.tar", f"{home}/*-000.tar"]
    assert [Path(path).name for path in list_shards(both)] == ["faces-001.tar", "faces-002.tar", "faces-000.tar"]
    assert fault(list_shards, f"{home}/faces-{{000..005}}.tar").startswith(
        f"{home}/faces-003.tar and 2 more: there is no such file. Correct shards='"
    )
    assert fault(list_shards, f"{home}/no*.tar").endswith(
        "names no files. Set it to tar files, such as 'data/{000..099}.tar'."
    )
    assert "memory://none/*.tar: there is no such file" in fault(list_shards, "memory://none/*.tar")


def test_what_looks_like_a_pattern_may_be_a_name(home):
    (home / "faces-000.tar").rename(home / "a[1].tar")
    signed = "https://example.org/a.tar?signature=[b]"
    assert list_shards([f"{home}/a[1].tar", signed]) == [f"{home}/a[1].tar", signed]
    names = f"{home}/*.tar", f"{home}/no*.tar"
    assert fault(list_shards, names).startswith(f"{home}/no*.tar: there is no such file. Correct shards=")


def test_links_are_left_out_with_a_warning(home, caplog):
    with tarfile.open(home / "links.tar", "w") as tar:
        tar.add(home / "GT/00.png", "0.png")
        for name, kind in ("1.png", tarfile.SYMTYPE), ("2.png", tarfile.LNKTYPE):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.png"
            tar.addfile(info)
    assert len(shards(home / "links.tar")) == 1
    assert caplog.messages == [
        f"1 shards: 1 samples with an image, 2 links to other files are left out: {home}/links.tar/1.png and 1 more."
    ]


def test_samples_are_files_that_share_their_name_up_to_the_first_dot():
    names = "a/1.png", "a/1.seg.PNG", "b.c/2.jpg", "README", "3.x", "3.X"
    grouped = group_samples(Member("s", name, 0, 0) for name in names)
    assert [(name, list(files)) for name, files in grouped] == [
        ("a/1", ["png", "seg.png"]),
        ("b.c/2", ["jpg"]),
        ("3", ["x"]),
        ("3", ["x"]),
    ]


# ---------------------------------------------------------------- damage


def test_a_shard_that_is_cut_off_or_damaged_in_the_middle(home, caplog):
    whole = (home / "faces-000.tar").read_bytes()
    members = read_contents([str(home / "faces-000.tar")])[0].members
    in_third = members[2].offset + 100
    header = members[3].offset - tarfile.BLOCKSIZE
    broken = whole[:header] + bytes([255] * tarfile.BLOCKSIZE) + whole[header + tarfile.BLOCKSIZE :]
    for content, last, used in (
        (whole[:in_third], "01.png", 2),
        (whole[: members[2].offset - 100], "01.png", 2),
        (broken, "02.png", 3),
    ):
        path = home / "bad.tar"
        path.write_bytes(content)
        assert fault(shards, path) == (
            f"{path} is damaged or cut off after {last}. Copy it again, or set unreadable='skip' to use what is before."
        )
        caplog.clear()
        assert len(shards([str(home / "faces-002.tar"), str(path)], unreadable="skip")) == used + 1
        assert f"{path} is damaged or cut off after {last}. The {used} files before are used." in caplog.messages
    path.write_bytes(b"no tar file" * 100)
    assert fault(shards, path).startswith(f"{path} is no tar file, or a compressed one (")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(home / "GT/00.png", "00.png")
    assert fault(shards, path).endswith("Unpack it with gunzip, or copy it again.")
    path.write_bytes(whole[:header])  # between two files: only the end's mark is missing
    assert fault(shards, path).startswith(f"{path} is damaged or cut off after 02.png.")


def test_a_damaged_image_is_named_and_skipped_as_in_a_folder(home):
    write_tar(home / "bad.tar", {"0.png": png(0)[:200], "1.png": png(1), "2.png": b""})
    dataset = shards(home / "bad.tar")
    assert fault(lambda: dataset[0]).startswith(f"{home}/bad.tar/0.png is ")
    assert fault(lambda: dataset[2]).startswith(f"{home}/bad.tar/2.png is empty (0 bytes)")
    sample = shards(home / "bad.tar", unreadable="skip")[0]["data_samples"]
    assert sample.gt_path == f"{home}/bad.tar/1.png" and f"{home}/bad.tar/0.png" in sample.skipped


def test_a_shard_that_changed_under_the_training(home):
    dataset = shards(home / "faces-000.tar")
    (home / "faces-000.tar").write_bytes((home / "faces-000.tar").read_bytes()[:2000])
    assert " is cut off after " in fault(lambda: dataset[4])
    (home / "faces-000.tar").unlink()
    assert fault(lambda: dataset[4]).startswith(f"{home}/faces-000.tar cannot be read (No such file or directory).")


def test_tables_of_contents_of_urls_are_kept_until_the_shard_changes(home, memory, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    scanned: list[str] = []
    scan = tar_shards.scan
    monkeypatch.setattr(tar_shards, "scan", lambda file, shard: (scanned.append(shard), scan(file, shard))[1])
    url = "memory://data/a.tar"
    memory.put(str(home / "faces-000.tar"), "/data/a.tar")
    first = read_contents([url])
    assert read_contents([url]) == first and scanned == [url] and len(first[0].members) == 5
    memory.put(str(home / "faces-002.tar"), "/data/a.tar")
    assert len(read_contents([url])[0].members) == 1 and scanned == [url, url]
    (table,) = (home / "torch").rglob("*.json")
    table.write_text("damaged")
    assert len(read_contents([url])[0].members) == 1 and scanned == [url] * 3
    (home / "file").touch()
    monkeypatch.setenv("TORCH_HOME", str(home / "file"))  # tables cannot be written there
    assert len(read_contents([url])[0].members) == 1


def test_a_network_that_fails_now_and_then(home, memory, monkeypatch):
    memory.put(str(home / "faces-000.tar"), "/data/a.tar")
    member = read_contents(["memory://data/a.tar"])[0].members[1]
    monkeypatch.setattr(url_files, "PAUSE", 0.0)
    failures = [OSError("reset"), OSError("reset")]
    cat = type(memory).cat_file

    def flaky(self, *args, **kwargs):
        if failures:
            raise failures.pop()
        return cat(self, *args, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", flaky)
    assert member.read() == (home / "GT/01.png").read_bytes()
    failures += [OSError("gone")] * 3
    assert fault(member.read).startswith("memory://data/a.tar cannot be used (gone).")
