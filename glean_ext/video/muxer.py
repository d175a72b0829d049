"""Putting restored frames and the source's other streams into one file, without encoding anything again."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from glean_ext.errors import InputError, Notice
from glean_ext.video.formats import VIDEO_OUTPUTS
from glean_ext.video.frame_properties import is_cover
from glean_ext.video.reader import VideoError, VideoSource, open_container
from glean_ext.video.segment_writer import Segments, count_frames, report_write_errors

# Tags of the source's file that describe the file itself, and are not copied.
FILE_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder", "ENCODER")
STREAM_TAGS = "language", "title", "handler_name"  # of the source's video stream, which are copied


def streams_to_copy(source: VideoSource, target: Path) -> list[Stream]:
    """The source's streams that are copied into ``target``; those that are left out are reported.

    Raises:
        InputError: An audio stream does not fit into it, but would into an .mkv.
    """
    extension = target.suffix.lower()
    copied, left_out = [], []
    for stream in source.container.streams:
        if stream is source.stream:
            continue
        name = getattr(stream, "name", None) or "of unknown kind"
        useful = stream.type in ("audio", "subtitle", "attachment") or (stream.type == "video" and is_cover(stream))
        if useful and _fits(stream, extension):
            copied.append(stream)
        elif stream.type == "audio" and _fits(stream, ".mkv"):
            raise InputError(
                f"{source.path}: its audio ({name}) does not fit into {extension}. "
                f"Name the output {target.with_suffix('.mkv')}."
            )
        else:
            left_out.append(f"{stream.index} ({stream.type}, {name})")
    if left_out:
        names = ", ".join(left_out)
        source.notify(Notice(f"{source.path}: {extension} takes no copy of streams {names}, which are left out."))
    return copied


def _fits(stream: Stream, extension: str) -> bool:
    if is_cover(stream) and extension != ".mp4":
        return False  # Matroska makes it a second video, QuickTime drops it
    try:
        with av.open(io.BytesIO(), "w", format=VIDEO_OUTPUTS[extension]) as probe:
            _add_copy(probe, stream)
            probe.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _add_copy(container: OutputContainer, stream: Stream) -> Stream:
    copy = container.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


@dataclass(frozen=True)
class MuxResult:
    """What the target has: frames of a size, (width, height), and a number of audio streams."""

    size: tuple[int, int]
    audio: int


def mux(
    segments: Segments, source: VideoSource, pts: Sequence[int], last_duration: int, copied: Sequence[Stream]
) -> MuxResult:
    """Write all segments and the source's other streams into the target, without encoding anything again.

    Streams that cannot be copied are left out, with a notice that says why.

    Args:
        pts: When each frame is displayed, in the source's ticks.
        last_duration: Of the last frame, in ticks.
        copied: Of :func:`streams_to_copy`; the source is read again for them.

    Raises:
        InputError: The target cannot be written.
    """
    try:
        return _mux(segments, source, pts, last_duration, copied)
    except InputError as error:
        if not copied or isinstance(error, VideoError) or isinstance(error.__cause__, OSError):
            raise
        extension = segments.target.suffix
        reason = getattr(error.__cause__, "strerror", None) or str(error).rstrip(".")
    hint = "" if extension == ".mkv" else " An .mkv may take them."
    source.notify(
        Notice(
            f"{source.path}: its audio and other streams cannot be copied into {extension} ({reason}), and were left "
            f"out.{hint}"
        )
    )
    return _mux(segments, source, pts, last_duration, ())


def _mux(
    segments: Segments, source: VideoSource, pts: Sequence[int], last_duration: int, copied: Sequence[Stream]
) -> MuxResult:
    target = segments.target
    whole = segments.folder / f"whole{target.suffix}"
    # Otherwise Matroska shifts all streams where the audio starts before 0, with samples that players skip.
    options = {"avoid_negative_ts": "disabled"}
    try:
        with report_write_errors(target):
            with (
                open_container(source.path) as reopened,
                av.open(str(whole.absolute()), "w", container_options=options) as output,
                av.open(str(segments.paths()[0].absolute())) as first,
            ):
                encoded = first.streams.video[0]
                size = encoded.width, encoded.height
                video = _add_restored(output, encoded, source)
                copies = {stream.index: _add_copy(output, stream) for stream in copied}
                packets = _video_packets(segments.paths(), pts, last_duration, source.time_base, video)
                others = _other_packets(reopened, copies, source.offset) if copies else ()
                damaged = _write(output, heapq.merge(packets, others, key=lambda packet: packet.dts * packet.time_base))
            if damaged and count_frames(whole) != len(pts):
                raise InputError(f"{damaged} packets were refused.")
            whole.replace(target)
        if damaged:
            source.notify(Notice(f"{source.path}: {damaged} damaged packets of audio or other streams were left out."))
    finally:
        whole.unlink(missing_ok=True)
    return MuxResult(size, sum(stream.type == "audio" for stream in copied))


def _add_restored(output: OutputContainer, encoded: VideoStream, source: VideoSource) -> Stream:
    """Add the stream of restored frames, and the source's tags and chapters."""
    output.metadata.update({key: text for key, text in source.container.metadata.items() if key not in FILE_TAGS})
    if chapters := source.container.chapters():
        output.set_chapters(chapters)
    stream = output.add_stream_from_template(encoded, opaque=True)
    stream.time_base = source.time_base
    stream.metadata.update({key: text for key, text in source.stream.metadata.items() if key in STREAM_TAGS})
    stream.disposition = source.stream.disposition
    return stream


def _write(output: OutputContainer, packets: Iterable[Packet]) -> int:
    """Write all packets and the end of the file; returns how many were refused, as damaged ones are."""
    refused = 0
    steps: Iterator[Callable[[], None]] = chain((partial(output.mux, packet) for packet in packets), [output.close])
    for step in steps:
        try:
            step()
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            refused += 1
    return refused


def _video_packets(
    paths: Iterable[Path], pts: Sequence[int], last_duration: int, time_base: Fraction, stream: Stream
) -> Iterator[Packet]:
    """The segments' packets, with the time stamps that their frames had in the source.

    Packets come in the order of decoding, which needs time stamps of its own: those of the frame displayed ``delay``
    frames earlier. The last packet's duration makes their sum as long as the frames are displayed, since MP4 takes the
    stream's duration from there.
    """

    def end(number: int) -> int:
        return pts[number + 1] if number + 1 < len(pts) else pts[number] + last_duration

    done = first = 0
    for path in paths:
        with av.open(str(path.absolute())) as segment:
            delay = segment.streams.video[0].codec_context.reorder_depth
            packets = [packet for packet in segment.demux(video=0) if packet.size]
        order = sorted(range(len(packets)), key=lambda position: packets[position].pts or 0)
        display_number = {position: done + rank for rank, position in enumerate(order)}
        for position, packet in enumerate(packets):
            number, earlier = display_number[position], done + position - delay
            packet.time_base = time_base
            packet.stream = stream  # type: ignore[assignment]  # PyAV's types allow only streams of inputs
            packet.pts = pts[number]
            packet.dts = pts[earlier] if earlier >= 0 else pts[0] + earlier * (end(0) - pts[0])
            packet.duration = end(number) - pts[number]
            if done + position == 0:
                first = packet.dts
            if done + position == len(pts) - 1:
                packet.duration = end(len(pts) - 1) - pts[0] - (packet.dts - first)
            yield packet
        done += len(packets)


def _other_packets(container: InputContainer, copies: dict[int, Stream], offset: Fraction) -> Iterator[Packet]:
    """The packets of the copied streams, up to where the file breaks off."""
    with suppress(av.FFmpegError):
        for packet in container.demux([container.streams[index] for index in copies]):
            index = packet.stream.index
            dts = packet.dts if packet.dts is not None else packet.pts
            if dts is None and is_cover(packet.stream):
                dts = 0
            if not packet.size or dts is None:
                continue
            shift = round(offset / packet.time_base)
            packet.dts = dts - shift
            packet.pts = (dts if packet.pts is None else packet.pts) - shift
            packet.stream = copies[index]
            yield packet
