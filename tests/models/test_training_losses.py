"""What the losses of a training ask for, by parts that a config switches on."""

from __future__ import annotations

import torch
from mmagic.registry import MODELS
from support.networks import TINY

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)


def test_faithful_images_get_the_pixel_loss_alone():
    """Of a network with the fidelity gate, whose adversarial loss counts 1 - w."""
    model = {
        "type": "GLEAN",
        "generator": {**TINY, "fidelity_gate": True, "bank_init": "random"},
        "pixel_loss": {"type": "MSELoss", "loss_weight": 0.0},
        "discriminator": {"type": "StyleGANv2Discriminator", "in_size": 16, "max_channels": 16},
        "gan_loss": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 1.0},
    }
    torch.manual_seed(0)
    glean = MODELS.build(model)
    image = torch.rand(4, 3, 16, 16).requires_grad_()
    glean.forward_tensor(torch.rand(4, 3, 8, 8), None, training=True)
    glean._fidelity = torch.tensor([0.0, 0.5, 1.0, 0.0])
    sum(glean.g_step(image, torch.zeros(4, 3, 16, 16)).values()).backward()
    weights = image.grad.abs().sum((1, 2, 3))
    assert weights[2] == 0 and weights[0] > weights[1] > 0
    assert glean._fidelity is None
