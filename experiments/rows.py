"""Tables of the report in Markdown: one row a system, mean ± sample standard deviation over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from experiments.experiment import OTHER_TIMESTEPS, Experiment
from experiments.metric_names import METRICS, REGIONS
from experiments.summary import Group, Summary

NAMES = {
    "bicubic": "bicubic",
    "srcnn": "SRCNN (MSE)",
    "srgan": "SRGAN (SRResNet)",
    "esrgan": "ESRGAN (RRDB)",
    "glean-no-bank": "no bank",
    "glean-random": "GLEAN, random bank",
    "glean": "GLEAN, pre-trained bank",
    "glean-tuned": "GLEAN, bank tuned",
    "lightglean": "LightGLEAN",
    "glean-cold": "GLEAN, MMagic's start",
    "glean-random-cold": "GLEAN, random bank, MMagic's start",
    "glean-warm": "GLEAN, warm start",
    "glean-random-warm": "GLEAN, random bank, warm start",
    "glean-no-decoder": "GLEAN, no decoder",
    "glean-full": "GLEAN, full decoder",
    "bank-none": "features nowhere",
    "bank-4": "at 4",
    "bank-4-8": "at 4, 8",
    "bank-4-8-16": "at 4, 8, 16",
    "glean-skip": "GLEAN with skip, pre-trained bank",
    "glean-skip-random": "GLEAN with skip, random bank",
    "glean-skip-no-bank": "GLEAN with skip, no bank",
    "glean-lpips": "LPIPS as the perceptual loss",
    "glean-unet": "U-Net discriminator",
    "glean-features": "discriminator on AlexNet's features",
    "glean-pyramid": "pyramid loss",
    "glean-gate": "fidelity gate, w = 0",
    "biggan": "GLEANBigGAN, pre-trained bank",
    "biggan-random": "GLEANBigGAN, random bank",
    "diffusion": "GLEANDiffusion, pre-trained bank",
    "diffusion-random": "GLEANDiffusion, random bank",
    "diffusion-lora": "GLEANDiffusion, bank with LoRA",
    "glean-references": "GLEAN with references",
    "diffusion-no-decoder": "GLEANDiffusion, no decoder: the U-Net's own image",
    **{f"diffusion-t{timestep}": f"GLEANDiffusion, t = {timestep}" for timestep in OTHER_TIMESTEPS},
    "diffusion-references": "diffusion bank with references",
    "ttsr": "TTSR",
    "crossnet": "CrossNet",
    "cimr": "CIMR-SR",
    "dfdnet": "DFDNet",
    "dfdnet-no-dictionary": "DFDNet, no dictionary",
    "pulse": "PULSE, W+",
    "pulse-z": "PULSE, z",
}
HEADINGS = {
    "PSNR": "PSNR (dB) ↑",
    "SSIM": "SSIM ↑",
    "LPIPS": "LPIPS ↓",
    "Frechet": "Fréchet ↓",
    "attributes": "attributes ↑",
    "identity": "hair and beard ↑",
    "LR_PSNR": "LR-PSNR (dB) ↑",
    **{name: f"{name} (dB) ↑" for name in REGIONS},
}
DIGITS = {"PSNR": 2, "SSIM": 3, "LPIPS": 4, "Frechet": 1, "attributes": 3, "identity": 3, "LR_PSNR": 1}
DIGITS |= dict.fromkeys(REGIONS, 2)
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {  # heading -> field of the results, and its form
    "trained": ("trainable_parameters", lambda value: f"{value / 1e6:.2f} M"),
    "images seen": ("images_seen", lambda value: f"{value:,.0f}"),
    "training (s)": ("train_seconds", lambda value: f"{value:.0f}"),
    "an image (s)": ("seconds_per_image", lambda value: f"{value:.3f}"),
    "peak (MiB)": ("peak_memory_MiB", lambda value: f"{value:.0f}"),
}
SHORT = ("PSNR", "LPIPS", "Frechet", "attributes")


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


def label(experiment: Experiment) -> str:
    name = NAMES[experiment.system]
    if experiment.bank:
        name = f"{name} of {experiment.bank}"
    return f"{name}, {experiment.variant.replace('_', ' ')}" if experiment.variant else name


def scaled_label(experiment: Experiment) -> str:
    return f"×{experiment.scale}, {label(experiment)}"


def without_result(
    experiments: Iterable[Experiment], summary: Summary, name: Callable[[Experiment], str] = label
) -> str:
    """Which rows a table lacks."""
    names = dict.fromkeys(name(run) for run in experiments if not summary.group(run))
    return f"No result yet: {'; '.join(names)}." if names else ""


def groups(experiments: Iterable[Experiment], summary: Summary, stage: str = "metrics") -> dict[str, Group]:
    """Those with results, by their labels."""
    chosen = list(experiments)
    several = len({experiment.domain for experiment in chosen}) > 1
    found = {}
    for experiment in chosen:
        name = f"{experiment.domain}: {label(experiment)}" if several else label(experiment)
        if (group := summary.group(experiment)) and any(group.values(name, stage) for name in (*METRICS, *REGIONS)):
            found[name] = group
    return found


def markdown(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(
    found: dict[str, Group], metrics: Iterable[str] = tuple(METRICS), costs: bool = True, stage: str = "metrics"
) -> str:
    """A table of groups of results by the names of their rows; empty where there is none.

    Args:
        found: The results.
        metrics: Columns.
        costs: Add parameters, images seen, seconds and memory.
        stage: What was measured: ``"metrics"``, or ``"metrics_subset"`` for the images that GAN inversion restored.
    """
    metrics, columns = list(metrics), COSTS if costs else {}
    rows = [
        [
            name,
            str(len(group)),
            *(number(group, metric, stage) for metric in metrics),
            *(_cost(group, field, form) for field, form in columns.values()),
        ]
        for name, group in found.items()
    ]
    return markdown(["system", "seeds", *(HEADINGS[metric] for metric in metrics), *columns], rows) if rows else ""


def reference_table(experiments: Iterable[Experiment], summary: Summary) -> str:
    """Each system with the references of the right person, without any, and with those of a wrong one."""
    metrics = ("attributes", "identity", "LPIPS", "PSNR", "LR_PSNR")
    return given_table(
        experiments, summary, {"right": "right", "none": "none", "wrong": "wrong"}, "references", metrics
    )


def label_table(experiments: Iterable[Experiment], summary: Summary) -> str:
    """Each system with the right class of each image, with the one that it estimates, and with a wrong one."""
    shown = {"right": "right", "none": "estimated", "wrong": "wrong"}
    return given_table(experiments, summary, shown, "label", ("PSNR", "LPIPS", "Frechet", "LR_PSNR"))


def given_table(
    experiments: Iterable[Experiment],
    summary: Summary,
    shown: dict[str, str],
    heading: str,
    metrics: Iterable[str],
) -> str:
    """Systems that get something beside the images, in three rows each; empty where there is no result.

    Args:
        experiments: Those that are compared.
        summary: The results.
        shown: How the table calls ``"right"``, ``"none"`` and ``"wrong"``.
        heading: What they get.
        metrics: Columns.
    """
    metrics, rows = list(metrics), []
    for name, group in {scaled_label(run): summary.group(run) for run in experiments}.items():
        stages = {"right": "metrics", "none": "metrics_none", "wrong": "metrics_wrong"}
        for which, stage in stages.items() if group else ():
            if group is not None and group.values("PSNR", stage):
                what = "–" if "bicubic" in name else shown[which]
                rows.append([name, what, str(len(group)), *(number(group, metric, stage) for metric in metrics)])
    return markdown(["system", heading, "seeds", *(HEADINGS[m] for m in metrics)], rows) if rows else ""


def vae_table(sets: dict[str, dict]) -> str:
    """What an autoencoder leaves of images, beside the enlarged inputs of restorers (experiments.vae_ceiling)."""
    inputs = ("x4", "x8")
    headings = ["images", "number", "autoencoder: PSNR (dB) ↑", "LPIPS ↓"]
    for scale in inputs:
        headings += [f"input, {scale.replace('x', '×')}: PSNR (dB) ↑", "LPIPS ↓", "lost share"]
    rows = []
    for name, found in sets.items():
        left = found["autoencoder"]
        row = [name, str(found["images"]), f"{left['PSNR']:.2f}", f"{left['LPIPS']:.4f}"]
        for scale in inputs:
            given = found[scale]
            row += [f"{given['PSNR']:.2f}", f"{given['LPIPS']:.4f}", f"{left['MSE'] / given['MSE']:.0%}"]
        rows.append(row)
    return markdown(headings, rows)


def _cost(group: Group, field: str, form: Callable[[float], str]) -> str:
    value = group.average(field)
    return "–" if value is None else form(value)
