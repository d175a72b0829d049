"""The verdicts, by the rules of CLAIMS.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from experiments.experiment import FIRST
from experiments.summary import Group, Summary, better

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "not decided yet"
SEEDS = 3  # that a statement about spread needs


@dataclass(frozen=True)
class Verdict:
    claim: str
    verdict: str
    reasons: tuple[str, ...]


def judged(claim: str, failures: list[str], facts: list[str]) -> Verdict:
    return Verdict(claim, FAILS if failures else HOLDS, tuple(failures or facts))


def judged_by(claim: str, checks: Sequence[tuple[bool, str]]) -> Verdict:
    """All checks have to be true; the reasons are those that are not, or else all of them."""
    return judged(claim, [text for true, text in checks if not true], [text for _, text in checks])


def missing(claim: str, what: str) -> Verdict:
    return Verdict(claim, OPEN, (what,))


def groups(summary: Summary, systems: Iterable[str], **settings: int) -> dict[str, Group]:
    found = {name: summary.of(name, **settings) for name in systems}
    return {name: group for name, group in found.items() if group}


def comparisons(system: Group, others: dict[str, Group], metrics: Iterable[str]) -> tuple[list[str], list[str]]:
    """In what the system is not better than each of the others by more than the seed spread, and in what it is."""
    failures: list[str] = []
    facts: list[str] = []
    for name, other in others.items():
        for metric in metrics:
            text = f"{metric} {system.mean(metric):.4g} against {other.mean(metric):.4g} of {name}"
            (facts if better(system, other, metric) else failures).append(text)
    return failures, facts


def judged_with_psnr(
    claim: str, system: Group, others: dict[str, Group], failures: list[str], facts: list[str]
) -> Verdict:
    """The verdict on comparisons, to which the mean PSNR is added: at most 0.3 dB below the best of the others."""
    gap = max(other.mean("PSNR") for other in others.values()) - system.mean("PSNR")
    text = f"PSNR {-gap:+.2f} dB against the best of the others"
    return judged(claim, [*failures, text], facts) if gap > 0.3 else judged(claim, failures, [*facts, text])


def better_than_the_others(
    claim: str, summary: Summary, systems: Sequence[str], metrics: Iterable[str], scale: int
) -> Verdict:
    """Whether the first of the systems is better than each of the others, see :func:`judged_with_psnr`."""
    found = groups(summary, systems, scale=scale)
    if short := [name for name in systems if name not in found or len(found[name]) < SEEDS]:
        return missing(claim, f"fewer than {SEEDS} seeds of {', '.join(short)}")
    first = found.pop(systems[0])
    return judged_with_psnr(claim, first, found, *comparisons(first, found, metrics))


def bank_helps(summary: Summary, scale: int) -> Verdict:
    claim = f"1. The pre-trained bank helps (×{scale})"
    systems = ("glean", "glean-random", "glean-no-bank", "esrgan")
    found = groups(summary, systems, scale=scale)
    short = [name for name in systems if name not in found or len(found[name]) < SEEDS]
    if "glean" in short:
        return missing(claim, f"fewer than {SEEDS} seeds of {', '.join(short)}")
    glean = found["glean"]
    others = {name: group for name, group in found.items() if name not in ("glean", *short)}
    failures, facts = comparisons(glean, others, ("LPIPS", "Frechet", "attributes"))
    if short:
        decided = [f"better in {text}" for text in facts] + [f"not better in {text}" for text in failures]
        return Verdict(claim, OPEN, (f"fewer than {SEEDS} seeds of {', '.join(short)}", *decided))
    return judged_with_psnr(claim, glean, others, failures, facts)


def bank_helps_with_skip(summary: Summary, scale: int) -> Verdict:
    claim = f"10. The pre-trained bank helps a GLEAN with skip (×{scale})"
    systems = ("glean-skip", "glean-skip-random", "glean-skip-no-bank")
    return better_than_the_others(claim, summary, systems, ("LPIPS", "Frechet", "attributes"), scale)


def level_with_srresnet(summary: Summary, scale: int) -> Verdict:
    claim = f"11. GLEAN with skip is level with SRResNet (×{scale})"
    found = groups(summary, ("glean-skip", "srgan"), scale=scale)
    if short := [name for name in ("glean-skip", "srgan") if name not in found or len(found[name]) < SEEDS]:
        return missing(claim, f"fewer than {SEEDS} seeds of {', '.join(short)}")
    glean, srgan = found["glean-skip"], found["srgan"]
    checks = [
        (
            glean.mean(metric) <= srgan.mean(metric),
            f"{metric} {glean.mean(metric):.4g}, SRGAN's {srgan.mean(metric):.4g}",
        )
        for metric in ("LPIPS", "Frechet")
    ]
    gain = glean.mean("PSNR") - srgan.mean("PSNR")
    return judged_by(claim, [*checks, (gain >= -0.3, f"PSNR {gain:+.2f} dB against SRGAN")])


def inversion(summary: Summary) -> Verdict:
    claim = "2. GAN inversion is realistic, but unfaithful and slow (×8)"
    untrained = replace(summary, budget=FIRST)  # inversion has no training: its results are good for any protocol
    found = {**groups(untrained, ["pulse"]), **groups(summary, ["glean", "esrgan"])}
    if short := [name for name in ("pulse", "glean", "esrgan") if name not in found]:
        return missing(claim, f"no result of {', '.join(short)}")
    pulse, glean, esrgan = found["pulse"], found["glean"], found["esrgan"]
    stage = "metrics_subset"  # of the images that PULSE inverted
    frechet = pulse.mean("Frechet"), esrgan.mean("Frechet", stage)
    psnr = pulse.mean("PSNR"), glean.mean("PSNR", stage)
    attributes = pulse.mean("attributes"), glean.mean("attributes", stage)
    ratio = (pulse.average("seconds_per_image") or 0) / (glean.average("seconds_per_image") or 1)
    checks = [
        (frechet[0] <= frechet[1], f"Fréchet distance {frechet[0]:.1f}, ESRGAN's {frechet[1]:.1f}"),
        (psnr[0] <= psnr[1] - 1, f"PSNR {psnr[0]:.2f} dB, GLEAN's {psnr[1]:.2f} dB"),
        (attributes[0] < attributes[1], f"attribute accuracy {attributes[0]:.3f}, GLEAN's {attributes[1]:.3f}"),
        (ratio >= 10, f"{ratio:.0f} times GLEAN's seconds an image"),
    ]
    return judged_by(claim, checks)


def encoder_resolutions(summary: Summary) -> Verdict:
    claim = "3. More encoder resolutions into the bank give a more faithful structure (×4)"
    names = ("bank-none", "bank-4", "bank-4-8", "bank-4-8-16")
    found = groups(summary, names, scale=4)
    if len(found) < len(names):
        return missing(claim, f"no result of {', '.join(name for name in names if name not in found)}")
    psnr = [found[name].mean("PSNR") for name in names]
    facts = ["PSNR " + ", ".join(f"{value:.2f}" for value in psnr) + " dB with none, 4, 4–8, 4–16"]
    lpips = found[names[0]].mean("LPIPS"), found[names[-1]].mean("LPIPS")
    facts.append(f"LPIPS {lpips[0]:.4f} with none, {lpips[1]:.4f} with all")
    rises = all(b - a >= 0.1 for a, b in pairwise(psnr))
    return judged(claim, [] if rises and lpips[1] < lpips[0] else facts, facts)


def decoder(summary: Summary) -> Verdict:
    claim = "4. The decoder adds fidelity (×8)"
    names = {"none": "glean-no-decoder", "slim": "glean", "full": "glean-full"}
    found = {key: group for key, name in names.items() if (group := summary.of(name))}
    if len(found) < len(names):
        return missing(claim, f"no result of {', '.join(key for key in names if key not in found)}")
    psnr = {key: found[key].mean("PSNR") for key in names}
    seeds = min(map(len, found.values()))
    least = found["full"].spread("PSNR") + found["none"].spread("PSNR") if seeds >= SEEDS else 0.2
    facts = ["PSNR " + ", ".join(f"{value:.2f} dB ({key})" for key, value in psnr.items()) + f"; seeds: {seeds}"]
    holds = psnr["full"] - psnr["none"] > least and psnr["slim"] > psnr["none"]
    return judged(claim, [] if holds else facts, facts)


def light(summary: Summary) -> Verdict:
    claim = "5. LightGLEAN is comparable at its budget (×8)"
    found = groups(summary, ("glean", "lightglean"))
    if short := [name for name in ("glean", "lightglean") if name not in found or len(found[name]) < SEEDS]:
        return missing(claim, f"fewer than {SEEDS} seeds of {', '.join(short)}")
    excess = found["lightglean"].mean("LPIPS") / found["glean"].mean("LPIPS") - 1
    gap = found["glean"].mean("PSNR") - found["lightglean"].mean("PSNR")
    facts = [f"LPIPS {excess:+.1%}, PSNR {-gap:+.2f} dB against GLEAN"]
    return judged(claim, [] if excess <= 0.1 and gap <= 0.5 else facts, facts)


def category(summary: Summary) -> Verdict:
    claim = "6. Switching the bank switches the category, and a wrong bank hurts (×8)"
    failures: list[str] = []
    facts: list[str] = []
    for domain, other in ("cartoons", "emoji"), ("emoji", "cartoons"):
        kinds = {
            "right": summary.of("glean", domain=domain),
            "wrong": summary.of("glean", domain=domain, bank=other),
            "random": summary.of("glean-random", domain=domain),
        }
        if absent := [kind for kind, group in kinds.items() if not group]:
            return missing(claim, f"no result with the {' or '.join(absent)} bank on {domain}")
        found = {kind: group for kind, group in kinds.items() if group}
        for metric in "LPIPS", "Frechet":
            right, wrong = found["right"], found["wrong"]
            enough = min(len(right), len(wrong)) >= SEEDS
            wins = better(right, wrong, metric) if enough else right.mean(metric) <= 0.97 * wrong.mean(metric)
            text = f"{domain}: {metric} {right.mean(metric):.4g} (right bank), {wrong.mean(metric):.4g} (wrong bank)"
            (facts if wins else failures).append(text)
        values = found["wrong"].mean("LPIPS"), found["random"].mean("LPIPS")
        text = f"{domain}: LPIPS {values[0]:.4g} (wrong bank), {values[1]:.4g} (random bank)"
        (facts if values[0] >= values[1] else failures).append(text)
    return judged(claim, failures, facts)


def diffusion(summary: Summary, scale: int) -> Verdict:
    claim = f"7. A diffusion model can be the bank (×{scale})"
    systems = ("diffusion", "diffusion-random", "glean-no-bank")
    return better_than_the_others(claim, summary, systems, ("LPIPS", "Frechet"), scale)


def references(summary: Summary, system: str, scale: int) -> Verdict:
    claim = f"8. References of the right person help (×{scale}, {system})"
    group = summary.of(system, domain="people", scale=scale)
    if not group or min(len(group.values("identity", f"metrics_{which}")) for which in ("none", "wrong")) < SEEDS:
        return missing(claim, f"fewer than {SEEDS} seeds of {system} on people")
    checks = []
    for which in "none", "wrong":
        stage = f"metrics_{which}"
        for metric, sign in ("identity", 1), ("LPIPS", -1):
            right, other = group.mean(metric), group.mean(metric, stage)
            wins = sign * (right - other) > group.spread(metric) + group.spread(metric, stage)
            checks.append((wins, f"{metric} {right:.4g} (right person), {other:.4g} ({which})"))
    change = group.mean("LR_PSNR", "metrics_wrong") - group.mean("LR_PSNR", "metrics_none")
    checks.append((change >= -1, f"LR-PSNR {change:+.2f} dB from none to wrong"))
    return judged_by(claim, checks)


def dictionary(summary: Summary) -> Verdict:
    claim = "9. DFDNet restores what its dictionary holds, and fails elsewhere (×8)"
    stage, held, other = "regions", ("eyes", "mouth"), ("hair", "skin")
    systems = ("dfdnet", "dfdnet-no-dictionary", "glean")
    found = {name: group for name, group in groups(summary, systems).items() if group.values("eyes", stage)}
    if short := [name for name in systems if name not in found]:
        return missing(claim, f"no result with regions of {', '.join(short)}")
    net, twin, glean = (found[name] for name in systems)
    gain = {name: net.mean(name, stage) - twin.mean(name, stage) for name in (*held, *other)}
    lead = {name: net.mean(name, stage) - glean.mean(name, stage) for name in (*held, *other)}
    enough = min(len(group.values("eyes", stage)) for group in (net, twin)) >= SEEDS
    spread = {name: net.spread(name, stage) + twin.spread(name, stage) for name in held}
    restored = {name: gain[name] > spread[name] if enough else gain[name] >= 0.2 for name in held}
    least = min(gain[name] for name in held)
    checks = [(restored[name], f"gain in the {name} {gain[name]:+.2f} dB") for name in held]
    checks += [(gain[name] <= least / 2, f"gain in the {name} {gain[name]:+.2f} dB") for name in other]
    checks += [
        (lead[name] < min(lead[part] for part in held), f"lead over GLEAN in the {name} {lead[name]:+.2f} dB")
        for name in other
    ]
    return judged_by(claim, checks)


CLAIMS: tuple[Callable[[Summary], Verdict], ...] = (
    lambda summary: bank_helps(summary, 8),
    lambda summary: bank_helps(summary, 16),
    inversion,
    encoder_resolutions,
    decoder,
    light,
    category,
    lambda summary: diffusion(summary, 8),
    lambda summary: diffusion(summary, 16),
    lambda summary: references(summary, "glean-references", 8),
    lambda summary: references(summary, "glean-references", 16),
    lambda summary: references(summary, "diffusion-references", 8),
    lambda summary: references(summary, "diffusion-references", 16),
    dictionary,
    lambda summary: bank_helps_with_skip(summary, 8),
    lambda summary: bank_helps_with_skip(summary, 16),
    lambda summary: level_with_srresnet(summary, 8),
    lambda summary: level_with_srresnet(summary, 16),
)
