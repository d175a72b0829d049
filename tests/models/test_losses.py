"""The perceptual loss: against MMagic's, against the formula, and where its weights come from."""

from __future__ import annotations

import copy
import math
import pickle
import socket
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import vgg16

from glean_ext.errors import InputError
from glean_ext.models.losses import label_losses, r1_penalty, scaled_gradient
from glean_ext.models.perceptual_loss import IMAGENET_MEAN, IMAGENET_STD, PerceptualLoss, gram_matrix

LAYER_21 = {"layer_weights": {"21": 1.0}, "vgg_type": "vgg16", "style_weight": 0}
SHALLOW = {"layer_weights": {"3": 1.0}, "vgg_type": "vgg16", "pretrained": None}  # two convolutions: fast


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    """torchvision's VGG-16 with random weights, biases too."""
    generator = torch.Generator().manual_seed(5)
    with torch.device("meta"):
        net = vgg16(weights=None).features
    net = net.to_empty(device="cpu").eval().requires_grad_(False)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        else:
            nn.init.normal_(parameter, std=0.1, generator=generator)
    return net


@pytest.fixture(scope="module")
def weights(features, tmp_path_factory) -> str:
    """A checkpoint as torchvision's: with the layers behind, and a classifier."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}, path)
    return str(path)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(2 * torch.rand(2, 3, 32, 32, generator=generator) - 1 for _ in range(2))


def published(features: nn.Sequential, image: Tensor, layer: int, low: float, high: float) -> Tensor:
    """The output of ``features[layer]`` for an image in [low, high], with torchvision's normalisation."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = ((image - low) / (high - low) - mean) / std
    for module in features[: layer + 1]:
        x = module(x.clone())
    return x


@pytest.mark.parametrize(("criterion", "distance"), [("mse", F.mse_loss), ("l1", F.l1_loss), ("L1", F.l1_loss)])
def test_formula(features, weights, pair, criterion, distance):
    """GLEAN's: 1e-2 x the distance of layer 21, which is a convolution, of images in [-1, 1]."""
    assert isinstance(features[21], nn.Conv2d) and isinstance(features[22], nn.ReLU)
    loss = PerceptualLoss(
        **LAYER_21, pretrained=weights, perceptual_weight=1e-2, criterion=criterion, input_range=(-1, 1)
    )
    perceptual, style = loss(*pair)
    x, gt = (published(features, image, 21, -1, 1) for image in pair)
    assert x.min() < 0
    torch.testing.assert_close(perceptual, 1e-2 * distance(x, gt))
    assert style is None


def test_input_range(features, weights, pair):
    """The same picture in [0, 1] and in [-1, 1] has the same loss; the wrong range has another."""
    build = {**LAYER_21, "pretrained": weights, "criterion": "mse"}
    signed = PerceptualLoss(**build, input_range=(-1, 1))(*pair)[0]
    unit = [(image + 1) / 2 for image in pair]
    torch.testing.assert_close(PerceptualLoss(**build, input_range=(0, 1))(*unit)[0], signed)
    torch.testing.assert_close(PerceptualLoss(**build, norm_img=False)(*unit)[0], signed)
    torch.testing.assert_close(PerceptualLoss(**build, norm_img=True)(*pair)[0], signed)
    torch.testing.assert_close(PerceptualLoss(**build, norm_img=False, input_range=(-1, 1))(*pair)[0], signed)
    wrong = PerceptualLoss(**build, norm_img=False)(*pair)[0]
    x, gt = (published(features, image, 21, 0, 1) for image in pair)
    torch.testing.assert_close(wrong, F.mse_loss(x, gt))
    assert wrong > 2 * signed


def test_gram_matrix_by_hand():
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # (1, 2, 1, 2)
    assert gram_matrix(x).tolist() == [[[1.25, 2.75], [2.75, 6.25]]]  # over C H W = 4


@pytest.mark.parametrize("input_norm", [True, False])
def test_values_are_mmagics(mmagic_models, monkeypatch, features, weights, pair, input_norm):
    """MMagic's own class, its download replaced by our weights."""
    import torchvision.models.vgg as vgg
    from mmagic.models.losses import PerceptualLoss as Theirs

    def downloaded(pretrained: bool) -> nn.Module:
        net = nn.Module()
        net.features = copy.deepcopy(features)
        return net

    monkeypatch.setattr(vgg, "vgg16", downloaded)
    cfg = {
        "layer_weights": {"4": 0.5, "8": 2.0},
        "layer_weights_style": {"3": 0.25, "9": 1.0},
        "vgg_type": "vgg16",
        "use_input_norm": input_norm,
        "perceptual_weight": 0.1,
        "style_weight": 10.0,
    }
    for criterion in "l1", "mse":
        for norm_img in True, False:
            theirs = Theirs(**cfg, criterion=criterion, norm_img=norm_img, pretrained="torchvision://vgg16")
            ours = PerceptualLoss(**cfg, criterion=criterion, norm_img=norm_img, pretrained=weights)
            for our, their in zip(ours(*pair), theirs(*pair), strict=True):
                assert their > 0
                torch.testing.assert_close(our, their)


def test_a_kept_feature_is_not_overwritten_by_the_relu_after_it(features, weights, pair):
    """torchvision's ReLU works in place."""
    loss = PerceptualLoss(**{**LAYER_21, "layer_weights": {"2": 1.0, "3": 0.0}}, pretrained=weights)
    x, gt = (published(features, image, 2, -1, 1) for image in pair)
    torch.testing.assert_close(loss(*pair)[0], F.l1_loss(x, gt))


def test_gradient_flows_to_the_restored_image_only(weights, pair):
    loss = PerceptualLoss(**LAYER_21, pretrained=weights)
    x, gt = (image.requires_grad_() for image in pair)
    loss(x, gt)[0].backward()
    assert x.grad.abs().mean() > 0
    assert gt.grad is None
    assert not any(p.requires_grad for p in loss.parameters())
    assert all(p.grad is None for p in loss.parameters())
    same = x.detach().clone().requires_grad_()
    value = loss(same, same.detach())[0]
    value.backward()
    assert value == 0 and same.grad.abs().max() == 0


@pytest.mark.parametrize(("perceptual", "style"), [(0, 1.0), (1.0, 0), (0, 0)])
def test_a_weight_of_zero_leaves_the_loss_out(pair, perceptual, style):
    losses = PerceptualLoss(**SHALLOW, perceptual_weight=perceptual, style_weight=style)(*pair)
    assert [loss is not None for loss in losses] == [perceptual > 0, style > 0]


# ---------------------------------------------------------------- where the weights come from


@pytest.fixture
def no_network(monkeypatch) -> list[str]:
    """The addresses that something looked up; each look-up fails."""
    asked: list[str] = []

    def refuse(host: str, *_: object) -> None:
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


def test_nothing_is_downloaded_before_training_starts(no_network, monkeypatch, tmp_path, pair):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    loss = PerceptualLoss(**LAYER_21, pretrained="torchvision://vgg16")
    assert no_network == [] and list(tmp_path.iterdir()) == []
    for start in loss.init_weights, lambda: loss(*pair):
        with pytest.raises(InputError) as error:
            start()
        assert str(error.value).startswith(
            "https://download.pytorch.org/models/vgg16-397923af.pth could not be downloaded (no network). Download it "
        )
    assert set(no_network) == {"download.pytorch.org"}


def test_weights_of_the_file_are_used(features, weights, tmp_path):
    loss = PerceptualLoss(**LAYER_21, pretrained=weights)
    loss.init_weights()
    for name, tensor in loss.vgg.vgg_layers.state_dict().items():
        assert torch.equal(tensor, features.state_dict()[name]), name
    assert len(loss.vgg.vgg_layers) == 22


def test_random_weights_are_seeded(pair):
    values = []
    for seed in 0, 1:
        torch.manual_seed(seed)
        values.append(PerceptualLoss(**SHALLOW)(*pair)[0])
    assert values[0] == values[1] > 0


def test_random_batch_norm_is_the_identity(pair):
    plain, normed = (
        PerceptualLoss(**{**SHALLOW, "layer_weights": {layer: 1.0}, "vgg_type": kind}).eval()
        for kind, layer in (("vgg16", "3"), ("vgg16_bn", "5"))
    )
    torch.testing.assert_close(plain(*pair)[0], normed(*pair)[0], rtol=1e-4, atol=0)


def test_first_forward_fills_and_so_does_a_checkpoint(weights, pair):
    expected = PerceptualLoss(**SHALLOW | {"pretrained": weights})
    value = expected(*pair)[0]
    other = PerceptualLoss(**SHALLOW)
    other.load_state_dict(expected.state_dict())
    torch.testing.assert_close(other(*pair)[0], value)
    holder = nn.Module()
    holder.loss = PerceptualLoss(**SHALLOW | {"pretrained": weights})
    holder.load_state_dict({}, strict=False)  # a checkpoint without VGG
    torch.testing.assert_close(holder.loss(*pair)[0], value)


def test_copies_are_independent(weights, pair):
    loss = PerceptualLoss(**SHALLOW | {"pretrained": weights})
    for twin in copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)):
        twin.load_state_dict(PerceptualLoss(**SHALLOW).state_dict())
        assert twin._has_weights and not loss._has_weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"criterion": "l2"}, "PerceptualLoss.criterion must be one of ['l1', 'mse'], but it is 'l2'."),
        (
            {"pretrained": "torchvision://vgg19"},
            "PerceptualLoss: pretrained='torchvision://vgg19' does not fit vgg_type='vgg16'.",
        ),
        ({"layer_weights": {"31": 1.0}}, "PerceptualLoss: vgg16 has layers 0 to 30, but not 31."),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(InputError) as error:
        PerceptualLoss(**SHALLOW | change)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"conv1.weight": torch.zeros(1)},
            "PATH has no keys with prefix 'features'; its prefixes are conv1.",
        ),
        (
            {"features.conv0.weight": torch.zeros(1)},
            "PATH does not fit Sequential: 4 of 4 keys are missing (0.weight, ",
        ),
        (
            {f"features.{k}": torch.zeros(2) for k in ("0.weight", "0.bias", "2.weight", "2.bias", "40.x")},
            "PATH does not fit Sequential: 4 have another shape (0.weight (2,) instead of (64, 3, 3, 3), ",
        ),
    ],
)
def test_wrong_weight_file(tmp_path, state, message):
    path = tmp_path / "net.pth"
    torch.save(state, path)
    with pytest.raises(InputError) as error:
        PerceptualLoss(**SHALLOW | {"pretrained": str(path)}).init_weights()
    assert str(error.value).startswith(message.replace("PATH", str(path)))


def test_missing_weight_file():
    with pytest.raises(InputError) as error:
        PerceptualLoss(**SHALLOW | {"pretrained": str(Path("no/vgg.pth"))}).init_weights()
    assert str(error.value) == "no/vgg.pth: there is no such file. Give the path or URL of a checkpoint."


def test_r1_by_hand():
    """Half the squared length of each image's gradient, averaged over the images."""
    images = torch.zeros(2, 3, 4, 5, requires_grad=True)
    slopes = torch.tensor([1.0, 3.0])[:, None, None, None]
    penalty = r1_penalty((images * slopes).sum((1, 2, 3))[:, None], images)
    assert penalty.item() == pytest.approx((1 + 9) * 60 / 2 / 2)


def test_the_classifiers_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]], requires_grad=True)
    losses = label_losses(logits, torch.tensor([0, 0]), weight=0.5)
    assert losses["loss_label"].item() == pytest.approx(0.5 * (math.log(2) + math.log(1 + math.exp(2))) / 2)
    assert losses["label_top1"].item() == 0.5 and not losses["label_top1"].requires_grad


def test_scaled_gradient_changes_the_gradient_only():
    image = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scaled = scaled_gradient(image, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(scaled, image)
    scaled.square().sum().backward()
    expected = 2 * image.detach() * torch.tensor([0.0, 0.25, 1.0])[:, None, None, None]
    torch.testing.assert_close(image.grad, expected)
