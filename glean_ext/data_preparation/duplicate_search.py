"""Images that show the same: found among very many by a perceptual hash, and confirmed by their pixels.

The hash is the 63 low-frequency DCT coefficients of a 16x16 gray thumbnail, scaled to length 1, so that it does not
depend on brightness and contrast. pHash keeps only the signs of the coefficients; signs of coefficients near zero
change with every re-encoding, and many faces share most of the others, so the coefficients are kept as numbers. All
hashes are compared with all by matrix products, and with those of the mirrored images, since training flips its images.
Candidates are confirmed on the colour thumbnails, see :func:`differences`.

Both limits were measured on 5,200 rendered 64x64 faces, which often differ in the brows or the mouth alone, and on 320
tiles of photographs. Copies that were saved as JPEG of quality 90, scaled to 48 or 96 pixels and back, made darker or
lighter by a tenth, of more or less contrast, or noisy were found; of quality 75, 94 in 100 were found; 162 of the 13.5
million pairs of different faces count as the same. Of the tiles' copies 95 in 100 or more were found; the others have
hardly any contrast. Copies that were cropped or rotated count as different images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

THUMB = 16  # side of a thumbnail in pixels
FREQUENCIES = 8
ALIKE = 0.98  # cosine of the hashes of candidates, at least
SAME = 0.1  # difference of images that show the same, at most
CONTRAST = 20.0  # gray levels; added to the contrast of all blocks, so that noise in flat blocks is no difference
BLOCK = 2  # pixels of the thumbnail: an eighth of the image
CLIPPED = (4, 251)  # pixels of thumbnails outside this range may have been clipped at black or white
PAIRS = 512  # compared at a time; their arrays fit into the processor's cache
WINDOW = 64 * PAIRS  # candidates at a time that are checked for being grouped already
CELLS = 1 << 22  # of the matrix of cosines computed at a time: 16 MB

Track = Callable[[Sequence[int]], Iterable[int]]


class Match(NamedTuple):
    """Image ``copy`` shows what the image ``original`` shows. Both are positions in the array of thumbnails."""

    copy: int
    original: int
    mirrored: bool
    difference: float


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (16, 16, 3) uint8: mean of each area."""
    return np.asarray(Image.fromarray(image).resize((THUMB, THUMB), Image.Resampling.BOX))


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 16, 16, 3) uint8 -> (N, 63) float32 of length 1, or of length 0 for images of one colour."""
    x = np.arange(THUMB)
    basis = np.cos(np.pi * (2 * x + 1) * np.arange(FREQUENCIES)[:, None] / (2 * THUMB)).astype(np.float32)  # DCT-II
    basis[0] /= np.sqrt(2)
    gray = thumbnails @ np.array([0.299, 0.587, 0.114], np.float32)  # (N, 16, 16)
    hashes = (basis @ gray @ basis.T).reshape(len(thumbnails), -1)[:, 1:]  # without the mean
    return hashes / np.maximum(np.linalg.norm(hashes, axis=1, keepdims=True), 1e-3)


def _mirrored(hashes: np.ndarray) -> np.ndarray:
    """Hashes of the mirrored images: a mirrored cosine of odd frequency changes its sign."""
    signs = np.tile(np.where(np.arange(FREQUENCIES) % 2, -1, 1), FREQUENCIES)[1:]
    return hashes * signs.astype(np.float32)


def differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How much the two thumbnails of each pair differ, in the block where they differ most.

    Brightness and contrast of one are fitted to the other. Pixels clipped at black or white are left out of the fit,
    and its prediction is clipped in the same way. The difference of a 2x2 block is its squared error divided by its
    contrast.

    Args:
        a: (P, 16, 16, 3) uint8.
        b: (P, 16, 16, 3) uint8.

    Returns:
        (P,): the largest difference of a block; 0 for equal images.
    """
    a, b = _blocks(a), _blocks(b)
    return np.minimum(_differences(a, b), _differences(b, a))  # what is clipped in one may be intact in the other


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(P, blocks, pixels, 3) float32 each -> (P,), with ``a`` fitted to ``b``."""
    known = ((b > CLIPPED[0]) & (b < CLIPPED[1])).astype(np.float32)
    count = np.maximum(np.einsum("pbxc->p", known), 1)
    a = a - _spread(np.einsum("pbxc,pbxc->p", known, a) / count)
    b_mean = np.einsum("pbxc,pbxc->p", known, b) / count
    known *= a
    gain = np.einsum("pbxc,pbxc->p", known, b - _spread(b_mean)) / np.maximum(np.einsum("pbxc,pbxc->p", known, a), 1)
    predicted = np.clip(_spread(gain) * a + _spread(b_mean), 0, 255)
    error = _mean_square(b - predicted)  # (P, blocks)
    return (error / (_contrast(predicted) + _contrast(b) + CONTRAST**2)).max(1)


def _blocks(thumbnails: np.ndarray) -> np.ndarray:
    """(P, 16, 16, 3) -> (P, 64, 4, 3) float32: blocks of 2x2 pixels."""
    n = THUMB // BLOCK
    blocks = thumbnails.reshape(-1, n, BLOCK, n, BLOCK, 3).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(-1, n * n, BLOCK * BLOCK, 3).astype(np.float32)


def _spread(values: np.ndarray) -> np.ndarray:
    return values[:, None, None, None]


def _mean_square(blocks: np.ndarray) -> np.ndarray:
    return np.einsum("pbxc,pbxc->pb", blocks, blocks) / (3 * BLOCK * BLOCK)


def _contrast(blocks: np.ndarray) -> np.ndarray:
    """(P, blocks): variance of each colour within a block, mean of the three."""
    means = np.einsum("pbxc->pbc", blocks) / (BLOCK * BLOCK)
    return _mean_square(blocks) - np.einsum("pbc,pbc->pb", means, means) / 3


def find(
    thumbnails: np.ndarray,
    chains: bool,
    fixed: int = 0,
    track: Track = iter,
) -> tuple[np.ndarray, list[Match]]:
    """Group images that show the same.

    Args:
        thumbnails: (N, 16, 16, 3) uint8, the best first: the first image of a group represents it.
        chains: Whether copies of copies belong to the group, too. Otherwise every image of a group shows what its first
            image shows, and no two first images show the same.
        fixed: Number of images at the beginning that never count as a copy.
        track: Iterates over blocks of images, and may show the progress.

    Returns:
        (N,) int: the position of the first image of each image's group; and the pairs that matched.
    """
    count = len(thumbnails)
    hashes = perceptual_hashes(thumbnails)
    first = np.arange(count)
    matches: list[Match] = []
    lines = max(1, CELLS // max(1, count))
    for start in track(range(0, count, lines)):
        candidates = _candidates(hashes, start, min(start + lines, count), fixed)
        for window in range(0, candidates.shape[1], WINDOW):
            matches += _confirm(thumbnails, candidates[:, window : window + WINDOW], first, chains)
    return first, matches


def _confirm(thumbnails: np.ndarray, candidates: np.ndarray, first: np.ndarray, chains: bool) -> list[Match]:
    """Which candidates match; their groups are joined in ``first``."""
    matches = []
    while candidates.size:
        # Groups grow as pairs are confirmed; pairs within one group need no comparison any more.
        candidates = candidates[:, ~_settled(first, candidates[0], candidates[1], chains)]
        left, right, mirrored = candidates[:, :PAIRS]
        candidates = candidates[:, PAIRS:]
        other = thumbnails[right]
        turned = mirrored == 1
        other[turned] = other[turned][:, :, ::-1]
        found = differences(thumbnails[left], other)
        for k in np.flatnonzero(found <= SAME):
            i, j = int(left[k]), int(right[k])
            if not _settled(first, left[k], right[k], chains):
                first[first == max(first[i], first[j])] = min(first[i], first[j])
                matches.append(Match(j, i, bool(turned[k]), float(found[k])))
    return matches


def _candidates(hashes: np.ndarray, start: int, stop: int, fixed: int) -> np.ndarray:
    """(3, P): pairs left < right whose hashes are alike, with left in start ... stop; 1 where right is mirrored."""
    found = []
    for mirrored, query in enumerate((hashes[start:stop], _mirrored(hashes[start:stop]))):
        left, right = np.nonzero(query @ hashes[start:].T >= ALIKE)
        useful = (left < right) & (right + start >= fixed)
        found.append(np.stack([left[useful] + start, right[useful] + start, np.full(useful.sum(), mirrored)]))
    pairs = np.concatenate(found, axis=1)
    return pairs[:, np.lexsort(pairs[::-1])]


def _settled(first: np.ndarray, left: np.ndarray, right: np.ndarray, chains: bool) -> np.ndarray:
    """Whether pairs are in one group already; without chains also, whether one of a pair is a copy."""
    if chains:
        return first[left] == first[right]
    return (first[left] != left) | (first[right] != right)
