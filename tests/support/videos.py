"""Small videos made with PyAV, and what a file shows: for the tests of videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat

from glean_ext.video.reader import SCALING

Restore = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
SIZE = 32, 24
AUDIO_RATE = 16000


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(h, w, 3) uint8: smooth, colourful, without symmetry, and another one for each number."""
    y, x = np.mgrid[: size[1], : size[0]] / np.array([size[1], size[0]])[:, None, None]
    waves = np.stack([x * 2 + number / 20, y * 2 - number / 25, x + y + number / 30], -1)
    return np.round(128 + 90 * np.sin(waves)).astype(np.uint8)


def doubled(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each twice as large, by nearest neighbour: a restorer."""
    return [rgb.repeat(2, 0).repeat(2, 1) for rgb in frames]


def stop_after(frames: int, error: BaseException, restore: Restore = doubled) -> Restore:
    """A restorer that fails once it was given more frames than that."""
    given = 0

    def until_then(batch: Sequence[np.ndarray]) -> list[np.ndarray]:
        nonlocal given
        given += len(batch)
        if given > frames:
            raise error
        return restore(batch)

    return until_then


def write_video(
    path: Path,
    frames: Sequence[np.ndarray] | int = 24,
    *,
    codec: str = "libx264",
    rate: Fraction | int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio: Sequence[str] = ("aac",),
    matrix: str = "bt601",
    full: bool = False,
    tags: Sequence[int] = (2, 2, 2, 0),
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
    turn: tuple[float, bool, bool] | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """Write a video with sine tones.

    Args:
        frames: (h, w, 3) uint8 each; or how many of :func:`picture`.
        pts: Time stamps in ticks of ``time_base``.
        audio: Encoders, one for each audio stream.
        matrix: Of the YCbCr samples, as FFmpeg's scale filter names it; so is ``full`` their range.
        tags: What the file says of them: matrix, primaries, transfer, range.
        turn: For ``set_display_rotation``.
        container: Options of the muxer.
        container_format: FFmpeg's name of the muxer, where the extension does not give it.
    """
    if isinstance(frames, int):
        frames = [picture(number) for number in range(frames)]
    height, width = frames[0].shape[:2]
    time_base = time_base or 1 / Fraction(rate)
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=time_base)
    scale = f"out_color_matrix={matrix}:out_range={'pc' if full else 'tv'}:out_chroma_loc=left"
    scale = graph.add("scale", f"{scale}:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp")
    graph.link_nodes(source, scale, graph.add("format", pix_fmt), graph.add("buffersink")).configure()
    with av.open(str(path), "w", format=container_format, container_options=container or {}) as output:
        video = output.add_stream(codec, rate=rate, options={"crf": "4", "mbtree": "0"} if options is None else options)
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        context = video.codec_context
        context.time_base = time_base
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        if aspect:
            context.sample_aspect_ratio = aspect
        if turn:
            video.set_display_rotation(*turn)
        tones = [output.add_stream(name, rate=AUDIO_RATE, layout="mono") for name in audio]
        for tone in tones:
            if tone.codec_context.name.startswith("wma"):
                tone.codec_context.bit_rate = 24000  # its encoder refuses FFmpeg's default at this rate
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = number if pts is None else pts[number], time_base
            graph.vpush(frame)
            output.mux(video.encode(graph.vpull()))
        output.mux(video.encode(None))
        for number, tone in enumerate(tones):
            time = np.arange(AUDIO_RATE * len(frames) // 25) / AUDIO_RATE
            wave = (8000 * np.sin(2 * np.pi * 440 * (number + 1) * time)).astype(np.int16)
            for start in range(0, len(wave), 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
                block.sample_rate, block.pts = AUDIO_RATE, start
                output.mux(tone.encode(block))
            output.mux(tone.encode(None))
    return path


@dataclass(frozen=True)
class Content:
    """What is in a video file: frames (h, w, 3) uint8 as they are stored, their seconds, packets of other streams."""

    rgb: list[np.ndarray]
    times: list[Fraction]
    colours: tuple[int, int, int, int]
    rate: Fraction
    aspect: Fraction
    turn: int
    end: Fraction
    codec: tuple[str, str]
    packets: dict[int, list[tuple[bytes, Fraction]]]


def read_video(path: Path) -> Content:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = list(file.decode(stream))
        first = frames[0]
        rgb = [
            frame.reformat(format="rgb24", dst_color_range=2, interpolation=SCALING, threads=1).to_ndarray()
            for frame in frames
        ]
        times = [frame.pts * stream.time_base for frame in frames]
        colours = first.colorspace, first.color_primaries, first.color_trc, first.color_range
        found = {
            "rate": stream.average_rate,
            "aspect": stream.sample_aspect_ratio or Fraction(1),
            "turn": first.rotation,
            "end": Fraction(file.duration or 0, av.time_base),
            "codec": (stream.codec_context.name, first.format.name),
        }
    packets: dict[int, list[tuple[bytes, Fraction]]] = {}
    with av.open(str(path)) as file:
        others = [stream for stream in file.streams if stream.type != "video"]
        for packet in file.demux(others) if others else ():
            if packet.size:
                packets.setdefault(packet.stream.index, []).append((bytes(packet), packet.pts * packet.time_base))
    return Content(rgb, times, colours, packets=packets, **found)


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((image.astype(float) - other) ** 2)
    return 10 * np.log10(255**2 / error) if error else np.inf


def worst(images: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    """The lowest PSNR (dB) of pairs."""
    return min(psnr(image, other) for image, other in zip(images, others, strict=True))
