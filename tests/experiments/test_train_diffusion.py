"""The training of the diffusion bank: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.checkpoint_files import fault
from support.diffusion import IMAGES

from experiments import systems, train_diffusion
from experiments.experiment import Experiment
from experiments.restorer_run import bank_training
from experiments.systems import bank_file
from experiments.train_diffusion import BATCH, DiffusionTraining, export, run_training
from glean_ext import checkpoints


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    small = {**IMAGES, "unet": {**IMAGES["unet"], "sample_size": 64}}
    monkeypatch.setattr(train_diffusion, "PIPELINE", small)
    monkeypatch.setattr(train_diffusion, "SAMPLES", 8)
    monkeypatch.setattr(train_diffusion, "SAMPLE_STEPS", 1)
    return torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)


def test_its_file_is_a_bank_that_experiments_load(images, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(train_diffusion, "WORK", tmp_path)
    training = DiffusionTraining(images, BATCH + 1)
    run_training(training, tmp_path)
    export(training, "emoji")
    file = tmp_path / "emoji_diffusion_bank.safetensors"
    assert file.name == Path(systems.DIFFUSION_BANKS["emoji"]).name and file.with_suffix(".png").exists()
    monkeypatch.setitem(systems.DIFFUSION_BANKS, "emoji", str(file))
    monkeypatch.setattr(systems, "PIPELINE", train_diffusion.PIPELINE)
    experiment = Experiment("diffusion", "emoji")
    assert bank_training(experiment) == {"images_shown": 2 * BATCH} and bank_training(Experiment("glean")) == {}
    state = checkpoints.read(file)
    loaded, random = (
        systems.build(Experiment(name, "emoji")).generator.unet.state_dict()
        for name in ("diffusion", "diffusion-random")
    )
    assert all(torch.equal(state[f"unet.{name}"].float(), value) for name, value in loaded.items())
    assert not torch.equal(random["conv_in.weight"], loaded["conv_in.weight"])


def test_checkpoints_that_do_not_fit(images, tmp_path, monkeypatch) -> None:
    file = tmp_path / "last.pth"
    training = DiffusionTraining(images, 2 * BATCH)
    torch.save({**training.state_dict(), "done": 3}, file)
    assert fault(run_training, training, tmp_path).startswith(f"{file} has 24 images behind it, more than 16.")
    torch.save(training.state_dict(), file)
    wider = {**IMAGES["unet"], "block_out_channels": [8, 16, 32]}
    monkeypatch.setattr(train_diffusion, "PIPELINE", {**IMAGES, "unet": wider})
    message = fault(run_training, DiffusionTraining(images, 2 * BATCH), tmp_path)
    assert message.startswith(f"{file} is of another U-Net than that of configs/demo_glean_diffusion_x8.py.")


def test_only_cartoons_are_shipped(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["train_diffusion", "emoji", "--ship"])
    assert fault(train_diffusion.main).startswith("ship is for the cartoons")


@pytest.mark.parametrize("domain", ["cartoons", "people"])
def test_people_and_cartoons_have_the_shipped_bank(domain: str) -> None:
    assert bank_training(Experiment("diffusion", domain)) == {"images_shown": 40_000}
    name = "conv_in.weight"
    shipped = checkpoints.read("glean-ext://demo_diffusion_bank.safetensors")[f"unet.{name}"].float()
    assert torch.equal(systems.build(Experiment("diffusion", domain)).generator.unet.get_parameter(name), shipped)


def test_a_run_depends_on_the_bank_that_it_uses() -> None:
    names = ("diffusion", "diffusion-random", "glean", "glean-random", "glean-no-bank", "srgan", "pulse")
    used = [bank_file(Experiment(name)) for name in names]
    diffusion, stylegan = (f"glean-ext://{name}.safetensors" for name in ("demo_diffusion_bank", "demo_bank"))
    assert used == [diffusion, None, stylegan, None, None, None, stylegan]
