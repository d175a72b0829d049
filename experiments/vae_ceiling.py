"""What leaving through a VAE's decoder costs: images of 256x256 pixels, and what encoding and decoding leaves of them.

    python -m experiments.vae_ceiling FOLDER

FOLDER holds taef2_encoder.pth and taef2_decoder.pth: the tiny autoencoder of FLUX.2's latents, 8 times smaller a side,
32 channels (taesd project, MIT, https://github.com/madebyollin/taesd). Beside it stand the enlarged inputs of
restorers: what they lack is the detail that has to be recovered. No image was enlarged for it: photographs of
scikit-image, in parts of their own resolution and reduced as a whole; the test part of the emoji; test faces, drawn
larger. The encoder's latent is not the best one for its decoder: that of the reduced photographs is improved by Adam.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.render_faces import avatar, rasterize
from experiments import domains, emoji_data, measure
from experiments.domains import enlarged, reduced
from experiments.experiment import RESULTS
from experiments.run import circumstances
from experiments.weights import sha256
from glean_ext import checkpoints, cli
from glean_ext.utils.files import write_json
from glean_ext.utils.imresize import imresize

RESULT = RESULTS / "vae_ceiling.json"
SIDE = 256  # pixels
NUMBER = 48  # of the emoji and of the cartoon faces
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "stereo_motorcycle")  # of skimage.data
SCALES = (4, 8)
LATENT_STEPS = 30
WIDTH, LATENT_CHANNELS, NORM_GROUPS = 64, 32, 4
FILES = {"encoder": "taef2_encoder.pth", "decoder": "taef2_decoder.pth"}


class Block(nn.Module):
    """Residual: three convolutions, and in the lowest resolution a normalised branch before them."""

    def __init__(self, normalised: bool = False):
        super().__init__()
        self.conv = nn.Sequential(conv(), nn.ReLU(), conv(), nn.ReLU(), conv())
        self.pool = None
        if normalised:
            wide = 4 * WIDTH
            first, last = (nn.Conv2d(a, b, 1, bias=False) for a, b in ((WIDTH, wide), (wide, WIDTH)))
            self.pool = nn.Sequential(first, nn.GroupNorm(NORM_GROUPS, wide), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(x + self.conv(x))


class Softened(nn.Module):
    """Latents, of which no value is beyond 3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class TinyAutoencoder(nn.Module):
    """The layers in the order of the files: images (N, 3, H, W) in [0, 1] <-> latents (N, 32, H/8, W/8)"""

    def __init__(self) -> None:
        super().__init__()
        halved = [[conv(stride=2, bias=False), *blocks(normalised=i == 2)] for i in range(3)]
        self.encoder = nn.Sequential(conv(3), Block(), *chain(*halved), conv(WIDTH, LATENT_CHANNELS))
        doubled = [[*blocks(normalised=i == 0), nn.Upsample(scale_factor=2), conv(bias=False)] for i in range(3)]
        start = Softened(), conv(LATENT_CHANNELS), nn.ReLU()
        self.decoder = nn.Sequential(*start, *chain(*doubled), Block(), conv(WIDTH, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))


def conv(inputs: int = WIDTH, outputs: int = WIDTH, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


def blocks(normalised: bool) -> list[Block]:
    return [Block(normalised) for _ in range(3)]


def load(folder: Path) -> TinyAutoencoder:
    """The autoencoder of a folder, in fp32.

    Raises:
        InputError: A file is missing or of another network.
    """
    net = TinyAutoencoder()
    for part, file in FILES.items():
        checkpoints.load_strict(net.get_submodule(part), checkpoints.read(folder / file), folder / file)
    return net.requires_grad_(False).eval()


def photographs() -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 RGB, no side shorter than 256."""
    import skimage.data

    for name in PHOTOGRAPHS:
        found = getattr(skimage.data, name)()
        yield np.asarray(found[0] if isinstance(found, tuple) else found)  # a stereo pair has a left image


def parts_of_photographs() -> Tensor:
    """Parts that do not overlap, in their own resolution: (M, 3, 256, 256) uint8"""
    parts = []
    for pixels in photographs():
        rows, columns = (range(0, length - SIDE + 1, SIDE) for length in pixels.shape[:2])
        parts += [pixels[y : y + SIDE, x : x + SIDE] for y in rows for x in columns]
    return stacked(parts)


def reduced_photographs() -> Tensor:
    """The squares in the middle, reduced: (M, 3, 256, 256) uint8"""
    squares = []
    for pixels in photographs():
        side = min(pixels.shape[:2])
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        squares.append(imresize(pixels[top : top + side, left : left + side], size=(SIDE, SIDE)))
    return stacked(squares)


def emoji() -> Tensor:
    """The first images of the test part, in their own size: (M, 3, 256, 256) uint8"""
    folder = emoji_data.fetch(emoji_data.PACKAGES["images"], Path("data/npm")) / "assets"
    names = sorted(path.stem for path in (domains.EMOJI / "test" / "GT").glob("*.png"))[:NUMBER]
    return stacked([emoji_data.on_background(folder / f"{name}.webp") for name in names])


def faces() -> Tensor:
    """The first test faces, drawn larger: (M, 3, 256, 256) uint8"""
    seeds = domains.seeds_of("test", domains.load("cartoons").parts["test"].images[:NUMBER])
    return stacked([np.asarray(rasterize(avatar(seed).to_string(), SIDE)) for seed in seeds])


def stacked(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def decoded(net: TinyAutoencoder, images: Tensor, steps: int = 0) -> Tensor:
    """What encoding and decoding leaves: (M, 3, H, W) uint8, rounded as in a file.

    Args:
        net: The autoencoder.
        images: (M, 3, H, W) uint8.
        steps: Of Adam, that change the latent to lower the MSE.
    """
    found = []
    for image in images:
        gt = image[None].float() / 255
        latent = net.encoder(gt).detach().requires_grad_()
        optim = torch.optim.Adam([latent], 0.05)
        for _ in range(steps):
            optim.zero_grad()
            F.mse_loss(net.decoder(latent), gt).backward()
            optim.step()
        found.append(net.decoder(latent).detach())
    return (torch.cat(found) * 255).round().clamp(0, 255).to(torch.uint8)


def compared(images: Tensor, others: Tensor) -> dict[str, float]:
    """Means over the images, and the mean squared error (levels of 255) of all."""
    errors = (images.double() - others.double()).square().flatten(1).mean(1)
    lpips = measure.judge("cartoons").lpips_distance(others, images)
    psnr = [10 * math.log10(255**2 / max(float(error), 1e-12)) for error in errors]
    values = {"PSNR": sum(psnr) / len(psnr), "LPIPS": sum(lpips) / len(lpips), "MSE": float(errors.mean())}
    return {name: round(value, 5) for name, value in values.items()}


def measured(net: TinyAutoencoder, images: Tensor) -> dict:
    """The images against what the autoencoder, and against what the enlarged inputs of restorers leave of them."""
    inputs = {f"x{scale}": compared(images, enlarged(reduced(images, scale), scale)) for scale in SCALES}
    return {"images": len(images), "autoencoder": compared(images, decoded(net, images)), **inputs}


def main() -> None:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    net = load(folder)
    sets: dict[str, Callable[[], Tensor]] = {
        "photographs, reduced": reduced_photographs,
        "photographs, parts": parts_of_photographs,
        "emoji": emoji,
        "cartoon faces": faces,
    }
    found = {name: measured(net, images()) for name, images in sets.items()}
    improved = decoded(net, images := reduced_photographs(), LATENT_STEPS)
    found["photographs, reduced"]["improved latent"] = compared(images, improved)
    hashes = {part: sha256(folder / file) for part, file in FILES.items()}
    write_json({"sets": found, "weights": hashes, **circumstances(torch.device("cpu"), 1)}, RESULT)


if __name__ == "__main__":
    cli.run(main)
