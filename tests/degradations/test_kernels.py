"""Blur kernels: MMagic's values, and what cutting off a border of no weight changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from glean_ext.degradations import kernels


@pytest.fixture(scope="module")
def reference(mmagic_models):
    from mmagic.datasets.transforms import blur_kernels

    return blur_kernels


ELLIPSES = [(41, 5.0, 5.0, 0.0), (21, 0.4, 3.0, 0.7), (7, 2.0, 1.0, -2.0)]


@pytest.mark.parametrize(("size", "sigma_x", "sigma_y", "angle"), ELLIPSES)
@pytest.mark.parametrize("beta", [0.6, 1.0, 2.5])
def test_ellipses_are_mmagics(reference, size, sigma_x, sigma_y, angle, beta):
    args = (size, sigma_x, sigma_y, angle)
    expected = reference.bivariate_generalized_gaussian(*args, beta, is_isotropic=False)
    np.testing.assert_allclose(kernels.gaussian(*args, beta), expected, rtol=1e-4, atol=1e-7)
    expected = reference.bivariate_plateau(*args, beta, is_isotropic=False)
    np.testing.assert_allclose(kernels.plateau(*args, beta), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("size", "cutoff"), [(7, 1.2), (21, 3.1)])
def test_sinc_is_mmagics(reference, size, cutoff):
    expected = reference.random_circular_lowpass_kernel([cutoff, cutoff], size)
    np.testing.assert_allclose(kernels.sinc(size, cutoff), expected, atol=1e-6)


def test_trimming_changes_no_level():
    image = np.random.default_rng(0).uniform(0, 255, (64, 64)).astype(np.float32)
    narrow, wide = kernels.gaussian(41, 1.0, 2.0, 0.5), kernels.gaussian(41, 10.0, 10.0, 0.0)
    assert kernels.trimmed(wide) is not wide and kernels.trimmed(wide).shape == (41, 41)
    small = kernels.trimmed(narrow)
    assert 13 <= len(small) <= 25 and small.sum() == pytest.approx(1)
    np.testing.assert_allclose(cv2.filter2D(image, -1, small), cv2.filter2D(image, -1, narrow), atol=0.01)
    dot = kernels.gaussian(7, 0.1, 0.1, 0.0)
    np.testing.assert_allclose(kernels.trimmed(dot), [[1.0]])
