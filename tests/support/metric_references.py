"""What the tests of the metrics share: photographs, files of weights, and ways to ask a metric for its value."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data as pictures
from torch import Tensor, nn

from glean_ext.utils.imresize import imresize

# ---------------------------------------------------------------- pictures


def astronaut() -> np.ndarray:
    """Eileen Collins, head and shoulders: (192, 256, 3)."""
    return imresize(pictures.astronaut()[:270, 40:400], size=(192, 256))


def officer() -> np.ndarray:
    """Grace Hopper, head and shoulders: (192, 256, 3)."""
    path = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"
    return imresize(np.array(Image.open(path))[40:424], size=(192, 256))


def cup() -> np.ndarray:
    """No face: (192, 256, 3)."""
    return pictures.coffee()[:192, :256]


def blurred(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return np.array(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


def as_tensor(rgb: np.ndarray) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W)"""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]


def bgr(rgb: np.ndarray) -> Tensor:
    """As MMagic hands images to metrics: (3, H, W) BGR."""
    return as_tensor(rgb[..., ::-1])[0].float()


def evaluate(metric, *triples: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> dict[str, float]:
    """The values for (output, ground truth, input) images."""
    for output, gt, lq in triples:
        sample = {"output": {"pred_img": bgr(output)}, "gt_img": bgr(gt)}
        metric.process(None, [sample if lq is None else {**sample, "input": bgr(lq)}])
    return metric.compute_metrics(metric.results)


# ---------------------------------------------------------------- weights of the right shapes


def fill(net: nn.Module) -> nn.Module:
    """Seeded values that keep the size of what flows through a ReLU network."""
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.data.normal_(0, 0.1, generator=generator)
    return net.eval()


def backbone(name: str) -> nn.Module:
    """torchvision's features."""
    from torchvision.models import get_model

    with torch.device("meta"):
        features = get_model(name, weights=None).features
    return fill(features.to_empty(device="cpu"))


def save_backbones(folder: Path) -> None:
    """Files of the backbones of LPIPS, as torchvision publishes them but with other values."""
    for name in "alexnet", "vgg16":
        state = {f"features.{key}": value for key, value in backbone(name).state_dict().items()}
        torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, folder / f"{name}.pth")


def save_inception(path: Path) -> None:
    """A file of FID's Inception, as torch-fidelity publishes it but with other values."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, path)
        net = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=path)
    torch.save(fill(net).state_dict(), path)


def lpips_reference(net: str, name: str) -> nn.Module:
    """The package's own class around torchvision's layers."""
    import lpips

    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    features = backbone(name)
    for part in model.net.children():
        for index, layer in part.named_children():
            layer.load_state_dict(features[int(index)].state_dict())
    return model


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
