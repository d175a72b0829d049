"""The ComfyUI nodes, called as ComfyUI calls them: FUNCTION by name, with the inputs of INPUT_TYPES by keyword."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import glean_ext

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui_glean"


@pytest.fixture(scope="module")
def nodes():
    spec = importlib.util.spec_from_file_location("comfyui_glean", FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def model(nodes):
    return run(nodes["LoadGLEAN"], model="demo_glean_x8")


def run(node, **inputs):
    allowed = node.INPUT_TYPES()
    assert inputs.keys() <= {**allowed["required"], **allowed.get("optional", {})}.keys()
    assert allowed["required"].keys() <= inputs.keys()
    outputs = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(outputs, tuple) and len(outputs) == len(node.RETURN_TYPES) == 1
    return outputs[0]


def test_models_are_offered_by_name(nodes):
    (names,) = nodes["LoadGLEAN"].INPUT_TYPES()["required"]["model"]
    assert names == glean_ext.list_models()


def test_restored_images_are_those_of_the_library(nodes, model):
    pixels = np.random.default_rng(0).integers(0, 65536, (2, 8, 8, 3)).astype(np.uint16)
    images = torch.from_numpy(pixels.astype(np.float32) / 65535)
    restored = run(nodes["RestoreWithGLEAN"], model=model, image=images)
    assert restored.shape == (2, 64, 64, 3) and restored.dtype == torch.float32
    expected = glean_ext.ImageRestorer("demo_glean_x8").restore_batch(list(pixels))
    assert np.array_equal((restored * 65535).round().numpy().astype(np.uint16), expected)


def test_photographs_keep_their_range(nodes, model):
    ramp = torch.linspace(0, 1, 96).expand(1, 64, 96)[..., None].expand(1, 64, 96, 3)
    enlarged = run(nodes["RestoreFacesWithGLEAN"], model=model, image=ramp, outscale=2.0, fidelity=0.0)
    assert enlarged.shape == (1, 128, 192, 3)  # no face in it: enlarged only
    assert 0 <= enlarged.min() < 0.01 and 0.99 < enlarged.max() <= 1


def test_a_config_with_weights(nodes):
    with pytest.raises(glean_ext.InputError, match="no_such_config"):
        run(
            nodes["LoadGLEAN"],
            model="demo_glean_x8",
            config="no_such_config.py",
            checkpoint="glean-ext://demo_bank.safetensors",
        )
