"""The memory that a result takes until it is written stays within what is planned for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from glean_ext.batch.networks import Networks, RunCallbacks
from glean_ext.batch.options import ModelSource, RestoreOptions
from glean_ext.inference.memory_budget import RESULT_BYTES, WEBP_BYTES

ROOT = Path(__file__).parents[2]
FINISH = """
import sys
from pathlib import Path
import numpy as np
import cv2
from glean_ext.batch.image_stages import write_result
from glean_ext.batch.output_plan import Job
from glean_ext.batch.restore_pictures import PictureRestorer, PreparedPicture
from glean_ext.inference.image_restorer import Prepared
from glean_ext.inference.model_cost import peak_rss
from glean_ext.inference.tiling import Tiling
from glean_ext.utils.image_io import Picture, write_picture

side, dtype, outscale = 2000, np.dtype(sys.argv[1]), float(sys.argv[2]) or None
low = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (side // 4, side // 4, 3), dtype)
picture = Picture(low, low[..., 0].copy() if outscale else None)
plan = Tiling((9, 9), 1, 4)
steps = PictureRestorer(None, outscale=outscale)
prepared = PreparedPicture(picture, "a", (Prepared(picture.filled, low.shape[:2], plan, "a"),))
write_picture(Picture(low[:9, :9]), "warm.png")
before = peak_rss()
result = low.repeat(4, 0).repeat(4, 1)
write_result(Job(Path("a"), Path(sys.argv[3]), Path("b.png")), steps.finish(prepared, [result]), prepared.before)
print((peak_rss() - before) / side**2)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak of a process from Linux")
@pytest.mark.parametrize("target", ["a.png", pytest.param("a.webp", marks=pytest.mark.slow)])
@pytest.mark.parametrize("outscale", [pytest.param(0, marks=pytest.mark.slow), 3.99])
@pytest.mark.parametrize("dtype", ["uint8", pytest.param("uint16", marks=pytest.mark.slow)])
def test_writing_a_result_with_its_comparison(tmp_path, dtype, outscale, target):
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FINISH}",
        dtype,
        str(outscale),
        target,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    most = RESULT_BYTES[int(dtype.removeprefix("uint")) // 8] + (WEBP_BYTES if target == "a.webp" else 0)
    assert most / 3 < float(done.stdout) < 1.05 * most


@pytest.mark.parametrize(
    ("output", "format", "more"), [("a.webp", None, WEBP_BYTES), ("out/", "webp", WEBP_BYTES), ("out/", None, 0)]
)
def test_results_as_webp_are_planned_with_more(tmp_path, output, format, more):
    model = ModelSource("demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors")
    options = RestoreOptions(model, ("a.png",), str(tmp_path / output), format=format, device="cpu", backend="torch")
    assert Networks(options, RunCallbacks(), tmp_path, 1).restorer.writing == more
