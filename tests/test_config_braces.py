"""Values of --cfg-options with braces: templates are texts, dicts are refused."""

from __future__ import annotations

import pytest

from glean_ext.config import load_config
from glean_ext.engine.config_checks import NUMBERS
from glean_ext.errors import InputError


@pytest.mark.parametrize("template", ["{}x4", "{:08d}.png", "{x:02d}", "{}.pth"])
def test_a_template_is_a_text(template):
    cfg = load_config("demo_glean_x8", [f"val_dataloader.dataset.filename_tmpl.img={template}"])
    assert cfg.val_dataloader.dataset.filename_tmpl.img == template


@pytest.mark.parametrize("value", ["{'a': 1}", "{'a':1}", "dict(a=1)", "{}", "[{'a': 1}]"])
def test_a_dict_is_refused(value):
    with pytest.raises(InputError, match="a value cannot be a dict"):
        load_config("demo_glean_x8", [f"model.pixel_loss={value}"])


def test_a_norm_without_limit_is_only_logged():
    kind = NUMBERS["optim_wrapper.*.clip_grad.max_norm"]
    assert kind.accepts(float("inf")) and not kind.accepts(float("nan")) and not kind.accepts(0)
    assert not NUMBERS["model.r1_gamma"].accepts(float("inf"))
