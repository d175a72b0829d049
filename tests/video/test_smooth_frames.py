"""Results are blended along the optical flow: less flicker, and nothing ghosts."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from skimage import data
from support.videos import doubled, psnr, read_video, stop_after, write_video

from glean_ext.video.optical_flow import Moment, blend_along_flow, flow_between, make_guide, trust
from glean_ext.video.smooth_frames import SmoothFrames

SIZE = 120  # pixels of a frame
COFFEE = cv2.resize(data.coffee()[:, :400], (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def motion(frames: int) -> np.ndarray:
    """(2, 3): how far the pixels of the scene have moved after so many frames, in indices of pixels."""
    matrix = cv2.getRotationMatrix2D((60, 60), 0.8 * frames, 1.004**frames)
    matrix[:, 2] += (1.3 * frames, -0.9 * frames)
    return matrix


def view(number: int, size: int = SIZE) -> np.ndarray:
    """(size, size, 3): a part of the moving scene."""
    scene = cv2.GaussianBlur(cv2.resize(data.astronaut(), (256, 256), interpolation=cv2.INTER_AREA), (0, 0), 1)
    matrix = motion(number)
    matrix[:, 2] -= 50  # the part in view has nothing that comes from outside
    matrix *= size / SIZE
    return cv2.warpAffine(scene, matrix, (size, size), flags=cv2.INTER_CUBIC)


def warping_error(frames: list[np.ndarray]) -> float:
    """Levels (RMS) between each frame, moved by the known motion, and the next one; results are twice as large."""
    to_result = np.array([[2, 0, -99.5], [0, 2, -99.5], [0, 0, 1]])  # from the scene
    places = [to_result @ np.vstack([motion(number), [0, 0, 1]]) for number in range(len(frames))]
    errors = []
    for (frame, following), (place, next_place) in zip(pairwise(frames), pairwise(places), strict=True):
        matrix = (next_place @ np.linalg.inv(place))[:2]
        moved = cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=cv2.INTER_CUBIC)
        errors.append(np.sqrt(((moved.astype(float) - following)[16:-16, 16:-16] ** 2).mean()))
    return float(np.mean(errors))


class Flickering:
    """Enlarges, and adds another pattern of 8 levels to each frame."""

    def __init__(self):
        self.random = np.random.default_rng(0)

    def __call__(self, frames):
        return [self._next(rgb) for rgb in frames]

    def _next(self, rgb):
        large = cv2.resize(rgb, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        noise = cv2.GaussianBlur(self.random.normal(0, 1, large.shape).astype(np.float32), (0, 0), 1.5)
        return np.clip(np.round(large + 8 * noise / noise.std()), 0, 255).astype(np.uint8)


def test_flicker_falls_and_fidelity_does_not():
    frames = [view(number) for number in range(8)]
    truth = doubled_smoothly(frames)
    plain, smooth = Flickering()(frames), SmoothFrames(Flickering())(frames)
    assert warping_error(truth) < 2 < 10 < warping_error(plain)
    assert warping_error(smooth) < warping_error(plain) / 2.5
    assert psnr(np.stack(smooth), np.stack(truth)) > psnr(np.stack(plain), np.stack(truth)) + 2


def doubled_smoothly(frames):
    return [cv2.resize(rgb, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for rgb in frames]


def test_what_stands_still_does_not_change():
    smooth = SmoothFrames(doubled)
    for rgb in [view(0)] * 3:
        np.testing.assert_array_equal(smooth([rgb])[0], doubled([rgb])[0])


def test_a_cut_begins_a_new_scene():
    """No pixel is blended, and after it the smoothing continues."""
    frames = [view(0), view(1), COFFEE, COFFEE[::-1]]
    plain, smooth = Flickering()(frames), SmoothFrames(Flickering())(frames)
    for number, same in enumerate([True, False, True, True]):
        assert np.array_equal(smooth[number], plain[number]) == same
    again = SmoothFrames(Flickering())([COFFEE, COFFEE])
    assert np.abs(again[1].astype(int) - Flickering()([COFFEE, COFFEE])[1]).max() > 3


def test_nothing_ghosts():
    """A face moves over a scene: what it uncovers is not blended."""

    def frame(left):
        rgb = cv2.resize(COFFEE, (240, 240), interpolation=cv2.INTER_CUBIC)
        rgb[80:180, left : left + 80] = data.astronaut()[80:180, 180:260]
        return rgb

    before, after = frame(60), frame(72)
    guides = make_guide(before), make_guide(after)
    flow, back = flow_between(guides[1], guides[0]), flow_between(*guides)
    weight = trust(guides[1], guides[0], flow, back)
    assert np.median(flow[85:175, 77:147], axis=(0, 1)) == pytest.approx([-12, 0], abs=0.2)
    assert weight[85:175, 60:72].mean() < 0.1  # uncovered
    assert weight[190:].mean() > 0.95 and weight[85:175, 77:147].mean() > 0.7
    blended = blend_along_flow(Moment(guides[0], before), guides[1], after)
    assert np.abs(blended.astype(int) - after).max() < 60 and psnr(blended, after) > 38
    assert psnr(cv2.addWeighted(before, 0.75, after, 0.25, 0), after) < 25  # as blending without flow would be


def test_a_guide_has_a_size_for_the_flow():
    assert make_guide(np.zeros((8, 8, 3), np.uint8)).shape == (64, 64)
    assert make_guide(np.zeros((24, 32, 3), np.uint8)).shape == (64, 85)
    assert make_guide(np.zeros((1080, 1920, 3), np.uint8)).shape == (576, 1024)
    assert make_guide(np.zeros((16, 4000, 3), np.uint8)).shape == (64, 1024)
    np.testing.assert_array_equal(make_guide(COFFEE), cv2.cvtColor(COFFEE, cv2.COLOR_RGB2GRAY))


def test_results_may_show_a_part_and_be_adjusted():
    """With black for what is adjusted, only the first frame, which has none before it, is left as it is."""
    frames = [view(0), view(1)]
    smooth = SmoothFrames(
        lambda batch: doubled([rgb[20:60] for rgb in batch]),
        shown=lambda rgb: rgb[20:60],
        adjust=lambda blended, plain: np.zeros_like(plain),
    )
    first, second = smooth(frames)
    np.testing.assert_array_equal(first, doubled([frames[0][20:60]])[0])
    assert second.shape == first.shape and not second.any()


def test_the_state_continues_it():
    frames = [view(number) for number in range(4)]
    whole = SmoothFrames(doubled)(frames)
    first = SmoothFrames(doubled)
    first(frames[:2])
    second = SmoothFrames(doubled)
    second.load(first.state())
    np.testing.assert_array_equal(second(frames[2:]), whole[2:])
    second.load({})
    np.testing.assert_array_equal(second([frames[0]])[0], whole[0])


@pytest.fixture
def moving(tmp_path):
    return write_video(tmp_path / "in.mp4", [view(number, 64) for number in range(34)], audio=())


def flickering(frames):
    """Flickers as the pixels of a frame say, so that a resumed run has the same."""
    return doubled([rgb ^ np.uint8(rgb.sum() % 8) for rgb in frames])


@pytest.mark.parametrize("lost", [None, "000002.npz"])
def test_a_resumed_run_gives_the_same_bytes(run, moving, tmp_path, lost):
    run(moving, "plain.mp4", flickering)
    run(moving, "whole.mp4", flickering, temporal=True)
    with pytest.raises(KeyboardInterrupt):
        run(moving, restore=stop_after(26, KeyboardInterrupt(), flickering), temporal=True)
    folder = tmp_path / ".out.mp4.segments"
    assert sorted(path.name for path in folder.glob("0*")) == ["000000.mp4", "000001.mp4", "000002.npz"]
    if lost:
        (folder / lost).unlink()  # then it starts again: there is nothing to continue with
    assert run(moving, restore=flickering, temporal=True).resumed == (0 if lost else 20)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert (tmp_path / "out.mp4").read_bytes() != (tmp_path / "plain.mp4").read_bytes()
    assert len(read_video(tmp_path / "out.mp4").rgb) == 34


def test_a_run_with_temporal_does_not_continue_one_without(run, moving, lines):
    with pytest.raises(KeyboardInterrupt):
        run(moving, restore=stop_after(26, KeyboardInterrupt(), flickering))
    lines.clear()
    assert run(moving, restore=flickering, temporal=True).resumed == 0
    assert "it starts again" in lines[0]
