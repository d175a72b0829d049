"""BigGAN of its authors' PyTorch release: the converted bank makes the same images, here and in MMagic."""

from __future__ import annotations

import pytest
import torch
from support.biggan import CLASSES, mmagic_generator, prefixed
from support.biggan_reference import Release
from support.checkpoint_files import fault, pretrained

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.networks.banks.biggan import BigGANGenerator
from glean_ext.networks.banks.biggan_spec import BigGANSpec
from glean_ext.networks.banks.loading import load_bank

CASES = [pytest.param(size, deep, id=f"{size}, deep={deep}") for size, deep in ((64, False), (64, True))]


@pytest.mark.parametrize(("size", "deep"), CASES)
@torch.no_grad()
def test_images_are_those_of_the_source(mmagic_models, tmp_path, size, deep):
    from mmagic.models.editors.biggan import BigGANDeepGenerator
    from mmagic.models.editors.biggan import BigGANGenerator as TheirBigGAN

    release, out = Release(size, deep), tmp_path / "bank.safetensors"
    torch.save(release.state, tmp_path / "G_ema.pth")
    converted = convert_bank(tmp_path / "G_ema.pth", out)
    assert (converted.format, converted.generator["deep"], converted.generator["out_size"]) == ("biggan", deep, size)
    z, label = 0.3 * torch.randn(3, release.dim_z), torch.tensor([4, 0, 2])
    expected = release(z, label)
    assert expected.std() > 0.1 and (expected - release(z, label.flip(0))).abs().max() > 0.1
    ours = BigGANGenerator(BigGANSpec(**converted.generator)).eval()
    load_bank(ours, pretrained(out))
    assert (ours(z, label) - expected).abs().max() < 2e-5
    arguments = {key: converted.generator[key] for key in ("num_classes", "base_channels", "noise_size", "shared_dim")}
    theirs = (BigGANDeepGenerator if deep else TheirBigGAN)(size, **arguments, auto_sync_bn=False).eval()
    theirs.load_state_dict(checkpoints.with_prefix(checkpoints.read(out), "generator_ema", out), strict=True)
    assert (theirs(z, label) - expected).abs().max() < 2e-5
    rgb = tmp_path / "rgb.safetensors"
    convert_bank(tmp_path / "G_ema.pth", rgb, bgr=True)
    load_bank(ours, pretrained(rgb))
    assert (ours(z, label) - expected.flip(1)).abs().max() < 2e-5


@torch.no_grad()
def test_statistics_of_training_on_several_gpus(tmp_path):
    release = Release(32, deep=False)
    state = {}
    for key, tensor in release.state.items():
        if ".stored_mean" in key:
            state[key.replace(".stored_mean", ".bn.num_batches_tracked")] = torch.tensor(9)
        state[key.replace(".stored_", ".bn.running_")] = tensor
    torch.save(state, tmp_path / "G.pth")
    converted = convert_bank(tmp_path / "G.pth", tmp_path / "bank.safetensors", kind="biggan")
    ours = BigGANGenerator(BigGANSpec(**converted.generator)).eval()
    load_bank(ours, pretrained(tmp_path / "bank.safetensors"))
    z, label = 0.3 * torch.randn(2, release.dim_z), torch.tensor([1, 3])
    assert (ours(z, label) - release(z, label)).abs().max() < 2e-5


def refused(path, state, **arguments) -> str:
    torch.save(state, path)
    message = fault(lambda: convert_bank(path, path.with_suffix(".safetensors"), **arguments))
    assert not path.with_suffix(".safetensors").exists()
    return message


def test_what_cannot_be_converted(mmagic_models, tmp_path):
    state, path = Release(32, deep=False).state, tmp_path / "G.pth"
    one_code = {key: v[:, :6] if ".gain.weight" in key or ".bias.weight" in key else v for key, v in state.items()}
    assert f"{path}: the network does not fit BigGAN: " in refused(path, one_code)
    assert refused(path, {k: v for k, v in state.items() if k != "blocks.1.0.bn2.gain.u0"}).startswith(
        f"{path}: the network does not fit BigGAN: 1 of "
    )
    assert "1 keys fit nothing (unknown blocks.0.0.extra)" in refused(path, state | {"blocks.0.0.extra": torch.ones(1)})
    assert "has linear.bias with values that are not finite" in refused(
        path, state | {"linear.bias": state["linear.bias"] / 0}
    )
    assert refused(path, state, kind="nvidia") == (f"{path} is a biggan checkpoint, not nvidia. Set kind='biggan'.")
    theirs = mmagic_generator(32, num_classes=CLASSES).state_dict()
    assert refused(path, {"state_dict": prefixed(theirs)}) == (
        f"{path}: generator_ema is a BigGAN with MMagic's names, which configs take as it is: checkpoint='{path}', "
        "prefix='generator_ema'."
    )
