"""GLEAN with a StyleGAN2 bank and references: what is fetched from them, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.networks import TINY, largest_error, randomize
from torch import Tensor

from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, build_network, prepare_for_inference
from glean_ext.networks.reference_features import ReferenceFeatures

DECODERS = ("full", "slim")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def network(**settings: Any) -> GLEANStyleGANv2:
    torch.manual_seed(0)
    return build_network({**TINY, "references": True, **settings}).eval()


def trained(**settings: Any) -> GLEANStyleGANv2:
    """What starts at zero is moved off it."""
    net = randomize(network(**settings))
    with torch.no_grad():
        for param in net.reference_features.parameters():
            if not param.any():
                param.copy_(torch.randn(param.shape, generator=torch.Generator().manual_seed(1)))
    return net


@pytest.fixture
def lq(rng) -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=rng) * 2 - 1


@pytest.fixture
def references(rng) -> Tensor:
    return torch.rand(2, 3, 3, 16, 16, generator=rng) * 2 - 1


@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_without_references_it_is_the_plain_network(decoder, lq, references):
    net = trained(decoder=decoder)
    plain = build_network({**TINY, "decoder": decoder}).eval()
    own = {key for key in net.state_dict() if key.startswith("reference_features.")}
    assert set(net.state_dict()) - own == set(plain.state_dict()) and own
    plain.load_state_dict({key: value for key, value in net.state_dict().items() if key not in own})
    expected = plain(lq)
    assert torch.equal(net(lq), expected)
    net(lq, references=references)
    assert torch.equal(net(lq), expected), "also after a pass with references"


@torch.no_grad()
def test_before_training_references_change_nothing(lq, references):
    net = network()
    assert torch.equal(net(lq, references=references), net(lq))


@pytest.mark.parametrize("decoder", DECODERS)
@torch.no_grad()
def test_references_of_each_image_in_any_order(decoder, lq, references):
    net = trained(decoder=decoder)
    result = net(lq, references=references)
    assert largest_error(result, net(lq)) > 1e-2
    torch.testing.assert_close(net(lq, references=references[:, [2, 0, 1]]), result, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net(lq[1:], references=references[1:]), result[1:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_references_that_all_images_share_pass_once(lq, references):
    net, sizes = trained(), []
    net.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    shared = net(lq, references=references[:1].expand(2, -1, -1, -1, -1))
    torch.testing.assert_close(shared, net(lq, references=references[:1].repeat(2, 1, 1, 1, 1)), rtol=1e-4, atol=1e-5)
    assert sizes == [2, 3, 2, 6]


@torch.no_grad()
def test_what_is_fetched_by_the_formula(rng):
    """Position by position: the softmax of the scaled cosine over all positions weighs the patches behind them."""
    n, count, low, scale = 2, 2, 4, 2
    module = ReferenceFeatures(low, low * scale, 5, {8: 3}, 4, key_channels=6, value_channels=2)
    for param in module.parameters():
        param.copy_(torch.randn(param.shape, generator=rng))
    module.sharpness.fill_(sharpness := 3.0)
    f_0, others = torch.randn(n, 5, low, low, generator=rng), torch.randn(n * count, 5, low, low, generator=rng)
    image, references = (torch.randn(m, 3, 8, 8, generator=rng) for m in (n, n * count))
    added = module(f_0, others, image, references)
    assert list(added) == [8]
    for i in range(n):
        mine = slice(i * count, (i + 1) * count)
        seen = [module.to_v(image[i : i + 1]), *module.to_v(references[mine]).split(1)]  # (1, V, 8, 8) each
        pixels = torch.cat([x.flatten(2) for x in seen[1:]], 2)
        own = seen[0].flatten(2)
        scales = (own.std(2) / pixels.std(2))[..., None, None]
        adapted = [(x - pixels.mean(2)[..., None, None]) * scales + own.mean(2)[..., None, None] for x in seen[1:]]
        keys = torch.cat([module.to_key(x)[0].flatten(1) for x in (f_0[i : i + 1], *others[mine].split(1))], 1)
        expected = torch.zeros(2, 8, 8)
        for row in range(low):
            for column in range(low):
                cosines = F.cosine_similarity(module.to_key(f_0)[i, :, row, column, None], keys, dim=0)
                weights = (sharpness * cosines).softmax(0).view(-1, low, low)
                patch = torch.zeros(2, scale, scale)
                for weight, x in zip(weights, [seen[0], *adapted], strict=True):
                    for a in range(low):
                        for b in range(low):
                            place = slice(scale * a, scale * (a + 1)), slice(scale * b, scale * (b + 1))
                            patch += weight[a, b] * x[0, :, place[0], place[1]]
                expected[:, scale * row : scale * (row + 1), scale * column : scale * (column + 1)] = patch
        torch.testing.assert_close(added[8][i], module.to_bank["8"](expected[None])[0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_codes_go_a_share_of_the_way_to_the_references_mean(rng):
    module = ReferenceFeatures(4, 8, 5, {8: 3}, num_codes=4)
    module.code_share.copy_(torch.tensor([0.0, 1.0, 0.5, 9.0])[:, None])
    codes, others = torch.randn(2, 3, 6, generator=rng), torch.randn(4, 3, 6, generator=rng)  # the last one is unused
    result = module.codes(codes, others)
    mean = torch.stack([others[:2].mean(0), others[2:].mean(0)])
    expected = torch.stack([codes[:, 0], mean[:, 1], (codes[:, 2] + mean[:, 2]) / 2], 1)
    torch.testing.assert_close(result, expected)


def test_all_of_it_is_trained(lq, references):
    net = trained()
    F.mse_loss(net(lq, references=references), torch.zeros(2, 3, 16, 16)).backward()
    assert all(param.grad is not None and param.grad.any() for param in net.reference_features.parameters())
    assert not any(param.requires_grad for param in net.generator.parameters())


def test_what_cannot_be(lq, references):
    for settings in {"decoder": "none"}, {"bank": "absent"}:
        with pytest.raises(InputError, match="references=True needs a bank and a decoder"):
            network(**settings)
    with pytest.raises(InputError, match="takes no references"):
        build_network(TINY)(lq, references=references)
    with pytest.raises(InputError, match=r"\(images, references, 3, 16, 16\)"):
        network()(lq, references=references[..., :8])
    with pytest.raises(InputError, match="no fast form"):
        prepare_for_inference(network())
