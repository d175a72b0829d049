"""Tiles: where they lie, how they are joined, and how much they change what LightGLEAN makes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from glean_ext.inference.tiling import Tiling, cross_fade, largest_difference, ramp, smallest_tile, spans


def enlarge(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=2).repeat(2, axis=3)


def joined(tiling: Tiling, image: np.ndarray, forward=enlarge) -> np.ndarray:
    return np.concatenate([band.copy() for band in tiling.bands(forward, image)], 2)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


# ---------------------------------------------------------------- where tiles lie


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # length, tile, overlap, period, least
        ((10, 10, 3, 1, 1), [(0, 10)]),
        ((3, 10, 3, 1, 1), [(0, 3)]),
        ((17, 10, 3, 1, 1), [(0, 10), (7, 17)]),
        ((18, 10, 3, 1, 1), [(0, 10), (7, 17), (14, 18)]),
        ((18, 10, 0, 1, 1), [(0, 10), (10, 18)]),
        # all of the tile's size, as GLEAN needs them: the last one moves back
        ((9, 8, 2, 1, 8), [(0, 8), (1, 9)]),
        ((15, 8, 2, 1, 8), [(0, 8), (6, 14), (7, 15)]),
        # starts at multiples of a period, as LightGLEAN's noise wants them
        ((100, 40, 8, 16, 8), [(0, 40), (32, 72), (64, 100)]),
        ((100, 45, 8, 16, 8), [(0, 45), (32, 77), (64, 100)]),
        ((64, 31, 0, 16, 8), [(0, 31), (16, 47), (32, 63), (48, 64)]),
        # a last tile of 2 pixels would be too small
        ((34, 24, 0, 8, 8), [(0, 24), (24, 34)]),
        ((26, 24, 0, 8, 8), [(0, 24), (16, 26)]),
        # a period larger than the image
        ((13, 64, 8, 64, 8), [(0, 13)]),
    ],
)
def test_spans_by_hand(arguments, expected):
    assert spans(*arguments) == expected


def test_spans_always_cover_overlap_and_start_at_multiples():
    for length in range(8, 60):
        for tile, overlap, period, least in (24, 8, 8, 8), (17, 0, 8, 8), (16, 8, 1, 16), (9, 8, 1, 9), (40, 3, 16, 8):
            if length < least:
                continue
            tiles = spans(length, tile, overlap, period, least)
            assert tiles[0][0] == 0 and tiles[-1][1] == length
            assert all(start % period == 0 and least <= stop - start <= tile for start, stop in tiles)
            for (first, end), (second, last) in pairwise(tiles):
                assert first < second and end - second >= overlap and end <= last
            assert all(stop - start == tile for start, stop in tiles[:-1])


@pytest.mark.parametrize("tile", [8, 15])
def test_tiles_too_small_are_refused(tile):
    assert smallest_tile(8, 8, 8) == 16
    with pytest.raises(ValueError, match=f"^no tiles of {tile} for 50 pixels: overlap 8, period 8, least 8.$"):
        spans(50, tile, 8, 8, 8)
    assert len(spans(50, 16, 8, 8, 8)) == 6


def test_tiles_halve_where_the_memory_runs_out():
    tiling = Tiling((100, 100), overlap=3, scale=2, period=8, least=(8, 8))
    sides = []
    while (tile := tiling.smaller_tile((90, 70))) is not None:
        tiling = replace(tiling, tile=tile)
        sides.append(tile)
    assert sides == [(43, 43), (19, 19)], "at most 45, the half of 90, and 21; multiples of 8 beside the overlap"


def test_smallest_tiles_work_and_smaller_ones_could_not():
    for overlap, period, least in (0, 8, 8), (3, 8, 8), (0, 64, 8), (10, 64, 8), (5, 1, 9), (0, 1, 1):
        tile = smallest_tile(overlap, period, least)
        for length in range(least, 4 * tile):
            assert all(stop - start >= least for start, stop in spans(length, tile, overlap, period, least))


# ---------------------------------------------------------------- the seam


def test_ramp_by_hand():
    assert ramp(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert ramp(4, share=0.5).tolist() == [0, 0.25, 0.75, 1]
    assert ramp(8, share=0.25).tolist() == [0, 0, 0, 0.25, 0.75, 1, 1, 1]
    assert ramp(1).tolist() == [0.5] and ramp(0).tolist() == []


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_the_weights_of_a_seam_sum_to_one(share):
    for length in range(1, 40):
        weights = [Fraction(value) for value in ramp(length, share).tolist()]
        assert weights == sorted(weights) and weights[0] >= 0 and weights[-1] <= 1
        for one, other in zip(weights, reversed(weights), strict=True):
            assert abs(one + other - 1) < Fraction(1, 2**22)


def test_cross_fade_by_hand():
    first, second = np.array([[0.0, 0, 0, 0], [8, 8, 8, 8]]), np.array([[16.0, 16, 16, 16], [8, 8, 8, 8]])
    assert cross_fade(first, second, 1).tolist() == [[2, 6, 10, 14], [8, 8, 8, 8]]
    assert cross_fade(first, second, 0).tolist() == [[4, 4, 4, 4], [8, 8, 8, 8]]
    assert cross_fade(first[:, :0], second[:, :0], 1).shape == (2, 0)


# ---------------------------------------------------------------- whole images


SIZES = [(8, 8), (9, 13), (40, 8), (8, 37), (31, 29), (64, 50)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "tiling",
    [
        Tiling((24, 24), 8, 2, 8, (8, 8), 0.25),
        Tiling((16, 24), 3, 2, 8, (8, 8), 0.5),
        Tiling((12, 16), 5, 2, 1, (12, 16), 1.0),
        Tiling((15, 15), 0, 2, 8, (8, 8)),
        Tiling((99, 99), 16, 2, 8, (8, 8)),
    ],
)
def test_where_tiles_agree_the_result_is_exactly_that(size, tiling):
    """All weights sum to 1 exactly, everything is covered and nothing is displaced; odd sizes and small ones too."""
    image = np.random.default_rng(0).random((2, 3, *size), dtype=np.float32)
    np.testing.assert_array_equal(joined(tiling, image), enlarge(image))


@pytest.mark.parametrize(("feather", "seam"), [(1.0, [0.125, 0.375, 0.625, 0.875]), (0.5, [0, 0.25, 0.75, 1])])
def test_seams_by_hand(feather, seam):
    """Tile i is all i: rows of tiles 0 1 / 2 3, which share 2 pixels of the input, 4 of the result."""
    tiling, seen = Tiling((4, 4), 2, 2, feather=feather), []

    def forward(tile):
        seen.append(tuple(tile.shape[2:]))
        return np.full((1, 1, 2 * tile.shape[2], 2 * tile.shape[3]), len(seen) - 1, np.float32)

    result = joined(tiling, zeros(1, 1, 6, 6), forward)[0, 0]
    assert seen == [(4, 4)] * 4 and result.shape == (12, 12)
    across = [0, 0, 0, 0, *seam, 1, 1, 1, 1]
    assert result[0].tolist() == across
    assert result[:, 0].tolist() == [2 * weight for weight in across]
    expected = np.array(across)[None] + 2 * np.array(across)[:, None]
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_small_images_are_padded_by_their_border_and_cut_again():
    seen = []
    tiling = Tiling((4, 4), 1, 2, least=(4, 4))
    image = np.array([[[[1.0, 2], [3, 4], [5, 6]]]], np.float32)
    result = joined(tiling, image, lambda tile: seen.append(tile) or enlarge(tile))
    assert seen[0][0, 0].tolist() == [[1, 2, 2, 2], [3, 4, 4, 4], [5, 6, 6, 6], [5, 6, 6, 6]]
    np.testing.assert_array_equal(result, enlarge(image))
    assert len(seen) == 1


def test_one_row_of_tiles_is_held_at_a_time():
    """A band is given out before the next row of tiles is computed."""
    calls = []
    tiling = Tiling((8, 8), 2, 2)
    bands = tiling.bands(lambda tile: calls.append(1) or enlarge(tile), zeros(1, 3, 40, 20))
    rows, columns = tiling.spans((40, 20))
    assert (len(rows), len(columns), tiling.count((40, 20))) == (7, 3, 21)
    heights = []
    for i, band in enumerate(bands, 1):
        assert len(calls) == 3 * i
        heights.append(band.shape[2])
    assert heights == [12] * 6 + [8]


def test_largest_difference_by_hand():
    """A forward that is off by 0.5 where a tile starts; nothing fades there, for tiles share nothing."""

    def forward(image):
        result = enlarge(image)
        result[..., 0] += 0.5
        return result

    image = zeros(1, 3, 8, 16)
    assert largest_difference(forward, image, Tiling((8, 8), 0, 2)) == 0.25  # of the range, which is 2
    assert largest_difference(forward, image, Tiling((8, 16), 0, 2)) == 0
    assert largest_difference(forward, image + 1, Tiling((8, 8), 0, 2)) == 0  # beyond white is white


@pytest.mark.parametrize(("least", "seen"), [((6, 3), (6, 5)), ((3, 8), (4, 8)), ((6, 8), (6, 8))])
def test_images_below_the_least_size_are_padded_by_their_border(least, seen):
    """Height and width each by its own least size."""
    image = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    shapes = []

    def forward(tile: np.ndarray) -> np.ndarray:
        shapes.append(tile.shape[2:])
        assert (tile[0, 0, 4:, :5] == image[0, 0, 3]).all() and (tile[0, 0, :4, 5:] == image[0, 0, :, 4:]).all()
        return enlarge(tile)

    assert (joined(Tiling((8, 8), 0, 2, least=least), image, forward) == enlarge(image)).all()
    assert shapes == [seen]
