"""The perceptual loss (Johnson et al., ECCV 2016; GLEAN, CVPR 2021, section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks.conv2d_gradfix import convolution

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]
CRITERIA = {"l1": F.l1_loss, "mse": F.mse_loss}


class VGGFeatures(nn.Module):
    """The first layers of torchvision's VGG or AlexNet: (N, 3, H, W), RGB in [0, 1] -> {layer index: features}.

    Args:
        layers: Indices into VGG's ``features``, as strings.
        vgg_type: ``'vgg16'``, ``'alexnet'`` or another of torchvision's that has ``features``.
        use_input_norm: Subtract ImageNet's mean and divide by its standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, layers: list[str], vgg_type: str, use_input_norm: bool):
        super().__init__()
        from torchvision.models import get_model

        with torch.device("meta"):  # allocates nothing; the unused classifier alone has half a gigabyte
            features = get_model(vgg_type, weights=None).features
        if max(map(int, layers)) >= len(features):
            raise InputError(f"PerceptualLoss: {vgg_type} has layers 0 to {len(features) - 1}, but not {layers[-1]}.")
        self.layers = frozenset(layers)
        self.vgg_layers = features[: max(map(int, layers)) + 1].to_empty(device="cpu")
        self.use_input_norm = use_input_norm
        if use_input_norm:
            self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.use_input_norm:
            x = (x - self.mean) / self.std
        features = {}
        for name, layer in self.vgg_layers.named_children():
            x = _apply(layer, x)
            if name in self.layers:
                features[name] = x
        return features

    @property
    def channels(self) -> dict[str, int]:
        """Layer index -> channels of its features."""
        last, found = 3, {}
        for name, layer in self.vgg_layers.named_children():
            last = getattr(layer, "out_channels", last)
            if name in self.layers:
                found[name] = last
        return found

    def load(self, pretrained: str | None) -> None:
        """Fill the layers from ``'torchvision://vgg16'`` (downloaded) or from the path or URL of a torchvision
        checkpoint; for None with seeded random weights.

        Raises:
            InputError: A file that does not fit.
        """
        if pretrained is None:
            return self._draw()
        source = pretrained
        if source.startswith("torchvision://"):
            from torchvision.models import get_model_weights

            source = get_model_weights(source.removeprefix("torchvision://")).IMAGENET1K_V1.url
        state = checkpoints.with_prefix(checkpoints.read(source), "features", source)
        used = {str(index) for index in range(len(self.vgg_layers))}
        deeper = [key for key in state if key.split(".")[0] not in used]
        checkpoints.load_strict(self.vgg_layers, state, source, ignore=deeper)

    def _draw(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for layer in self.vgg_layers:
            if isinstance(layer, nn.Conv2d):
                # Drawn in the contiguous layout, so that the values are the same in channels_last.
                weight = torch.empty(layer.weight.shape)
                nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
                layer.weight.data.copy_(weight)
                nn.init.constant_(cast(Tensor, layer.bias), 0)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_parameters()


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer of torchvision's, but convolutions are this package's, and ReLU does not overwrite a kept feature."""
    if isinstance(layer, nn.Conv2d):
        return convolution(x, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]))
    return F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)


class PerceptualLoss(nn.Module):
    """Distance of VGG features, and of their Gram matrices when ``style_weight`` is set.

    It replaces MMagic's class of the same name and has the same arguments. Two things differ: the weights are those of
    ``pretrained``, and nothing is read or downloaded before training starts.

    Args:
        layer_weights: Layer index -> weight. GLEAN uses ``{'21': 1.0}``.
        layer_weights_style: The same for the style loss; default: ``layer_weights``.
        vgg_type: Which of torchvision's VGG networks. GLEAN uses ``'vgg16'``.
        use_input_norm: Normalise with ImageNet's statistics.
        perceptual_weight: Factor of the perceptual loss; 0 leaves it out.
        style_weight: Factor of the style loss; 0 leaves it out.
        norm_img: Images are in [-1, 1]: MMagic's argument for what is ``input_range=(-1, 1)`` here.
        pretrained: ``'torchvision://vgg16'`` (downloaded when training starts), the path or URL of a torchvision
            checkpoint, or None for seeded random weights.
        criterion: ``'l1'`` or ``'mse'``.
        input_range: Lowest and highest value of the images; overrides ``norm_img``.

    Raises:
        InputError: An unknown ``criterion`` or ``pretrained``, or a weight file that does not fit.
    """

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        layer_weights_style: Mapping[str, float] | None = None,
        vgg_type: str = "vgg19",
        use_input_norm: bool = True,
        perceptual_weight: float = 1.0,
        style_weight: float = 1.0,
        norm_img: bool = True,
        pretrained: str | None = "torchvision://vgg19",
        criterion: str = "l1",
        input_range: tuple[float, float] | None = None,
    ):
        super().__init__()
        if criterion.lower() not in CRITERIA:
            raise InputError(f"PerceptualLoss.criterion must be one of {sorted(CRITERIA)}, but it is {criterion!r}.")
        if pretrained and pretrained.startswith("torchvision://") and pretrained != f"torchvision://{vgg_type}":
            raise InputError(f"PerceptualLoss: pretrained={pretrained!r} does not fit vgg_type={vgg_type!r}.")
        self.criterion = CRITERIA[criterion.lower()]
        self.layer_weights = dict(layer_weights)
        self.layer_weights_style = dict(layer_weights_style or layer_weights)
        self.perceptual_weight = perceptual_weight
        self.style_weight = style_weight
        self.low, self.high = input_range or ((-1.0, 1.0) if norm_img else (0.0, 1.0))
        self.pretrained = pretrained
        layers = sorted({*self.layer_weights, *self.layer_weights_style}, key=int)
        self.vgg = VGGFeatures(layers, vgg_type, use_input_norm)
        self._has_weights = False
        self.register_load_state_dict_post_hook(_set_has_weights)

    def init_weights(self) -> None:
        """Load VGG's weights from ``pretrained``. mmengine's runner calls this; otherwise the first forward does."""
        self.vgg.load(self.pretrained)
        self._has_weights = True

    def forward(self, x: Tensor, gt: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Images (N, 3, H, W), RGB in ``input_range`` -> perceptual loss and style loss (scalars), each or None."""
        if not self._has_weights:
            self.init_weights()
        features = self.vgg((x - self.low) / (self.high - self.low))
        targets = self.vgg((gt.detach() - self.low) / (self.high - self.low))
        perceptual = style = None
        if self.perceptual_weight > 0:
            perceptual = self.perceptual_weight * self._distance(features, targets, self.layer_weights)
        if self.style_weight > 0:
            features, targets = ({k: gram_matrix(v) for k, v in f.items()} for f in (features, targets))
            style = self.style_weight * self._distance(features, targets, self.layer_weights_style)
        return perceptual, style

    def _distance(self, a: dict[str, Tensor], b: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
        return torch.stack([self.criterion(a[k].float(), b[k].float()) * w for k, w in weights.items()]).sum()


def _set_has_weights(loss: PerceptualLoss, keys: Any) -> None:
    """After a checkpoint has been loaded: note whether it had VGG's weights."""
    loss._has_weights = not keys.missing_keys


def gram_matrix(x: Tensor) -> Tensor:
    """Inner products of the channels of features: (N, C, H, W) -> (N, C, C), divided by C H W."""
    _, c, h, w = x.shape
    x = x.float().flatten(2)  # (N, C, HW)
    return x @ x.transpose(1, 2) / (c * h * w)
