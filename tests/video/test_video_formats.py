"""Containers of videos: every extension that is listed is read, and every demuxer's are listed. The place of chroma."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from av.format import ContainerFormat
from support.videos import doubled, read_video, worst, write_video

from glean_ext.errors import InputError
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.video.encoder import YuvConverter
from glean_ext.video.formats import DEMUXERS, VIDEOS
from glean_ext.video.frame_properties import Colour
from glean_ext.video.reader import open_container
from glean_ext.video.restore_video import restore_video

# Extensions of FFmpeg's demuxers that are not of videos.
AUDIO = {".mka", ".mks", ".m4a", ".m4b", ".isma", ".ogg"}
PICTURES = {".avif", ".heic", ".heif", ".gif"}
MANIFESTS = {".ism"}

MPEG = {"codec": "mpeg2video", "options": {"qscale": "2"}, "audio": ("mp2",)}
# Extension -> muxer, settings of ``write_video``.
WRITTEN = {
    ".ts": ("mpegts", {}),
    ".mts": ("mpegts", {}),
    ".m2ts": ("mpegts", {}),
    ".mpg": ("mpeg", MPEG),
    ".mpeg": ("mpeg", MPEG),
    ".vob": ("vob", MPEG),
    ".wmv": ("asf", {"codec": "msmpeg4", "options": {"qscale": "2"}, "audio": ("wmav2",)}),
    ".asf": ("asf", {"codec": "msmpeg4", "options": {"qscale": "2"}, "audio": ("wmav2",)}),
    ".flv": ("flv", {}),
    ".f4v": ("mp4", {}),
    ".3gp": ("3gp", {}),
    ".3g2": ("3g2", {}),
    ".qt": ("mov", {}),
    ".m4v": ("mp4", {}),
    ".mk3d": ("matroska", {}),
    ".webm": ("webm", {"codec": "libvpx", "options": {"crf": "4", "b": "5000000"}, "audio": ("libopus",)}),
    ".ogv": ("ogg", {"codec": "libvpx", "options": {"crf": "4", "b": "5000000"}, "audio": ("libopus",)}),
    ".avi": ("avi", {"codec": "mpeg4", "options": {"qscale": "2"}, "audio": ("libmp3lame",)}),
    ".divx": ("avi", {"codec": "mpeg4", "options": {"qscale": "2"}, "audio": ("libmp3lame",)}),
    ".mxf": ("mxf", {"codec": "mpeg2video", "options": {"qscale": "2"}, "audio": ()}),
    ".nut": ("nut", {}),
    ".ivf": ("ivf", {"codec": "libvpx", "options": {"crf": "4", "b": "5000000"}, "audio": ()}),
    ".y4m": ("yuv4mpegpipe", {"codec": "wrapped_avframe", "options": {}, "audio": ()}),
    ".apng": ("apng", {"codec": "apng", "pix_fmt": "rgb24", "full": True, "options": {}, "audio": ()}),
}


def test_the_extensions_are_those_of_the_demuxers():
    for demuxer, extensions in DEMUXERS.items():
        known = {f".{extension}" for extension in ContainerFormat(demuxer, "r").extensions}
        others = {extension for group in DEMUXERS.values() for extension in group}
        assert known - AUDIO - PICTURES - MANIFESTS <= others, demuxer
        for extension in extensions:
            assert extension == extension.lower() and extension not in EXTENSIONS
    assert len(set(VIDEOS)) == len(VIDEOS)
    assert {".ts", ".mts", ".mpg", ".wmv", ".asf", ".flv", ".ogv", ".3gp"} < set(VIDEOS)


@pytest.mark.parametrize("extension", WRITTEN)
def test_videos_of_all_containers_are_restored(tmp_path, extension):
    muxer, options = WRITTEN[extension]
    source = write_video(tmp_path / f"cam{extension}", 12, container_format=muxer, **options)
    with open_container(source) as container:
        names = container.format.name.split(",")
    assert extension in VIDEOS and any(name in DEMUXERS for name in names)
    target, lines = tmp_path / "out.mp4", []
    result = restore_video(source, target, doubled, notify=lambda notice: lines.append(str(notice)))
    audio = options.get("audio", ("aac",))
    left_out = [f"{source}: .mp4 takes no copy of streams 1 (audio, wmav2), which are left out."]
    assert lines == (left_out if audio == ("wmav2",) else [])
    assert (result.frames, result.size, result.audio) == (12, (64, 48), len(audio) - len(lines))
    content = read_video(target)
    assert worst(content.rgb, doubled(read_video(source).rgb)) > 36
    whole = read_video(source)
    moved = [time - content.times[0] for time in content.times]
    expected = [time - whole.times[0] for time in whole.times]
    assert all(abs(a - b) <= Fraction(1, 1000) for a, b in zip(moved, expected, strict=True))


def test_chroma_lies_on_the_left_pixel_of_each_pair():
    """As players of H.264 take it. Red grows by 8 levels a pixel, so Cr, of BT.709 in full range, by 4."""
    rgb = np.zeros((16, 32, 3), np.uint8)
    rgb[..., 0] = 8 * np.arange(32)
    frame = YuvConverter(32, 16, Colour(matrix=1, full=True, primaries=1, transfer=1), Fraction(25))(rgb, 0)
    cr = np.frombuffer(frame.planes[2], np.uint8).reshape(8, -1)[:, 2:14]  # without the border
    np.testing.assert_allclose(cr, np.tile(128 + 8.0 * np.arange(2, 14), (8, 1)), atol=1)


def test_a_transport_stream_is_no_target(tmp_path):
    source = write_video(tmp_path / "cam.ts", 2)
    with pytest.raises(InputError) as caught:
        restore_video(source, tmp_path / "out.ts", doubled)
    assert str(caught.value) == (f"{tmp_path}/out.ts: videos are written as .mp4, .mkv, .mov. Name it out.mp4.")


def test_playlists_are_not_followed(tmp_path):
    """They name other files, which nobody gave."""
    write_video(tmp_path / "part.ts", 2)
    playlist = tmp_path / "list.ts"
    playlist.write_text("#EXTM3U\n#EXTINF:1,\npart.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"list\.ts is no video, or truncated or damaged\."):
        restore_video(playlist, tmp_path / "out.mp4", doubled)
    assert av.formats_available >= {"hls"}
