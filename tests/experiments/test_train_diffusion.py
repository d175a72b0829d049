"""The training of the diffusion bank: what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import fault
from support.diffusion import IMAGES

from experiments import train_diffusion
from experiments.experiment import Experiment
from experiments.restorer_run import bank_training
from experiments.train_diffusion import BATCH, DiffusionTraining, run_training
from glean_ext.utils.files import write_json


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    small = {**IMAGES, "unet": {**IMAGES["unet"], "sample_size": 64}}
    monkeypatch.setattr(train_diffusion, "PIPELINE", small)
    monkeypatch.setattr(train_diffusion, "SAMPLES", 8)
    monkeypatch.setattr(train_diffusion, "SAMPLE_STEPS", 1)
    return torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8)


def test_it_says_how_many_images_it_showed(images, tmp_path) -> None:
    run_training(DiffusionTraining(images, BATCH + 1), tmp_path)
    assert json.loads((tmp_path / "shown.json").read_text()) == {"images_shown": 2 * BATCH}
    assert (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").exists()


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


def test_results_have_the_number_of_images_where_it_is_known(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = Experiment("diffusion", "people")
    assert bank_training(experiment) == {}
    Path("work_dirs/cartoons_diffusion").mkdir(parents=True)
    write_json({"images_shown": 16}, Path("work_dirs/cartoons_diffusion/shown.json"))
    assert bank_training(experiment) == {"images_shown": 16} and bank_training(Experiment("glean")) == {}
