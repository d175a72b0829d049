"""Inputs and outputs behind URLs."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from support.restoring import needs_s3, restore, results, s3_bucket, write_images

from glean_ext.batch import pipeline
from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.batch.output_plan import Job, require_own_files
from glean_ext.batch.run import RunCallbacks, plan_run, restore_files
from glean_ext.errors import InputError
from glean_ext.utils.url_files import UrlPath, deliver, fetch, is_file_url, list_url

MODEL = ModelSource.named("demo_lightglean_x8")


@pytest.fixture
def memory():
    """fsspec's files in memory, none at first."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def options(source: object, output: object, **changes) -> RestoreOptions:
    return RestoreOptions(MODEL, (str(source),), str(output), device="cpu", dtype="float32", **changes)


def test_a_result_arrives_after_its_comparison(tmp_path, memory, monkeypatch):
    """A run that is killed in between restores the file again: --skip-existing asks for the result alone."""
    arrived: list[str] = []

    def record(path: Path, url: UrlPath) -> None:
        deliver(path, url)
        arrived.append(url.name)

    monkeypatch.setattr("glean_ext.batch.remote_files.deliver", record)
    write_images(tmp_path / "in", 1)
    restore_files(options(tmp_path / "in", "memory://data/out", compare=True))
    assert arrived == ["00000_compare.png", "00000.png"]


def test_urls_are_paths():
    url = UrlPath("s3://bucket/in/a.png")
    assert str(url / "b") == "s3://bucket/in/a.png/b" and url.parent == UrlPath("s3://bucket/in")
    assert {url} == {UrlPath("s3://bucket") / "in" / "a.png"} and str(url.relative_to("s3://bucket")) == "in/a.png"
    assert [is_file_url(text) for text in ("s3://b", url, "s3", "C:/a", "a:b.png", Path("a"), "s3:/b")] == [
        *(True, True, False, False, False, False, False)
    ]


def test_urls_of_local_files_keep_their_whole_path(tmp_path):
    write_images(tmp_path / "in", 1)
    url, within, *_ = list_url(f"file://{tmp_path}/in")[0]
    assert str(url) == f"file://{tmp_path}/in/{within}" and str(url.parent).startswith("file:///")
    fetch(url, tmp_path / "copy.png")
    deliver(tmp_path / "copy.png", UrlPath(f"file://{tmp_path}") / "out" / "a.png")
    assert (tmp_path / "out/a.png").read_bytes() == (tmp_path / "in" / within).read_bytes()


def test_files_of_urls_are_restored_like_local_ones(tmp_path, memory):
    write_images(tmp_path / "in", 3)
    Path(tmp_path, "in/00/damaged.png").write_bytes(b"no image")
    Path(tmp_path, "in/00/notes.txt").write_text("text")
    memory.put(f"{tmp_path}/in", "/data/in", recursive=True)
    memory.pipe("/data/in/.hidden/a.png", b"")
    local = restore_files(options(tmp_path / "in", tmp_path / "out", compare=True))
    notices: list[str] = []
    callbacks = RunCallbacks(notify=lambda notice: notices.append(str(notice)))
    given = options("memory://data/in", "memory://data/out", compare=True)
    report = restore_files(given, callbacks)
    assert (report.done, local.done) == (3, 3)
    found = {name.removeprefix("/data/out/"): memory.cat(name) for name in memory.find("/data/out")}
    assert found == results(tmp_path / "out")
    (failure,) = report.failures.values()
    assert str(failure).startswith("memory://data/in/00/damaged.png is no image")
    assert [str(path) for path in plan_run(options("memory://data/in", "memory://new")).outputs.left_out] == [
        "memory://data/in/00/notes.txt"
    ]

    memory.rm("/data/out/00/00001.png")
    memory.rm("/data/in/00/damaged.png")
    again = options("memory://data/in", "memory://data/out", compare=True, skip_existing=True)
    assert (restore_files(again).done, restore_files(again).skipped) == (1, 3)
    with pytest.raises(InputError, match=r"3 of 3 outputs exist in memory://data/out \(00000\.png, "):
        plan_run(given)
    mixed = restore_files(options("memory://data/in/00/*2.png", tmp_path / "down"))
    assert mixed.done == 1 and results(tmp_path / "down") == {"00002.png": found["00/00002.png"]}
    assert restore_files(options(tmp_path / "in/00/00002.png", "memory://up")).done == 1
    assert memory.cat("/up/00002.png") == found["00/00002.png"]


def test_names_that_differ_in_case_and_results_among_the_inputs(tmp_path, memory):
    write_images(tmp_path, 1)
    for name in "a.png", "A.png":
        memory.put(f"{tmp_path}/00/00000.png", f"/case/{name}")
    targets = [str(job.target) for job in plan_run(options("memory://case", "memory://out")).jobs]
    assert targets == ["memory://out/A.png", "memory://out/a.png"]
    with pytest.raises(InputError, match=r"A\.png and .*a\.png would both be written to sftp://host/out/a\.png"):
        require_own_files([Job(tmp_path / name, UrlPath("sftp://host/out") / name) for name in ("A.png", "a.png")])
    for source in "memory://case", "memory://case/*.png":
        with pytest.raises(InputError, match=r"is in memory://case, where the results come\. Give another folder as "):
            plan_run(options(source, "memory://case", suffix="_x"))


def test_inputs_beside_urls_are_not_overwritten(tmp_path, memory):
    write_images(tmp_path, 1)
    memory.put(f"{tmp_path}/00/00000.png", "/data/b.png")
    inputs = str(tmp_path / "00/00000.png"), "memory://data/b.png"
    given = RestoreOptions(MODEL, inputs, str(tmp_path / "00"), overwrite=True)
    with pytest.raises(InputError, match=r"00000\.png is an input and would be overwritten"):
        plan_run(given)


def test_a_store_that_shows_parts_of_files_gets_them_under_another_name(tmp_path, monkeypatch):
    local, moved = fsspec.filesystem("file"), []
    monkeypatch.setattr(type(local), "mv", lambda self, *paths: moved.append(paths))
    monkeypatch.setattr("glean_ext.utils.url_files.open_url", lambda url: (local, f"{tmp_path}/out/a.png"))
    Path(tmp_path, "a.png").write_bytes(b"content")
    deliver(tmp_path / "a.png", UrlPath("sftp://host/out/a.png"))
    assert moved == [(f"{tmp_path}/out/a.png.partial", f"{tmp_path}/out/a.png")]
    assert results(tmp_path / "out") == {"a.png.partial": b"content"}


def refuse(monkeypatch, memory, method: str, after: int, *more: str) -> None:
    """From the call after so many on, a method of a store refuses; others do so from then on."""
    calls, real = [], getattr(type(memory), method)

    def refusing(*args, **kwargs):
        calls.append(args)
        if len(calls) > after:
            for other in more:
                monkeypatch.setattr(type(memory), other, refusing)
            raise PermissionError("The provided token has expired.")
        return real(*args, **kwargs)

    monkeypatch.setattr(type(memory), method, refusing)


def test_a_store_that_refuses_all_results_ends_the_run(tmp_path, memory, monkeypatch):
    write_images(tmp_path / "in", 20)
    monkeypatch.setattr(pipeline, "WRITERS", 1)  # files fail in their order
    refuse(monkeypatch, memory, "put_file", 2)
    reason = r"^memory://out/\S+ cannot be used \(The provided token has expired\)\. .* 2 files were written before, "
    with pytest.raises(InputError, match=rf"{reason}and 7 had failed \("):
        restore_files(options(tmp_path / "in", "memory://out"))
    monkeypatch.undo()
    report = restore_files(options(tmp_path / "in", "memory://out", skip_existing=True))
    assert (report.done, report.skipped) == (18, 2)


def test_a_store_that_gives_no_file_any_more_ends_the_run_but_locked_files_do_not(tmp_path, memory, monkeypatch):
    write_images(tmp_path / "in", 20)
    memory.put(f"{tmp_path}/in", "/in", recursive=True)
    with monkeypatch.context() as patch:
        refuse(patch, memory, "get_file", 2)
        report = restore_files(options("memory://in", tmp_path / "locked"))
    assert (report.done, len(report.failures)) == (2, 18)
    refuse(monkeypatch, memory, "get_file", 2, "info")
    with pytest.raises(InputError, match=r"^memory://in/00/\S+ cannot be used \(The provided token has expired\)\."):
        restore_files(options("memory://in", tmp_path / "out"))
    assert len(results(tmp_path / "out")) == 2


def test_a_bucket_that_does_not_exist_is_found_before_the_start(tmp_path, memory, monkeypatch):
    def missing(path, **_):
        raise FileNotFoundError("The specified bucket does not exist")

    write_images(tmp_path / "in", 1)
    for method in "find", "info":
        monkeypatch.setattr(memory, method, missing)
    monkeypatch.setattr(memory, "isfile", lambda path: False)
    with pytest.raises(InputError, match=r"^memory://none/out cannot be used \(The specified bucket does not exist"):
        plan_run(options(tmp_path / "in", "memory://none/out"))


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("memory://nothing", "out", "memory://nothing: there is no such file, and no such folder with files."),
        ("nothing://bucket/in", "out", "nothing://bucket/in cannot be used (ValueError: Protocol not known: nothing)."),
        ("memory://texts", "out", "memory://texts has no images. Give a folder of images."),
    ],
)
def test_bad_urls(memory, source, output, message):
    memory.pipe("/texts/a.txt", b"")
    with pytest.raises(InputError) as caught:
        plan_run(options(source, output))
    assert str(caught.value).startswith(message)
    with pytest.raises(InputError, match="save_faces writes faces of local files only, but memory://texts is a URL"):
        plan_run(options("memory://texts", "out", photo=PhotoOptions(save_faces=Path("faces"))))


@pytest.mark.slow
@needs_s3
def test_two_workers_restore_a_bucket_of_s3(tmp_path):
    with s3_bucket(tmp_path / "log") as (store, environment):
        write_images(tmp_path / "in", 12)
        store.put(f"{tmp_path}/in", "bucket/in", recursive=True)
        arguments = "s3://bucket/in", "s3://bucket/out", "--workers", 2
        code, stdout, stderr = restore(*arguments, **environment)
        assert code == 0 and "12 restored by" in stdout, stderr
        assert restore(tmp_path / "in", tmp_path / "out")[0] == 0
        store.invalidate_cache()
        found = {name.removeprefix("bucket/out/"): store.cat(name) for name in store.find("bucket/out")}
        assert found == results(tmp_path / "out")
        missing = {name: "" for name in environment if name != "AWS_ENDPOINT_URL"}
        missing |= {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
        code, _, stderr = restore("s3://bucket/in", tmp_path / "x", **environment | missing)
        assert code == 2 and stderr.count("\n") == 1
        assert "s3://bucket/in cannot be used (NoCredentialsError: Unable to locate credentials)" in stderr
