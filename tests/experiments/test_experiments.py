"""The harness of the evidence: splits, resumed training, networks that judge, and verdicts."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data as pictures
from support.metric_references import as_tensor, astronaut, blurred

from experiments import domains, weights
from experiments.domains import Domain, Part
from experiments.experiment import Budget, Experiment
from experiments.lite0 import EfficientNetLite0, SameConv, load
from experiments.report import PAGE, README, page, readme_part, replaced
from experiments.rows import groups, number, table, without_result
from experiments.run import finished
from experiments.summary import Group, Summary, better
from experiments.systems import GLEAN, MATCHED_TRUNK, build, trainable
from experiments.tables import TABLES
from experiments.training import Training
from experiments.vae_ceiling import TinyAutoencoder, decoded
from experiments.verdicts import (
    FAILS,
    HOLDS,
    OPEN,
    bank_helps,
    bank_helps_with_skip,
    diffusion,
    encoder_resolutions,
    level_with_srresnet,
    light,
)
from glean_ext.metrics.perceptual import load_lpips
from glean_ext.utils.files import write_json

TINY = Budget(pixel_steps=2, full_steps=2, batch_size=2, loss_images=2)
CPU = torch.device("cpu")


@pytest.fixture
def domain() -> Domain:
    parts = {
        name: Part(torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8), torch.zeros(4, 0, dtype=torch.long))
        for name in ("train", "val", "test")
    }
    return Domain("cartoons", parts, {}, 0)


@pytest.fixture
def vgg16(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.weights.vgg16", lambda: weights / "vgg16.pth")


def test_names_tell_experiments_apart() -> None:
    experiments = [experiment for table in TABLES.values() for experiment in table]
    assert len({experiment.name for experiment in experiments}) == len(set(experiments))
    assert Experiment("glean").name == "cartoons-x8-glean-seed0"
    changed = Experiment("glean", "emoji", 16, 200, 2, "cartoons", variant="long")
    assert changed.name == "emoji-x16-glean-bank_cartoons-200pairs-long-seed2"


@pytest.mark.parametrize("scale", [8, 16])
def test_systems_that_are_compared_for_the_bank_have_as_many_trainable_parameters(scale: int) -> None:
    reference = trainable(build(Experiment("glean", scale=scale)))
    for name in "glean-random", "glean-no-bank", "esrgan", "srgan", "diffusion", "diffusion-random", "diffusion-lora":
        assert 0.9 < trainable(build(Experiment(name, scale=scale))) / reference < 1.1, name
    with_skip = [trainable(build(Experiment(f"glean-skip{end}", scale=scale))) for end in ("", "-random", "-no-bank")]
    assert max(with_skip) < 1.01 * min(with_skip)
    assert set(MATCHED_TRUNK) == {8, 16} and "glean-no-bank" in GLEAN


@torch.no_grad()
def test_every_glean_with_a_bank_starts_warm_but_the_cold_ones() -> None:
    """The pre-trained one starts from its own mean image, the random one from that of the random bank."""
    lq = torch.rand(2, 3, 8, 8)
    image = build(Experiment("glean-no-decoder"))(lq)
    assert torch.allclose(image[0], image[1], atol=1e-6)
    for name in "glean", "glean-random", "glean-tuned", "glean-full", "glean-skip", "glean-skip-random":
        assert build(Experiment(name)).warm_start, name
    assert not build(Experiment("glean-cold")).warm_start and not build(Experiment("glean-random-cold")).warm_start


def test_near_duplicates_of_training_images_leave_the_held_out_parts() -> None:
    train = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    near = train[1].clone()
    near[:, :4, :4] ^= 1
    fresh = torch.randint(256, (3, 64, 64), dtype=torch.uint8)
    held_out = Part(torch.stack([fresh, near, train[2].flip(2)]), torch.tensor([[5], [6], [7]]))
    parts = {"train": Part(train, torch.zeros(3, 1)), "val": held_out, "test": held_out}
    kept, removed = domains.without_near_duplicates(parts)
    assert removed == 4 and torch.equal(kept["test"].images, fresh[None]) and kept["test"].labels.tolist() == [[5]]


def test_rendered_faces_are_those_of_the_demo_with_their_attributes() -> None:
    from demo.render_faces import render_face

    pixels, names = domains._face("test-0")
    assert np.array_equal(pixels, np.asarray(render_face("test-0")))
    assert dict(zip(domains.ATTRIBUTES, names, strict=True)) == {
        "eyes": "wide",
        "eyebrows": "neutral",
        "mouth": "laugh",
        "hair": "undercut",
        "rearHair": "none",
        "beard": "chinMoustache",
    }


def test_a_resumed_training_is_the_uninterrupted_one(domain: Domain, vgg16: None) -> None:
    experiment = Experiment("glean", budget=TINY)
    whole, first = Training(experiment, domain, CPU), Training(experiment, domain, CPU)
    for _ in range(3):
        whole.step(), first.step()
    resumed = Training(experiment, domain, CPU)
    resumed.load_state_dict(first.state_dict())
    losses = whole.step(), resumed.step()
    assert losses[0] == losses[1] and set(losses[0]) == {"mse", "perceptual", "gan", "d"}
    assert whole.finished and list(resumed.candidates) == ["pixel", "middle", "last"]
    for name, value in whole.candidates["last"].items():
        assert torch.equal(value, resumed.candidates["last"][name]), name


def test_the_average_is_what_is_evaluated_and_the_bank_stays(domain: Domain, vgg16: None) -> None:
    training = Training(Experiment("glean", budget=TINY), domain, CPU)
    bank = {name: value.clone() for name, value in training.network.generator.state_dict().items()}
    start = {name: value.clone() for name, value in training.parameters.items()}
    training.step()
    name = "decoder.to_image.weight"
    decay = 0.5 ** (1 / TINY.ema_half_life)
    expected = decay * start[name] + (1 - decay) * training.parameters[name]
    assert torch.allclose(training.average[name], expected, atol=1e-7)
    training.step()
    average = training.average[name].clone()
    assert torch.equal(training.averaged("pixel").get_parameter(name), average)
    assert all(torch.equal(value, bank[name]) for name, value in training.network.generator.state_dict().items())


@pytest.mark.parametrize("system", ["glean", "pulse"])
def test_a_result_counts_only_for_its_own_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    monkeypatch.setattr("experiments.experiment.RESULTS", tmp_path)
    experiment = Experiment(system)
    assert not finished(experiment)
    bank = weights.sha256("glean-ext://demo_bank.safetensors")
    write_json({"config": experiment.config(), "weights": {"bank": bank}}, experiment.result_file)
    assert finished(experiment)
    assert not finished(dataclasses.replace(experiment, budget=TINY))
    write_json({"config": experiment.config(), "weights": {"bank": "another"}}, experiment.result_file)
    assert not finished(experiment)


def test_a_result_of_another_dictionary_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.experiment.RESULTS", tmp_path)
    monkeypatch.setattr("experiments.relatives.dictionary.FILE", file := tmp_path / "dictionary.safetensors")
    experiment = Experiment("dfdnet")
    file.write_bytes(b"one")
    result = {"config": experiment.config(), "weights": {"dictionary": weights.sha256(file)}}
    write_json(result, experiment.result_file)
    assert finished(experiment)
    (another := tmp_path / "another.safetensors").write_bytes(b"another")
    monkeypatch.setattr("experiments.relatives.dictionary.FILE", another)
    assert not finished(experiment)


# ---------------------------------------------------------------- summary and verdicts


def summary(values: dict[str, list[dict]], scale: int = 8) -> Summary:
    results = {}
    for system, seeds in values.items():
        for seed, metrics in enumerate(seeds):
            experiment = Experiment(system, scale=scale, seed=seed)
            results[experiment.name] = {"config": experiment.config(), "metrics": metrics}
    return Summary(results)


def metrics(lpips: float, psnr: float = 20.0) -> dict:
    return {"PSNR": psnr, "LPIPS": lpips, "Frechet": 100 * lpips, "attributes": 1 - lpips}


def seeds(lpips: float, psnr: float = 20.0) -> list[dict]:
    return [metrics(lpips + d, psnr) for d in (-0.01, 0, 0.01)]


def test_better_means_by_more_than_both_spreads() -> None:
    a, b = Group(({"metrics": {"LPIPS": 0.10}}, {"metrics": {"LPIPS": 0.12}})), Group(({"metrics": {"LPIPS": 0.13}},))
    assert better(a, b, "LPIPS") and not better(b, a, "LPIPS")  # 0.02 apart, spread 0.014
    c = Group(({"metrics": {"LPIPS": 0.12}},))
    assert not better(a, c, "LPIPS")


def test_first_claim() -> None:
    values = {"glean": seeds(0.1), "glean-random": seeds(0.2), "glean-no-bank": seeds(0.2), "esrgan": seeds(0.2)}
    assert bank_helps(summary(values), 8).verdict == HOLDS
    assert bank_helps(summary(values), 16).verdict == OPEN
    close = bank_helps(summary({**values, "esrgan": seeds(0.115)}), 8)
    assert close.verdict == FAILS and all("esrgan" in reason for reason in close.reasons) and len(close.reasons) == 3
    blurred_but_high = bank_helps(summary({**values, "esrgan": seeds(0.2, 20.4)}), 8)
    assert blurred_but_high.verdict == FAILS and "-0.40 dB against" in blurred_but_high.reasons[0]
    unfinished = bank_helps(summary({**values, "esrgan": seeds(0.2)[:2], "glean-no-bank": seeds(0.115)}), 8)
    assert unfinished.verdict == OPEN and "esrgan" in unfinished.reasons[0] and "esrgan" not in unfinished.reasons[1]
    assert [reason.partition(" in ")[0] for reason in unfinished.reasons[1:]] == ["better"] * 3 + ["not better"] * 3


def test_claim_about_the_diffusion_bank() -> None:
    values = {"diffusion": seeds(0.1), "diffusion-random": seeds(0.2), "glean-no-bank": seeds(0.2)}
    assert diffusion(summary(values), 8).verdict == HOLDS and len(diffusion(summary(values), 8).reasons) == 5
    assert diffusion(summary(values, 16), 16).verdict == HOLDS and diffusion(summary(values), 16).verdict == OPEN
    close = diffusion(summary({**values, "diffusion-random": seeds(0.119)}), 8)  # the spreads are 0.01 each
    assert close.verdict == FAILS and [reason.split()[0] for reason in close.reasons] == ["LPIPS", "Frechet"]
    assert all("of diffusion-random" in reason for reason in close.reasons)
    assert diffusion(summary({**values, "glean-no-bank": seeds(0.2, 20.29)}), 8).verdict == HOLDS
    blurred = diffusion(summary({**values, "glean-no-bank": seeds(0.2, 20.31)}), 8)
    assert blurred.verdict == FAILS and blurred.reasons == ("PSNR -0.31 dB against the best of the others",)
    better_than_both = {
        **values,
        "glean": seeds(0.05, 25),
        "diffusion-lora": seeds(0.05, 25),
    }  # beside it, without a rule
    assert diffusion(summary(better_than_both), 8).verdict == HOLDS
    short = diffusion(summary({**values, "glean-no-bank": seeds(0.2)[:2]}), 8)
    assert short.verdict == OPEN and short.reasons == ("fewer than 3 seeds of glean-no-bank",)


def test_claims_about_glean_with_skip() -> None:
    values = {"glean-skip": seeds(0.1), "glean-skip-random": seeds(0.2), "glean-skip-no-bank": seeds(0.2)}
    assert bank_helps_with_skip(summary(values), 8).verdict == HOLDS
    close = bank_helps_with_skip(summary({**values, "glean-skip-no-bank": seeds(0.119)}), 8)
    assert close.verdict == FAILS and all("of glean-skip-no-bank" in reason for reason in close.reasons)
    for lpips, psnr, verdict in (0.1, 20.29, HOLDS), (0.1, 20.31, FAILS), (0.0999, 20.0, FAILS):
        assert level_with_srresnet(summary({**values, "srgan": seeds(lpips, psnr)}), 8).verdict == verdict
    assert level_with_srresnet(summary(values), 8).verdict == OPEN


def test_claims_about_encoder_and_light() -> None:
    names = ("bank-none", "bank-4", "bank-4-8", "bank-4-8-16")
    rising = {name: [metrics(0.3 - i / 10, 20 + i / 5)] for i, name in enumerate(names)}
    assert encoder_resolutions(summary(rising, 4)).verdict == HOLDS
    assert encoder_resolutions(summary({**rising, "bank-4": [metrics(0.2, 20.05)]}, 4)).verdict == FAILS
    assert light(summary({"glean": seeds(0.1), "lightglean": seeds(0.109, 19.6)})).verdict == HOLDS
    assert light(summary({"glean": seeds(0.1), "lightglean": seeds(0.112)})).verdict == FAILS


def test_tables_show_means_and_spreads_of_finished_seeds() -> None:
    found = summary({"glean": seeds(0.1)})
    text = table(groups([Experiment("glean"), Experiment("esrgan")], found))
    header, _, row = text.splitlines()
    assert header.startswith("| system | seeds | PSNR (dB) ↑") and "ESRGAN" not in text
    assert row.startswith(
        "| GLEAN, pre-trained bank | 3 | 20.00 ± 0.00 | \N{EN DASH} | 0.1000 ± 0.0100 | 10.0 ± 1.0 | 0.900"
    )
    assert number(Group(({"metrics": {"PSNR": 20.0}},)), "PSNR") == "20.00"
    assert table(groups([Experiment("esrgan")], found)) == ""
    assert without_result([Experiment("glean"), Experiment("esrgan", seed=1)], found) == "No result yet: ESRGAN (RRDB)."


def test_the_page_and_readme_show_the_results_that_are_there() -> None:
    """python -m experiments.report was run after the last result; nobody edited its numbers."""
    summary = Summary.read()
    assert PAGE.read_text() == page(summary, Summary.first())
    assert README.read_text() == replaced(README.read_text(), readme_part(summary))


def test_only_the_marked_part_of_readme_is_written() -> None:
    text = README.read_text()
    changed = replaced(text, "new\n")
    assert changed != text and len(changed.splitlines()) < len(text.splitlines())
    assert replaced(replaced(text, "new\n"), "") == replaced(text, "")
    assert [line for line in changed.splitlines() if line not in text.splitlines()] == ["new"]


# ---------------------------------------------------------------- networks that judge


def test_a_better_latent_lowers_the_error_of_an_autoencoder() -> None:
    torch.manual_seed(0)
    net = TinyAutoencoder().requires_grad_(False)
    images = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8)
    assert net.encoder(images.float() / 255).shape == (1, 32, 2, 2)
    errors = [(decoded(net, images, steps).float() - images.float()).square().mean() for steps in (0, 20)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 2), (7, 3, 2), (8, 5, 2), (9, 3, 1)])
def test_same_padding_is_tensorflows(size: int, kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride)
    x = torch.rand(1, 1, size, size)
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + kernel - size)
    before, after = total // 2, total - total // 2
    padded = np.pad(x[0, 0].numpy(), (before, after))
    kernel_weights = conv.weight[0, 0].detach().numpy()
    expected = [
        [np.sum(padded[i : i + kernel, j : j + kernel] * kernel_weights) for j in range(0, stride * out, stride)]
        for i in range(0, stride * out, stride)
    ]
    assert np.allclose(conv(x)[0, 0].detach().numpy(), expected, atol=1e-6)


def test_lite0_halves_five_times() -> None:
    net = EfficientNetLite0().eval()
    assert net.features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 1280)
    assert sum(p.numel() for p in net.parameters()) == 4_652_008  # as published: 4.65 M


@pytest.mark.skipif(not list(weights.CACHE.glob("*lite0*")), reason="the weights were not fetched")
def test_lite0_recognises_a_cat_and_an_espresso() -> None:
    net = load()
    cat, cup = (torch.from_numpy(np.ascontiguousarray(p)) for p in (pictures.chelsea()[:, 70:370], pictures.coffee()))
    assert net(cat.permute(2, 0, 1)[None]).argmax().item() in range(281, 286)  # ImageNet's domestic cats
    assert net(cup[:, 100:500].permute(2, 0, 1)[None]).argmax().item() == 967


@pytest.mark.skipif(not list(weights.CACHE.glob("hed_*")), reason="the weights were not fetched")
def test_converted_vgg_sees_what_hed_saw() -> None:
    """RGB with ImageNet's statistics through the converted layer is BGR minus HED's mean through the original one."""
    from glean_ext import checkpoints

    h5py = pytest.importorskip("h5py")

    state = checkpoints.read(weights.vgg16())
    content = weights.from_package(*weights.HED)
    with h5py.File(io.BytesIO(content)) as file:
        kernel = torch.from_numpy(np.asarray(file["block1/layers/conv2d/vars/0"])).permute(3, 2, 0, 1)
        bias = torch.from_numpy(np.asarray(file["block1/layers/conv2d/vars/1"]))
    rgb = torch.randint(256, (1, 3, 9, 9)).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (weights.IMAGENET_MEAN, weights.IMAGENET_STD))
    ours = F.conv2d((rgb / 255 - mean) / std, state["features.0.weight"], state["features.0.bias"])
    theirs = F.conv2d(rgb.flip(1) - torch.tensor(weights.HED_MEAN[::-1]).view(1, 3, 1, 1), kernel, bias)
    assert torch.allclose(ours, theirs, atol=1e-3 * theirs.abs().max())


@pytest.mark.skipif("GLEAN_ALEXNET" not in os.environ, reason="GLEAN_ALEXNET does not name AlexNet's weights")
def test_lpips_with_alexnets_own_weights() -> None:
    """Its authors publish 0.722 and 0.138 for their example, whose folder GLEAN_LPIPS_EXAMPLE may name."""
    net = load_lpips("alex", os.environ["GLEAN_ALEXNET"])

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return net(*(as_tensor(x).float() / 127.5 - 1 for x in (a, b))).item()

    assert distance(astronaut(), blurred(astronaut(), 3)) == pytest.approx(0.4512, abs=2e-3)
    if folder := os.environ.get("GLEAN_LPIPS_EXAMPLE"):
        reference, *others = (np.asarray(Image.open(f"{folder}/ex_{name}.png")) for name in ("ref", "p0", "p1"))
        assert [round(distance(reference, other), 3) for other in others] == [0.722, 0.138]
