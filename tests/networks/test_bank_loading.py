"""Banks from MMagic's files, and training checkpoints: strictly, or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.checkpoint_files import ROOT, assert_same, fault, prefixed, pretrained, snapshot, tiny
from support.networks import TINY, randomize
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.networks import StyleGAN2Discriminator, StyleGAN2Generator, build_network

pytest_plugins = ["support.checkpoint_files"]


# ---------------------------------------------------------------- the bank, from MMagic's files


def restorer_config(kind: str, generator: dict, discriminator: dict) -> dict:
    return {
        "type": kind,
        "generator": generator,
        "discriminator": {"type": "StyleGANv2Discriminator", **discriminator},
        "pixel_loss": {"type": "MSELoss"},
        "gan_loss": {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0},
    }


@pytest.mark.parametrize(("kind", "prefix"), [("SRGAN", "generator_ema"), ("GLEAN", "generator")])
def test_init_weights_fills_the_bank_from_mmagics_own_networks(mmagic_models, tmp_path, kind, prefix):
    """Through mmengine's ``BaseModel.init_weights``, as its runner does; MMagic loads nothing this way."""
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as TheirDiscriminator
    from mmagic.models.editors.stylegan2 import StyleGAN2Generator as TheirGenerator
    from mmagic.registry import MODELS
    from mmengine.registry import DefaultScope

    banks = {
        name: randomize(TheirGenerator(16, style_channels=16, num_mlps=2), seed)
        for seed, name in enumerate(("generator", "generator_ema"))
    }
    discriminator = randomize(TheirDiscriminator(16), seed=2)
    torch.save({"state_dict": prefixed(**banks, discriminator=discriminator)}, tmp_path / "stylegan2.pth")

    generator = TINY | {"channel_multiplier": 2, "max_channels": 512}
    generator["init_cfg"] = pretrained(tmp_path / "stylegan2.pth", prefix)
    cfg = restorer_config(
        kind, generator, {"in_size": 16, "init_cfg": pretrained(tmp_path / "stylegan2.pth", "discriminator")}
    )
    with DefaultScope.overwrite_default_scope("mmagic"):
        model = MODELS.build(cfg)
    encoder = snapshot(model.generator.encoder)
    model.init_weights()
    # What the bank does not have: the running mean of the styles, which a restorer cannot use.
    expected = {k: v for k, v in banks[prefix].state_dict().items() if k not in checkpoints.UNUSED_BANK_KEYS}
    assert_same(model.generator.generator.state_dict(), expected)
    assert_same(model.discriminator.state_dict(), discriminator.state_dict())
    assert_same(model.generator.encoder.state_dict(), encoder)


@pytest.mark.parametrize("out_size", [32, 64])
def test_keys_are_those_of_mmagics_classes(mmagic_models, out_size):
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as TheirDiscriminator
    from mmagic.models.editors.stylegan2 import StyleGAN2Generator as TheirGenerator

    with torch.device("meta"):
        ours, theirs = StyleGAN2Generator(out_size), TheirGenerator(out_size, 512)
        pairs = [(ours, theirs), (StyleGAN2Discriminator(out_size), TheirDiscriminator(out_size))]
    for our, their in pairs:
        shapes = {k: v.shape for k, v in their.state_dict().items() if k not in checkpoints.UNUSED_BANK_KEYS}
        assert {k: v.shape for k, v in our.state_dict().items()} == shapes


def test_bank_comes_from_the_prefix_that_is_asked_for(bank, bank_file):
    net = tiny(init_cfg=pretrained(bank_file, "generator."))  # a dot more does no harm
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


def test_training_without_a_bank_must_be_asked_for():
    net = tiny()
    before = snapshot(net)
    assert fault(net.init_weights) == (
        "GLEANStyleGANv2 has no pre-trained bank to train with. Set generator.init_cfg=dict(type='Pretrained', "
        "checkpoint='<StyleGAN2 file>', prefix='generator_ema'), or generator.bank_init='random' if a random bank is "
        "what you want."
    )
    assert_same(net.state_dict(), before)
    tiny(bank_init="random").init_weights()


def without(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k != name}


SIZES = "The sizes in the config (in_size, out_size, channel_multiplier, ...) must be those of the file."


MISFITS = {
    "missing": (
        lambda state: {k: v for k, v in state.items() if k != "conv1.activate.bias"},
        f"1 of 51 keys are missing (conv1.activate.bias). {SIZES}",
    ),
    "many missing": (
        lambda state: {k: v for k, v in state.items() if k.startswith("style_mapping")},
        "47 of 51 keys are missing (injected_noise_0, injected_noise_1, injected_noise_2, injected_noise_3 and 43 "
        "more). Take a file of this architecture.",
    ),
    "few deeper": (
        lambda state: {f"net.{k}": v for k, v in state.items() if k.startswith("style_mapping.1")},
        "51 of 51 keys are missing (injected_noise_0, injected_noise_1, injected_noise_2, injected_noise_3 and 47 "
        "more); 2 keys fit nothing (net.style_mapping.1.bias, net.style_mapping.1.linear.weight_orig). Take a file of "
        "this architecture.",
    ),
    "surplus": (
        lambda state: state | {"extra.weight": torch.zeros(1)},
        f"1 keys fit nothing (extra.weight). {SIZES}",
    ),
    "shape": (
        lambda state: state | {"to_rgb1.bias": torch.zeros(1, 4, 1, 1)},
        f"1 have another shape (to_rgb1.bias (1, 4, 1, 1) instead of (1, 3, 1, 1)). {SIZES}",
    ),
    "deeper": (
        lambda state: {f"net.{k}": v for k, v in state.items()},
        "51 of 51 keys are missing (injected_noise_0, injected_noise_1, injected_noise_2, injected_noise_3 and 47 "
        "more); 51 keys fit nothing (net.injected_noise_0, net.injected_noise_1, net.injected_noise_2, "
        "net.injected_noise_3 and 47 more). The keys below 'generator_ema.net' do fit: set prefix='generator_ema.net'.",
    ),
}


@pytest.mark.parametrize(("change", "problem"), MISFITS.values(), ids=MISFITS)
def test_a_bank_that_does_not_fit_changes_nothing(bank, tmp_path, change, problem):
    path = tmp_path / "bank.pth"
    torch.save(prefixed(generator_ema=change(bank.state_dict())), path)
    net = tiny(init_cfg=pretrained(path))
    before = snapshot(net)
    assert fault(net.init_weights) == f"{path} does not fit StyleGAN2Generator: {problem}"
    assert_same(net.state_dict(), before)


def test_wrong_prefix_names_those_of_the_file(bank_file):
    assert fault(tiny(init_cfg=pretrained(bank_file, "generator_em")).init_weights) == (
        f"{bank_file} has no keys with prefix 'generator_em'; its prefixes are discriminator, generator, "
        "generator_ema. Set one of them."
    )


@pytest.mark.parametrize("prefix", [None, ""])
def test_no_prefix_where_one_is_needed(bank_file, prefix):
    message = fault(tiny(init_cfg=pretrained(bank_file, prefix)).init_weights)
    assert message.startswith(f"{bank_file} does not fit StyleGAN2Generator: 51 of 51 keys are missing (")
    assert message.endswith("The keys below 'generator_ema' do fit: set prefix='generator_ema'.")


def test_no_prefix_where_none_is_needed(bank, tmp_path):
    checkpoints.save(bank.state_dict(), tmp_path / "bank.safetensors")
    net = tiny(init_cfg=pretrained(tmp_path / "bank.safetensors", prefix=None))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


@pytest.mark.parametrize(
    "init_cfg",
    [
        {"type": "Pretrained", "checkpoint": "x.pth", "prefx": "generator_ema"},
        {"type": "Kaiming", "checkpoint": "x.pth"},
        {"type": "Pretrained"},
        {"type": "Pretrained", "checkpoint": ""},
    ],
)
def test_unknown_init_cfg(init_cfg):
    assert fault(tiny(init_cfg=init_cfg).init_weights) == (
        "init_cfg must be dict(type='Pretrained', checkpoint='<path or URL>', prefix='<prefix>'), but it is "
        f"{init_cfg}."
    )


@pytest.mark.parametrize("place", ["cuda:1", torch.device("meta")])
def test_another_map_location_is_refused(bank_file, place):
    parts = (
        tiny(init_cfg=pretrained(bank_file, map_location=place)),
        build_network(TINY | {"type": "LightGLEANStyleGANv2", "init_cfg": pretrained(bank_file, map_location=place)}),
        StyleGAN2Discriminator(
            16, max_channels=16, init_cfg=pretrained(bank_file, "discriminator", map_location=place)
        ),
    )
    for part in parts:
        before = snapshot(part)
        assert fault(part.init_weights).startswith(
            f"init_cfg.map_location is '{place}', but weights are read on the CPU"
        )
        assert_same(part.state_dict(), before)


@pytest.mark.parametrize("kind", ["GLEANStyleGANv2", "LightGLEANStyleGANv2"])
def test_messages_and_logs_leave_out_the_secrets_of_a_url(bank, monkeypatch, caplog, kind):
    url = "https://me:password@example.org/bank.pth?token=secret"
    monkeypatch.setattr(checkpoints, "read", lambda source: bank.state_dict())
    fits = TINY | {"type": kind, "init_cfg": pretrained(url, prefix=None)}
    message = fault(build_network(fits | {"out_size": 32}).init_weights)
    assert message.startswith("https://example.org/bank.pth?token=... holds a bank of other sizes: out_size is 16 in ")
    with caplog.at_level("INFO", "glean_ext"):
        build_network(fits).init_weights()
    assert not any("secret" in line or "password" in line for line in caplog.messages)


@pytest.mark.parametrize("place", [None, "cpu", torch.device("cpu")])
def test_the_cpu_as_map_location(bank, bank_file, place):
    net = tiny(init_cfg=pretrained(bank_file, "generator", map_location=place))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


def test_the_running_mean_of_the_styles_may_be_left_over(bank, tmp_path):
    extra = {name: torch.zeros(1, 16) for name in checkpoints.UNUSED_BANK_KEYS}
    torch.save(prefixed(generator_ema=bank.state_dict() | extra), tmp_path / "bank.pth")
    net = tiny(init_cfg=pretrained(tmp_path / "bank.pth"))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


# ---------------------------------------------------------------- training checkpoints


TRAINING = """
import sys, torch
from support.networks import TINY, randomize
from glean_ext import compat
compat.apply()
from glean_ext.networks import GLEANStyleGANv2
from mmengine.model import BaseModel
from mmengine.runner import Runner
torch.manual_seed(0)

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        TINY.pop("type")
        self.generator = randomize(GLEANStyleGANv2(**TINY, bank_init="random"))
        self.discriminator = torch.nn.Linear(1, 1)
    def forward(self, x, mode="loss"):
        return {"loss": self.generator(x[None]).square().mean()}

Runner(
    Model(), work_dir=sys.argv[1], experiment_name="x", log_level="ERROR",
    train_dataloader=dict(dataset=[torch.zeros(3, 8, 8)] * 2, batch_size=1, num_workers=0,
                          sampler=dict(type="InfiniteSampler")),
    train_cfg=dict(type="IterBasedTrainLoop", max_iters=2), optim_wrapper=dict(optimizer=dict(type="Adam", lr=0.1)),
    default_hooks=dict(checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)),
).train()
"""


READING = """
import sys, torch
from glean_ext import checkpoints
before = torch.serialization.get_safe_globals()
state = checkpoints.read(sys.argv[1])
assert not {"mmengine", "mmagic", "mmcv"} & set(sys.modules)
assert torch.serialization.get_safe_globals() == before
print(len(state), *sorted({k.split(".")[0] for k in state}))
"""


def python(code: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={"PATH": "", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The checkpoint of a real mmengine runner, with its log buffers in it."""
    folder = tmp_path_factory.mktemp("trained")
    python(TRAINING, folder)
    content = torch.load(folder / "iter_2.pth", weights_only=False)
    assert type(content["message_hub"]["log_scalars"]["train/loss"]).__name__ == "HistoryBuffer"
    return folder / "iter_2.pth"


def test_training_checkpoint_is_read_without_mmengine(trained):
    parts = len(tiny().state_dict()) + 2
    assert python(READING, trained) == f"{parts} discriminator generator\n"


def test_reading_leaves_the_allow_list_of_the_process_alone(trained):
    """mmengine resumes after the bank was read; torch's ``safe_globals`` takes away what it did not bring."""
    from glean_ext import compat

    compat.apply()
    before = {str(entry) for entry in torch.serialization.get_safe_globals()}
    state = checkpoints.read(trained)
    assert {str(entry) for entry in torch.serialization.get_safe_globals()} == before
    content = torch.load(trained, weights_only=True)
    assert_same(state, dict(content["state_dict"]))
    assert content["message_hub"]["log_scalars"]["train/loss"].data[0].shape == (2,)


def test_restorer_from_a_training_checkpoint(trained):
    net = tiny()
    checkpoints.load_network_weights(net, trained)
    assert_same(net.state_dict(), checkpoints.with_prefix(checkpoints.read(trained), "generator", "x"))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_restorer_from_its_bare_weights(tmp_path, name):
    net, expected = tiny(), randomize(tiny())
    if name.endswith(".pth"):
        torch.save(expected.state_dict(), tmp_path / name)
    else:
        checkpoints.save(expected.state_dict(), tmp_path / name)
    checkpoints.load_network_weights(net, tmp_path / name)
    assert_same(net.state_dict(), expected.state_dict())


@pytest.mark.parametrize("in_training", [False, True])
def test_restorer_of_another_architecture(tmp_path, in_training):
    path, net = tmp_path / "net.pth", tiny()
    other = tiny(rrdb_channels=12, num_rrdbs=2)
    torch.save(prefixed(generator=other) if in_training else other.state_dict(), path)
    before = snapshot(net)
    message = fault(checkpoints.load_network_weights, net, path)
    assert message.startswith(
        f"{path} does not fit GLEANStyleGANv2: 30 keys fit nothing (encoder.0.0.body.1.rdb1.conv1.weight, "
        "encoder.0.0.body.1.rdb1.conv1.bias, encoder.0.0.body.1.rdb1.conv2.weight, encoder.0.0.body.1.rdb1.conv2.bias "
        "and 26 more); 23 have another shape (encoder.0.0.conv_first.weight (12, 3, 3, 3) instead of (8, 3, 3, 3), "
    )
    assert message.endswith("must be those of the file.")
    assert_same(net.state_dict(), before)


def test_restorer_of_no_restorer(tmp_path):
    path = tmp_path / "linear.pth"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    message = fault(checkpoints.load_network_weights, tiny(), path)
    assert message.startswith(f"{path} does not fit GLEANStyleGANv2: ")
    assert message.endswith("; 2 keys fit nothing (weight, bias). Take a file of this architecture.")


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("a_net", "generator"), "generator"),
        (("generator", "generator_ema"), "generator"),
        (("params", "params_ema"), "params_ema"),
        (("net_g", "a_ema"), "a_ema"),
        (("b", "a"), "a"),
    ],
)
def test_the_network_of_a_checkpoint_with_several(tmp_path, names, taken):
    """``generator`` if there is one, then an average."""
    nets = {name: randomize(tiny()) for name in names}
    torch.save(
        {f"{name}.{key}": v for name, net in nets.items() for key, v in net.state_dict().items()}, tmp_path / "x.pth"
    )
    net = tiny()
    checkpoints.load_network_weights(net, tmp_path / "x.pth")
    assert_same(net.state_dict(), nets[taken].state_dict())
