"""The switches of the ablation study: what each takes away, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.networks import TINY, randomize
from torch import Tensor, nn

from glean_ext.errors import InputError
from glean_ext.networks import StyleGAN2Generator, build_network, prepare_for_inference
from glean_ext.networks.decoder import Decoder, SlimDecoder

ROOT = Path(__file__).parents[2]
GLEAN = {**TINY, "in_size": 16, "out_size": 64, "bank_init": "random"}
LIGHT = {**GLEAN, "type": "LightGLEANStyleGANv2", "decoder_channels": 8}
BANK = {k: GLEAN[k] for k in ("out_size", "style_channels", "num_mlps", "channel_multiplier", "max_channels")}


def make(base: dict = GLEAN, **changes) -> nn.Module:
    torch.manual_seed(0)
    net = randomize(build_network({**base, **changes}))
    if base is LIGHT:
        nn.init.normal_(net.style_codes)
    return net.eval()


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


def keys(net: nn.Module) -> set[str]:
    return set(net.state_dict())


def below(names: set[str], *prefixes: str) -> set[str]:
    return {name for name in names if name.startswith(prefixes)}


# ---------------------------------------------------------------- encoder: inject_at


@torch.no_grad()
def test_without_injection_only_the_codes_tell_the_bank_of_the_input():
    net, lq = make(inject_at=[]), noise(2, 3, 16, 16)
    features, codes = net.encoder(lq)
    bank_features = net._bank_features({res: torch.randn_like(f) for res, f in features.items()}, codes)
    x = net.generator.start(codes)
    for res in 8, 16, 32, 64:
        x = net.generator.block(x, res, codes)
        assert torch.equal(bank_features[res], x)
    assert list(bank_features) == [4, 8, 16, 32, 64] and x.std() > 0.1
    assert below(keys(net), "fusion_") == set()


@pytest.mark.parametrize("inject_at", [(4,), [8], [4, 16], (4, 8, 16)])
@torch.no_grad()
def test_features_go_in_where_they_are_injected(inject_at):
    net, lq = make(inject_at=inject_at), noise(1, 3, 16, 16)
    assert {name.split(".")[1] for name in below(keys(net), "fusion_out.", "fusion_skip.")} == {
        str((4, 8, 16).index(res)) for res in inject_at
    }
    features, codes = net.encoder(lq)
    expected = net._bank_features(features, codes)
    for res in 4, 8, 16:
        changed = net._bank_features({**features, res: features[res] + 1}, codes)
        same = {size: torch.equal(x, changed[size]) for size, x in expected.items()}
        assert same == {size: size <= res or res not in inject_at for size in expected}, res


@torch.no_grad()
def test_all_resolutions_is_the_default():
    chosen, default = make(inject_at=[4, 8, 16]), make()
    assert list(chosen.state_dict()) == list(default.state_dict())
    lq = noise(1, 3, 16, 16)
    assert torch.equal(chosen(lq), default(lq))


# ---------------------------------------------------------------- bank


@pytest.mark.parametrize("decoder", ["full", "slim", "none"])
def test_a_tuned_bank_gets_gradients_where_the_output_depends_on_it(decoder):
    net = make(bank="tuned", decoder=decoder)
    net(noise(2, 3, 16, 16)).square().mean().backward()
    used = "generator.conv1.", "generator.constant_input.", "generator.convs."
    if decoder == "none":
        used += ("generator.to_rgb1.", "generator.to_rgbs.")
    for name, param in net.named_parameters():
        assert param.requires_grad == (not name.startswith(("generator.", "fusion_skip.")) or name.startswith(used)), (
            name
        )
        assert (param.grad is not None and bool(param.grad.any())) == param.requires_grad, name


def test_a_tuned_bank_of_lightglean_gets_gradients():
    net = make(LIGHT, bank="tuned")
    net(noise(2, 3, 8, 12)).square().mean().backward()
    assert all(param.requires_grad and param.grad.any() for param in net.parameters())


@pytest.mark.parametrize("base", [GLEAN, LIGHT])
@torch.no_grad()
def test_tuning_changes_nothing_but_what_is_trained(base):
    tuned, frozen, lq = make(base, bank="tuned"), make(base), noise(1, 3, 16, 16)
    assert list(tuned.state_dict()) == list(frozen.state_dict())
    assert torch.equal(tuned(lq), frozen(lq))
    assert not any(param.requires_grad for param in frozen.generator.parameters())


@pytest.mark.parametrize("base", [GLEAN, LIGHT], ids=["GLEAN", "LightGLEAN"])
@pytest.mark.parametrize("decoder", ["full", "slim"])
def test_without_bank_encoder_and_decoder_are_all(base, decoder):
    net, lq = make(base, bank="absent", decoder=decoder, bank_init="pretrained"), noise(2, 3, 16, 16)
    net.init_weights()  # no file is asked for
    assert {name.split(".")[0] for name, param in net.named_parameters() if param.numel()} == {"encoder", "decoder"}
    trunk = net.encoder if base is LIGHT else net.encoder[0]
    x = trunk(lq)
    assert x.shape == (2, 16, 16, 16)
    if decoder == "full":
        for stage in net.decoder:
            x = stage(x)
    else:
        x = net.decoder.start(x)
        for up in net.decoder.ups:
            x = nn.functional.leaky_relu(up(x), 0.2)
        x = net.decoder.to_image(x)
    output = net(lq)
    assert output.shape == (2, 3, 64, 64) and output.std() > 0.01
    torch.testing.assert_close(output, x)
    output.square().mean().backward()
    assert all(param.grad.any() for param in net.parameters() if param.requires_grad)


@torch.no_grad()
def test_lightglean_without_bank_takes_any_size_and_has_no_fast_form():
    net, lq = make(LIGHT, bank="absent"), noise(1, 3, 9, 13)
    output = net(lq)
    assert output.shape == (1, 3, 36, 52)
    with pytest.raises(InputError, match="knows no fast form of NoBlocks"):
        prepare_for_inference(net)


@pytest.mark.parametrize("base", [GLEAN, LIGHT])
def test_a_random_bank_is_frozen_and_stays_as_drawn(base):
    net = make(base)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.init_weights()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(param.requires_grad for param in net.generator.parameters())


# ---------------------------------------------------------------- decoder


@torch.no_grad()
def test_without_decoder_or_injection_the_bank_draws_from_the_codes():
    net, lq = make(decoder="none", inject_at=[]), noise(2, 3, 16, 16)
    plain = StyleGAN2Generator(**BANK)
    plain.load_state_dict(net.generator.state_dict(), strict=True)
    codes = net.encoder(lq)[1]
    assert codes.shape == (2, plain.num_latents, 16)  # the last one, for RGB only, too
    expected = plain.synthesis(codes)
    output = net(lq)
    assert output.std() > 0.1
    torch.testing.assert_close(output, expected)
    assert below(keys(net), "decoder.") == set()


@torch.no_grad()
def test_without_decoder_the_result_is_the_image_that_mmagic_drops(mmagic_models):
    from mmagic.models.editors.glean import GLEANStyleGANv2 as Reference

    sizes = {k: TINY[k] for k in ("in_size", "out_size", "rrdb_channels", "num_rrdbs", "style_channels", "num_mlps")}
    reference = randomize(Reference(**sizes)).eval()
    images: list[Tensor] = []
    reference.generator.to_rgbs[-1].register_forward_hook(lambda module, inputs, output: images.append(output))
    for skip in reference.fusion_skip:  # the image passes; MMagic fuses the encoder's features into it, too
        nn.init.dirac_(skip.weight)
        nn.init.zeros_(skip.bias)
    ours = build_network({"type": "GLEANStyleGANv2", **sizes, "decoder": "none"}).eval()
    state = reference.state_dict()
    ours.load_state_dict({k: v for k, v in state.items() if not k.startswith("decoder.")}, strict=True)
    lq = noise(2, 3, 8, 8)
    decoded = reference(lq)
    (image,) = images
    assert image.shape == decoded.shape == (2, 3, 16, 16) and image.std() > 0.1
    assert (ours(lq) - image).abs().max() < 1e-5 * (image.max() - image.min())


def test_without_decoder_everything_trained_has_a_part_in_the_image():
    net = make(decoder="none", inject_at=[8, 16])
    net(noise(2, 3, 16, 16)).square().mean().backward()
    for name, param in net.named_parameters():
        assert param.requires_grad != name.startswith(("generator.", "fusion_skip.")), name
        assert (param.grad is not None and bool(param.grad.any())) == param.requires_grad, name


@torch.no_grad()
def test_decoders_can_be_swapped():
    slim, light = make(decoder="slim", decoder_channels=8), make(LIGHT, decoder="full")
    assert type(slim.decoder) is SlimDecoder and type(light.decoder) is Decoder
    assert {k: v.shape for k, v in slim.decoder.state_dict().items()} == {
        k: v.shape for k, v in make(LIGHT).decoder.state_dict().items()
    }
    assert list(light.decoder.state_dict()) == list(make().decoder.state_dict())
    lq = noise(1, 3, 16, 16)
    features, codes = slim.encoder(lq)
    bank_features = slim._bank_features(features, codes)
    torch.testing.assert_close(slim(lq), slim.decoder(features[16], [bank_features[32], bank_features[64]]))
    assert light(noise(1, 3, 9, 13)).shape == (1, 3, 36, 52)


# ---------------------------------------------------------------- what does not go together

FILE = {"type": "Pretrained", "checkpoint": "bank.pth", "prefix": "generator_ema"}
BOTH = [
    ({"bank": "tune"}, "bank must be one of ('frozen', 'tuned', 'absent'), but it is 'tune'."),
    ({"bank_init": "none"}, "bank_init must be one of ('pretrained', 'random'), but it is 'none'."),
    (
        {"bank": "absent", "init_cfg": FILE, "bank_init": "pretrained"},
        "bank='absent' does not go with a bank file: set init_cfg=None, or another bank.",
    ),
    (
        {"bank_init": "random", "init_cfg": FILE},
        "bank_init='random' does not go with a bank file: set init_cfg=None, or another bank_init.",
    ),
]
NOTHING = (
    "bank='absent' leaves nothing to inject features into, nor an image: leave out inject_at, and take another decoder "
    "than 'none'."
)
FAULTS = [
    *((base, changes, message) for base in (GLEAN, LIGHT) for changes, message in BOTH),
    (GLEAN, {"decoder": "thin"}, "decoder must be one of ('full', 'slim', 'none'), but it is 'thin'."),
    (GLEAN, {"bank": "absent", "decoder": "none"}, NOTHING),
    (GLEAN, {"bank": "absent", "inject_at": []}, NOTHING),
    (GLEAN, {"inject_at": [4, 32]}, "inject_at may hold 4, 8, 16 (powers of two up to in_size), but it holds 32."),
    (GLEAN, {"inject_at": [5]}, "inject_at may hold 4, 8, 16 (powers of two up to in_size), but it holds 5."),
    (LIGHT, {"decoder": "none"}, "decoder must be one of ('slim', 'full'), but it is 'none'."),
    (LIGHT, {"inject_at": [4]}, "there is no argument 'inject_at'."),
]


@pytest.mark.parametrize(("base", "changes", "message"), FAULTS)
def test_contradictions_are_named(base, changes, message):
    with pytest.raises(InputError) as error:
        build_network({**base, **changes})
    assert str(error.value) == f"model.generator ({base['type']}): {message}"


# ---------------------------------------------------------------- training


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    from demo.render_faces import make_demo_data

    folder = tmp_path_factory.mktemp("data")
    make_demo_data(folder, train=2, test=2)
    return folder


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bank_tuned", "There is no frozen bank to watch: generator.bank is 'tuned'."),
        pytest.param(
            "bank_absent", "There is no frozen bank to watch: generator.bank is 'absent'.", marks=pytest.mark.slow
        ),
        ("bank_random", "The latent bank is bit-identical to what training started with."),
    ],
)
def test_the_hook_knows_what_may_change(data, tmp_path, name, said):
    from glean_ext.config import load_config
    from glean_ext.engine import runner as runners

    cfg = load_config(ROOT / "configs" / "ablations" / f"{name}.py")
    cfg.work_dir = str(tmp_path / "work")
    cfg.train_dataloader.batch_size = 2
    cfg.train_dataloader.dataset.data_root = str(data / "train")
    cfg.val_dataloader.dataset.data_root = cfg.test_dataloader.dataset.data_root = str(data / "test")
    cfg.train_cfg.max_iters = cfg.train_cfg.val_interval = cfg.param_scheduler.T_max = 1
    runners.train(cfg)
    (log,) = (tmp_path / "work").glob("*/*.log")
    text = log.read_text()
    assert said in text
    assert ("bit-identical" in text) == ("bit-identical" in said)
