"""Measure the demo model of nine classes on the test emoji, with estimated, right and wrong labels, and draw
docs/demo_classes.png: one emoji of each class, the first of the test part.

LPIPS needs the weights of torchvision's AlexNet. python -m experiments.emoji_data makes the emoji.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from demo.compare_blind import Images, distance, psnr
from glean_ext import cli
from glean_ext.config import load_config
from glean_ext.inference.image_restorer import ImageRestorer
from glean_ext.networks.lpips_network import load_lpips
from glean_ext.utils.files import atomic_path
from glean_ext.utils.image_grid import Row, comparison
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

MODEL = "demo_glean_biggan_x8"


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--alexnet", default="torchvision://alexnet", help="weights of AlexNet (default: %(default)s)")
    parser.add_argument("--picture", type=Path, default=Path("docs/demo_classes.png"))
    args = parser.parse_args()
    paths = sorted((args.data / "test/GT").glob("*.png"))
    classes = json.loads((args.data / "classes.json").read_text())
    labels = [classes[path.stem] for path in paths]
    names: list[str] = load_config(MODEL).model.generator.class_names
    gt = [read_rgb(path) for path in paths]
    lq = [imresize(image, scale=1 / 8) for image in gt]
    others = [names[(names.index(label) + 1) % len(names)] for label in labels]
    results = {
        "bicubic": [imresize(image, scale=8) for image in lq],
        "estimated label": ImageRestorer(MODEL).restore_batch(lq),
        "right label": labelled(lq, labels),
        "wrong label": labelled(lq, others),
    }
    lpips = load_lpips("alex", args.alexnet)
    print(f"{'':16} PSNR   LPIPS")
    for name, images in results.items():
        print(f"{name:16} {psnr(images, gt):5.2f}  {distance(lpips, images, gt):.4f}")
    shown = [labels.index(name) for name in names]
    rows = [Row(name, [images[i] for i in shown]) for name, images in {"LR": lq, **results, "GT": gt}.items()]
    with atomic_path(args.picture) as partial:
        comparison(rows, 96, len(shown)).save(partial, "PNG")


def labelled(lq: Images, labels: list[str]) -> Images:
    """Results with a label for each image, in the order of the images."""
    restorers = {label: ImageRestorer(MODEL, label=label) for label in sorted(set(labels))}
    return [restorers[label].restore(image) for image, label in zip(lq, labels, strict=True)]


if __name__ == "__main__":
    cli.run(main)
