"""Videos: an interrupted run is continued, and its result equals that of an uninterrupted one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest
from support.videos import doubled, picture, stop_after, write_video

from glean_ext.errors import InputError
from glean_ext.video import encoder
from glean_ext.video.encoder import EncodingOptions
from glean_ext.video.frame_properties import Colour
from glean_ext.video.restore_video import restore_video
from glean_ext.video.segment_writer import TILE_SIZES_FILE, Segments

ROOT = Path(__file__).parents[2]


PROCESS = """
import sys, time
from glean_ext.video.restore_video import restore_video

def restore(frames):
    time.sleep(0.05)
    return [rgb.repeat(2, 0).repeat(2, 1) for rgb in frames]

print(restore_video(sys.argv[1], sys.argv[2], restore, segment=10, batch=4, fingerprint="x2"), flush=True)
"""


def process(*arguments, **options):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PROCESS, *map(str, arguments)], env=env, **pipes, **options)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_continues_and_ends_alike(run, source, tmp_path, lines, how):
    whole = run(source, "whole.mp4", fingerprint="x2")
    target, folder = tmp_path / "out.mp4", tmp_path / ".out.mp4.segments"
    child = process(source, target)
    until = time.monotonic() + 60
    while not (folder / "000001.mp4").exists():
        assert child.poll() is None and time.monotonic() < until, child.stderr.read()
        time.sleep(0.01)
    child.send_signal(how)
    child.wait(60)
    assert child.returncode == -how and not target.exists()
    kept = len(list(folder.glob("0*.mp4")))
    assert 2 <= kept < 6
    child.stdout.close()
    child.stderr.close()

    given = []
    resumed = run(source, restore=lambda frames: given.extend(frames) or doubled(frames), fingerprint="x2")
    assert resumed.resumed == 10 * kept and len(given) == 60 - 10 * kept and resumed.frames == whole.frames == 60
    assert lines == [f"{target}: {10 * kept} frames are kept from the interrupted run; it continues after them."]
    assert not folder.exists()
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_ctrl_c_keeps_what_is_whole(run, source, tmp_path, lines):
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(25, KeyboardInterrupt()))
    assert not (tmp_path / "out.mp4").exists()
    assert lines == [f"{tmp_path}/out.mp4: 20 frames are kept; the same call continues after them."]
    names = sorted(path.name for path in (tmp_path / ".out.mp4.segments").iterdir())
    assert names == ["000000.mp4", "000001.mp4", "job.json", "lock"]
    steps = []
    assert run(source, batch=3, progress=lambda *step: steps.append(step)).resumed == 20
    assert steps[0] == (20, 60) and steps[-1] == (60, 60)


def test_what_is_restored_is_written_though_the_next_fails(run, source, tmp_path):
    """Frames wait for the encoder when the end comes: none of them is lost, and none is missing in between."""
    for frames in (20, 30, 40):
        with pytest.raises(KeyboardInterrupt):
            run(source, restore=stop_after(frames, KeyboardInterrupt()), batch=10, fingerprint=str(frames))
        assert len(list((tmp_path / ".out.mp4.segments").glob("0*.mp4"))) == frames // 10


def test_nothing_is_written_after_a_failure(tmp_path, monkeypatch):
    """Else a segment could be complete with a frame missing in the middle."""
    frames, colour = doubled([picture(number) for number in range(12)]), Colour(6, False, 2, 2)
    with Segments(tmp_path / "out.mp4", {}, Fraction(25), EncodingOptions(segment=4), print) as segments:
        segments.write(frames[:5], colour)
        with monkeypatch.context() as patch, pytest.raises(InputError, match=r"cannot be written \(No space left"):
            patch.setattr(
                encoder.Encoder, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left"))
            )
            segments.write(frames[5:6], colour)
        segments.write(frames[6:], colour)
        segments.finish()
        assert segments.frames == 4
        assert [path.name for path in segments.folder.glob("0*.mp4")] == ["000000.mp4"]


@pytest.mark.parametrize("complete", [0, 1])
def test_the_restorer_s_state_lives_as_long_as_segments(tmp_path, complete):
    """It belongs to their frames: without them it would be another run's."""
    target, colour = tmp_path / "out.mp4", Colour(6, False, 2, 2)
    options = EncodingOptions(segment=2)
    with Segments(target, {}, Fraction(25), options, print) as segments:
        segments.write([picture(0), picture(1)], colour)
        (segments.folder / TILE_SIZES_FILE).write_text("[]")
        if not complete:
            (segments.folder / "000000.mp4").write_bytes(b"damaged")
    with Segments(target, {}, Fraction(25), options, print) as segments:
        assert segments.frames == 2 * complete
        assert (segments.folder / TILE_SIZES_FILE).exists() == bool(complete)


def test_all_frames_may_be_there_already(run, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr("glean_ext.video.restore_video.mux", lambda *_: (_ for _ in ()).throw(InputError("disk full")))
        run(source)
    assert len(list((tmp_path / ".out.mp4.segments").glob("0*.mp4"))) == 6
    result = run(source, restore=stop_after(0, AssertionError()))
    assert (result.resumed, result.frames, result.size) == (60, 60, (64, 48))


def test_smoothed_frames_stay_when_the_target_cannot_be_written(run, source, monkeypatch):
    """The last segment is shorter, so no state comes after it, and that before it is still needed."""
    run(source, "whole.mp4", segment=25, temporal=True)
    with monkeypatch.context() as patch, pytest.raises(InputError, match="disk full"):
        patch.setattr("glean_ext.video.restore_video.mux", lambda *_: (_ for _ in ()).throw(InputError("disk full")))
        run(source, segment=25, temporal=True)
    assert run(source, restore=stop_after(10, AssertionError()), segment=25, temporal=True).resumed == 50
    assert (source.parent / "out.mp4").read_bytes() == (source.parent / "whole.mp4").read_bytes()


def test_a_source_that_vanishes_costs_no_frames(run, source, tmp_path, lines):
    away = tmp_path / "away.mp4"

    def restore(frames):
        if source.exists():
            source.rename(away)  # still open, so it is read to its end
        return doubled(frames)

    with pytest.raises(InputError, match=r"in\.mp4: there is no such file\."):
        run(source, restore=restore)
    assert lines == [f"{tmp_path}/out.mp4: 60 frames are kept; the same call continues after them."]
    away.rename(source)
    assert run(source).resumed == 60


def test_a_damaged_segment_and_those_after_it_are_made_again(run, source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(45, KeyboardInterrupt()))
    second = tmp_path / ".out.mp4.segments" / "000001.mp4"
    second.write_bytes(second.read_bytes()[:200])
    assert run(source).resumed == 10
    run(source, "whole.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("frames", [9, 11])
def test_a_segment_with_another_number_of_frames_is_made_again(run, source, tmp_path, frames):
    """It can be read, but taking it for complete would shift all frames after it."""
    run(source, "whole.mp4")
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(45, KeyboardInterrupt()))
    second = tmp_path / ".out.mp4.segments" / "000001.mp4"
    write_video(second, [picture(number, (64, 48)) for number in range(frames)], audio=())
    assert run(source).resumed == 10
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


@pytest.mark.parametrize("change", ["fingerprint", "crf", "preset", "segment", "source"])
def test_another_job_starts_again(run, source, tmp_path, lines, change):
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(25, KeyboardInterrupt()))
    lines.clear()
    options = {"fingerprint": "x", "crf": 20, "preset": "fast", "segment": 15}
    if change == "source":
        write_video(source, [picture(number + 100) for number in range(60)])
    result = run(source, **{change: options[change]} if change in options else {})
    assert result.resumed == 0
    target = tmp_path / "out.mp4"
    assert lines == [f"{target}: source, settings or network differ from the interrupted run's; it starts again."]


def test_a_network_of_another_size_under_the_same_fingerprint(run, source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(25, KeyboardInterrupt()))
    with pytest.raises(InputError, match=r"the frames have another size than those of the interrupted run\. Remove "):
        run(source, restore=lambda frames: frames)
    assert not (tmp_path / "out.mp4").exists()
    assert run(source).resumed == 20


@pytest.mark.parametrize("fingerprint", ["x2", "x3"])
def test_the_next_run_removes_everything_a_killed_one_left(run, source, tmp_path, lines, fingerprint):
    """Files under their temporary names, too, whether it continues the killed run or starts again."""
    whole = run(source, "whole.mp4").frames
    with pytest.raises(KeyboardInterrupt):
        run(source, restore=stop_after(25, KeyboardInterrupt()), fingerprint="x2")
    folder = tmp_path / ".out.mp4.segments"
    for name in ("whole.mp4", ".000002-1a2b3c4d.mp4", ".job-1a2b3c4d.json", "000007.mp4"):
        (folder / name).write_bytes(b"partial")
    assert run(source, fingerprint=fingerprint).frames == whole == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "whole.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_two_processes_do_not_write_one_target(run, source, tmp_path):
    def restore(frames):
        with pytest.raises(InputError, match=r"out\.mp4: another process is writing it\. Wait for its end\."):
            run(source)
        return doubled(frames)

    assert run(source, restore=restore, batch=30, segment=60).frames == 60


@pytest.mark.parametrize("size", [(24, 16), (48, 40), (656, 48), (160, 512)])
def test_the_same_frames_give_the_same_bytes_each_time(run, tmp_path, size):
    """Without this a resumed run differs from an uninterrupted one. x264's AVX-512 code had results that vary."""
    source = write_video(tmp_path / "in.mp4", [picture(number, size) for number in range(20)], audio=())
    contents = set()
    for number in range(5):
        run(source, f"{number}.mp4", restore=lambda frames: frames)
        contents.add((tmp_path / f"{number}.mp4").read_bytes())
    assert len(contents) == 1


def test_x264_does_not_depend_on_the_cores(source, tmp_path):
    """A resumed run may have others, so it has a fixed number of threads."""
    assert encoder.THREADS == 8
    cores = os.sched_getaffinity(0)
    restore_video(source, tmp_path / "all.mp4", doubled)
    try:
        os.sched_setaffinity(0, {min(cores)})
        restore_video(source, tmp_path / "one.mp4", doubled)
    finally:
        os.sched_setaffinity(0, cores)
    assert (tmp_path / "all.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
