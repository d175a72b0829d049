"""All metrics together, through the real runner: their references' values, in one process and in two."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.metric_references import as_tensor, astronaut, cosine, cup, lpips_reference, officer
from support.networks import TINY, randomize

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext import metrics
from glean_ext.config import load_config
from glean_ext.engine import runner as runners
from glean_ext.errors import InputError
from glean_ext.networks import build_network
from glean_ext.utils.imresize import imresize

ROOT = Path(__file__).parents[2]
SCALE = 4
NETWORK = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 8 * SCALE, "decoder_channels": 8}

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


pytestmark = pytest.mark.usefixtures("fast")


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
    net = randomize(build_network(NETWORK))
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

    net = build_network(NETWORK)
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
