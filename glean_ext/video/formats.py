"""Containers of videos that are read and written. Imports nothing heavy: whoever lists files uses it."""

from __future__ import annotations

# FFmpeg's demuxers that are used -> extensions of their videos. FFmpeg lists extensions for some of them only; those of
# audio, pictures and streaming manifests are left out here. GIF files count as images unless they are opened by name.
# Not among the demuxers are playlists, which open other files, and "formats" that accept anything, as text.
DEMUXERS: dict[str, tuple[str, ...]] = {
    "apng": (".apng",),
    "asf": (".asf", ".wmv"),
    "avi": (".avi", ".divx"),
    "dv": (".dv", ".dif"),
    "flv": (".flv",),
    "gif": (),
    "ivf": (".ivf",),
    "matroska": (".mkv", ".mk3d"),
    "mov": (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".ismv", ".mj2", ".psp"),
    "mpeg": (".mpg", ".mpeg", ".m2p", ".vob"),
    "mpegts": (".ts", ".m2t", ".m2ts", ".mts"),
    "mxf": (".mxf",),
    "nut": (".nut",),
    "ogg": (".ogv",),
    "rm": (".rm", ".rmvb"),
    "webm": (".webm",),
    "yuv4mpegpipe": (".y4m",),
}
VIDEOS = tuple(extension for extensions in DEMUXERS.values() for extension in extensions)  # inputs, in lower case
VIDEO_OUTPUTS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}  # with FFmpeg's names of their muxers
