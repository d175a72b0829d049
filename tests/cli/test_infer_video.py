"""tools/infer.py with videos: what it writes, says and leaves with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data
from support.tools import run_main
from support.videos import picture, psnr, read_video, worst, write_video

from glean_ext.batch.options import ModelSource, PhotoOptions, RestoreOptions
from glean_ext.batch.run import RunCallbacks, restore_files
from glean_ext.batch.video_stages import FrameRestorer, VideoRestorer, fingerprint
from glean_ext.cli import restore as command
from glean_ext.faces.detection import FaceFinder
from glean_ext.faces.photo_restorer import PhotoRestorer
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.inference.memory_budget import Memory
from glean_ext.inference.size_policy import SizePolicy
from glean_ext.size_requirements import SizeRequirements
from glean_ext.utils.imresize import imresize

ROOT = Path(__file__).parents[2]
MODEL = "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors"
OPTIONS = "--device", "cpu", "--dtype", "float32"


def process(*arguments):
    """The real tool, started."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    tool = [sys.executable, ROOT / "tools" / "infer.py", *MODEL, *map(str, arguments), *OPTIONS]
    return subprocess.Popen(tool, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)


@pytest.fixture
def infer(capsys):
    """Run the tool in this process: (exit code, stdout, stderr)."""
    return lambda *arguments: run_main(command.main, capsys, *MODEL, *arguments, *OPTIONS)


@pytest.fixture(scope="module")
def restorer():
    return ImageRestorer(*MODEL, device="cpu", dtype="float32", notify=lambda line: None)


@pytest.fixture
def source(tmp_path):
    return write_video(tmp_path / "in.mp4", [picture(4 * number, (8, 8)) for number in range(30)])


def test_a_video(source, tmp_path, restorer):
    target = tmp_path / "out.mp4"
    child = process(source, "-o", target, "--batch", 8, "--crf", 4)
    stdout, stderr = child.communicate(timeout=120)
    assert (child.returncode, stderr) == (0, "")
    assert stdout.startswith(f"{target}: 30 frames of 64x64; ") and stdout.endswith("% of the time in the network\n")
    content, shown = read_video(target), read_video(source)
    expected = restorer.restore_batch(shown.rgb)
    assert worst(content.rgb, expected) > 32 > 28 > psnr(imresize(shown.rgb[0], scale=8), expected[0])
    assert (content.times, content.packets) == (shown.times, shown.packets) and content.packets
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_an_interrupted_video_goes_on(infer, tmp_path):
    source = write_video(tmp_path / "in.mp4", [picture(number, (8, 8)) for number in range(110)], audio=())
    target, folder = tmp_path / "out.mp4", tmp_path / ".out.mp4.segments"
    child = process(source, "-o", target)
    until = time.monotonic() + 100
    while not (folder / "000000.mp4").exists():
        assert child.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=60)
    kept = 60 * len(list(folder.glob("0*.mp4")))
    assert (child.returncode, stderr) == (130, "interrupted\n") and not target.exists() and 60 <= kept < 110
    assert stdout == f"{target}: {kept} frames are kept; the same call continues after them.\n"
    code, stdout, stderr = infer(source, "-o", target)
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"{target}: {kept} frames are kept from the interrupted run; it continues after them.\n")
    assert f"{target}: 110 frames of 64x64; {kept} of them from the interrupted run; " in stdout
    assert len(read_video(target).rgb) == 110 and not folder.exists()


def test_frames_of_another_size_are_resized_which_is_said_once(infer, source, tmp_path, restorer):
    source = write_video(tmp_path / "in.mp4", 6)
    code, stdout, stderr = infer(source, "-o", tmp_path / "out.mp4", "--outscale", 2, "--crf", 4, "--compare")
    assert (code, stderr) == (0, "")
    lines = stdout.splitlines()
    assert lines[:2] == [
        "--compare makes pictures of images only, not of videos.",
        f"{source} has 32x24 pixels; it was padded and resized to the model's 8x8. See --size-policy and --fit.",
    ]
    assert len(lines) == 3 and lines[2].startswith(f"{tmp_path}/out.mp4: 6 frames of 64x48; ")
    expected = [imresize(restorer.restore(rgb), size=(48, 64)) for rgb in read_video(source).rgb]
    assert worst(read_video(tmp_path / "out.mp4").rgb, expected) > 36


def test_faces_of_each_frame(infer, tmp_path, restorer):
    face = data.astronaut()[:256, 100:356]
    frames = [np.ascontiguousarray(np.roll(face, 4 * number, axis=1)) for number in range(3)]
    frames.append(np.full_like(face, 128))
    source = write_video(tmp_path / "in.mp4", frames, options={"crf": "1"})
    code, stdout, stderr = infer(source, "-o", tmp_path / "out.mp4", "--photo", "--crf", 1, "--batch", 2)
    assert (code, stderr) == (0, "")
    warning, finder, line = stdout.splitlines()
    assert finder == FaceFinder().about
    assert warning.startswith("warning: demo_glean_x8: A small demonstration ")
    assert line.startswith(f"{tmp_path}/out.mp4: 4 frames of 256x256; 3 faces; ")
    shown, content = read_video(source), read_video(tmp_path / "out.mp4")
    photos = PhotoRestorer(restorer)
    expected = [photos.restore(rgb).image for rgb in shown.rgb]
    assert worst(content.rgb, expected) > 36
    assert psnr(expected[0], shown.rgb[0]) < 30  # a cartoon's face
    code, _, stderr = infer(source, "-o", tmp_path / "no.mp4", "--photo", "--when-no-face", "error")
    assert (code, stderr.count("\n")) == (2, 1) and stderr.startswith(f"error: {source}: no face was found. ")
    assert not (tmp_path / "no.mp4").exists()


def test_a_folder_of_images_and_videos(infer, source, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    source.rename(folder / "deep" / "film.mp4")
    Image.fromarray(picture(0, (8, 8))).save(folder / "a.png")
    write_video(folder / "b.avi", [picture(0, (8, 8))], codec="mpeg4", options={}, audio=["pcm_s16le"])
    (folder / "c.mkv").write_bytes(b"no video")
    code, stdout, stderr = infer(folder, "-o", out)
    assert code == 2 and stderr.startswith("error: 1 of 4 ") and "c.mkv" in stderr and stderr.count("\n") == 1
    assert f"failed: {folder}/c.mkv is no video, or truncated or damaged. Get the file again.\n" in stdout
    assert "3 restored; 1 failed" in stdout
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == ["a.png", "b.avi.mp4", "deep/film.mp4"]

    (folder / "c.mkv").unlink()
    before = {name: (out / name).stat().st_mtime_ns for name in files}
    code, _, stderr = infer(folder, "-o", out)
    assert code == 2 and "Give --overwrite to replace them, or --skip-existing" in stderr
    (out / "b.avi.mp4").unlink()
    assert infer(folder, "-o", out, "--skip-existing")[0] == 0
    now = {name: (out / name).stat().st_mtime_ns for name in files}
    assert [name for name in files if now[name] != before[name]] == ["b.avi.mp4"]
    assert infer(folder, "-o", out, "--overwrite")[0] == 0
    assert all((out / name).stat().st_mtime_ns != before[name] for name in files)


def test_the_report_counts_the_time_that_videos_take_in_the_network(source, tmp_path):
    options = RestoreOptions(ModelSource(*MODEL), (source,), tmp_path / "out.mp4", device="cpu", dtype="float32")
    videos = []
    report = restore_files(options, RunCallbacks(on_video=lambda job, video: videos.append(video)))
    assert report.done == 1 and report.images_per_second is None
    assert 0 < videos[0].network_seconds == report.network_seconds < report.seconds


def test_a_single_video_that_exists(infer, source, tmp_path):
    target = write_video(tmp_path / "out.mp4", 2)
    assert infer(source, "-o", target) == (2, "", f"error: {target} exists. Give --overwrite, or another output.\n")
    code, stdout, _ = infer(source, "-o", target, "--skip-existing")
    assert code == 0 and stdout == "all 1 outputs exist; there is nothing to do\n"
    assert len(read_video(target).rgb) == 2
    assert infer(source, "-o", target, "--overwrite")[0] == 0 and len(read_video(target).rgb) == 30


def test_bad_videos_are_one_line(infer, source, tmp_path):
    assert infer(source, "-o", tmp_path / "o.webm")[2].startswith(f"error: {tmp_path}/o.webm: videos are written as ")
    source.write_bytes(source.read_bytes()[:500])
    code, stdout, stderr = infer(source, "-o", tmp_path / "o.mp4")
    assert (code, stdout) == (2, "")
    assert stderr == f"error: {source} is no video, or truncated or damaged. Get the file again.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_fingerprint(tmp_path):
    weights, base, config = tmp_path / "weights.pth", tmp_path / "base.py", tmp_path / "config.py"
    weights.write_bytes(b"1")
    base.write_text("model = dict(type='GLEAN', generator=dict(type='GLEANStyleGANv2', in_size=8, out_size=64))\n")
    config.write_text("_base_ = ['base.py']\n")
    models, options = [ModelSource(str(config), str(weights))], {"fit": None}
    first = fingerprint(models, [], options)
    assert fingerprint(list(models), (), dict(options)) == first
    assert fingerprint(models, [], {"fit": "pad"}) != first
    assert fingerprint([*models, models[0]], [], options) != first
    assert fingerprint(models, ["model.generator.in_size=16"], options) != first
    weights.write_bytes(b"2+")
    second = fingerprint(models, [], options)
    assert second != first
    config.touch()
    assert fingerprint(models, [], options) == second
    base.write_text(base.read_text().replace("8", "16"))
    assert fingerprint(models, [], options) != second


class Changing:
    """Repeats pixels, on a machine where each time one asks another amount of memory is free."""

    takes = SizeRequirements((8, 8), 8, any_size=True)
    colorizes = gated = False
    max_references = 0

    def __init__(self, *free: float):
        self.free = list(free)

    def __call__(self, lq):
        return lq.repeat(8, 2).repeat(8, 3)

    def restore(self, images):
        return [image.repeat(8, 0).repeat(8, 1) for image in images]

    def with_references(self, references):
        return self

    def memory(self) -> Memory:
        return Memory(per_pixel=1e6, ram=int(self.free.pop(0)))


LIGHT = ModelSource("demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors")


def test_all_frames_are_cut_into_the_same_tiles(tmp_path):
    """Those of a resumed run as well."""
    source = write_video(tmp_path / "in.mp4", [picture(number, (64, 48)) for number in range(62)], audio=())
    options = RestoreOptions(LIGHT, (source,), tmp_path / "out.mp4", outscale=0.5, batch=2)
    counts = []

    def restore(*free: float, stop: bool = False):
        light = ImageRestorer(Changing(*free), on_tile=lambda done, total: counts.append(total))
        videos = VideoRestorer(options, light, notify=lambda line: None)

        def progress(done, total):
            if stop and done == 60:
                raise KeyboardInterrupt

        return videos.restore(source, tmp_path / "out.mp4", progress)

    with pytest.raises(KeyboardInterrupt):
        restore(2.5e9, 1e12, stop=True)
    assert restore(1e12).result.resumed == 60
    assert set(counts) == {15} and len(counts) == 62 * 15


def test_smoothed_videos_continue_alike(tmp_path):
    source = write_video(tmp_path / "in.mp4", [picture(number, (8, 8)) for number in range(64)], audio=())

    def restore(name: str, temporal: bool = True, stop: bool = False):
        def progress(done, total):
            if stop and done == 62:
                raise KeyboardInterrupt

        options = RestoreOptions(LIGHT, (source,), tmp_path / name, batch=2, temporal=temporal)
        light = ImageRestorer(Changing(*[1e12] * 64))
        return VideoRestorer(options, light, notify=lambda line: None).restore(source, tmp_path / name, progress)

    restore("whole.mp4")
    restore("plain.mp4", temporal=False)
    with pytest.raises(KeyboardInterrupt):
        restore("out.mp4", stop=True)
    assert restore("out.mp4").result.resumed == 60
    plain, whole, out = ((tmp_path / name).read_bytes() for name in ("plain.mp4", "whole.mp4", "out.mp4"))
    assert out == whole != plain


def test_another_embedder_of_the_same_name_starts_again(tmp_path, restorer):
    weights = tmp_path / "arcface.pth"
    photo = PhotoOptions(embedder=str(weights))
    options = RestoreOptions(ModelSource(*MODEL), ("a.mp4",), tmp_path / "out.mp4", photo=photo, references=("r.png",))
    weights.write_bytes(b"one")
    first, second = (VideoRestorer(options, restorer).fingerprint for _ in range(2))
    weights.write_bytes(b"another")
    assert first == second != VideoRestorer(options, restorer).fingerprint


def test_results_are_smoothed_where_frames_are_cropped(tmp_path):
    """As a video of the part that they show would be."""
    wide = [picture(number, (16, 8)) for number in range(4)]
    policies = SizePolicy("resize", fit="crop"), SizePolicy()
    networks = [
        ImageRestorer(*MODEL, device="cpu", size_policy=policy, notify=lambda line: None) for policy in policies
    ]
    options = RestoreOptions(ModelSource(*MODEL), ("a.mp4",), tmp_path / "out.mp4", temporal=True)
    videos = [VideoRestorer(options, each, notify=lambda line: None) for each in networks]
    wide_frames, frames = (FrameRestorer(video, "a.mp4", tmp_path / "note.json") for video in videos)
    np.testing.assert_array_equal(wide_frames.restore(wide), frames.restore([rgb[:, 4:12] for rgb in wide]))


def test_smoothing_is_for_videos(infer, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, stdout, stderr = infer(tmp_path / "a.png", "-o", tmp_path / "b.png", "--temporal")
    assert (code, stdout) == (2, "")
    assert "--temporal is about videos, but there is none to restore. Leave it out." in stderr


def test_backgrounds_are_cut_alike_too(tmp_path, restorer):
    source = write_video(tmp_path / "in.mp4", [picture(number, (64, 48)) for number in range(4)], audio=())
    counts = []
    light = ImageRestorer(Changing(2.5e9, 1e12), on_tile=lambda done, total: counts.append(total))
    photo = PhotoOptions(background=LIGHT)
    options = RestoreOptions(ModelSource(*MODEL), (source,), tmp_path / "out.mp4", batch=2, photo=photo)
    videos = VideoRestorer(options, restorer, light, notify=lambda line: None)
    assert videos.restore(source, tmp_path / "out.mp4", lambda done, total: None).result.frames == 4
    assert counts == [15] * 4 * 15 and light.tile_sizes is None


def test_frames_too_large_for_h264_are_refused_at_once(infer, tmp_path, source):
    code, stdout, stderr = infer(source, "-o", tmp_path / "out.mp4", "--outscale", 4000)
    assert (code, stdout) == (2, "") and "restored frames would have 32000x32000 pixels" in stderr
