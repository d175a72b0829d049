"""The baselines with references or a dictionary, and what is measured by region."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from demo.render_faces import render, render_face
from demo.render_people import person
from experiments import domains, reference_data, regions
from experiments.experiment import Experiment
from experiments.metric_names import REGIONS
from experiments.relatives.cimr import CIMR
from experiments.relatives.crossnet import CrossNet, FlowNet, warp
from experiments.relatives.dfdnet import DFDNet, Transfer, nearest
from experiments.relatives.dictionary import BOXES, Extractor, build, centres, load
from experiments.relatives.parts import enlarge
from experiments.relatives.patches import match, take
from experiments.relatives.ttsr import TTSR
from experiments.summary import Summary
from experiments.training import Training
from experiments.verdicts import FAILS, HOLDS, OPEN, dictionary
from glean_ext.errors import InputError

SCALE = 8


@pytest.fixture
def vgg16(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.weights.vgg16", lambda: weights / "vgg16.pth")


def smooth(n: int) -> Tensor:
    """Images with structure: (N, 3, 64, 64) in [-1, 1]"""
    return F.interpolate(torch.rand(n, 3, 12, 12), 64, mode="bilinear") * 2 - 1


# ---------------------------------------------------------------- matching, warping, dictionary


def test_matching_finds_the_identical_patch_and_takes_its_block() -> None:
    keys = torch.randn(2, 3, 8, 5, 5)  # three references of two images
    similarity, place = match(keys[:, 1], keys, best=2)
    assert torch.equal(place[:, 0], (25 + torch.arange(25)).view(1, 5, 5).expand(2, 5, 5))
    assert torch.allclose(similarity[:, 0], torch.ones(2, 5, 5)) and (similarity[:, 1] < 1).all()
    values = torch.randn(2, 3, 4, 10, 10)
    taken = take(values, place)
    assert taken.shape == (2, 2, 4, 10, 10) and torch.equal(taken[:, 0], values[:, 1])
    corner = take(values, torch.full((2, 1, 5, 5), 50 + 24))  # the last place of the third reference
    assert torch.equal(corner[0, 0, :, :2, :2], values[0, 2, :, 8:, 8:])


def test_warping_by_a_known_flow() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    right, half_down = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    right[:, 0], half_down[:, 1] = 1, 0.5
    assert warp(x, right)[0, 0, 1].tolist() == pytest.approx([5, 6, 7, 7])
    assert warp(x, half_down)[0, 0, :, 2].tolist() == pytest.approx([4, 8, 12, 14])


def test_a_flow_of_one_resolution_is_twice_as_many_pixels_in_the_next() -> None:
    net = FlowNet()
    assert all(not flow.any() for flow in net(smooth(1), smooth(1)))
    nn.init.ones_(net.heads[-1].bias)  # at a quarter of the resolution
    assert [flow.unique().tolist() for flow in net(smooth(1), smooth(1))] == [[4.0], [2.0], [1.0]]


def test_centres_are_the_means_of_the_clusters() -> None:
    low, high = torch.rand(5, 2, 3, 3), 10 + torch.rand(7, 2, 3, 3)
    found = centres(torch.cat([low, high]), 2)
    found = found[found[:, 0, 0, 0].argsort()]
    assert torch.allclose(found, torch.stack([low.mean(0), high.mean(0)]), atol=1e-5)


def test_the_nearest_entry_is_found_in_other_colours() -> None:
    entries = torch.rand(6, 4, 5, 5)
    gain, offset = 0.5 + torch.rand(2, 4, 1, 1), torch.randn(2, 4, 1, 1)
    component = gain * entries[[3, 1]] + offset
    assert torch.allclose(nearest(component, entries), component, atol=1e-3)


def test_a_dictionary_holds_components_of_images_and_of_their_mirror_images() -> None:
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    found = build(lambda batch: [batch, F.avg_pool2d(batch, 2)], images, entries=4)
    assert set(found) == {f"{name}.{level}" for name in BOXES for level in (0, 1)}
    assert found["mouth.1"].shape == (4, 3, 8, 8)
    expected = torch.cat([images, images.flip(3)])[:, :, 32:48, 12:28].float() / 127.5 - 1
    distances = torch.cdist(found["left_eye.0"].flatten(1), expected.flatten(1))
    assert distances.min(1).values.max() < 1e-3 and sorted(distances.argmin(1).tolist()) == [0, 1, 2, 3]
    with pytest.raises(InputError, match="none of emoji"):
        load("emoji")


# ---------------------------------------------------------------- networks


def entries() -> dict[str, Tensor]:
    sides = {0: (64, 16), 1: (128, 8), 2: (256, 4)}
    return {f"{name}.{i}": torch.rand(3, c, side, side) for name in BOXES for i, (c, side) in sides.items()}


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "crossnet": lambda: CrossNet(SCALE),
    "cimr": lambda: CIMR(SCALE, smooth(2)),
    "dfdnet": lambda: DFDNet(SCALE, Extractor(), entries()),
    "ttsr": lambda: TTSR(SCALE),
}


@pytest.mark.parametrize("name", [*list(NETWORKS)[:3], pytest.param("ttsr", marks=pytest.mark.slow)])
def test_training_lowers_the_loss_with_and_without_references(name: str, vgg16: None) -> None:
    net, gt = NETWORKS[name](), smooth(2)
    lq = F.interpolate(gt, 64 // SCALE, mode="area")
    references = (gt.flip(3)[:, None],) if hasattr(net, "max_references") else ()
    if name != "ttsr":  # which has no skip connection
        assert torch.equal(net(lq), enlarge(lq, SCALE))
    optim = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-4)
    losses = []
    for inputs in references, (), references:
        loss = F.mse_loss(net(lq, *inputs), gt)
        optim.zero_grad()
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


@torch.no_grad()
def test_cimr_sees_references_in_any_order() -> None:
    net, lq, references = CIMR(SCALE, smooth(2)), torch.rand(2, 3, 8, 8), smooth(6).view(2, 3, 3, 64, 64)
    nn.init.normal_(net.decoder.last.weight)
    assert torch.allclose(net(lq, references), net(lq, references.flip(1)), atol=1e-4)
    assert not torch.allclose(net(lq, references), net(lq), atol=1e-2)


def test_more_references_than_a_network_takes_are_refused() -> None:
    lq = torch.rand(1, 3, 8, 8)
    with pytest.raises(InputError, match="An image takes 1 to 1 references, but got 2"):
        CrossNet(SCALE)(lq, smooth(2)[None])
    with pytest.raises(InputError, match="1 to 8 references, but got 9"):
        CIMR(SCALE, smooth(1))(lq, smooth(9)[None])


@torch.no_grad()
def test_a_dictionary_changes_components_alone(vgg16: None) -> None:
    net = DFDNet(SCALE, Extractor(), entries())
    for transfer in net.transfers.values():
        assert isinstance(transfer, Transfer)
        nn.init.ones_(transfer.confidence[-1].bias)
    features = torch.rand(1, 128, 32, 32)
    changed = (net._with_components(1, features) != features).any(1)[0]
    assert changed[16:24, 6:14].all() and changed[16:24, 18:26].all() and changed[24:32, 12:20].all()
    assert changed.sum() == 3 * 8 * 8


# ---------------------------------------------------------------- references


def test_demo_images_get_a_reference_of_the_same_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in "train", "test":
        (tmp_path / part / "GT").mkdir(parents=True)
        for name, number in ("a", 3), ("b", 1):
            render_face(f"{part}-{number}").save(tmp_path / part / f"GT/{name}.png")
    for _ in range(2):
        reference_data.draw(tmp_path)
    for part in "train", "test":
        drawn = [np.asarray(Image.open(tmp_path / part / f"REF/{name}.png")) for name in "ab"]
        assert all(np.array_equal(a, render(person(f"{part}-{n}", 0))) for a, n in zip(drawn, (3, 1), strict=True))
    Image.new("RGB", (64, 64)).save(tmp_path / "test/GT/c.png")
    monkeypatch.setitem(domains.COUNTS, "test", 4)
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))} holds faces that this renderer does not draw"):
        reference_data.draw(tmp_path)


def test_networks_of_one_reference_are_trained_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Training, "_build_losses", lambda self: None)
    images = torch.randint(256, (8, 3, 64, 64), dtype=torch.uint8)
    part = domains.Part(images, torch.zeros(8, 0, dtype=torch.long))
    training = Training(
        Experiment("crossnet", "people"), domains.Domain("people", {"train": part}, {}, 0), torch.device("cpu")
    )
    shapes = {tuple(given["references"].shape) for *_, given in (training._batch() for _ in range(20)) if given}
    assert shapes == {(8, 1, 3, 64, 64)}


# ---------------------------------------------------------------- regions


def test_regions_are_where_the_renderer_paints_them() -> None:
    covered = regions.coverage("test-0")  # wide eyes, a laughing mouth, short hair
    eyes, mouth, hair, skin = covered.unbind()
    inside = torch.zeros(2, 64, 64, dtype=torch.bool)
    for i, name in enumerate(("left_eye", "mouth")):
        left, top, right, bottom = BOXES[name]
        inside[i, top:bottom, left:right] = True
    assert not eyes[~(inside[0] | inside[0].flip(1))].any() and not mouth[~inside[1]].any()
    assert eyes[40, 21] == mouth[53, 32] == hair[12, 32] == skin[30, 32] == 255
    assert covered.sum(0).max() <= 258 and covered[:, :2].sum() == 0  # disjoint but for rounding; sky above


def test_psnr_of_a_region_counts_its_pixels() -> None:
    gt = torch.full((2, 3, 2, 2), 100, dtype=torch.uint8)
    images = gt.clone()
    images[0, :, 0, 0] += 10
    covered = torch.zeros(2, 4, 2, 2, dtype=torch.uint8)
    covered[:, 0], covered[0, 1, 0, 0], covered[0, 1, 1, 1] = 255, 255, 85
    found = regions.psnr(images, gt, covered)
    assert found["eyes"] == pytest.approx(10 * torch.tensor(255**2 / (100 / 8)).log10().item())
    assert found["mouth"] == pytest.approx(10 * torch.tensor(255**2 / 75).log10().item())


def test_claim_about_the_dictionary() -> None:
    Values = tuple[float, ...]

    def verdict(net: Values, glean: Values = (22.0,) * 4, seeds: Values = (0.0,)) -> str:
        """``seeds``: what is added to DFDNet's values in each run."""
        values = {"dfdnet": net, "dfdnet-no-dictionary": (20.0,) * 4, "glean": glean}
        results = {}
        for name, psnr in values.items():
            for seed, change in enumerate(seeds):
                run, change = Experiment(name, seed=seed), change if name == "dfdnet" else 0.0
                measured = [value + change for value in psnr]
                results[run.name] = {"config": run.config(), "regions": dict(zip(REGIONS, measured, strict=True))}
        return dictionary(Summary(results)).verdict

    assert verdict((22, 21, 20.1, 20.4)) == HOLDS
    assert verdict((22, 21, 20.1, 20.6)) == FAILS  # the skin gains more than half of what the mouth gains
    assert verdict((22, 20.1, 20, 20)) == FAILS
    assert verdict((22, 21, 20.1, 20.4), glean=(22, 22, 19, 22)) == FAILS  # its lead is largest in the hair
    assert verdict((22, 21, 20.1, 20.4), seeds=(-0.9, 0, 0.9)) == HOLDS
    assert verdict((22, 21, 20.1, 20.4), seeds=(-1.1, 0, 1.1)) == FAILS  # the mouth's gain is within the spread
    assert verdict((20, 20, 20, 20), seeds=(0, 0, 0)) == FAILS  # no gain at all, without spread
    assert dictionary(Summary({})).verdict == OPEN
