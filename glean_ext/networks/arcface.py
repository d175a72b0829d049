"""ArcFace's ResNet-18 for gray faces, as the identity loss of GFPGAN uses it.

Sources: Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", CVPR 2019 (the block with batch
norm first); Wang et al., "GFPGAN", CVPR 2021, section 3.4. Parameter names are those of GFPGAN's release
(``arcface_resnet18.pth``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext import checkpoints

SIDE = 128  # pixels
LUMA = (0.2989, 0.587, 0.114)
WIDTHS = (64, 128, 256, 512)
EMBEDDING = 512


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)


class Block(nn.Module):
    """(N, C, H, W) -> (N, O, H / stride, W / stride)"""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.bn0 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.prelu = nn.PReLU()
        self.conv2 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(x)) + residual)


class ArcFaceResNet18(nn.Module):
    """Gray faces (N, 1, 128, 128) in [-1, 1] -> embeddings (N, 512), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = conv3x3(1, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2, 2)
        below = WIDTHS[0]
        for number, width in enumerate(WIDTHS, 1):
            blocks = Block(below, width, 1 if number == 1 else 2), Block(width, width, 1)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            below = width
        self.bn4 = nn.BatchNorm2d(below)
        self.fc5 = nn.Linear(below * (SIDE // 16) ** 2, EMBEDDING)
        self.bn5 = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.prelu(self.bn1(self.conv1(x))))  # (N, 64, 64, 64)
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        x = self.bn4(x)  # (N, 512, 8, 8)
        return self.bn5(self.fc5(x.flatten(1)))


def load_arcface(source: str) -> ArcFaceResNet18:
    """The network with the weights of a file, by path or URL: GFPGAN's ``arcface_resnet18.pth``, or one with its keys.

    Raises:
        InputError: There is no such file, or it does not fit.
    """
    with torch.device("meta"):  # random values would take a second
        embedder = ArcFaceResNet18()
    embedder.to_empty(device="cpu")
    checkpoints.load_strict(embedder, checkpoints.read(source), source)
    return embedder


def gray_faces(image: Tensor) -> Tensor:
    """What the network takes of aligned faces: (N, 3, H, W), RGB in [-1, 1] -> (N, 1, 128, 128)"""
    red, green, blue = image.split(1, 1)
    gray = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # not a tensor of weights: a GPU would be waited for
    return F.interpolate(gray, (SIDE, SIDE), mode="bilinear", align_corners=False)
