"""Metrics of pyiqa: real ones that need no weights where it is installed, and what is said where it is not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
from skimage.metrics import peak_signal_noise_ratio
from support.metric_references import astronaut, blurred

from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.evaluation.iqa import create_iqa

needs_pyiqa = pytest.mark.skipif(find_spec("pyiqa") is None, reason="pyiqa is not installed: the extra iqa")


def fault(name: str) -> str:
    with pytest.raises(InputError) as error:
        create_iqa(name)
    return error.value.render(cli.as_option)


def test_without_pyiqa_the_extra_and_its_licence_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    assert fault("pyiqa:musiq") == (
        "--metrics pyiqa:musiq needs pyiqa, which is not installed: pip install 'glean-ext[iqa]' (pyiqa's licence is "
        "non-commercial)"
    )


@needs_pyiqa
def test_metrics_of_both_kinds():
    rgb = astronaut()
    psnr = create_iqa("pyiqa:psnr")
    assert psnr.needs_reference and not psnr.lower_is_better
    assert psnr.compute(blurred(rgb, 2), rgb) == pytest.approx(peak_signal_noise_ratio(rgb, blurred(rgb, 2)), abs=0.01)
    entropy = create_iqa("pyiqa:entropy")
    assert not entropy.needs_reference and entropy.compute(rgb) > entropy.compute(rgb * 0)


@needs_pyiqa
def test_faults(monkeypatch):
    assert "has no metric 'musik'. Did you mean musiq" in fault("pyiqa:musik")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers
    message = fault("pyiqa:musiq")
    assert message.startswith("--metrics pyiqa:musiq: pyiqa cannot load its weights (URLError")
    assert "copy the files from another machine" in message and "\n" not in message
