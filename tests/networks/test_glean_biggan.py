"""GLEAN with a BigGAN bank: labels given and estimated, fusions, gradients, export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support.biggan import CLASSES, NET, sizes
from support.checkpoint_files import fault
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks import build_network, prepare_for_inference
from glean_ext.networks.banks.biggan import ConditionalNorm
from glean_ext.networks.labels import LabelHead, find_label
from glean_ext.utils.image_io import read_rgb

DEPTHS = [pytest.param(False, id="BigGAN"), pytest.param(True, id="BigGAN-deep")]


def make(deep: bool = False, **changes) -> nn.Module:
    torch.manual_seed(0)
    net = build_network(NET | sizes(32, deep) | {"bank_init": "random"} | changes)
    with torch.no_grad():  # an untrained network depends little on its label and on the encoder
        for module in net.modules():
            if isinstance(module, ConditionalNorm):
                module.weight.mul_(10)
            if isinstance(module, LabelHead):
                module.linear.weight.mul_(30)
        for fusion in net.fusion_out:
            if isinstance(fusion, nn.Conv2d):
                fusion.weight.add_(0.1 * torch.randn(fusion.weight.shape))
    return net.eval()


def lq(images: int = 3) -> Tensor:
    return torch.rand(images, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("deep", DEPTHS)
@torch.no_grad()
def test_the_label_is_given_set_or_estimated(deep):
    net, images = make(deep), lq()
    given, logits = net(images, torch.tensor([2, 5, 5]), with_logits=True)
    assert given.shape == (3, 3, 32, 32) and logits.shape == (3, CLASSES)
    assert (given[1:] - net(images, torch.tensor([2, 2, 2]))[1:]).abs().max() > 1e-2
    always = make(deep, label=5)
    assert torch.equal(always(images), net(images, torch.tensor([5, 5, 5])))
    assert torch.equal(always(images, torch.tensor([2, 5, 5])), given)
    # Without a label the bank gets the mean embedding of the classes, weighted by what the classifier gives.
    shares = logits.softmax(1)
    embedding = shares @ net.generator.shared_embedding.weight
    sure = make(deep)
    sure.generator.shared_embedding.weight[:3] = embedding
    torch.testing.assert_close(net(images), sure(images, torch.tensor([0, 1, 2])), rtol=0, atol=1e-5)


@torch.no_grad()
def test_fusions_start_as_the_identity():
    net = build_network(NET | sizes(32) | {"bank_init": "random", "decoder": "none"}).eval()
    label = torch.tensor([0, 1, 2])
    codes = net.encoder(lq())[1]
    torch.testing.assert_close(net(lq(), label), net.generator(codes.flatten(1), label), rtol=0, atol=1e-6)


@pytest.mark.parametrize("deep", DEPTHS)
@torch.no_grad()
def test_the_decoder_gets_the_banks_features_with_unit_deviation(deep):
    net, images, label = make(deep), lq(8), torch.arange(8) % CLASSES
    net.generator.noise2feat.weight.mul_(50)
    net.generator.noise2feat.bias.mul_(50)
    taken: list[list[Tensor]] = []
    net.decoder.register_forward_pre_hook(lambda _, given: taken.append(given[1]))
    net(images, label)
    net.init_weights()
    scaled = net(images, label)
    before, after = ([x.std().item() for x in features] for features in taken)
    assert min(before) > 3 and all(0.4 < deviation < 2.5 for deviation in after)
    again = make(deep)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(images, label), scaled)


@pytest.mark.parametrize("deep", DEPTHS)
def test_everything_but_the_bank_is_trained(deep):
    net = make(deep)
    image, logits = net(lq(), torch.tensor([0, 1, 2]), with_logits=True)
    (image.square().mean() + logits.square().mean()).backward()
    for name, param in net.named_parameters():
        assert param.requires_grad != name.startswith("generator."), name
        assert (param.grad is not None and bool(param.grad.any())) == param.requires_grad, name


@pytest.mark.parametrize("decoder", ["full", "none"])
def test_a_tuned_bank_gets_gradients_where_the_output_depends_on_it(decoder):
    net = make(bank="tuned", decoder=decoder)
    net(lq(), torch.tensor([0, 1, 2])).square().mean().backward()
    for name, param in net.generator.named_parameters():
        used = decoder == "none" or not name.startswith("output_")
        assert param.requires_grad == used, name
        assert (param.grad is not None and bool(param.grad.any())) == used, name


@torch.no_grad()
def test_without_bank_there_are_no_classes():
    net = make(bank="absent", bank_init="pretrained", label=3)
    assert net.num_classes == 0 and net(lq()).shape == (3, 3, 32, 32)
    assert not any(name.startswith(("generator", "label", "fusion")) for name in net.state_dict())


def test_it_has_no_fast_form():
    with pytest.raises(InputError, match="knows no fast form of BigGANGenerator"):
        prepare_for_inference(make())


def test_labels_are_checked():
    assert fault(make(), lq(), torch.tensor([0, 7, 2])) == (
        "label is 7, which is no class of this network. It takes the numbers 0 to 6."
    )
    names = ["golden retriever", "Tabby Cat", "7up"]
    assert [find_label(name, 3, names) for name in ("Golden_Retriever", " tabby cat", "1", 2)] == [0, 1, 1, 2]
    assert fault(find_label, "-1", 3).endswith("It takes the numbers 0 to 2.")


@pytest.mark.parametrize(("deep", "label"), [(False, None), (True, 4)])
@torch.no_grad()
def test_it_can_be_captured_for_export(deep, label):
    from glean_ext.inference.export import capture

    net = make(deep, label=label)
    program = capture(net.requires_grad_(False)).module()
    for images in lq(1), lq(3):
        torch.testing.assert_close(program(images), net(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("label", [None, "five"])
def test_the_command_restores_with_a_label_and_in_tiles(tmp_path, label):
    """The tiles of an image are restored as the network restores each of them."""
    from glean_ext.cli.restore import main

    names = ["nil", "one", "two", "three", "four", "five", "six"]
    network = NET | sizes(32) | {"class_names": names, "bank_init": "random"}
    net = make(class_names=names)
    (tmp_path / "net.py").write_text(
        f"model = dict(generator=dict({', '.join(f'{k}={v!r}' for k, v in network.items())}))"
    )
    torch.save(net.state_dict(), tmp_path / "net.pth")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lq.png")
    arguments = [tmp_path / "net.py", tmp_path / "net.pth", tmp_path / "lq.png", "-o", tmp_path / "out.png"]
    tiles = ["--size-policy", "tile", "--tile-overlap", "2", "--dtype", "float32"]
    assert main([*map(str, arguments), *tiles, *(["--label", label] if label else [])]) == 0
    first = torch.from_numpy(pixels[:, :8]).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = net(first, torch.tensor([5]) if label else None)[0].permute(1, 2, 0)
    expected = ((expected.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    restored = read_rgb(tmp_path / "out.png")
    assert restored.shape == (32, 56, 3)
    np.testing.assert_allclose(restored[:, :24].astype(int), expected[:, :24].astype(int), atol=1)
    assert np.ptp(restored) > 20
