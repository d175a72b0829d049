"""Banks of many classes: their training, the restorer on them, right and wrong labels, and the parts of recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from experiments import measure, recipe, restorer_run, systems
from experiments.biggan_pair import BigGANPair, take_statistics
from experiments.domains import Domain, Part
from experiments.emoji_data import CLASS_NAMES
from experiments.experiment import Budget, Experiment
from experiments.restorer_run import labels
from experiments.rows import label_table
from experiments.summary import Summary
from experiments.systems import BIGGAN_BANKS, BigGANBank
from experiments.tables import RECIPE, TABLES
from experiments.train_banks import BankTraining, Plan, Recipe, save
from experiments.training import Training
from glean_ext.config import load_config
from glean_ext.networks.banks.biggan import BigGANGenerator
from glean_ext.networks.banks.biggan_spec import BigGANSpec

SIZES = BigGANSpec(64, len(CLASS_NAMES), base_channels=2, noise_size=20, shared_dim=4, attention_at=())
PLAN = Plan("emoji", Recipe(4, 4, 4, batch_size=4, r1_interval=2), {"target": 0.6})
TINY = Budget(pixel_steps=1, full_steps=1, batch_size=2, loss_images=2)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def surroundings(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for runs, and networks that judge images, with weights of the right shapes."""
    monkeypatch.setattr("experiments.experiment.WORK", tmp_path / "runs")
    monkeypatch.setattr("experiments.weights.vgg16", lambda: weights / "vgg16.pth")
    monkeypatch.setattr("experiments.weights.ALEXNET", str(weights / "alexnet.pth"))


@pytest.fixture
def domain() -> Domain:
    images = torch.randint(256, (20, 3, 64, 64), dtype=torch.uint8)
    part = Part(images, torch.zeros(20, 0, dtype=torch.long), torch.arange(20) % len(CLASS_NAMES))
    return Domain("emoji", {"train": part, "val": part, "test": part}, {}, 0)


@pytest.fixture
def bank(tmp_path: Path, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> BigGANBank:
    """A bank of one step of each stage, as a file that the systems know."""
    bank = BigGANBank(str(tmp_path / "bank.safetensors"), SIZES)
    part = domain.parts["train"]
    trained = BankTraining(part.images, PLAN, bank, part.classes)
    assert [set(trained.step()) for _ in range(3)] == [{"drawing", "p"}, {"g", "d", "r1", "p"}, {"g", "d", "r1", "p"}]
    assert trained.finished
    save(trained, Path(bank.file), "emoji")
    monkeypatch.setitem(systems.BIGGAN_BANKS, systems.CLASS_BANK, bank)
    return bank


@torch.no_grad()
def test_a_trained_bank_draws_the_same_frozen(bank: BigGANBank) -> None:
    """Batch norm's statistics are those of the averaged weights, and folded the bank draws what MMagic's class does."""
    pair = BigGANPair(SIZES, bank.untrained_discriminator)
    z, label = torch.randn(64, 20), torch.arange(64) % len(CLASS_NAMES)
    training_mode = pair.generator.train()(z, label)
    as_trained = pair.generator.eval()(z, label)  # with the running statistics of one batch
    take_statistics(pair.generator, SIZES)
    frozen = BigGANGenerator(SIZES)
    frozen.load(pair.generator.state_dict(), "here", "")
    torch.testing.assert_close(frozen(z, label), pair.generator(z, label), atol=1e-5, rtol=1e-4)
    new, old = (
        (image - training_mode).abs().mean() / training_mode.abs().mean() for image in (frozen(z, label), as_trained)
    )
    assert new < 0.2 < old


def test_classes_are_shown_by_the_root_of_their_size(domain: Domain) -> None:
    few = torch.zeros(20, dtype=torch.long).index_fill(0, torch.tensor([0, 1]), 1)  # 18 of class 0, 2 of class 1
    bank = BigGANBank("", SIZES)
    trained = BankTraining(domain.parts["train"].images, PLAN, bank, few)
    shown = few[trained._chosen(4000)]
    assert shown.float().mean().item() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("system", ["biggan", "biggan-random"])
def test_the_restorer_trains_with_labels(system: str, bank: BigGANBank, domain: Domain) -> None:
    state = Training(Experiment(system, "emoji", budget=TINY), domain, CPU)
    frozen = {key: value.clone() for key, value in state.network.generator.state_dict().items()}
    losses = [set(state.step()) for _ in range(2)]
    assert losses == [{"mse", "label"}, {"mse", "label", "perceptual", "gan", "d"}]
    assert all(torch.equal(value, frozen[key]) for key, value in state.network.generator.state_dict().items())
    part = domain.parts["test"]
    assert part.classes is not None
    right, wrong = (
        measure.restore(state.averaged("last"), state.lq, CPU, labels=labels(part.classes, which))
        for which in ("right", "wrong")
    )
    assert not torch.equal(right, wrong)
    assert 0 <= measure.top1(state.network, state.lq, part.classes, CPU) <= 1


def test_a_run_measures_each_kind_of_label(bank: BigGANBank, domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restorer_run, "hashes", lambda experiment: {})
    judge = SimpleNamespace(
        lpips_distance=lambda images, gt: [0.5],
        measure=lambda images, scale: ({"mean": float(images.double().mean())}, []),
    )
    monkeypatch.setattr(measure, "judge", lambda name: judge)
    monkeypatch.setattr(measure, "seconds_per_image", lambda *_: 0.0)
    experiment = Experiment("biggan", "emoji", budget=replace(TINY, full_steps=2))
    result = restorer_run.trained(experiment, domain, CPU, lambda text: None)
    assert len({result[name]["mean"] for name in ("metrics", "metrics_none", "metrics_wrong")}) == 3
    assert 0 <= result["top1"] <= 1 and set(result["other_images"]) == {"none", "wrong"}


def test_wrong_labels_are_wrong_and_of_all_classes() -> None:
    classes = torch.zeros(80, dtype=torch.long)
    wrong = labels(classes, "wrong")
    assert wrong is not None and wrong.bincount(minlength=9).tolist() == [0] + [10] * 8
    assert labels(classes, "right") is classes and labels(classes, "none") is None


def test_table_of_labels() -> None:
    runs = TABLES["classes"]
    metrics = {name: {"PSNR": value, "LPIPS": 0.1} for name, value in (("metrics", 20.0), ("metrics_wrong", 19.0))}
    results = {run.name: {"config": run.config(), **metrics} for run in runs[1:2]}
    _, _, *rows = label_table(runs, Summary(results)).splitlines()
    assert [row.split(" | ")[1:4] for row in rows] == [["right", "1", "20.00"], ["wrong", "1", "19.00"]]


def test_configs_have_the_sizes_of_the_bank() -> None:
    sizes = vars(BIGGAN_BANKS["emoji-classes"].sizes)
    cfg = load_config("configs/demo_glean_biggan_x8.py")
    assert {key: cfg.model.generator[key] for key in ("base_channels", "noise_size", "shared_dim", "num_classes")} == {
        key: sizes[key] for key in ("base_channels", "noise_size", "shared_dim", "num_classes")
    }
    assert tuple(cfg.model.generator.class_names) == CLASS_NAMES and tuple(cfg.model.generator.attention_at) == ()


@pytest.mark.parametrize("system", RECIPE)
def test_each_part_of_a_recipe_trains(system: str, domain: Domain) -> None:
    """A part changes the losses of the stage that it belongs to, and nothing else."""
    domain = replace(domain, name="cartoons")
    base, changed = (Training(Experiment(name, budget=TINY), domain, CPU) for name in ("glean", system))
    before, first, second = base.step(), changed.step(), changed.step()
    assert set(first) == {"mse"} | ({"pyramid"} if system == "glean-pyramid" else set())
    if system != "glean-gate":
        assert first["mse"] == pytest.approx(before["mse"], rel=1e-4)
    assert set(second) == {"mse", "perceptual", "gan", "d"}
    changed.load_state_dict(changed.state_dict())
    kinds = {"glean-unet": "UNetDiscriminatorWithSpectralNorm", "glean-features": "FeatureDiscriminator"}
    assert type(changed.discriminator).__name__ == kinds.get(system, "StyleGAN2Discriminator")
    assert isinstance(changed.perceptual, recipe.LPIPSLoss) == (system == "glean-lpips")


def test_a_result_names_the_weights_that_its_run_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "weights").touch()
    for name in "vgg16", "lite0":
        monkeypatch.setattr(f"experiments.weights.{name}", lambda: file)
    usual = {"frechet", "perceptual", "discriminator", "bank"}
    unused = {"glean-lpips": "perceptual", "glean-unet": "discriminator", "glean-features": "discriminator"}
    for system in ("glean", *unused):
        used = set(restorer_run.hashes(Experiment(system))) - {"attributes"}
        assert used == usual - {unused.get(system)}, system
