"""References of the demo's images, for configs/baselines/demo_ttsr_x4.py: python -m experiments.reference_data

data/demo/train/REF and data/demo/test/REF get one picture of each face in GT: the same person, with another expression
and pose.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo.render_faces import make_demo_data, render
from demo.render_people import person
from experiments import domains
from glean_ext import cli
from glean_ext.utils.files import atomic_path


def draw(root: Path) -> None:
    """Write ``REF`` beside the ``GT`` folders of the demo's data; what is there stays."""
    for part in "train", "test":
        files = sorted((root / part / "GT").glob("*.png"))
        missing = [file for file in files if not (root / part / "REF" / file.name).exists()]
        pixels = [torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) for file in missing]
        seeds = domains.seeds_of(part, torch.stack(pixels), root) if missing else []
        for file, seed in zip(missing, seeds, strict=True):
            with atomic_path(root / part / "REF" / file.name) as partial:
                render(person(seed, 0)).save(partial, "PNG")


def main() -> None:
    cli.Parser(description=__doc__).parse_args()
    root = Path("data/demo")
    make_demo_data(root)
    draw(root)


if __name__ == "__main__":
    cli.run(main)
