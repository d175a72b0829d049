"""The ComfyUI nodes, called as ComfyUI calls them: FUNCTION by name, with the inputs of INPUT_TYPES by keyword."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.references import noise, save_network

import glean_ext

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "integrations" / "comfyui_glean"


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


def as_batch(*images: np.ndarray) -> torch.Tensor:
    """(h, w, 3) uint8 each -> (N, h, w, 3) in [0, 1], as ComfyUI has images."""
    return torch.from_numpy(np.stack(images) / 255).float()


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


def test_references(nodes, tmp_path):
    save_network(tmp_path)
    model = run(
        nodes["LoadGLEAN"],
        model="demo_glean_x8",
        config=str(tmp_path / "net.py"),
        checkpoint=str(tmp_path / "net.safetensors"),
    )
    others = [noise(seed=1), noise(seed=2)]
    images, references = as_batch(noise(8)), as_batch(*others)
    restored = run(nodes["RestoreWithGLEAN"], model=model, image=images, references=references)
    pixels = (images[0] * 65535).round().numpy().astype(np.uint16)
    expected = model.with_references(others).restore(pixels)
    assert np.array_equal((restored[0] * 65535).round().numpy().astype(np.uint16), expected)
    assert not torch.equal(restored, run(nodes["RestoreWithGLEAN"], model=model, image=images)), "the model keeps none"

    portrait = np.asarray(Image.open(ROOT / "glean_ext/web/static/examples/astronaut.jpg"))
    photo = {"model": model, "image": as_batch(portrait), "outscale": 1.0, "fidelity": 0.0}
    plain = run(nodes["RestoreFacesWithGLEAN"], **photo)
    seen = run(nodes["RestoreFacesWithGLEAN"], **photo, references=as_batch(portrait[:, ::-1]))
    assert (seen - plain).abs().max() > 5 / 255
    with pytest.raises(glean_ext.InputError, match="no face was found in this reference"):
        run(nodes["RestoreFacesWithGLEAN"], **photo, references=references)


def test_a_config_with_weights(nodes):
    with pytest.raises(glean_ext.InputError, match="no_such_config"):
        run(
            nodes["LoadGLEAN"],
            model="demo_glean_x8",
            config="no_such_config.py",
            checkpoint="glean-ext://demo_bank.safetensors",
        )
