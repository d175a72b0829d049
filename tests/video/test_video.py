"""Videos: what a player shows is restored, all else is kept."""

from __future__ import annotations

import io
import threading
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from support.videos import AUDIO_RATE, doubled, picture, psnr, read_video, worst, write_video

from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.video import restore_video as video_module
from glean_ext.video.reader import VideoSource
from glean_ext.video.restore_video import VideoResult, restore_video


def same(frames):
    return frames


@pytest.fixture
def run(tmp_path, lines):
    """Restore a video with default settings: (what the target holds, the result)."""

    def call(source, name="out.mp4", restore=same, **options):
        result = restore_video(
            source, tmp_path / name, restore, notify=lambda notice: lines.append(str(notice)), **options
        )
        assert sorted(path.name for path in tmp_path.glob(".*")) == []
        return read_video(tmp_path / name), result

    return call


# --- frames ---


def test_frames_are_restored_in_order(run, tmp_path, lines):
    frames = [picture(0) for _ in range(50)]
    for number, rgb in enumerate(frames):
        rgb[:16, :16] = 4 * number + 20
    source = write_video(tmp_path / "in.mp4", frames)
    done = []
    content, result = run(source, restore=doubled, batch=7, segment=20, progress=lambda *step: done.append(step))
    assert content.codec == ("h264", "yuv420p")
    assert len(content.rgb) == result.frames == 50 and result.size == (64, 48)
    np.testing.assert_allclose([rgb[4:28, 4:28].mean() for rgb in content.rgb], 4 * np.arange(50) + 20, atol=1)
    assert worst(content.rgb, doubled(read_video(source).rgb)) > 36
    assert done == [(n, 50) for n in (0, 7, 14, 20, 27, 34, 40, 47, 50, 50)]
    assert isinstance(result, VideoResult) and result.resumed == 0 and 0 <= result.restoring < result.seconds
    assert lines == []


def test_identity_is_40_db_at_the_default_quality(run, tmp_path):
    source = write_video(tmp_path / "in.mp4", 24)
    content, _ = run(source)
    shown = read_video(source)
    assert worst(shown.rgb, [picture(n) for n in range(24)]) > 42
    assert worst(content.rgb, shown.rgb) > 40


def test_the_demo_network(run, tmp_path):
    frames = [picture(number, (8, 8)) for number in range(6)]
    source = write_video(tmp_path / "in.mp4", frames, options={"crf": "1"})
    restorer = ImageRestorer("configs/demo_glean_x8.py", "glean-ext://demo_glean_x8.safetensors", device="cpu")
    content, result = run(source, restore=lambda batch: [restorer.restore(rgb) for rgb in batch], scale=8, crf=4)
    assert result.size == (64, 64) and result.audio == 1
    assert worst(content.rgb, [restorer.restore(rgb) for rgb in read_video(source).rgb]) > 38


# --- colours ---


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "tag"), [("bt709", 1), ("bt601", 5), ("bt601", 6), ("bt2020", 9)])
def test_matrix_and_range_are_read_and_kept(run, tmp_path, matrix, tag, full):
    tags = tag, 1, 13, 2 if full else 1
    source = write_video(tmp_path / "in.mp4", 4, matrix=matrix, full=full, tags=tags)
    seen = []
    content, _ = run(source, restore=lambda frames: seen.extend(frames) or frames)
    assert content.colours == tags
    assert worst(seen, [picture(number) for number in range(4)]) > 44
    assert worst(content.rgb, seen) > 40


@pytest.mark.parametrize(
    ("size", "matrix", "tag"), [((64, 576), "bt601", 6), ((64, 578), "bt709", 1), ((1280, 64), "bt709", 1)]
)
def test_an_unsaid_matrix_is_guessed_by_the_size_and_said(run, tmp_path, size, matrix, tag):
    source = write_video(tmp_path / "in.mp4", [picture(0, size)], matrix=matrix, audio=())
    seen = []
    content, _ = run(source, restore=lambda frames: seen.extend(frames) or frames)
    assert content.colours == (tag, 2, 2, 1)
    assert psnr(seen[0], picture(0, size)) > 44
    assert psnr(content.rgb[0], picture(0, size)) > 42


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("in.mkv", "ffv1", "yuv444p"),
        ("in.mkv", "ffv1", "yuv420p10le"),
        ("in.mkv", "ffv1", "bgr0"),
        ("in.avi", "png", "rgb24"),
    ],
)
def test_other_pixel_formats(run, tmp_path, name, codec, pix_fmt):
    full = pix_fmt in ("bgr0", "rgb24")
    source = write_video(tmp_path / name, 3, codec=codec, pix_fmt=pix_fmt, full=full, audio=(), options={})
    content, _ = run(source)
    assert worst(content.rgb, [picture(number) for number in range(3)]) > 40


def test_gray(run, tmp_path):
    gray = [picture(number)[..., :1].repeat(3, 2) for number in range(3)]
    source = write_video(tmp_path / "in.mkv", gray, codec="ffv1", pix_fmt="gray", full=True, audio=(), options={})
    assert worst(run(source)[0].rgb, gray) > 40


def test_hdr_transparency_and_interlacing_are_reported(run, tmp_path, lines):
    hdr = write_video(tmp_path / "hdr.mp4", 2, matrix="bt2020", tags=(9, 9, 16, 1))
    assert run(hdr)[0].colours == (9, 9, 16, 1)
    glass = [Image.fromarray(picture(number)).convert("RGBA") for number in range(2)]
    glass[0].putpixel((3, 4), (0, 0, 0, 100))
    glass[0].save(tmp_path / "alpha.png", save_all=True, append_images=glass[1:])
    run(tmp_path / "alpha.png")
    run(write_video(tmp_path / "lines.mp4", 2, options={"x264-params": "tff=1"}))
    assert lines == [
        f"{hdr} is HDR (PQ); the result has 8 bits, so tones may band.",
        f"{tmp_path}/alpha.png has transparency, which is not kept.",
        f"{tmp_path}/lines.mp4 is interlaced; frames are restored as they are, comb lines and all.",
    ]


# --- geometry ---


@pytest.mark.parametrize(
    ("turn", "upright"),
    [
        ((90, False, False), lambda rgb: np.rot90(rgb)),
        ((-90, False, False), lambda rgb: np.rot90(rgb, -1)),
        ((180, False, False), lambda rgb: np.rot90(rgb, 2)),
        ((0, True, False), lambda rgb: rgb[:, ::-1]),
        ((0, False, True), lambda rgb: rgb[::-1]),
    ],
)
def test_turned_videos_are_restored_upright(run, tmp_path, turn, upright):
    source = write_video(tmp_path / "in.mp4", 3, turn=turn)
    seen = []
    content, result = run(source, restore=lambda frames: seen.extend(frames) or frames)
    expected = [np.ascontiguousarray(upright(picture(number))) for number in range(3)]
    assert content.turn == 0 and result.size == expected[0].shape[1::-1]
    assert worst(seen, expected) > 44 and worst(content.rgb, expected) > 40


def test_another_angle_is_reported(run, tmp_path, lines):
    source = write_video(tmp_path / "in.mp4", 2, turn=(30, False, False))
    assert run(source)[1].size == (32, 24)
    assert lines == [f"{source} is rotated by an angle other than quarter turns; it is restored as it is stored."]


@pytest.mark.parametrize(
    ("aspect", "turn", "size"),
    [((3, 2), None, (48, 24)), ((3, 4), None, (32, 32)), ((3, 2), (90, False, False), (24, 48))],
)
def test_pixels_become_square(run, tmp_path, lines, aspect, turn, size):
    source = write_video(tmp_path / "in.mp4", 2, aspect=Fraction(*aspect), turn=turn)
    content, result = run(source)
    assert result.size == size and content.aspect == 1
    expected = picture(0, size[::-1] if turn else size)
    assert psnr(content.rgb[0], np.rot90(expected) if turn else expected) > 36
    assert len(lines) == 1 and lines[0].startswith(f"{source}: its pixels are not square; frames are shown, and restor")


def test_odd_sizes_get_a_copy_of_the_last_row_and_column(run, tmp_path, lines):
    source = write_video(tmp_path / "in.mkv", [picture(0, (33, 25))], codec="ffv1", options={}, pix_fmt="yuv444p")
    content, result = run(source)
    assert result.size == (34, 26)
    assert psnr(content.rgb[0], np.pad(picture(0, (33, 25)), ((0, 1), (0, 1), (0, 0)), mode="edge")) > 40
    assert lines == [
        f"{tmp_path}/out.mp4: frames of 33x25 pixels get a copy of their last column or row, as H.264 needs even sizes."
    ]


# --- time ---


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.mov"])
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_rate_and_time_stamps(run, tmp_path, name, rate):
    source = write_video(tmp_path / "in.mp4", 50, rate=rate)
    content, _ = run(source, name, segment=16)
    shown = read_video(source)
    assert shown.times == [number / rate for number in range(50)]
    if name == "out.mkv":  # has milliseconds
        assert content.times == [Fraction(int(1000 * time + Fraction(1, 2)), 1000) for time in shown.times]
        # PyAV before 18, the last for Python 3.10, writes no nominal rate; the time stamps are exact all the same.
        assert abs(content.rate - rate) < (0.001 if int(av.__version__.split(".")[0]) >= 18 else 0.5)
    else:
        assert (content.times, content.rate, content.end) == (shown.times, rate, shown.end)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_variable_frame_rate(run, tmp_path, lines, name):
    ticks = [0, 40, 41, 300, 333, 340, 1000, 1001, 1500, 1600, 1601, 1602, 2400]
    source = write_video(tmp_path / "in.mkv", 13, pts=ticks, time_base=Fraction(1, 1000))
    content, result = run(source, name, segment=5)
    assert content.times == [Fraction(tick, 1000) for tick in ticks]
    assert 2.4 < content.end < 2.5 and result.frames == 13 and lines == []


def test_time_stamps_that_do_not_grow_are_corrected(tmp_path, lines, monkeypatch):
    source = write_video(tmp_path / "in.mkv", 5, audio=())
    decoded = VideoSource._decoded

    def with_other_times(self):
        for frame, frame.pts in zip(decoded(self), [0, 40, 40, 30, 160], strict=True):
            yield frame

    monkeypatch.setattr(VideoSource, "_decoded", with_other_times)
    with VideoSource(source, lambda notice: lines.append(str(notice))) as video:
        assert [frame.pts for frame in video.frames()] == [0, 40, 41, 42, 160]
    assert lines == [f"{source}: time stamps that did not grow from frame to frame were corrected."]


def test_a_video_that_starts_after_its_audio(run, tmp_path):
    source = write_video(tmp_path / "in.mp4", 5, pts=[10, 11, 12, 13, 14])
    content, _ = run(source)
    assert content.times == read_video(source).times == [Fraction(number, 25) for number in range(10, 15)]


def test_transport_streams_start_at_0(run, tmp_path):
    source = write_video(tmp_path / "in.ts", 25)
    shown, (content, _) = read_video(source), run(source)
    start = shown.packets[1][0][1]
    assert start == Fraction(1440, 90000)
    assert content.times == [time - start for time in shown.times]
    assert [time for _, time in content.packets[1]] == [time - start for _, time in shown.packets[1]]
    # the headers of the transport stream's AAC packets, 7 bytes, are not in an MP4
    assert [packet for packet, _ in content.packets[1]] == [packet[7:] for packet, _ in shown.packets[1]]


def test_an_animated_picture(run, tmp_path, lines):
    pictures = [Image.fromarray(picture(10 * number)) for number in range(4)]
    pictures[0].save(tmp_path / "in.gif", save_all=True, append_images=pictures[1:], duration=[100, 50, 200, 700])
    content, _ = run(tmp_path / "in.gif")
    assert content.times == [Fraction(tick, 100) for tick in (0, 10, 15, 35)] and content.end == Fraction(105, 100)
    assert worst(content.rgb, read_video(tmp_path / "in.gif").rgb) > 40
    assert lines == []


# --- other streams ---


@pytest.mark.parametrize(
    ("name", "audio", "target"),
    [
        ("in.mp4", ["aac", "aac"], "out.mp4"),
        ("in.mp4", ["aac"], "out.mkv"),
        ("in.mkv", ["libopus", "flac"], "out.mkv"),
        ("in.mkv", ["libmp3lame"], "out.mp4"),
        ("in.avi", ["pcm_s16le"], "out.mov"),
    ],
)
def test_all_audio_is_copied(run, tmp_path, name, audio, target):
    codec = {"codec": "mpeg4", "options": {"qscale": "2"}} if name == "in.avi" else {}
    source = write_video(tmp_path / name, 50, audio=audio, **codec)
    content, result = run(source, target)
    shown = read_video(source)
    assert result.audio == len(audio) == len(content.packets) == len(shown.packets)
    for copied, original in zip(content.packets.values(), shown.packets.values(), strict=True):
        assert [packet for packet, _ in copied] == [packet for packet, _ in original]
        assert len(copied) >= 2 * AUDIO_RATE // 4608
        assert max(abs(a - b) for (_, a), (_, b) in zip(copied, original, strict=True)) <= Fraction(1, 1000)
    assert content.times == shown.times


def test_a_silent_video(run, tmp_path):
    content, result = run(write_video(tmp_path / "in.mp4", 5, audio=()))
    assert result.audio == 0 and content.packets == {}


def with_subtitles(path, source):
    """``source``'s streams, a subtitle, tags and a chapter."""
    with av.open(str(source)) as file, av.open(str(path), "w") as output:
        copies = [output.add_stream_from_template(stream, opaque=True) for stream in file.streams]
        copies[0].disposition = av.stream.Disposition.forced
        copies[1].metadata["language"] = "nor"
        text = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        output.metadata["title"] = "Blåbær"
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 500, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}]
        )
        for packet in file.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
        packet = av.Packet(b"Hei!")
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts = packet.dts = 120
        packet.duration = 400
        output.mux(packet)
    return path


def test_subtitles_tags_and_chapters(run, tmp_path, lines):
    source = with_subtitles(tmp_path / "subtitled.mkv", write_video(tmp_path / "in.mkv", 25))
    content, _ = run(source, "out.mkv")
    assert content.packets[2] == [(b"Hei!", Fraction(120, 1000))] and lines == []
    with av.open(str(tmp_path / "out.mkv")) as file:
        assert file.metadata["title"] == "Blåbær" and file.streams.audio[0].language == "nor"
        assert [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in file.chapters()] == [(0, "one")]
        assert file.streams.video[0].disposition == av.stream.Disposition.forced
    assert list(run(source, "out.mp4")[0].packets) == [1]
    assert lines == [f"{source}: .mp4 takes no copy of streams 2 (subtitle, srt), which are left out."]


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv", "out.mov"])
def test_a_cover_is_kept_or_reported(run, tmp_path, lines, target):
    cover = io.BytesIO()
    Image.fromarray(picture(3)).save(cover, "JPEG")
    source = tmp_path / "covered.mp4"
    plain = write_video(tmp_path / "in.mp4", 5)
    with av.open(str(plain)) as file, av.open(str(source), "w") as output:
        copies = [output.add_stream_from_template(stream, opaque=True) for stream in file.streams]
        copies.append(output.add_mux_stream("mjpeg", width=32, height=24))
        copies[2].disposition = av.stream.Disposition.attached_pic
        for packet in file.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.time_base, packet.pts, packet.dts = copies[2], Fraction(1, 25), 0, 0
        output.mux(packet)
    assert run(source, target)[0].times == read_video(source).times
    with av.open(str(tmp_path / target)) as file:
        covers = [next(file.demux(stream)) for stream in file.streams.video[1:]]
        assert [bytes(packet) for packet in covers] == ([cover.getvalue()] if target == "out.mp4" else [])
    notice = f"{source}: {target[3:]} takes no copy of streams 2 (video, mjpeg), which are left out."
    assert lines == ([] if target == "out.mp4" else [notice])


# --- side by side ---


def test_decoding_and_encoding_run_in_other_threads_with_bounded_queues(tmp_path):
    source = write_video(tmp_path / "in.mp4", 120)
    decoded, alive, most = set(), 0, 0
    original = video_module.VideoSource.frames

    def watched(self, skip=0):
        nonlocal alive, most
        for shown in original(self, skip):
            decoded.add(threading.current_thread().name)
            alive += 1
            most = max(most, alive)
            yield shown

    def restore(frames):
        nonlocal alive
        alive -= len(frames)
        assert threading.current_thread() is threading.main_thread()
        return frames

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_module.VideoSource, "frames", watched)
        assert restore_video(source, tmp_path / "out.mp4", restore, batch=4).frames == 120
    assert decoded == {"decode_0"}
    assert 4 < most <= 4 * 3


@pytest.mark.parametrize(("name", "exact"), [("in.mp4", True), ("in.mkv", True), ("in.ts", False)])
def test_the_number_of_frames_is_known_before(run, tmp_path, name, exact):
    steps = []
    run(write_video(tmp_path / name, 50), progress=lambda done, total: steps.append((done, total)))
    first, last = steps[0], steps[-1]
    assert first[0] == 0 and last == (50, 50)
    assert first[1] == 50 if exact else abs(first[1] - 50) <= 3
