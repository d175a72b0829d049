"""The section of the performance page about memory, load, many images and int8, from the reports of ``conditions``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

MIB = 2**20
Report = dict[str, Any]


def lines(reports: Sequence[Report]) -> Iterator[str]:
    """The section without its heading, line by line."""
    for part, (title, table) in TABLES.items():
        chosen = [report for report in reports if report["part"] == part]
        if chosen:
            machine = chosen[-1]["machine"]
            yield from ("", f"### {title}", "")
            yield f"`python -m benchmarks conditions {part}` on {machine['cpu']}, {machine['threads']} threads."
        for report in chosen:
            yield ""
            yield from table(report)


def _sizes(report: Report) -> str:
    return f"{report['network']}, {report['in_size']} -> {report['out_size']}, load {report['load']}"


def _memory(report: Report) -> Iterator[str]:
    yield f"{_sizes(report)}; in brackets: without mapped files, which the system can drop"
    yield from ("", "| | peak (MiB) | of MMagic's | processor time (s) |", "|---|---|---|---|")
    for row in report["rows"]:
        size, share = f"{row['peak'] / MIB:.0f}", f"{row['ratio']:.2f}"
        if row.get("unmapped"):
            size, share = f"{size} ({row['unmapped'] / MIB:.0f})", f"{share} ({row['unmapped_ratio']:.2f})"
        yield f"| {row['label']} | {size} | {share} | {row['cpu_seconds']:.0f} |"


def _busy(report: Report) -> Iterator[str]:
    yield from (_sizes(report), "", "| | wall-clock time | processor time | quiet (s) |", "|---|---|---|---|")
    for row in report["rows"]:
        yield f"| {row['label']} | {row['wall']:.2f} | {row['cpu']:.2f} | {row['quiet']:.2f} |"


def _batches(report: Report) -> Iterator[str]:
    yield f"{_sizes(report)}: images a second (processor seconds an image)"
    yield ""
    yield f"| | {' | '.join(f'batch {n}' for n in report['batches'])} |"
    yield "|---" * (len(report["batches"]) + 1) + "|"
    for row in report["rows"]:
        cells = [f"{1 / wall:.3g} ({cpu:.2f})" for cpu, wall in zip(row["cpu"], row["wall"], strict=True)]
        yield f"| {row['label']} | {' | '.join(cells)} |"


def _folder(report: Report) -> Iterator[str]:
    yield f"{report['images']:,} images, 8 -> 64, load {report['load']}"
    yield from ("", "| | MiB after 5% | 50% | the end | images/s | of the cores |", "|---|---|---|---|---|---|")
    for row in report["rows"]:
        memory = row["memory"]
        some = f"{memory[0]} | {memory[len(memory) // 2]} | {memory[-1]}"
        yield f"| {row['label']} | {some} | {report['images'] / row['seconds']:.0f} | {row['share']:.0%} |"


def _int8(report: Report) -> Iterator[str]:
    yield "| | PSNR from fp32 (dB) | convolutions in int8 | times as fast as fp32, AVX2 | all instructions |"
    yield "|---|---|---|---|---|"
    for row in report["rows"]:
        share = f"{row['layers'] - len(row['kept'])} of {row['layers']}"
        speed = " | ".join(f"{value['ratio']:.2f}" for value in row["speed"].values())
        yield f"| {row['label']} | {row['psnr']:.1f} | {share} | {speed} |"
    for row in report["rows"]:
        for name, psnr in row["kept"].items():
            yield from ("", f"{row['label']} keeps {name} in fp32: alone in int8 it would leave {psnr:.1f} dB.")


TABLES: dict[str, tuple[str, Callable[[Report], Iterator[str]]]] = {
    "memory": ("Peak memory of a whole process that restores one image", _memory),
    "busy": ("Beside a busy process: times as long as without it", _busy),
    "batches": ("Batches", _batches),
    "folder": ("A folder of small images", _folder),
    "int8": ("int8 with OpenVINO", _int8),
}
