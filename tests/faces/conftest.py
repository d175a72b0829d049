"""The detector of faces, and a photograph with one."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data

from glean_ext.faces.detection import FaceFinder


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(256, 256, 3) with one face of 100 pixels."""
    return np.ascontiguousarray(data.astronaut()[:256, 100:356])
