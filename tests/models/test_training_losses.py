"""What the losses of a training ask for, by parts that a config switches on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmagic.registry import MODELS
from mmengine.config import Config
from mmengine.optim import OptimWrapper, OptimWrapperDict
from support.networks import TINY

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.models.feature_discriminator import FeatureDiscriminator
from glean_ext.models.identity_loss import IdentityLoss
from glean_ext.models.lpips_loss import LPIPSLoss
from glean_ext.networks import prepare_for_inference
from glean_ext.networks.arcface import ArcFaceResNet18
from glean_ext.networks.lpips_network import load_lpips

ALEXNET = os.environ.get("GLEAN_ALEXNET", "")
GLEAN = {
    "type": "GLEAN",
    "generator": {**TINY, "bank_init": "random"},
    "pixel_loss": {"type": "MSELoss", "loss_weight": 1.0},
    "gan_loss": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 1.0},
}
DISCRIMINATORS = {
    "unet": {"type": "UNetDiscriminatorWithSpectralNorm", "in_channels": 3, "mid_channels": 4},
    "features": {
        "type": "FeatureDiscriminator",
        "backbone": {"type": "VGGFeatures", "layers": ["3", "8"], "vgg_type": "vgg16", "use_input_norm": True},
        "pretrained": None,
        "width": 8,
    },
}


def images(count: int = 2, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


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


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_a_step_with_another_discriminator(name):
    """It learns to tell the ground truth from the output; what of it is frozen stays, bit for bit."""
    torch.manual_seed(0)
    glean = MODELS.build({**GLEAN, "discriminator": DISCRIMINATORS[name]})
    glean.discriminator.init_weights()
    wrapper = OptimWrapperDict(
        **{
            part: OptimWrapper(torch.optim.Adam(getattr(glean, part).parameters(), 1e-3))
            for part in ("generator", "discriminator")
        }
    )
    glean.train()
    frozen = {k: v.clone() for k, v in glean.discriminator.state_dict().items() if k.startswith("backbone")}
    start = {k: v.clone() for k, v in glean.discriminator.state_dict().items()}
    fake, real = images(seed=1) * 0.1, images(seed=2)
    losses = []
    for _ in range(6):
        for parameter in glean.discriminator.parameters():
            parameter.requires_grad_()  # as SRGAN does before the discriminator's step
        step = glean.d_step_with_optim(fake, real, wrapper)
        losses.append(float(step["loss_d_real"] + step["loss_d_fake"]))
    assert losses[-1] < losses[0]
    state = glean.discriminator.state_dict()
    assert all(torch.equal(state[k], v) for k, v in frozen.items()) and bool(frozen) == (name == "features")
    assert any(not torch.equal(state[k], v) for k, v in start.items())
    image = images(seed=3).requires_grad_()
    sum(glean.g_step(image, real).values()).backward()
    assert torch.isfinite(image.grad).all() and image.grad.abs().sum() > 0


def test_the_feature_discriminator_judges_every_place():
    net = FeatureDiscriminator(**{k: v for k, v in DISCRIMINATORS["features"].items() if k != "type"})
    net.init_weights()
    assert net.backbone.channels == {"3": 64, "8": 128} and net(images()).shape == (2, 16 * 16 + 8 * 8)
    assert not net.train().backbone.training
    assert all(name.startswith("heads.") for name, _ in net.named_parameters())


def test_lpips_as_a_loss(weights):
    loss = LPIPSLoss(2.0, "alex", str(weights / "alexnet.pth"))
    assert not loss.state_dict()
    image, gt = images(2, 64, 0).requires_grad_(), images(2, 64, 1)
    value, style = loss(image, gt)
    with torch.no_grad():
        expected = load_lpips("alex", str(weights / "alexnet.pth"))(image, gt).mean()
    assert value.item() == pytest.approx(2 * expected.item(), rel=1e-5) and style is None
    value.backward()
    assert image.grad.abs().sum() > 0 and not loss.state_dict(), "checkpoints do not hold LPIPS"
    assert loss(gt, gt)[0].item() == 0


@pytest.mark.skipif(not ALEXNET, reason="GLEAN_ALEXNET names no weights of AlexNet")
def test_lpips_with_its_real_weights_prefers_sharp_images():
    """A blurred image is farther away than one that is darker by as much: MSE says the opposite."""
    from support.metric_references import as_tensor, astronaut

    loss, gt = LPIPSLoss(pretrained=ALEXNET), as_tensor(astronaut()) / 127.5 - 1
    blurred = torch.nn.functional.avg_pool2d(gt, 5, 1, 2, count_include_pad=False)
    darker = gt - (blurred - gt).square().mean().sqrt() * 1.2
    assert loss(blurred, gt)[0] > 2 * loss(darker, gt)[0]


def test_identity_loss(tmp_path):
    torch.manual_seed(0)
    embedder = ArcFaceResNet18()
    state = {f"module.{key}": value for key, value in embedder.state_dict().items()}  # as in GFPGAN's file
    torch.save(state, tmp_path / "arcface.pth")
    loss = IdentityLoss(str(tmp_path / "arcface.pth"))
    face = images(1, 32, 0).requires_grad_()
    value = loss.train()(face, images(1, 32, 1))
    value.backward()
    assert value > 0 and face.grad.abs().sum() > 0
    assert loss(face, face).item() == 0 and loss(images(1, 32, 0), images(1, 32, 0)).item() == 0
    checkpoints.save({"conv1.weight": state["module.conv1.weight"]}, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"part\.safetensors"):
        IdentityLoss(str(tmp_path / "part.safetensors"))(face, face)
    glean = MODELS.build(
        {**GLEAN, "gan_loss": None, "identity_loss": {"type": "IdentityLoss", "pretrained": loss.pretrained}}
    )
    assert set(glean.g_step(images(), images(seed=1))) == {"loss_pix", "loss_identity"}


def test_parts_of_recipes_are_chosen_in_a_config(tmp_path):
    """Those of configs/_base_/recipe_parts.py replace those of a config."""
    root = Path(__file__).parents[2] / "configs"
    (tmp_path / "own.py").write_text(
        f"_base_ = ['{root}/glean_blind_in128out512_ffhq.py', '{root}/_base_/recipe_parts.py']\n"
        "model = dict(perceptual_loss=_base_.lpips_loss, discriminator=_base_.unet_discriminator,\n"
        "             identity_loss=_base_.identity_loss)\n"
    )
    model = Config.fromfile(tmp_path / "own.py", import_custom_modules=False).model
    assert model.generator.fidelity_gate and set(model.discriminator) == {"type", "in_channels", "mid_channels"}
    assert set(model.perceptual_loss) == {"type", "loss_weight", "net", "pretrained"}
    for part in "perceptual_loss", "discriminator", "identity_loss":
        MODELS.build(model[part])
    parts = Config.fromfile(root / "_base_/recipe_parts.py", import_custom_modules=False)
    parts.feature_discriminator.pop("_delete_")
    assert isinstance(MODELS.build(parts.feature_discriminator), FeatureDiscriminator)


@pytest.mark.parametrize("kind", ["GLEANStyleGANv2", "LightGLEANStyleGANv2"])
@pytest.mark.parametrize("decoder", ["full", "slim"])
def test_the_intermediate_loss(kind, decoder):
    """At 8 and 16 of 4 -> 32 (LightGLEAN: 16 of 8 -> 32): against the formula, and 0 after its iterations."""
    in_size = 4 if kind == "GLEANStyleGANv2" else 8
    generator = {**TINY, "type": kind, "in_size": in_size, "out_size": 32, "decoder": decoder, "pyramid": True}
    torch.manual_seed(0)
    glean = MODELS.build({**GLEAN, "gan_loss": None, "generator": {**generator, "bank_init": "random"}}).train()
    lq, gt = images(2, in_size), images(2, 32, seed=1)
    output = glean.forward_tensor(lq, None, training=True)
    sides = [image.shape[-1] for image in glean.generator.pyramid_images]
    assert sides == ([8, 16] if in_size == 4 else [16])
    reduced = [torch.nn.functional.avg_pool2d(gt, 32 // side) for side in sides]
    expected = sum((a - b).abs().mean() for a, b in zip(glean.generator.pyramid_images, reduced, strict=True))
    losses = glean.g_step(output, gt)
    assert losses["loss_pyramid"].item() == pytest.approx(expected.item(), rel=1e-5)
    sum(losses.values()).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in glean.generator.pyramid)
    glean.step_counter.fill_(glean.pyramid_iters)
    glean.zero_grad(set_to_none=True)
    late = glean.g_step(glean.forward_tensor(lq, None, training=True), gt)
    sum(late.values()).backward()
    assert late["loss_pyramid"].item() == 0
    assert all(not head.weight.grad.any() for head in glean.generator.pyramid), "a gradient, for distributed training"
    with torch.no_grad():
        torch.testing.assert_close(
            prepare_for_inference(glean.generator)(lq), glean.eval().generator(lq), atol=1e-5, rtol=0
        )
