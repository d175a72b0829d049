"""Videos: bad input is refused in one line and leaves no partial file; damaged ones are restored as far as possible."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from support.videos import doubled, picture, read_video, write_video

from glean_ext.errors import InputError
from glean_ext.video.reader import VideoSource
from glean_ext.video.restore_video import restore_video

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fault(run, tmp_path):
    """Restore, and expect one line; nothing may be left. The line."""

    def call(source, name="out.mp4", **options):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(InputError) as caught:
            run(source, name, **options)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        assert not list(tmp_path.glob(".*"))
        message = str(caught.value)
        assert "\n" not in message and message.endswith(".")
        return message

    return call


@pytest.mark.parametrize("name", ["http:out.mp4", "50%03d.mkv", "-y.mov", "Blåbær 1.mp4"])
def test_names_that_mean_something_to_ffmpeg(source, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    source.rename(f"in {name}")
    assert restore_video(f"in {name}", name, doubled).frames == 60
    assert sorted(os.listdir()) == sorted([f"in {name}", name])


# --- damaged videos ---


def fast_start(path, **options):
    """With the index in front, so that a file cut off can still be read."""
    return write_video(path, 60, container={"movflags": "faststart"}, **options)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_a_video_that_breaks_off(run, tmp_path, lines, name):
    source = fast_start(tmp_path / name) if name == "in.mp4" else write_video(tmp_path / name, 60, audio=())
    whole = read_video(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 6 // 10])
    result = run(source)
    assert 20 < result.frames < 50
    content = read_video(tmp_path / "out.mp4")
    sure = result.frames - 4  # of the last ones, those that the codec stores later are missing
    assert content.times[:sure] == whole.times[:sure] and set(content.times) <= set(whole.times)
    where = f"after frame {result.frames - 1}, at {float(content.times[-1]) + 0.04:.2f} of 2.40 seconds"
    assert lines == [f"{source} breaks off {where}; the frames up to there were restored."]


@pytest.mark.parametrize("audio", [(), ("aac",)])
def test_wherever_an_mp4_breaks_off_that_is_reported(tmp_path, audio):
    """A cut through a frame is not damage: the frames before it are whole, and the frame is left out."""
    content = fast_start(tmp_path / "in.mp4", audio=audio).read_bytes()
    whole = read_video(tmp_path / "in.mp4")
    cut = tmp_path / "cut.mp4"
    for size in np.linspace(len(content) // 3, 0.9 * len(content), 40).astype(int):
        cut.write_bytes(content[:size])
        notices = []
        with VideoSource(cut, notices.append) as video:
            frames = list(video.frames())
            assert video.first_damage is None
        assert [str(notice).split(" after ")[0] for notice in notices] == [f"{cut} breaks off"]
        decoded = dict(zip(whole.times, whole.rgb, strict=True))
        sure = frames[: len(frames) - 4]
        for frame in sure:
            np.testing.assert_array_equal(frame.rgb, decoded[frame.pts * video.time_base])


def test_a_video_that_breaks_off_in_its_last_frame(tmp_path, lines):
    source = fast_start(tmp_path / "in.mp4", audio=())
    source.write_bytes(source.read_bytes()[:-3])
    with VideoSource(source, lambda notice: lines.append(str(notice))) as video:
        assert len(list(video.frames())) == 59
    # The frame that is stored last is displayed before another one.
    assert lines == [f"{source} breaks off after frame 58, at 2.40 seconds; the frames up to there were restored."]


def test_damage_in_the_middle(run, tmp_path, lines):
    source = fast_start(tmp_path / "in.mp4", audio=())
    with av.open(str(source)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    position, size = packets[30]
    content[position : position + size] = np.random.default_rng(0).bytes(size)
    source.write_bytes(content)
    assert 50 <= run(source).frames <= 60
    assert len(lines) == 1
    number = int(lines[0].removeprefix(f"{source} is damaged at frame ").split(";")[0])
    assert 25 <= number <= 35 and lines[0].endswith("; what can be decoded was restored.")


def test_damaged_audio_does_not_cost_the_video(run, tmp_path, lines):
    source = write_video(tmp_path / "in.ts", 60)
    content = source.read_bytes()
    packets = [content[place : place + 188] for place in range(0, len(content), 188)]
    audio = [number for number, packet in enumerate(packets) if packet[1] & 0x1F == 1 and packet[2] == 1]
    del packets[audio[5]]
    source.write_bytes(b"".join(packets))
    assert run(source).frames == 60
    copied = read_video(tmp_path / "out.mp4")
    assert len(copied.rgb) == 60 and len(copied.packets[1]) > 20
    assert lines == [f"{source}: 1 damaged packets of audio or other streams were left out."]


def test_audio_whose_time_starts_again_is_reported(run, tmp_path, lines):
    """As in two transport streams that were put together with ``cat``."""
    source = write_video(tmp_path / "in.ts", 25)
    audio = read_video(source).packets[1]
    source.write_bytes(2 * source.read_bytes())
    assert run(source).frames == 50
    assert [packet for packet, _ in read_video(tmp_path / "out.mp4").packets[1]] == [data[7:] for data, _ in audio]
    assert lines == [
        f"{source}: time stamps that did not grow from frame to frame were corrected.",
        f"{source}: {len(audio)} damaged packets of audio or other streams were left out.",
    ]


def test_audio_that_cannot_be_copied_at_all(run, tmp_path, lines):
    source = write_video(tmp_path / "in.mkv", 12, audio=["libopus"])
    content = source.read_bytes()
    facts = b"\xe1\x91\x9f\x81\x01"  # the element with rate and channels, 17 bytes long
    assert content.count(facts) == 1
    source.write_bytes(content.replace(facts, b"\xe1\x99\x9f\x81\x01"))  # 25: the decoder's header gets lost
    result = run(source)
    assert (result.frames, result.audio) == (12, 0) and read_video(tmp_path / "out.mp4").packets == {}
    assert lines[-1] == (
        f"{source}: its audio and other streams cannot be copied into .mp4 (Invalid data found when processing input), "
        "and were left out. An .mkv may take them."
    )


def test_damaged_files_never_crash(run, tmp_path):
    """Bit flips, cuts and holes in an MP4 and a Matroska file: restored, or refused in one line."""
    random = np.random.default_rng(1)
    refused = restored = 0
    for name in ("in.mp4", "in.mkv"):
        original = write_video(tmp_path / name, 12).read_bytes()
        for trial in range(20):
            content = bytearray(original)
            start, length = int(random.integers(len(content))), int(random.integers(1, 400))
            if trial % 3 == 0:
                content[start : start + length] = random.bytes(length)
            elif trial % 3 == 1:
                del content[start:]
            else:
                del content[start : start + length]
            (tmp_path / name).write_bytes(content)
            try:
                restored += run(tmp_path / name).frames > 0
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused + restored == 40 and refused > 5 and restored > 5


# --- bad input ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.mp4", b"", "is empty (0 bytes). Get the file again."),
        ("in.mp4", b"Some text.\n" * 99, "is no video, or truncated or damaged. Get the file again."),
        ("in.txt", b"Some text.\n" * 99, "is no video, or truncated or damaged. Get the file again."),
        ("in.mp4", b"#EXTM3U\n#EXTINF:1,\nsecret.ts\n", "is no video, or truncated or damaged. Get the file again."),
    ],
)
def test_no_video(fault, tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    assert fault(path) == f"{path} {message}"


def test_no_file(fault, tmp_path):
    assert fault(tmp_path / "no.mp4") == f"{tmp_path}/no.mp4: there is no such file. Give the path of a video."
    assert fault(tmp_path) == f"{tmp_path}: is a folder, not a video. Give the path of a video."


def test_an_index_cut_off(fault, source):
    source.write_bytes(source.read_bytes()[:-3000])
    assert fault(source) == f"{source} is no video, or truncated or damaged. Get the file again."


def test_audio_only(fault, tmp_path):
    path = tmp_path / "in.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        block.sample_rate = 16000
        output.mux(stream.encode(block))
        output.mux(stream.encode(None))
    assert fault(path) == f"{path} has audio only. Give a video."


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("in.mp4", "has no video stream. Give a video."),
        ("in.mkv", "is no video, or truncated or damaged. Get the file again."),
    ],
)
def test_a_header_without_frames(fault, tmp_path, name, message):
    with av.open(str(tmp_path / name), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = 32, 24
        output.start_encoding()
    assert fault(tmp_path / name) == f"{tmp_path / name} {message}"


def test_no_frame_is_left(fault, tmp_path):
    source = fast_start(tmp_path / "in.mp4")
    with av.open(str(source)) as file:
        first = min(packet.pos for packet in file.demux() if packet.size)
    source.write_bytes(source.read_bytes()[:first])
    assert fault(source) == f"{source} has no frame that can be decoded. Get the file again."


def test_a_size_that_changes(fault, tmp_path):
    parts = [write_video(tmp_path / f"{n}.ts", [picture(i, size) for i in range(25)], audio=()).read_bytes()
             for n, size in enumerate([(32, 24), (48, 32)])]  # fmt: skip
    path = tmp_path / "in.ts"
    path.write_bytes(b"".join(parts))
    assert fault(path) == (
        f"{path}: frame 25 has 48x32 pixels, but those before have 32x24. Split the video where its size changes."
    )


def test_too_large(fault, source, tmp_path):
    large = "pixels, but H.264 has up to 16384x16384. Scale the source down."
    assert fault(source, scale=600) == f"{tmp_path}/out.mp4: restored frames would have 19200x14400 {large}"

    def wide(frames):
        return [np.zeros((2, 16386, 3), np.uint8) for _ in frames]

    assert fault(source, restore=wide) == f"{tmp_path}/out.mp4: restored frames would have 16386x2 {large}"


def test_too_large_a_source(fault, source, monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 700)
    assert fault(source) == (
        f"{source}: its frames have 32x24 pixels, but up to 0 million are restored. Scale the video down."
    )


@pytest.mark.parametrize("name", ["out.png", "out", "out.avi"])
def test_a_target_that_is_no_video(fault, source, tmp_path, name):
    assert fault(source, name) == f"{tmp_path}/{name}: videos are written as .mp4, .mkv, .mov. Name it out.mp4."


def test_the_target_is_the_source(fault, source, tmp_path):
    (tmp_path / "link.mp4").symlink_to(source)
    for name in ("in.mp4", "link.mp4"):
        assert fault(source, name) == f"{tmp_path}/{name} is the input and would be overwritten. Give another output."


def test_a_target_that_cannot_be_written(fault, source, tmp_path):
    (tmp_path / "file").touch()
    assert fault(source, "file/out.mp4") == (
        f"{tmp_path}/file/out.mp4 cannot be written (Not a directory). Choose another output."
    )
    with pytest.raises(InputError, match=r"^/proc/out\.mp4 cannot be written \(.*\)\. Choose another output\.$"):
        restore_video(source, "/proc/out.mp4", doubled)
    (tmp_path / "folder.mp4").mkdir()
    assert fault(source, "folder.mp4") == f"{tmp_path}/folder.mp4 is a folder. Give another output."


def test_audio_that_does_not_fit(fault, tmp_path):
    source = write_video(tmp_path / "in.mkv", 5, audio=["wavpack"])
    assert fault(source) == (
        f"{source}: its audio (wavpack) does not fit into .mp4. Name the output {tmp_path}/out.mkv."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crf": 52}, "crf is 52, but it must be between 0 (lossless) and 51. 10 is the default."),
        ({"batch": 0}, "batch is 0, but it must be at least 1."),
        ({"segment": -1}, "segment is -1, but it must be at least 1."),
    ],
)
def test_settings(fault, source, options, message):
    assert fault(source, **options) == message
    assert fault(source, preset="best").startswith("preset is 'best', but it must be one of ultrafast, ")


def test_what_restore_must_return(run, source, tmp_path):
    for restore, kind in [
        (lambda frames: frames[1:], ValueError),
        (lambda frames: [rgb.astype(float) for rgb in frames], TypeError),
        (lambda frames: [rgb[i:] for i, rgb in enumerate(frames)], ValueError),
    ]:
        with pytest.raises(kind, match=r"^restore "):
            run(source, restore=restore)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


FULL = """
import resource, sys
from glean_ext.video.restore_video import restore_video
from glean_ext.cli import run

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
run(lambda: restore_video(sys.argv[1], sys.argv[2], lambda frames: frames, segment=10, crf=0) and 0)
"""


@pytest.mark.parametrize(("limit", "kept"), [(1500, 0), (6000, 60)])
def test_a_full_disk(source, tmp_path, limit, kept):
    """The first segment, or only the whole, is too large for the disk."""
    (tmp_path / "out.mp4").write_bytes(b"before")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FULL, source, tmp_path / "out.mp4", str(limit)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    line = f"error: {tmp_path}/out.mp4 cannot be written (File too large). Choose another output.\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in.mp4", "out.mp4", *([".out.mp4.segments"] if kept else [])}
    assert not list(tmp_path.rglob("whole.mp4")) and not list(tmp_path.rglob(".0*"))
