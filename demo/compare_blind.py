"""Measure the blind demo model on blind test images, for weights of its fidelity gate, and draw docs/demo_blind.png.

Beside it: bicubic, and the demo model for clean images. LPIPS needs the weights of torchvision's AlexNet.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from demo.render_faces import make_demo_data
from glean_ext import cli
from glean_ext.config import load_config
from glean_ext.degradations import BlindDegradation
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks.lpips_network import load_lpips
from glean_ext.utils.files import atomic_path
from glean_ext.utils.image_grid import Row, comparison
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

CONFIG = "demo_glean_blind_x8"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = (0.0, 0.5, 1.0)  # in the picture
SCALE = 8
COLUMNS = 10

Images = list[np.ndarray]


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="the rendered faces, made if missing")
    parser.add_argument("--alexnet", default="torchvision://alexnet", help="weights of AlexNet (default: %(default)s)")
    parser.add_argument("--checkpoint", required=True, help="weights of the model")
    parser.add_argument("--picture", type=Path, default=Path("docs/demo_blind.png"))
    args = parser.parse_args()
    make_demo_data(args.data)
    paths = sorted((args.data / "test" / "GT").glob("*.png"))
    gt = [read_rgb(path) for path in paths]
    degrade = BlindDegradation(recipe=load_config(CONFIG).recipe, seed=0)  # as in the validation
    samples = [{"gt": image, "gt_path": path, "key": path.stem} for image, path in zip(gt, paths, strict=True)]
    lq = [degrade({**sample, "scale": SCALE})["img"] for sample in samples]
    results = {"bicubic": [imresize(image, scale=SCALE) for image in lq]}
    results["non-blind"] = ImageRestorer("demo_glean_x8").restore_batch(lq)
    for w in WEIGHTS:
        results[f"blind, w = {w:g}"] = ImageRestorer(CONFIG, args.checkpoint, fidelity=w).restore_batch(lq)
    lpips = load_lpips("alex", args.alexnet)
    print(f"{'':16} PSNR   LPIPS  LR-PSNR")
    for name, images in results.items():
        print(f"{name:16} {psnr(images, gt):5.2f}  {distance(lpips, images, gt):.4f}  {lr_psnr(images, gt):5.2f}")
    shown = ["bicubic", "non-blind", *(f"blind, w = {w:g}" for w in SHOWN)]
    rows = [Row("blind LR", lq), *(Row(name, results[name]) for name in shown), Row("GT", gt)]
    with atomic_path(args.picture) as partial:
        comparison(rows, 96, COLUMNS).save(partial, "PNG")


def psnr(images: Images, gt: Images) -> float:
    """The mean over the images, in dB."""
    errors = [np.square(a.astype(float) - b).mean() for a, b in zip(images, gt, strict=True)]
    return float(np.mean([10 * math.log10(255**2 / error) for error in errors]))


def lr_psnr(images: Images, gt: Images) -> float:
    """How consistent results are with what the input shows: both reduced by the scale, from the mean error, in dB."""
    reduced = ([imresize(image, scale=1 / SCALE).astype(float) for image in group] for group in (images, gt))
    return 10 * math.log10(255**2 / float(np.mean([np.square(a - b).mean() for a, b in zip(*reduced, strict=True)])))


@torch.no_grad()
def distance(lpips: torch.nn.Module, images: Images, gt: Images) -> float:
    """The mean LPIPS."""
    a, b = (torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2) for group in (images, gt))
    pairs = zip(a.split(25), b.split(25), strict=True)
    return float(torch.cat([lpips(x / 127.5 - 1, y / 127.5 - 1).flatten() for x, y in pairs]).mean())


if __name__ == "__main__":
    cli.run(main)
