"""The demonstration: its images, its bank, the shipped weights, and a small run of the whole chain."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.assets import ASSETS, HASHES
from demo.render_faces import make_demo_data, render_face
from demo.train_bank import BANK, WIDTHS, BankTraining, PCACodes, Recipe, load_images, train_bank
from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator

CONFIG = Path(__file__).parents[2] / "configs" / "demo_glean_x8_short.py"


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_demo_data(root, train=40, test=4)
    return root


def hashes(folder: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.png"))]


# ---------------------------------------------------------------- images


def test_a_seed_determines_a_face():
    first, again, other = (np.asarray(render_face(seed)) for seed in ("a", "a", "b"))
    assert first.shape == (64, 64, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    corner = tuple(first[0, 0].tolist())
    assert corner in {(0xB6, 0xD7, 0xF4), (0xF4, 0xDC, 0xC2)}  # one of the two flat backgrounds


def test_no_face_is_in_both_splits_or_twice(faces):
    train, test = hashes(faces / "train" / "GT"), hashes(faces / "test" / "GT")
    assert (len(train), len(test)) == (40, 4)
    assert len({*train, *test}) == 44


def test_held_out_faces_do_not_depend_on_the_training_set(faces, tmp_path):
    make_demo_data(tmp_path, train=1, test=4)
    assert hashes(tmp_path / "test" / "GT") == hashes(faces / "test" / "GT")


def test_finished_data_is_left_alone_and_unfinished_completed(faces, tmp_path):
    make_demo_data(tmp_path, train=3, test=2)
    victim = tmp_path / "train" / "GT" / "00001.png"
    stamp = victim.stat().st_mtime_ns
    make_demo_data(tmp_path, train=3, test=2)
    assert victim.stat().st_mtime_ns == stamp
    victim.unlink()
    (tmp_path / "manifest.json").unlink()
    make_demo_data(tmp_path, train=3, test=2)
    assert hashes(tmp_path / "train" / "GT") == hashes(faces / "train" / "GT")[:3]


# ---------------------------------------------------------------- training the bank


def test_pca_codes_are_whitened():
    images = torch.randn(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, 4)
    codes = PCACodes(images, 8)(torch.cat([images, images.flip(3)]))
    torch.testing.assert_close(codes.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes.std(0), torch.ones(8), atol=1e-4, rtol=0)


def test_pca_codes_of_classes_are_whitened_in_each():
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    images = torch.randn(400, 3, 4, 4, generator=rng) * torch.linspace(0.1, 1, 4) * (1 + labels[:, None, None, None])
    images[labels == 1] += 2
    codes = PCACodes(images, 8, labels)
    for label in 0, 1:
        part = images[labels == label]
        found = codes(torch.cat([part, part.flip(3)]), torch.full((len(part) * 2,), label))
        torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
        torch.testing.assert_close(found.std(0), torch.ones(8), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_interrupted_training_continues_exactly(faces, tmp_path):
    """Six steps (two of each stage) without a stop, or stopped after three: the same weights, bit for bit."""
    recipe = Recipe(drawing_images=8, mixed_images=8, adversarial_images=8, batch_size=4, r1_interval=2)
    straight = train_bank(faces, tmp_path / "straight", recipe, save_every=1)
    stopped = BankTraining(load_images(faces / "train" / "GT"), recipe)
    for _ in range(3):
        stopped.step()
    (tmp_path / "resumed").mkdir()
    torch.save(stopped.state_dict(), tmp_path / "resumed" / "last.pth")
    resumed = train_bank(faces, tmp_path / "resumed", recipe, save_every=1)
    assert resumed.images_shown == straight.images_shown == 24
    for name in "generator", "ema", "discriminator":
        expected = getattr(straight, name).state_dict()
        for key, value in getattr(resumed, name).state_dict().items():
            assert torch.equal(value, expected[key]), f"{name}.{key}"
    assert Image.open(tmp_path / "resumed" / "samples_0000024.png").size == (1024, 512)


def test_another_recipe_does_not_resume(faces, tmp_path):
    recipe = Recipe(drawing_images=4, mixed_images=0, adversarial_images=4, batch_size=4)
    train_bank(faces, tmp_path, recipe)
    with pytest.raises(InputError, match=r"has another recipe.* Delete it or choose another --work-dir"):
        train_bank(faces, tmp_path, replace(recipe, lr=1e-3))


def test_training_starts_from_a_shipped_bank(faces):
    shipped = "glean-ext://demo_bank.safetensors"
    training = BankTraining(load_images(faces / "train" / "GT"), Recipe(batch_size=4))
    training.start_from(shipped)
    state = checkpoints.read(shipped)
    for key, value in training.generator.state_dict().items():
        assert torch.equal(value, state[f"generator_ema.{key}"].float()), key
    for key, value in training.discriminator.state_dict().items():
        assert torch.equal(value, state[f"discriminator.{key}"].float()), key
    assert training.images_shown == int(checkpoints.metadata(shipped)["images_shown"]) > 200_000
    assert training.step().keys() == {"g", "d", "r1"}, "training continues in the adversarial stage"


@pytest.mark.slow
def test_drawing_learns(faces):
    training = BankTraining(load_images(faces / "train" / "GT"), Recipe(batch_size=8))
    losses = [training.step()["drawing"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


# ---------------------------------------------------------------- the shipped weights


def test_shipped_files_are_small_and_as_recorded():
    recorded = json.loads(HASHES.read_text())
    assert set(recorded) == {path.name for path in ASSETS.iterdir()} - {HASHES.name}
    for name, digest in recorded.items():
        content = (ASSETS / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest, name
        assert len(content) < (9.1e6 if "diffusion" in name else 6.1e6), name


def test_shipped_bank_loads_strictly():
    path = "glean-ext://demo_bank.safetensors"
    init_cfg = {"type": "Pretrained", "checkpoint": path}
    checkpoints.load_pretrained(StyleGAN2Generator(64, **BANK), {**init_cfg, "prefix": "generator_ema"})
    checkpoints.load_pretrained(StyleGAN2Discriminator(64, **WIDTHS), {**init_cfg, "prefix": "discriminator"})
    with pytest.raises(
        InputError, match=r"no keys with prefix 'generator'; its prefixes are discriminator, generator_ema"
    ):
        checkpoints.load_pretrained(StyleGAN2Generator(64, **BANK), {**init_cfg, "prefix": "generator"})


def test_shipped_glean_beats_bicubic_by_5_db(tmp_path):
    """On the first 40 of the held-out faces; `make demo` measures all 200."""
    from demo.run import SHIPPED, measure, restore_held_out

    make_demo_data(tmp_path, train=0, test=40)
    rows = {row.name: row.images for row in restore_held_out(tmp_path / "test" / "GT", CONFIG, {"ours": SHIPPED})}
    bicubic, ours = (measure(rows[name], rows["GT"])["PSNR"] for name in ("bicubic", "ours"))
    assert 15 < bicubic < 25
    assert ours > bicubic + 5


def test_shipped_glean_holds_the_shipped_bank():
    """The network was trained on the bank that is shipped beside it, and training left the bank as it was."""
    bank = checkpoints.with_prefix(checkpoints.read("glean-ext://demo_bank.safetensors"), "generator_ema", "bank")
    glean = checkpoints.with_prefix(checkpoints.read("glean-ext://demo_glean_x8.safetensors"), "generator", "glean")
    assert bank.keys() == glean.keys()
    assert all(torch.equal(bank[key], glean[key]) for key in bank)


# ---------------------------------------------------------------- the whole run


@pytest.mark.slow
def test_a_small_run_of_the_whole_demo(tmp_path):
    from demo.run import run_demo

    report = run_demo(CONFIG, tmp_path / "work", tmp_path / "data", max_iters=2, images=(16, 10))
    assert json.loads((tmp_path / "work" / "metrics.json").read_text()) == report
    assert report["held_out"] == 10
    assert list(report["metrics"]) == ["bicubic", "GLEAN, now", "GLEAN, shipped"]
    assert report["metrics"]["GLEAN, shipped"]["PSNR"] > report["metrics"]["bicubic"]["PSNR"] + 4
    assert Image.open(tmp_path / "work" / "comparison.png").size == (130 + 10 * 132, 5 * 132 + 4)
    for name in "photograph.png", "bank_samples.png", "glean.safetensors":
        assert (tmp_path / "work" / name).stat().st_size > 1000


def test_a_changed_bank_is_noticed(tmp_path, monkeypatch):
    from demo import run

    changed = tmp_path / "SHA256.json"
    changed.write_text(json.dumps({"demo_bank.safetensors": "0" * 64}))
    monkeypatch.setattr(run, "HASHES", changed)
    with pytest.raises(InputError, match=r"demo_bank.safetensors was changed: its SHA-256 is [0-9a-f]{64}, not 0000"):
        run.check_bank(tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()
