"""tools/convert_bank.py: a converted bank gives the source's images."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from support import nvidia_pickles as nvidia
from support import stylegan2_references as ref
from support.conversion_sources import (
    ARGUMENTS,
    CHANNELS,
    LAYERS,
    SIZE,
    STYLE,
    TOOL,
    WIDTHS,
    Command,
    error,
    load_discriminator,
    load_generator,
    mmagic_content,
    noise,
    nvidia_content,
    pretrained,
    rosinality_content,
)
from support.networks import randomize
from support.tools import load_tool, only_error, run_main

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.bank_conversion.key_maps import FORMATS
from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Discriminator, StyleGAN2Generator

# ---------------------------------------------------------------- equal images


REFERENCES = {
    "rosinality": (ref.rosinality_mapping, ref.rosinality_image, ref.rosinality_logits),
    "nvidia": (ref.nvidia_mapping, ref.nvidia_image, ref.nvidia_logits),
}


STATES = {
    "rosinality": (ref.rosinality_generator(WIDTHS, STYLE, LAYERS), ref.rosinality_discriminator(WIDTHS)),
    "nvidia": (ref.nvidia_generator(WIDTHS, STYLE, LAYERS), ref.nvidia_discriminator(WIDTHS)),
}


@pytest.mark.parametrize("kind", REFERENCES)
@torch.no_grad()
def test_the_converted_bank_gives_the_sources_images(files, tmp_path, record_property, kind):
    out = tmp_path / "bank.safetensors"
    bank = convert_bank(files[kind], out)
    assert (bank.format, bank.generator) == (kind, ARGUMENTS)
    assert bank.discriminator == {"in_size": SIZE, **CHANNELS}
    generator, discriminator = load_generator(out, **bank.generator), load_discriminator(out, **bank.discriminator)
    (mapping, image, logits), (g, d) = REFERENCES[kind], STATES[kind]

    codes = noise(1, 3, generator.num_latents, STYLE)  # another one for every layer
    errors = {"images": error(generator.synthesis(codes), image(g, codes))}
    z = noise(2, 3, STYLE)
    w = mapping(g, z)
    errors["styles"] = error(generator.style_mapping(z), w)
    errors["images from z"] = error(generator(z), image(g, w[:, None].expand(-1, generator.num_latents, -1)))
    photos = noise(3, 8, 3, SIZE, SIZE)
    errors["logits"] = error(discriminator(photos), logits(d, photos))
    for name, value in errors.items():
        record_property(name, value)
        print(f"{kind} {name}: {value:.1e}")
        assert value < 1e-5, name


@torch.no_grad()
def test_a_converted_mmagic_checkpoint_gives_mmagics_images(mmagic_models, tmp_path):
    from mmagic.models.editors.stylegan2 import StyleGAN2Discriminator as TheirDiscriminator
    from mmagic.models.editors.stylegan2 import StyleGAN2Generator as TheirGenerator

    theirs = randomize(TheirGenerator(16, STYLE, num_mlps=2, update_mean_latent_with_ema=True), seed=1).eval()
    their_discriminator = randomize(TheirDiscriminator(16), seed=2)
    torch.save(mmagic_content(theirs, their_discriminator), tmp_path / "iter_7.pth")
    bank = convert_bank(tmp_path / "iter_7.pth", tmp_path / "bank.safetensors", "mmagic")
    widths = {"channel_multiplier": 2, "max_channels": 512}
    assert bank.generator == {"out_size": 16, "style_channels": STYLE, "num_mlps": 2, **widths}
    assert bank.notes == ["not taken: generator, mean_path_length"]
    generator = load_generator(tmp_path / "bank.safetensors", **bank.generator)
    discriminator = load_discriminator(tmp_path / "bank.safetensors", **bank.discriminator)
    z, photos = noise(1, 3, STYLE), noise(2, 4, 3, 16, 16)
    errors = (
        error(generator(z), theirs(z, randomize_noise=False)),
        error(discriminator(photos), their_discriminator(photos)),
    )
    print("mmagic images, logits:", errors)
    assert max(errors) < 1e-5


@torch.no_grad()
def test_pixel_norm_costs_half_a_millionth():
    """Ours adds 1e-6 to the mean square of z as MMagic does, the sources 1e-8."""
    z = noise(1, 1000, 512)
    ours = StyleGAN2Generator(8, 512, 0, 0.01, 8).style_mapping(z).double()
    exact = z.double() / (z.double().square().mean(1, keepdim=True) + 1e-8).sqrt()
    assert 4e-7 < ((ours - exact).abs() / exact.abs()).median() < 6e-7


@torch.no_grad()
def test_demodulation_before_or_after_the_fan_in():
    """NVIDIA adds 1e-8 before the weights are scaled, we after: visible only where weights have all but vanished."""
    state = ref.nvidia_generator(WIDTHS, STYLE, LAYERS)
    fan_in = 24 * 9
    energy = state["synthesis.b4.conv1.weight"].square().sum((1, 2, 3))
    relative = 0.5 * 1e-8 * (fan_in - 1) / energy  # of the factor (energy + eps) ** -0.5
    assert relative.max() < 1e-8


@pytest.mark.parametrize("protocol", [3, 5])
def test_every_pickle_protocol_gives_the_same_bank(files, tmp_path, protocol):
    source = nvidia.write(nvidia_content(), tmp_path / "network.pkl", protocol)
    bank, expected = (
        convert_bank(path, tmp_path / f"{i}.safetensors") for i, path in enumerate((source, files["nvidia"]))
    )
    assert bank.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(bank.tensors[key], expected.tensors[key]) for key in bank.tensors)
    assert not [name for name in sys.modules if name.startswith(("torch_utils", "dnnlib"))]


def test_channels_last_and_half_precision_weights(tmp_path):
    state = ref.nvidia_generator(WIDTHS, STYLE, LAYERS)
    key = "synthesis.b32.conv1.weight"
    state[key] = state[key].half().to(memory_format=torch.channels_last)
    source = nvidia.write({"G_ema": nvidia.generator(state)}, tmp_path / "network.pkl")
    bank = convert_bank(source, tmp_path / "bank.safetensors")
    expected = ref.nvidia_generator(WIDTHS, STYLE, LAYERS)[key].half().float()
    assert torch.equal(bank.tensors["generator_ema.convs.5.conv.weight_orig"][0], expected)
    assert bank.discriminator == {}


def test_it_trains_in_a_glean_by_path_alone(files, tmp_path):
    out = tmp_path / "bank.safetensors"
    bank = convert_bank(files["nvidia"], out)
    net = GLEANStyleGANv2(
        in_size=8, rrdb_channels=8, num_rrdbs=1, init_cfg=pretrained(out, "generator_ema"), **bank.generator
    )
    net.init_weights()
    for key, tensor in net.generator.state_dict().items():
        assert torch.equal(tensor, bank.tensors[f"generator_ema.{key}"]), key

    smaller = GLEANStyleGANv2(
        in_size=8, rrdb_channels=8, num_rrdbs=1, init_cfg=net.init_cfg, **{**bank.generator, "out_size": 16}
    )
    with pytest.raises(InputError, match=r"out_size is 32 in the file, 16 in the config"):
        smaller.init_weights()


def test_metadata_tells_where_a_bank_comes_from(files, tmp_path):
    convert_bank(files["rosinality"], tmp_path / "bank.safetensors")
    facts = checkpoints.metadata(tmp_path / "bank.safetensors")
    assert facts.pop("converter").startswith("glean-ext ")
    assert json.loads(facts.pop("discriminator")) == {"in_size": SIZE, **CHANNELS}
    assert facts == {
        **{key: str(value) for key, value in ARGUMENTS.items()},
        "source": "rosinality.pt",
        "source_sha256": hashlib.sha256(files["rosinality"].read_bytes()).hexdigest(),
        "source_format": "rosinality",
        "source_networks": "g_ema, d",
        "source_channels": "as they are",
    }


@torch.no_grad()
def test_bgr_images_become_rgb(files, tmp_path):
    rgb, bgr = tmp_path / "rgb.safetensors", tmp_path / "bgr.safetensors"
    bank = convert_bank(files["rosinality"], rgb)
    convert_bank(files["rosinality"], bgr, bgr=True)
    z, photos = noise(1, 2, STYLE), noise(2, 2, 3, SIZE, SIZE)
    images = [load_generator(path, **bank.generator)(z) for path in (rgb, bgr)]
    assert error(images[1], images[0].flip(1)) < 1e-5
    logits = [load_discriminator(path, **bank.discriminator) for path in (rgb, bgr)]
    assert error(logits[1](photos.flip(1)), logits[0](photos)) < 1e-5


# ---------------------------------------------------------------- what is recognised


@pytest.mark.parametrize(
    ("widths", "arguments"),
    [
        ({4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256}, (2, 512)),  # configuration f
        ({4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128}, (1, 512)),  # configuration e; NVIDIA's paper256
        ({4: 512, 8: 512, 16: 512, 32: 512}, (2, 512)),  # NVIDIA's cifar
        ({4: 64, 8: 64, 16: 32, 32: 16}, (0.03125, 64)),
    ],
)
def test_channels_of_the_published_configurations(widths, arguments):
    from glean_ext.bank_conversion.convert import _channels

    found = _channels({res: (f"layer {res}", width) for res, width in widths.items()}, {}, "file")
    assert tuple(found.values()) == arguments


def test_without_an_average_the_plain_generator_is_taken(tmp_path):
    content = rosinality_content(latent_avg=noise(1, STYLE))
    del content["g_ema"], content["d"]
    torch.save(content, tmp_path / "g.pt")
    bank = convert_bank(tmp_path / "g.pt", tmp_path / "bank.safetensors")
    assert bank.notes == [
        "it has no averaged generator (g_ema), so g is taken",
        "not taken: ada_aug_p, args, g_optim",
    ]
    assert torch.equal(bank.tensors["generator_ema.conv1.activate.bias"], content["g"]["conv1.activate.bias"])
    assert torch.equal(bank.tensors["generator_ema.w_avg"], content["latent_avg"])
    load_generator(tmp_path / "bank.safetensors", **bank.generator)  # w_avg does not disturb


def test_noise_that_was_never_stored_is_drawn(tmp_path):
    """rosinality's checkpoints of before January 2020."""
    g = {k: v for k, v in ref.rosinality_generator(WIDTHS, STYLE, LAYERS).items() if not k.startswith("noises.")}
    torch.save({"g_ema": g}, tmp_path / "old.pt")
    banks = [convert_bank(tmp_path / "old.pt", tmp_path / f"{i}.safetensors") for i in range(2)]
    assert banks[0].notes == ["it has no stored noise: it is drawn now, standard normal, seed 0"]
    noises = [torch.cat([v.flatten() for k, v in b.tensors.items() if "injected_noise" in k]) for b in banks]
    assert torch.equal(*noises)
    assert noises[0].numel() == 16 + 2 * (64 + 256 + 1024)
    assert abs(noises[0].mean()) < 0.1
    assert abs(noises[0].std() - 1) < 0.1


def test_nvidias_precision_and_batch_statistics_are_reported(tmp_path):
    content = nvidia_content(D=nvidia.discriminator(ref.nvidia_discriminator(WIDTHS), group_size=8))
    bank = convert_bank(nvidia.write(content, tmp_path / "a.pkl"), tmp_path / "a.safetensors")
    assert bank.discriminator["mbstd_cfg"] == {"group_size": 8, "channel_groups": 1}
    assert bank.notes[0] == "G_ema computes 16, 32 in fp16; the bank is fp32"
    assert re.fullmatch(
        r"G_ema clamps activations to 256, the bank does not; two random images reach [\d.]+, so nothing changes",
        bank.notes[1],
    )
    assert bank.notes[2:] == ["not taken: G, augment_pipe, training_set_kwargs"]

    content = nvidia_content(
        G_ema=nvidia.generator(ref.nvidia_generator(WIDTHS, STYLE, LAYERS), synthesis__b8__conv0={"conv_clamp": 0.5}),
        D=nvidia.discriminator(
            ref.nvidia_discriminator(WIDTHS) | {"b4.conv.weight": torch.zeros(24, 26, 3, 3)},
            group_size=None,
            b4__mbstd={"num_channels": 2},
        ),
    )
    bank = convert_bank(nvidia.write(content, tmp_path / "b.pkl"), tmp_path / "b.safetensors")
    assert bank.discriminator["mbstd_cfg"] == {"group_size": 4, "channel_groups": 2}
    assert "to 0.5," in bank.notes[1]
    assert bank.notes[1].endswith("so such images differ")
    assert bank.notes[2] == "D compares all images of a batch: set mbstd_cfg's group_size to it"


@torch.no_grad()
def test_the_group_size_of_the_file_gives_its_logits(tmp_path):
    state = ref.nvidia_discriminator(WIDTHS)
    source = nvidia.write(nvidia_content(D=nvidia.discriminator(state, group_size=8)), tmp_path / "a.pkl")
    bank = convert_bank(source, tmp_path / "a.safetensors")
    photos = noise(1, 8, 3, SIZE, SIZE)
    ours = load_discriminator(tmp_path / "a.safetensors", **bank.discriminator)(photos)
    assert error(ours, ref.nvidia_logits(state, photos, group=8)) < 1e-5
    assert error(ours, ref.nvidia_logits(state, photos, group=4)) > 1e-3


# ---------------------------------------------------------------- the maps and the tool


@pytest.mark.parametrize("kind", FORMATS)
def test_the_maps_fill_our_networks_and_nothing_twice(kind):
    from glean_ext.bank_conversion.convert import _numbers

    own = (
        StyleGAN2Generator(**ARGUMENTS).state_dict().keys(),
        StyleGAN2Discriminator(SIZE, **CHANNELS).state_dict().keys(),
    )
    maps = FORMATS[kind].generator, FORMATS[kind].discriminator
    for keys, expected in zip(maps, own, strict=True):
        rows = [(row, {"size": SIZE}) for row in keys.once]
        rows += [(row, _numbers(i, LAYERS)) for i in range(LAYERS) for row in keys.layers]
        rows += [(row, _numbers(i, 3)) for i in range(3) for row in keys.blocks]
        targets = [row.target.format(**numbers) for row, numbers in rows]
        sources = [row.source.format(**numbers) for row, numbers in rows]
        assert sorted(targets) == sorted(expected)
        assert len(set(sources)) == len(sources)


def test_the_tool_prints_what_a_config_needs(files, tmp_path, capsys):
    out = tmp_path / "bank.safetensors"
    main = load_tool("convert_bank").main
    code, stdout, _ = run_main(main, capsys, files["nvidia"], out)
    lines = stdout.splitlines()
    assert code == 0
    assert lines[0] == f"{files['nvidia']}: nvidia, G_ema and D, 32x32"
    assert [line for line in lines[1:-3] if not line.startswith("note: ")] == []
    assert lines[-3] == f"wrote {out}; for the config:"
    network = eval(lines[-2].strip().removeprefix("generator="))
    assert network == ARGUMENTS | {"init_cfg": pretrained(out, "generator_ema")}
    network = eval(lines[-1].strip().removeprefix("discriminator="))
    assert network == {"in_size": SIZE, **CHANNELS, "init_cfg": pretrained(out, "discriminator")}

    code, stdout, _ = run_main(main, capsys, files["nvidia"], out, "--from", "nvidia", "--no-discriminator", "--bgr")
    assert code == 0 and len(stdout.splitlines()) == len(lines) - 1
    assert checkpoints.metadata(out)["source_channels"] == "BGR, reversed"


def test_the_tool_tells_each_mistake_in_one_line(files, tmp_path, capsys):
    out = tmp_path / "bank.safetensors"
    for arguments, message in (
        ((files["nvidia"], out, "--from", "rosinality"), "is a nvidia checkpoint, not rosinality"),
        ((files["nvidia"], out, "--from", "tensorflow"), "invalid choice"),
        ((tmp_path / "none.pkl", out), "there is no such file"),
        ((files["nvidia"],), "the following arguments are required: OUT"),
    ):
        outcome = run_main(load_tool("convert_bank").main, capsys, *arguments)
        assert message in only_error(*outcome) and outcome[1] == ""
    assert list(tmp_path.iterdir()) == []


def test_the_command_leaves_nothing_when_it_fails(tmp_path):
    source = nvidia.write({"G_ema": Command(os.system, "echo run")}, tmp_path / "evil.pkl")
    tool = [sys.executable, str(TOOL), str(source), str(tmp_path / "bank.safetensors")]
    env = os.environ | {"PYTHONPATH": str(TOOL.parents[1])}
    done = subprocess.run(tool, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {source} names {os.system.__module__}.system")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pkl"]
