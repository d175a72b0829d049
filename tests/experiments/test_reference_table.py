"""The experiments with references: who belongs to whom, a short training, and the table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.render_people import EXPRESSION, PICTURES
from experiments import measure, people, restorer_run
from experiments.domains import ATTRIBUTES, Domain, Part
from experiments.experiment import Budget, Experiment
from experiments.restorer_run import pictures
from experiments.rows import reference_table
from experiments.summary import Summary
from experiments.tables import TABLES
from experiments.training import Training
from experiments.verdicts import FAILS, HOLDS, OPEN, Verdict, references
from glean_ext.errors import InputError

TINY = Budget(pixel_steps=1, full_steps=1, batch_size=2, loss_images=2)
CPU = torch.device("cpu")


@pytest.fixture
def domain() -> Domain:
    parts = {
        name: Part(torch.randint(256, (2 * PICTURES, 3, 64, 64), dtype=torch.uint8), torch.zeros(2 * PICTURES, 0))
        for name in ("train", "val", "test")
    }
    return Domain("people", parts, {}, 0)


def test_who_belongs_to_whom():
    index = torch.arange(3 * PICTURES)
    drawn = torch.cat([people.drawn(index, torch.Generator().manual_seed(seed)) for seed in range(60)])
    repeated = index.repeat(60)[:, None]
    assert (drawn // PICTURES == repeated // PICTURES).all() and (drawn != repeated).all()
    assert (drawn[:, 0] != drawn[:, 1]).all() and len({tuple(row.tolist()) for row in drawn[::12]}) == 6
    right, wrong = people.right(3 * PICTURES), people.wrong(3 * PICTURES)
    assert (right // PICTURES == index[:, None] // PICTURES).all() and (right != index[:, None]).all()
    assert (wrong // PICTURES == (index[:, None] // PICTURES + 1) % 3).all()


def test_people_are_drawn_with_their_attributes():
    """What all pictures of a person share is the same in each."""
    faces = people.render({"train": 2, "test": 2})
    assert {part: images.shape for part, images in faces["images"].items()} == dict.fromkeys(
        ("train", "test"), (2 * PICTURES, 3, 64, 64)
    )
    shared = [i for i, name in enumerate(ATTRIBUTES) if f"{name}Variant" not in EXPRESSION]
    for names in faces["names"].values():
        for start in 0, PICTURES:
            assert len({tuple(row[i] for i in shared) for row in names[start : start + PICTURES]}) == 1
            assert len({tuple(row) for row in names[start : start + PICTURES]}) > 1


def test_no_more_people_are_drawn_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([("a", []), ("b", []), ("c", []), ("d", [])])
    assert people.first_unlike(drawn, 2, {"a"}) == ([("b", []), ("c", [])], 1) and next(drawn)[0] == "d"
    face = np.zeros((64, 64, 3), np.uint8), ["short"]
    monkeypatch.setattr(people, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(people, "_person", lambda seed: ("one look", [face]))
    with pytest.raises(InputError, match=r"^Only 0 of 1 people for test are unlike all others"):
        people.render({"train": 1, "test": 1})


def test_every_stage_is_measured_with_references(domain: Domain, weights: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.weights.vgg16", lambda: weights / "vgg16.pth")
    monkeypatch.setattr(restorer_run, "hashes", lambda experiment: {})
    judge = SimpleNamespace(
        lpips_distance=lambda images, gt: [0.5],
        measure=lambda images, scale: ({"mean": float(images.double().mean())}, []),
    )
    monkeypatch.setattr(measure, "judge", lambda name: judge)
    monkeypatch.setattr(measure, "seconds_per_image", lambda *_: 0.0)

    def restore(network, lq, device, references=None) -> torch.Tensor:
        return torch.zeros(1) if references is None else references

    monkeypatch.setattr(measure, "restore", restore)
    experiment = Experiment("glean-references", "people", budget=replace(TINY, full_steps=2))
    result = restorer_run.trained(experiment, domain, CPU, lambda text: None)
    assert result["metrics_pixel_stage"] == result["metrics"] == {"mean": float(result["images"].double().mean())}
    assert result["metrics_none"] == {"mean": 0} and result["metrics"] != result["metrics_none"]


def test_a_training_with_references(domain: Domain, weights: Path, monkeypatch) -> None:
    monkeypatch.setattr("experiments.weights.vgg16", lambda: weights / "vgg16.pth")
    monkeypatch.setattr("experiments.training.REFERENCE_DROPOUT", 0.0)
    experiment = Experiment("glean-references", "people", budget=TINY)
    whole, first = Training(experiment, domain, CPU), Training(experiment, domain, CPU)
    whole.step(), first.step()
    resumed = Training(experiment, domain, CPU)
    resumed.load_state_dict(first.state_dict())
    assert whole.step() == resumed.step() and whole.finished
    network, test = whole.averaged("last"), domain.parts["test"]
    assert network.reference_features.code_share.any()
    lq = torch.randint(256, (2 * PICTURES, 3, 8, 8), dtype=torch.uint8)
    images = {
        which: measure.restore(network, lq, CPU, batch=3, references=pictures(test, which))
        for which in ("right", "none", "wrong")
    }
    assert not torch.equal(images["right"], images["none"]) and not torch.equal(images["right"], images["wrong"])
    again = measure.restore(network, lq, CPU, references=pictures(test, "right"))
    assert (again.int() - images["right"]).abs().max() <= 1


def test_claim_about_references() -> None:
    def verdict(none: float = 0.1, wrong: float = 0.1, fidelity: float = 29.5, runs: int = 3) -> Verdict:
        """By how much it is better than without references and with wrong ones; LR-PSNR with wrong ones."""
        results = {}
        for seed in range(runs):
            run, change = Experiment("glean-references", "people", 16, seed=seed), 0.02 * (seed - 1)
            right = {"identity": 0.6 + change, "LPIPS": 0.1 + change, "LR_PSNR": 30.0}
            others = {
                f"metrics_{which}": {"identity": 0.6 - gain + change, "LPIPS": 0.1 + gain + change, "LR_PSNR": lr}
                for which, gain, lr in (("none", none, 30.0), ("wrong", wrong, fidelity))
            }
            results[run.name] = {"config": run.config(), "metrics": right, **others}
        return references(Summary(results), "glean-references", 16)

    assert verdict().verdict == HOLDS and len(verdict().reasons) == 5
    close = verdict(wrong=0.03)  # both spreads are 0.02
    assert close.verdict == FAILS
    assert [reason.partition(" ")[0] for reason in close.reasons] == ["identity", "LPIPS"]
    assert verdict(none=0.03).verdict == FAILS and verdict(wrong=-0.1).verdict == FAILS
    assert verdict(fidelity=28.9).reasons == ("LR-PSNR -1.10 dB from none to wrong",)
    assert verdict(runs=2).verdict == OPEN
    assert references(Summary({}), "glean-references", 16).verdict == OPEN


def test_the_table_has_a_row_for_each_kind_of_references():
    metrics = {"attributes": 0.5, "identity": 0.25, "LPIPS": 0.1, "PSNR": 20.0, "LR_PSNR": 30.0}
    run = Experiment("glean-references", "people", 16)
    bicubic = Experiment("bicubic", "people", 16)
    results = {
        run.name: {"config": run.config(), "metrics": metrics, "metrics_none": metrics, "metrics_wrong": metrics},
        bicubic.name: {"config": bicubic.config(), "metrics": metrics},
    }
    _, _, *rows = reference_table(TABLES["references"], Summary(results)).splitlines()
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| ×16, bicubic", "\N{EN DASH}", "1"],
        *(["| ×16, GLEAN with references", which, "1"] for which in ("right", "none", "wrong")),
    ]
    assert rows[1].endswith("| 0.500 | 0.250 | 0.1000 | 20.00 | 30.0 |")
    assert reference_table(TABLES["references"], Summary({})) == ""
