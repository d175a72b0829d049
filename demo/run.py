"""``make demo``: renders faces, checks the bank, trains and tests GLEAN, and restores a photograph, all offline."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from demo.assets import ASSETS, HASHES
from demo.render_faces import TEST_IMAGES, make_demo_data
from demo.train_bank import BANK, SIZE
from glean_ext import checkpoints
from glean_ext.config import load_config
from glean_ext.engine.bank_samples import sample_sheet
from glean_ext.engine.runner import train
from glean_ext.errors import InputError
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks import StyleGAN2Generator
from glean_ext.utils.files import atomic_path, write_json
from glean_ext.utils.image_grid import Row, comparison
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

SCALE = 8
SHIPPED = ASSETS / "demo_glean_x8.safetensors"  # of the same network, trained for longer
TRAIN_IMAGES = 2000  # a short training sees about as many twice
COLUMNS = 10  # of the comparison
FACE = (140, 20, 310, 190)  # of scikit-image's astronaut: left, top, right, bottom


def run_demo(
    config: Path,
    work_dir: Path,
    data: Path,
    max_iters: int | None = None,  # training iterations; None: from the config
    images: tuple[int, int] = (TRAIN_IMAGES, TEST_IMAGES),  # rendered for training, and held out
) -> dict:
    """Run the whole chain. Returns the content of ``work_dir/metrics.json``: PSNR, SSIM, and seconds of each step."""
    console = Console(soft_wrap=True, highlight=False)
    start = time.perf_counter()
    seconds: dict[str, float] = {}

    def record_seconds(step: str) -> None:
        seconds[step] = round(time.perf_counter() - start - sum(seconds.values()), 1)

    console.print("Step 1 of 5: cartoon faces")
    make_demo_data(data, *images)
    record_seconds("data")

    console.print("Step 2 of 5: the shipped bank")
    tensors = check_bank(work_dir / "bank_samples.png")
    console.print(f"{tensors} tensors match their SHA-256; samples: {work_dir / 'bank_samples.png'}")
    record_seconds("bank")

    console.print("Step 3 of 5: train GLEAN from its initial state")
    cfg = load_config(config)
    cfg.work_dir = str(work_dir / "train")
    cfg.train_dataloader.dataset.data_root = str(data / "train")
    cfg.val_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = str(data / "test")
    if max_iters is not None:
        cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = max_iters
        cfg.model.adversarial_from = min(cfg.model.adversarial_from, max_iters // 2)
    runner = train(cfg)
    trained = work_dir / "glean.safetensors"
    checkpoints.save(runner.model.generator.state_dict(), trained)
    record_seconds("train")

    console.print("Step 4 of 5: held-out faces")
    rows = restore_held_out(data / "test" / "GT", config, {"GLEAN, now": trained, "GLEAN, shipped": SHIPPED})
    metrics = {row.name: measure(row.images, rows[-1].images) for row in rows[1:-1]}
    record_seconds("test")
    comparison_file = work_dir / "comparison.png"
    save_comparison(rows, comparison_file)

    console.print("Step 5 of 5: a photograph")
    photo = work_dir / "photograph.png"
    restore_photograph(config, photo)
    console.print(f"{photo}: the bank has cartoon faces only, so the restored photograph is a cartoon.")
    console.print("For photographs use a bank of photographs, as configs/glean_x16_ffhq.py does.")

    report = {"held_out": len(rows[0].images), "metrics": metrics, "seconds": seconds}
    write_json(report, work_dir / "metrics.json")
    table = Table("held-out faces", "PSNR (dB)", "SSIM")
    for name, values in metrics.items():
        table.add_row(name, f"{values['PSNR']:.2f}", f"{values['SSIM']:.4f}")
    console.print(table)
    console.print(f"{comparison_file}\n{work_dir / 'metrics.json'}\n{sum(seconds.values()):.0f} s in all")
    return report


def check_bank(sheet: Path) -> int:
    """Compare the shipped bank with its recorded SHA-256, load it strictly, and save samples of it to ``sheet``.

    Returns:
        The number of its tensors.

    Raises:
        InputError: The file differs from the one that was shipped.
    """
    path = ASSETS / "demo_bank.safetensors"
    expected = json.loads(HASHES.read_text())[path.name]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(f"{path} was changed: its SHA-256 is {found}, not {expected}. Download it again.")
    state = checkpoints.read(path)
    bank = StyleGAN2Generator(SIZE, **BANK)
    checkpoints.load_strict(bank, checkpoints.with_prefix(state, "generator_ema", path), path)
    with atomic_path(sheet) as partial:
        sample_sheet(bank).save(partial)
    return len(state)


def restore_held_out(folder: Path, config: Path, models: dict[str, Path]) -> list[Row]:
    """The rows of the comparison: LR, bicubic, each model, and GT, for every image of ``folder``."""
    gt = [read_rgb(path) for path in sorted(folder.glob("*.png"))]
    lq = [imresize(image, scale=1 / SCALE) for image in gt]
    rows = [Row("LR", lq), Row("bicubic", [imresize(image, scale=SCALE) for image in lq])]
    for name, weights in models.items():
        restorer = ImageRestorer(config, weights, device="cpu", dtype="float32")
        rows.append(Row(name, [restorer.restore(image) for image in lq]))
    return [*rows, Row("GT", gt)]


def measure(images: list[np.ndarray], gt: list[np.ndarray]) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM over RGB without cropping the border, by MMagic's functions."""
    from mmagic.evaluation.metrics.psnr import psnr
    from mmagic.evaluation.metrics.ssim import ssim

    pairs = list(zip(images, gt, strict=True))
    return {
        "PSNR": round(float(np.mean([psnr(a, b) for a, b in pairs])), 4),
        "SSIM": round(float(np.mean([ssim(a, b) for a, b in pairs])), 4),
    }


def save_comparison(rows: list[Row], path: Path) -> None:
    with atomic_path(path) as partial:
        comparison(rows, 2 * SIZE, COLUMNS).save(partial)


def restore_photograph(config: Path, path: Path) -> None:
    """Save the face of scikit-image's astronaut at 64x64, reduced to the model's 8x8, bicubic, and restored."""
    from skimage import data

    left, top, right, bottom = FACE
    face = imresize(np.ascontiguousarray(data.astronaut()[top:bottom, left:right]), size=(SIZE, SIZE))
    lq = imresize(face, scale=1 / SCALE)
    restored = ImageRestorer(config, SHIPPED, device="cpu", dtype="float32").restore(lq)
    rows = [Row("photograph", [face]), Row("LR", [lq]), Row("bicubic", [imresize(lq, scale=SCALE)])]
    save_comparison([*rows, Row("GLEAN, shipped", [restored])], path)
