"""The metrics, each against a reference implementation: LPIPS, FID, NIQE, consistency."""

from __future__ import annotations

import math
import os
import sys

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage import data as pictures
from support.metric_references import as_tensor, astronaut, backbone, blurred, evaluate, lpips_reference
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import metrics
from glean_ext.errors import InputError
from glean_ext.metrics import perceptual
from glean_ext.utils.imresize import imresize

# ---------------------------------------------------------------- LPIPS


@pytest.fixture
def no_init(monkeypatch) -> None:
    """Spare the random values of VGG's classifier, which is thrown away."""
    for name in "kaiming_uniform_", "kaiming_normal_", "normal_":
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


@pytest.mark.parametrize(("net", "name"), [("alex", "alexnet"), ("vgg", "vgg16")])
@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight")
def test_lpips_is_that_of_its_package(weights, no_init, net, name):
    crop = np.s_[40:104, 100:180]
    gt, output = astronaut()[crop], blurred(astronaut(), 2)[crop]
    metric = metrics.LPIPS(str(weights / f"{name}.pth"), net)
    model = lpips_reference(net, name)
    with torch.no_grad():
        expected = [model(as_tensor(x) / 127.5 - 1, as_tensor(gt) / 127.5 - 1).item() for x in (output, gt)]
        swapped = model(as_tensor(output).flip(1) / 127.5 - 1, as_tensor(gt).flip(1) / 127.5 - 1).item()
    assert evaluate(metric, (output, gt, None), (gt, gt, None)) == {"LPIPS": pytest.approx(np.mean(expected), rel=1e-5)}
    assert expected[0] > 0.01 and expected[1] == 0 and abs(swapped - expected[0]) > 0.01 * expected[0]
    assert not metric.network.training and not any(p.requires_grad for p in metric.network.parameters())


def test_lpips_takes_images_down_to_what_its_backbone_does(weights):
    rgb = astronaut()
    for net, name, side in ("alex", "alexnet", 31), ("vgg", "vgg16", 16):
        assert perceptual.BACKBONES[net].smallest == side
        features = backbone(name)[:-1]  # LPIPS does not use the last pooling
        assert features(torch.zeros(1, 3, side, side)).numel()
        with pytest.raises(RuntimeError):
            features(torch.zeros(1, 3, side - 1, side - 1))
    metric = metrics.LPIPS(str(weights / "alexnet.pth"))
    with pytest.raises(InputError) as error:
        evaluate(metric, (rgb[:30, :64], rgb[:30, :64], None))
    assert str(error.value) == (
        "LPIPS with alexnet needs images of at least 31 pixels a side, but the output has 64x30. Remove LPIPS from the "
        "evaluator."
    )


def test_lpips_tells_what_weights_it_needs(weights, tmp_path):
    def fault(*arguments) -> str:
        with pytest.raises(InputError) as error:
            metrics.LPIPS(*arguments)
        return str(error.value)

    assert fault() == (
        "LPIPS.pretrained is None, but net='alex' needs torchvision's alexnet. Set pretrained='torchvision://alexnet' "
        "to download its weights, or the path of the file alexnet-owt-7be5be79.pth."
    )
    assert fault("torchvision://alexnet", "vgg").startswith(
        "LPIPS.pretrained is 'torchvision://alexnet', but net='vgg'"
    )
    assert fault("x.pth", "squeeze") == "LPIPS.net must be one of alex, vgg, but it is 'squeeze'."
    assert fault("no.pth") == "no.pth: there is no such file. Give the path or URL of a checkpoint."
    message = fault(str(weights / "vgg16.pth"))
    assert message.startswith(f"{weights / 'vgg16.pth'} does not fit alexnet: ")
    torch.save({"classifier.6.bias": torch.zeros(1000)}, tmp_path / "head.pth")
    assert "has no keys with prefix 'features'" in fault(str(tmp_path / "head.pth"))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_names_the_files_that_torchvision_has(net):
    from torchvision.models import get_model_weights

    name, file, _ = perceptual.BACKBONES[net]
    assert get_model_weights(name).IMAGENET1K_V1.url.endswith(f"/{file}")


# ---------------------------------------------------------------- FID


def gaussian_samples(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> Tensor:
    """Samples whose mean and (unbiased) covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T @ np.linalg.cholesky(covariance).T
    return torch.from_numpy(x + mean)


def frechet_by_scipy(mean_a, covariance_a, mean_b, covariance_b) -> float:
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    return ((mean_a - mean_b) ** 2).sum() + np.trace(covariance_a + covariance_b - 2 * root)


def test_frechet_distance_of_known_gaussians():
    spread_a, spread_b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    a = gaussian_samples(np.zeros(3), np.diag(spread_a**2), 50, 0)
    b = gaussian_samples(np.array([3.0, 0.0, -4.0]), np.diag(spread_b**2), 70, 1)
    assert metrics.frechet_distance(a, b) == pytest.approx(25 + 1 + 0 + 6.25, rel=1e-10)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("counts", [(40, 60), (9, 60), (9, 8)])  # more and fewer samples than the 16 features
def test_frechet_distance_is_that_of_scipy_and_torch_fidelity(counts):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=(count, 16)) @ rng.normal(size=(16, 16)) + rng.normal(size=16) for count in counts)
    ours = metrics.frechet_distance(torch.from_numpy(a), torch.from_numpy(b))
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    assert ours == pytest.approx(fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"], rel=1e-6)
    if min(counts) > 16:  # scipy's root needs regular matrices
        expected = frechet_by_scipy(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
        assert ours == pytest.approx(expected, rel=1e-8)


def test_fid_tells_what_it_needs(weights, inception_file, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    def fault(*arguments) -> str:
        with pytest.raises(InputError) as error:
            metrics.RestorationFID(*arguments)
        return str(error.value)

    file = "weights-inception-2015-12-05-6726825d.pth"
    assert URL_INCEPTION_V3.endswith(f"/{file}")
    assert fault() == (
        "FID needs Inception's weights. Set pretrained='torch-fidelity://inception' to download them, or the path of "
        f"the file {file}."
    )
    message = fault(str(weights / "alexnet.pth"))
    assert message.startswith(f"{weights / 'alexnet.pth'} is not FID's Inception (Error(s) in loading state_dict for ")
    assert message.endswith(f" …). Get {file}.") and "\n" not in message
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    assert fault(str(inception_file)) == "FID needs a package that is not installed: pip install torch-fidelity"


def test_fid_weights_are_never_read_as_a_pickle_that_runs_code(tmp_path, inception_file):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({**torch.load(inception_file), "trap": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="holds Python objects besides weights"):
        metrics.RestorationFID(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()


# ---------------------------------------------------------------- NIQE


def test_niqe_of_a_photograph():
    """MMagic's code gives MATLAB's published 5.7296 for baboon.png; these are its values for a picture at hand."""
    from mmagic.evaluation import niqe
    from mmagic.registry import METRICS

    rgb = pictures.astronaut()
    assert METRICS.get("NIQE") is metrics.NIQE
    values = {}
    for mode in "y", "gray":
        metric = metrics.NIQE(convert_to=mode)
        values[mode] = evaluate(metric, (rgb, rgb, None))["NIQE"]
        assert values[mode] == pytest.approx(float(niqe(rgb[..., ::-1], 0, "HWC", mode)), rel=1e-6)
    assert values == {"y": pytest.approx(3.0769, abs=1e-3), "gray": pytest.approx(3.0610, abs=1e-3)}


def test_niqe_rises_with_blur():
    rgb = astronaut()
    values = [evaluate(metrics.NIQE(), (blurred(rgb, sigma), rgb, None))["NIQE"] for sigma in (0, 2, 4)]
    assert values == sorted(values) and values[2] > values[0] + 3


def test_niqe_refuses_images_of_one_block():
    rgb = pictures.astronaut()[:191, :191]
    with pytest.raises(InputError) as error:
        evaluate(metrics.NIQE(), (rgb, rgb, None))
    assert str(error.value) == (
        "NIQE needs images of at least 96x192 pixels, but the output has 191x191. Remove NIQE from the evaluator."
    )
    with pytest.raises(InputError):
        evaluate(metrics.NIQE(crop_border=1), *[(pictures.astronaut()[:96, :192],) * 2 + (None,)])
    assert evaluate(metrics.NIQE(), *[(pictures.astronaut()[:96, :192],) * 2 + (None,)])["NIQE"] > 0


# ---------------------------------------------------------------- LR consistency


def test_consistency_of_the_ground_truth_is_perfect():
    gt = astronaut()
    lq = imresize(gt, size=(24, 32))
    assert evaluate(metrics.LRConsistency(), (gt, gt, lq)) == {"LR_PSNR": math.inf, "LR_MAE": 0}


def test_consistency_by_hand():
    gt = np.clip(astronaut(), 30, 220)
    lq = imresize(gt, size=(24, 32))
    lighter = gt + np.array([10, 0, 0], np.uint8)  # red; the kernel's weights sum to 1, so LQ shifts alike
    expected = {"LR_PSNR": 20 * math.log10(255 / (10 / math.sqrt(3))), "LR_MAE": 10 / 3 / 255}
    assert evaluate(metrics.LRConsistency(), (lighter, gt, lq)) == pytest.approx(expected, rel=1e-12)
    # mean over images: 10 lighter, and 20 lighter
    expected = {"LR_PSNR": 20 * math.log10(255 / math.sqrt(200)), "LR_MAE": 15 / 255}
    values = evaluate(metrics.LRConsistency(), (gt + np.uint8(10), gt, lq), (gt + np.uint8(20), gt, lq))
    assert values == pytest.approx(expected, rel=1e-12)
    shifted = np.roll(gt, 4, axis=1)
    assert evaluate(metrics.LRConsistency(), (shifted, gt, lq))["LR_PSNR"] < 30
