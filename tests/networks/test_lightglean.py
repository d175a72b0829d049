"""LightGLEAN: its budget, any input size, and the bank it takes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support.networks import TINY, randomize
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.networks import LightGLEANStyleGANv2, StyleGAN2Generator, build_network, ops, prepare_for_inference

LIGHT = {**TINY, "type": "LightGLEANStyleGANv2", "out_size": 32, "decoder_channels": 8}
BANK = {k: LIGHT[k] for k in ("style_channels", "num_mlps", "channel_multiplier", "max_channels")}
SIZES = [(8, 8), (9, 13), (16, 8), (20, 24)]


def light(**changes) -> LightGLEANStyleGANv2:
    """A small 8 -> 32 LightGLEAN with nothing at its initial value."""
    torch.manual_seed(0)
    net = randomize(build_network({**LIGHT, **changes}))
    torch.nn.init.normal_(net.style_codes)
    return net.eval()


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def bank() -> StyleGAN2Generator:
    torch.manual_seed(1)
    return randomize(StyleGAN2Generator(32, **BANK), seed=1)


def init_cfg(bank: StyleGAN2Generator, folder: Path) -> dict:
    """``bank`` as a file, and how to load it."""
    path = folder / "bank.safetensors"
    checkpoints.save({f"generator_ema.{k}": v for k, v in bank.state_dict().items()}, path)
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": "generator_ema"}


# ---------------------------------------------------------------- size and sizes


def test_budget_at_64_to_1024():
    """At most 36.8 M parameters and 291 GFLOP."""
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net = LightGLEANStyleGANv2(64, 1024)
        output = net(torch.zeros(1, 3, 64, 64))
    assert output.shape == (1, 3, 1024, 1024)
    assert sum(p.numel() for p in net.parameters()) <= 36.8e6
    assert counter.get_total_flops() <= 291e9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_output_is_scale_times_the_input(size, batch):
    output = light()(noise(batch, 3, *size))
    assert output.shape == (batch, 3, 4 * size[0], 4 * size[1])
    assert output.dtype == torch.float32 and output.std() > 0.01


@pytest.mark.parametrize("shape", [(1, 3, 0, 8), (1, 3, 8, 1), (1, 3, 7, 7), (1, 4, 8, 8), (3, 8, 8)])
def test_unfit_input_is_refused(shape):
    net = light()
    for form in net, prepare_for_inference(net):
        with pytest.raises(InputError) as error:
            form(torch.zeros(shape))
        assert str(error.value) == (
            f"LightGLEAN takes images of at least 8x8 pixels with 3 channels, but got a tensor of shape {shape}. "
            "Enlarge or pad the image."
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_size": 0}, "in_size must be a power of two of at least 8, but it is 0."),
        ({"in_size": 1}, "in_size must be a power of two of at least 8, but it is 1."),
        ({"in_size": 7}, "in_size must be a power of two of at least 8, but it is 7."),
        ({"in_size": 8, "out_size": 24}, "out_size must be a power of two of at least 8, but it is 24."),
        ({"in_size": 64}, "in_size must be smaller than out_size, but they are 64 and 32."),
        ({"in_size": (8, 6)}, "in_size and out_size must have one aspect, but they are (8, 6) and 32."),
        ({"bank_init": "tuned"}, "bank_init must be one of ('pretrained', 'random'), but it is 'tuned'."),
    ],
)
def test_impossible_arguments_are_named(changes, message):
    with pytest.raises(InputError) as error:
        build_network({**LIGHT, **changes})
    assert str(error.value) == f"model.generator (LightGLEANStyleGANv2): {message}"


# ---------------------------------------------------------------- the bank


def test_repeat_to_by_hand():
    x = torch.tensor([[[[1, 2], [3, 4]]]])
    assert ops.repeat_to(x, 3, 5)[0, 0].tolist() == [[1, 2, 1, 2, 1], [3, 4, 3, 4, 3], [1, 2, 1, 2, 1]]
    assert ops.repeat_to(x, 1, 2)[0, 0].tolist() == [[1, 2]]
    assert torch.equal(ops.repeat_to(x, 2, 2), x)


@torch.no_grad()
def test_the_bank_repeats_its_stored_noise():
    """With convolutions of weight zero, nothing but noise and bias is left of a block."""
    blocks = light().generator
    for layer in blocks.convs.values():
        layer.conv.weight_orig.zero_()
    features = blocks(torch.ones(1, 16, 9, 13), torch.ones(1, 4, 16))
    for layer, res, x in (4, 16, features[0]), (6, 32, features[1]):
        assert x.shape[2:] == (9 * res // 8, 13 * res // 8)
        stored = blocks.get_buffer(f"injected_noise_{layer}")
        assert stored.shape == (1, 1, res, res)
        tiled = torch.cat([torch.cat([stored] * 2, 2)] * 2, 3)[:, :, : x.shape[2], : x.shape[3]]
        conv = blocks.convs[str(layer - 1)]
        plain = conv.noise_injector.weight * tiled + conv.activate.bias[:, None, None]
        torch.testing.assert_close(x, F.leaky_relu(plain, 0.2) * 2**0.5)


@torch.no_grad()
def test_blocks_equal_those_of_the_whole_bank(bank, tmp_path):
    net = light(init_cfg=init_cfg(bank, tmp_path))
    net.init_weights()
    x, codes = noise(2, 16, 8, 8), noise(2, bank.num_latents, 16)
    features = net.generator(x, codes[:, 3:7])
    for res, ours in zip((16, 32), features, strict=True):
        x = bank.block(x, res, codes)
        assert torch.equal(ours, x)
        assert x.std() > 0.1


def test_bank_and_mean_latent_come_from_the_file(bank, tmp_path, caplog):
    net = light(init_cfg=init_cfg(bank, tmp_path))
    with caplog.at_level(logging.INFO, "glean_ext"):
        net.init_weights()
    whole = bank.state_dict()
    own = net.generator.state_dict()
    assert own and all(torch.equal(value, whole[key]) for key, value in own.items())
    assert torch.equal(net.style_codes, bank.mean_style().expand(4, -1))
    assert net.style_codes.std() > 0.01
    left = len(whole) - len(own)
    rgb = sum(key.startswith("to_rgb") for key in whole)
    assert caplog.messages == [
        f"LightGLEAN took {len(own)} of the {len(whole)} tensors in {tmp_path / 'bank.safetensors'} and the mean "
        f"latent. It does not use: mapping network (4), RGB path ({rgb}), blocks up to 8x8 ({left - 4 - rgb})."
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_size": 64}, "out_size is 32 in the file, 64 in the config"),  # a file that is too small
        ({"out_size": 16}, "out_size is 32 in the file, 16 in the config"),  # too large
        (
            {"max_channels": 8},
            "channels at 4x4 (channel_multiplier, max_channels) is 16 in the file, 8 in the config",
        ),
        ({"style_channels": 8}, "style_channels is 16 in the file, 8 in the config"),
        (
            {"out_size": 64, "num_mlps": 3},
            "out_size is 32 in the file, 64 in the config; num_mlps is 2 in the file, 3 in the config",
        ),
    ],
)
def test_a_bank_that_does_not_fit_is_refused_and_changes_nothing(bank, tmp_path, changes, message):
    net = light(init_cfg=init_cfg(bank, tmp_path), **changes)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(InputError) as error:
        net.init_weights()
    assert str(error.value) == (
        f"{tmp_path / 'bank.safetensors'} holds a bank of other sizes: {message}. A bank must draw images as large as "
        "the output and be as wide as the config says: set the file's sizes, or take another file."
    )
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_training_without_a_bank_must_be_asked_for():
    with pytest.raises(InputError, match=r"^LightGLEANStyleGANv2 has no pre-trained bank to train with. Set "):
        light().init_weights()
    light(bank_init="random").init_weights()


def test_gradients_reach_all_but_the_bank():
    net = light()
    net(noise(2, 3, 8, 9)).square().mean().backward()
    for name, param in net.named_parameters():
        assert param.requires_grad != name.startswith("generator."), name
        assert (param.grad is not None and bool(param.grad.any())) == param.requires_grad, name
    assert (net.style_codes.grad != 0).any(1).all()  # every code is used


@torch.no_grad()
def test_state_dict_round_trip(tmp_path):
    net, lq = light(), noise(1, 3, 8, 8)
    checkpoints.save(net.state_dict(), tmp_path / "net.safetensors")
    torch.save({"state_dict": {f"generator.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "training.pth")
    for name in "net.safetensors", "training.pth":
        again = build_network(LIGHT)
        checkpoints.load_network_weights(again, tmp_path / name)
        assert torch.equal(again(lq), net(lq))


# ---------------------------------------------------------------- the demo's config


def test_the_demo_is_small():
    from glean_ext.config import load_config

    config = load_config(Path(__file__).parents[2] / "configs" / "demo_lightglean_x8.py")
    net = build_network(config.model.generator)
    assert 2 * sum(tensor.numel() for tensor in net.state_dict().values()) < 4e6  # bytes in fp16


def test_a_training_step(tmp_path):
    from demo.render_faces import make_demo_data
    from glean_ext.config import load_config
    from glean_ext.engine import runner as runners

    make_demo_data(tmp_path, train=2, test=2)
    cfg = load_config(Path(__file__).parents[2] / "configs" / "demo_lightglean_x8.py")
    cfg.work_dir = str(tmp_path / "work")
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset.data_root = str(tmp_path / "train")
    cfg.val_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = str(tmp_path / "test")
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = cfg.param_scheduler.T_max = 1
    net = runners.train(cfg).model.generator  # FrozenBankHook watches the bank
    assert type(net) is LightGLEANStyleGANv2
    start = build_network(cfg.model.generator)
    start.init_weights()
    assert not torch.equal(net.style_codes, start.style_codes)
    assert torch.allclose(net.style_codes, start.style_codes, atol=2e-3)  # one step of Adam from the mean latent
    (log,) = (tmp_path / "work").glob("*/*.log")
    assert "LightGLEAN took 39 of the 91 tensors in glean-ext://demo_bank.safetensors" in log.read_text()
