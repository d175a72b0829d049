"""BigGAN banks against MMagic's own generators, and their files: strictly, or not at all."""

from __future__ import annotations

import pytest
import torch
from support.biggan import CLASSES, NET, mmagic_generator, prefixed, sizes
from support.checkpoint_files import fault, pretrained, snapshot
from torch import Tensor

from glean_ext.networks import StyleGAN2Generator, build_network
from glean_ext.networks.banks.biggan import BigGANGenerator, SelfAttention
from glean_ext.networks.banks.biggan_spec import BigGANSpec

CASES = [
    pytest.param(32, False, "ajbrock", id="BigGAN of 32x32"),
    pytest.param(64, False, "torch", id="BigGAN with attention"),
    pytest.param(32, True, "ajbrock", id="BigGAN-deep of 32x32"),
    pytest.param(64, True, "torch", id="BigGAN-deep with attention"),
]


def bank(out_size: int, deep: bool) -> BigGANGenerator:
    return BigGANGenerator(BigGANSpec(**sizes(out_size, deep))).eval()


@pytest.mark.parametrize(("out_size", "deep", "sn_style"), CASES)
@torch.no_grad()
def test_images_equal_mmagics(mmagic_models, out_size, deep, sn_style):
    reference, ours = mmagic_generator(out_size, deep, sn_style), bank(out_size, deep)
    ours.load(reference.state_dict(), "file", "")
    z, label = torch.randn(3, reference.noise_size), torch.tensor([0, CLASSES - 1, 3])
    expected = reference(z, label)
    assert expected.std() > 0.1 and not torch.allclose(expected, reference(z, label.flip(0)), atol=0.1)
    assert (ours(z, label) - expected).abs().max() < 1e-5
    assert any(isinstance(layer, SelfAttention) for layer in ours.conv_blocks) == (out_size >= 64)


@pytest.mark.parametrize(("out_size", "deep"), [(128, False), (256, True), (512, True)])
def test_published_sizes_have_mmagics_keys(mmagic_models, out_size, deep):
    """Of the converted ImageNet weights, whose configs have these arguments."""
    from mmagic.models.editors.biggan import BigGANDeepGenerator
    from mmagic.models.editors.biggan import BigGANGenerator as TheirBigGAN

    from glean_ext.networks.banks.biggan_file import bank_sizes, expected

    arguments = {"base_channels": 128, "noise_size": 128} if deep else {"base_channels": 96, "noise_size": 120}
    spec = BigGANSpec(out_size, num_classes=1000, deep=deep, **arguments)
    with torch.device("meta"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.init, "orthogonal_", lambda weight: weight)  # takes minutes, also of nothing
        theirs = (BigGANDeepGenerator if deep else TheirBigGAN)(
            out_size, num_classes=1000, sn_style="torch" if deep else "ajbrock", auto_sync_bn=False, **arguments
        ).state_dict()
        ours = BigGANGenerator(spec)
    assert {k: (v.shape, v.dtype) for k, v in expected(spec, theirs).items()} == {
        k: (v.shape, v.dtype) for k, v in theirs.items()
    }
    assert bank_sizes(theirs) == ours.sizes | {"attention_at": (64,)}


@pytest.mark.parametrize("deep", [False, True])
@torch.no_grad()
def test_the_bank_of_a_restorer_is_filled_from_a_file(mmagic_models, tmp_path, deep):
    reference, path = mmagic_generator(32, deep), tmp_path / "biggan.pth"
    torch.save({"state_dict": prefixed(reference.state_dict())}, path)
    net = build_network(NET | sizes(32, deep) | {"init_cfg": pretrained(path)})
    net.init_weights()
    z, label = torch.randn(2, reference.noise_size), torch.tensor([1, 4])
    torch.testing.assert_close(net.generator(z, label), reference(z, label), rtol=0, atol=1e-5)
    assert not any(param.requires_grad for param in net.generator.parameters())


# ---------------------------------------------------------------- files that do not fit


def written(path, state: dict[str, Tensor]):
    torch.save({"state_dict": prefixed(state)}, path)
    return path


OTHERS = {
    "classes": ({"num_classes": 9}, "num_classes is 9 in the file, 7 in the config"),
    "width": ({"base_channels": 16}, "base_channels is 16 in the file, 4 in the config"),
    "latent code": ({"noise_size": 28}, "noise_size is 28 in the file, 16 in the config"),
    "embedding": ({"shared_dim": 10}, "shared_dim is 10 in the file, 12 in the config"),
}


def holds(path, changes: dict | None = None, **arguments) -> str:
    net = build_network(NET | sizes(32) | (changes or {}) | {"init_cfg": pretrained(path)} | arguments)
    before = snapshot(net)
    message = fault(net.init_weights)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    return message


@pytest.mark.parametrize(("changes", "difference"), OTHERS.values(), ids=OTHERS)
def test_a_bank_of_other_sizes(mmagic_models, tmp_path, changes, difference):
    path = written(tmp_path / "x.pth", mmagic_generator(32, **changes).state_dict())
    assert holds(path) == (
        f"{path} holds a bank of other sizes: {difference}. A bank must draw images as large as the output and be as "
        "wide as the config says: set the file's sizes, or take another file."
    )


def test_a_bank_of_other_images_or_depth(mmagic_models, tmp_path):
    path = written(tmp_path / "x.pth", mmagic_generator(64).state_dict())
    assert "out_size is 64 in the file, 32 in the config; noise_size is 20 in" in holds(path)
    path = written(tmp_path / "deep.pth", mmagic_generator(32, deep=True).state_dict())
    assert "deep is True in the file, False in the config" in holds(path)


def test_a_bank_of_another_kind(mmagic_models, tmp_path):
    path = written(tmp_path / "x.pth", StyleGAN2Generator(32, 8, 1, 0.125, 8).state_dict())
    assert holds(path) == (
        f"{path} holds a StyleGAN2, but the network takes a BigGAN. Take another file, or another network."
    )
    path = written(tmp_path / "y.pth", mmagic_generator(32).state_dict())
    style = {"type": "GLEANStyleGANv2", "in_size": 8, "out_size": 32, "rrdb_channels": 8, "num_rrdbs": 1}
    net = build_network(style | {"max_channels": 8, "init_cfg": pretrained(path)})
    assert fault(net.init_weights) == (
        f"{path} holds a BigGAN, but the network takes a StyleGAN2. Take another file, or another network."
    )


def test_an_unconditional_bank(mmagic_models, tmp_path):
    reference = mmagic_generator(32, num_classes=0, with_shared_embedding=False)
    path = written(tmp_path / "x.pth", reference.state_dict())
    assert holds(path) == (
        f"{path} holds an unconditional BigGAN, but the network takes one with classes. Take another file."
    )


def test_missing_and_surplus_keys_are_named(mmagic_models, tmp_path):
    state = mmagic_generator(32).state_dict()
    state["extra"] = state.pop("conv_blocks.1.bn2.gain.u0")
    message = holds(written(tmp_path / "x.pth", state))
    assert message.startswith(f"{tmp_path / 'x.pth'} does not fit a BigGAN generator: 1 of ")
    assert "keys are missing (conv_blocks.1.bn2.gain.u0); 1 keys fit nothing (extra)." in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_size": 16}, "BigGAN makes images of 32, 64, 128, 256, 512 pixels, but out_size is 16."),
        ({"num_classes": 1}, "num_classes must be 2 or more, but it is 1."),
        ({"attention_at": (64,)}, "attention_at may hold 8, 16, 32, but it holds 64."),
        ({"class_names": ["a", "b"]}, "class_names has 2 names, but num_classes is 7."),
        ({"class_names": list("abcdefA")}, "class_names has 'a' twice."),
        ({"label": 7}, "label is 7, which is no class of this network. It takes the numbers 0 to 6."),
        (
            {"label": "dgo", "class_names": ["cat", "dog", "cow", "frog", "bee", "ant", "fly"]},
            "label is 'dgo', which is no class of this network. Did you mean dog? It takes the names 'cat' to 'fly' "
            "or the numbers 0 to 6.",
        ),
    ],
)
def test_arguments_that_no_bank_has(changes, message):
    assert message in fault(build_network, NET | sizes(32) | {"bank_init": "random"} | changes)
