"""Measure folders of restored images, by any restorer: glean evaluate OUTPUTS --reference GT --inputs LQ

Files are paired by their names, whatever their extensions. With several folders of results their restorers are
compared, on the images that all folders have. The report is an HTML file with the worst cases and the best ones; a JSON
and a CSV file are written beside it. A run that was interrupted continues: values of unchanged files are not measured
again.

Metrics: psnr, ssim, lpips, identity (with --reference), lr_psnr (with --inputs), niqe, and any of pyiqa as pyiqa:NAME,
such as pyiqa:musiq, pyiqa:clipiqa, pyiqa:maniqa, pyiqa:niqe, pyiqa:topiq_nr. pyiqa's licence is non-commercial, and it
downloads weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glean_ext import cli
from glean_ext.cli.restore_options import whole_number

if TYPE_CHECKING:
    from glean_ext.cli.plain_console import PlainConsole
    from glean_ext.evaluation import Evaluation, EvaluationOptions


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, argument_default=argparse.SUPPRESS
    )
    add = parser.add_argument
    add("outputs", nargs="+", type=Path, metavar="OUTPUTS", help="folder of restored images; several are compared")
    add("--reference", type=Path, metavar="GT", help="folder of the original images")
    add("--inputs", type=Path, metavar="LQ", help="folder of the images that were restored")
    add("--metrics", nargs="+", metavar="NAME", help="what is measured (default: all that is possible, without pyiqa)")
    add("--lpips", metavar="FILE", help="weights of LPIPS: torchvision://alexnet, or the path or URL of that file")
    add("--suffix", type=str, metavar="TEXT", help="what is added to the names of the results, such as _restored")
    add(
        "--sort-by", metavar="NAME", help="metric that decides which are the worst cases (default: lpips, or the first)"
    )
    add("--cases", type=whole_number, metavar="N", help="worst and best cases in the report (default: 8 of each)")
    add("-o", "--report", type=Path, metavar="FILE", help="the report (default: evaluation.html)")
    add("--max-pixels", type=whole_number, metavar="N", help="do not read images with more pixels (default: 200e6)")
    add("--device", type=cli.device_name, help="where networks run (default: cpu)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    given = vars(_parser().parse_args(argv))
    for name in "outputs", "metrics":
        if name in given:
            given[name] = tuple(given[name])

    from glean_ext.cli.early_checks import require_output
    from glean_ext.cli.plain_console import PlainConsole
    from glean_ext.evaluation import EvaluationOptions, evaluate
    from glean_ext.utils.progress import ProgressBar

    options = EvaluationOptions(**given)
    require_output(options.report)
    console = PlainConsole()
    with ProgressBar(console, transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        evaluation = evaluate(
            options,
            notify=lambda notice: console.show(notice.render(cli.as_option)),
            on_image=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _summarize(evaluation, options, console)
    return 0


def _summarize(evaluation: Evaluation, options: EvaluationOptions, console: PlainConsole) -> None:
    """Show the table.

    Raises:
        InputError: Images failed.
    """
    from rich.table import Table

    from glean_ext.errors import InputError
    from glean_ext.evaluation.table import summary
    from glean_ext.utils.messages import printable, summarize_names

    head, *lines = summary(evaluation)
    table = Table(*head)
    for label, *cells in lines:
        table.add_row(printable(label), *cells)
    console.print(table)
    for metric, (error, count) in evaluation.unmeasured.items():
        console.show(f"{metric}: no value for {count} results. {error.render(cli.as_option)}")
    console.show(f"{len(evaluation.rows)} images: {options.report}, with .json and .csv beside it")
    if evaluation.failures:
        for error in evaluation.failures.values():
            console.show(f"failed: {error.render(cli.as_option)}")
        total = len(evaluation.rows) + len(evaluation.failures)
        names = summarize_names(list(evaluation.failures))
        raise InputError(f"{len(evaluation.failures)} of {total} images failed ({names}); why is said above.")
