"""Patch matching on features, and taking what lies at the places found.

Shapes: N images with R references; P = h w places of an image, R P of its references; K best ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def match(query: Tensor, keys: Tensor, best: int, size: int = 3) -> tuple[Tensor, Tensor]:
    """The places of the references whose surroundings resemble most those of each place of the image.

    Args:
        query: (N, C, h, w).
        keys: (N, R, C, h, w).
        best: K.
        size: Pixels of a patch's side.

    Returns:
        The cosine similarities, falling, and the places, counted through all references: both (N, K, h, w).
    """
    height, width = query.shape[-2:]
    patches = F.normalize(F.unfold(query.float(), size, padding=size // 2), dim=1)  # (N, C s s, P)
    others = F.unfold(keys.float().flatten(0, 1), size, padding=size // 2)  # (N R, C s s, P)
    others = F.normalize(others, dim=1).unflatten(0, keys.shape[:2]).transpose(1, 2).flatten(2)  # (N, C s s, R P)
    similarity, place = torch.topk(others.transpose(1, 2) @ patches, best, dim=1)  # (N, K, P)
    return similarity.unflatten(2, (height, width)), place.unflatten(2, (height, width))


def take(values: Tensor, place: Tensor) -> Tensor:
    """The blocks of s x s pixels of the references at the places that were found.

    Args:
        values: (N, R, C, s h, s w).
        place: (N, K, h, w), from :func:`match`.

    Returns:
        (N, K, C, s h, s w)
    """
    n, best, height, width = place.shape
    factor = values.shape[-1] // width
    blocks = F.pixel_unshuffle(values, factor).transpose(1, 2).flatten(2)  # (N, C s s, R P)
    index = place.reshape(n, 1, -1).expand(-1, blocks.shape[1], -1)  # (N, C s s, K P)
    found = blocks.gather(2, index).unflatten(2, (best, height, width)).transpose(1, 2)  # (N, K, C s s, h, w)
    return F.pixel_shuffle(found, factor)
