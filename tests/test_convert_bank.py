"""tools/convert_bank.py: a converted bank gives the source's images; anything else is refused in one line."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import convert_references as ref
import nvidia_pickles as nvidia
import pytest
import torch
from conftest import randomize
from torch import Tensor, nn

from glean_ext import checkpoints, cli
from glean_ext.convert import convert_bank
from glean_ext.convert.formats import FORMATS
from glean_ext.errors import InputError
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Discriminator, StyleGAN2Generator

TOOL = Path(__file__).parents[1] / "tools" / "convert_bank.py"
WIDTHS = {4: 24, 8: 24, 16: 16, 32: 8}  # what the two arguments below give
CHANNELS = {"channel_multiplier": 0.015625, "max_channels": 24}
STYLE, LAYERS, SIZE = 16, 3, 32
ARGUMENTS = {"out_size": SIZE, "style_channels": STYLE, "num_mlps": LAYERS, **CHANNELS}


def rosinality_content(**changes) -> dict:
    """A training checkpoint, with the options that are an ``argparse.Namespace``."""
    return {
        "g": ref.rosinality_generator(WIDTHS, STYLE, LAYERS, seed=5),
        "d": ref.rosinality_discriminator(WIDTHS),
        "g_ema": ref.rosinality_generator(WIDTHS, STYLE, LAYERS),
        "g_optim": {"state": {}, "param_groups": [{"lr": 0.002}]},
        "args": argparse.Namespace(size=SIZE, ckpt=None),
        "ada_aug_p": 0.1,
        **changes,
    }


def nvidia_content(**changes) -> dict:
    networks = {
        "G": nvidia.generator(ref.nvidia_generator(WIDTHS, STYLE, LAYERS, seed=5)),
        "D": nvidia.discriminator(ref.nvidia_discriminator(WIDTHS)),
        "G_ema": nvidia.generator(ref.nvidia_generator(WIDTHS, STYLE, LAYERS)),
    }
    return nvidia.snapshot(**{**networks, **changes})


def mmagic_content(generator: nn.Module, discriminator: nn.Module) -> dict:
    """A training checkpoint of MMagic 1.x, where mmengine keeps the average under ``module``."""
    state = {f"generator.{k}": v + 1 for k, v in generator.state_dict().items()}
    state |= {f"generator_ema.module.{k}": v for k, v in generator.state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in discriminator.state_dict().items()}
    state |= {"generator_ema.steps": torch.tensor(7), "mean_path_length": torch.tensor(0.5)}
    state |= {
        "generator_ema.truncation_latent": torch.zeros(1, STYLE),
        "discriminator.ada_aug.log_buffer": torch.zeros(2),
    }
    return {"meta": {"iter": 7}, "state_dict": state}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    torch.save(rosinality_content(), folder / "rosinality.pt")
    nvidia.write(nvidia_content(), folder / "nvidia.pkl")
    return {"rosinality": folder / "rosinality.pt", "nvidia": folder / "nvidia.pkl"}


def pretrained(path: Path, prefix: str) -> dict:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": prefix}


def load_generator(path: Path, **arguments) -> StyleGAN2Generator:
    net = StyleGAN2Generator(**arguments)
    checkpoints.load_pretrained(net, pretrained(path, "generator_ema"))
    return net


def load_discriminator(path: Path, **arguments) -> StyleGAN2Discriminator:
    net = StyleGAN2Discriminator(**arguments, init_cfg=pretrained(path, "discriminator"))
    net.init_weights()
    return net


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the reference's range."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.03
    return ((ours - theirs).abs().max() / (theirs.max() - theirs.min())).item()


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
    from glean_ext.convert.bank import _channels

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
    assert banks[0].notes == ["it has no stored noise: drawn anew, standard normal, seed 0"]
    noises = [torch.cat([v.flatten() for k, v in b.tensors.items() if "injected_noise" in k]) for b in banks]
    assert torch.equal(*noises)
    assert noises[0].numel() == 16 + 2 * (64 + 256 + 1024)
    assert abs(noises[0].mean()) < 0.1
    assert abs(noises[0].std() - 1) < 0.1


def test_nvidias_precision_and_batch_statistics_are_told(tmp_path):
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


# ---------------------------------------------------------------- what is refused


def refused(source: Path, tmp_path: Path, *options: object) -> str:
    """The one line, less the file's name; nothing is written."""
    out = tmp_path / "out" / "bank.safetensors"
    with pytest.raises(InputError) as caught:
        convert_bank(source, out, *options)
    assert not list(out.parent.glob("*")) if out.parent.exists() else True
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(source))
    return message.removeprefix(str(source)).lstrip(": ")


class Command:
    def __init__(self, function, *args: object):
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        (lambda path: Command(os.system, f"touch {path}"), f"{os.system.__module__}.system"),
        (lambda path: Command(eval, f"open({str(path)!r}, 'w')"), "builtins.eval"),
        (lambda path: Command(Path.touch, path), "pathlib"),
        (lambda path: Command(subprocess.getoutput, f"touch {path}"), "subprocess.getoutput"),
    ],
    ids=["os.system", "eval", "pathlib", "subprocess"],
)
def test_code_in_a_pickle_is_not_run(tmp_path, attack, name):
    source, touched = tmp_path / "evil.pkl", tmp_path / "touched"
    content = nvidia_content(training_set_kwargs=attack(touched))
    nvidia.write(content, source)
    message = refused(source, tmp_path)
    assert message.startswith(f"names {name}")
    assert "which is neither a tensor nor a plain container: reading it could run code, so it was not read." in message
    assert not touched.exists()
    pickle.loads(pickle.dumps(attack(touched)))
    assert touched.exists(), "the pickle does nothing, so this test shows nothing"


def test_code_in_the_bytes_of_a_tensor_is_not_run(tmp_path):
    """A tensor's storage is a file of ``torch.save`` inside the pickle, which can hold code of its own."""
    inner, touched = tmp_path / "inner", tmp_path / "touched"
    torch.save(Command(Path.touch, touched), inner, _use_new_zipfile_serialization=False)
    content = Command(torch.storage._load_from_bytes, inner.read_bytes())
    source = nvidia.write({"G_ema": content}, tmp_path / "evil.pkl")
    assert refused(source, tmp_path).startswith("is truncated or damaged (Weights only load failed")
    assert not touched.exists()
    torch.load(inner, weights_only=False)
    assert touched.exists(), "the pickle does nothing, so this test shows nothing"


def test_a_pickle_cannot_change_what_it_names(tmp_path):
    """``BUILD`` sets attributes of any object on the stack, so also of an allowed function."""
    source = tmp_path / "evil.pkl"
    for name in (
        b"torch._utils\n_rebuild_parameter",
        b"numpy\ndtype",
        b"torch_utils.persistence\n_reconstruct_persistent_obj",
    ):
        source.write_bytes(b"\x80\x04c" + name + b"\nN}\x8c\x08__name__\x8c\x04evils\x86b.")
        assert refused(source, tmp_path) == "is truncated or damaged (it sets __name__ of a function). Get it anew."


def test_a_pickle_cannot_change_a_module(tmp_path):
    class Changed(nvidia.Persistent):
        def __reduce__(self) -> tuple:
            return (*super().__reduce__()[:2], {"own_tensors": 7})

    source = nvidia.write({"G_ema": Changed("Generator")}, tmp_path / "evil.pkl")
    assert refused(source, tmp_path) == "is truncated or damaged (it changes a Generator). Get it anew."


def test_a_tensor_cannot_reach_outside_its_storage(tmp_path):
    storage = pickle.dumps(torch.zeros(4), protocol=4)
    longer = storage.replace(b"K\x00K\x04\x85", b"K\x02K\x04\x85")  # offset 2 of 4 elements, 4 of them
    assert longer != storage
    source = tmp_path / "evil.pkl"
    source.write_bytes(longer)
    assert "out of bounds for storage" in refused(source, tmp_path)


def test_a_checkpoint_of_torch_with_code_is_refused_too(tmp_path):
    touched = tmp_path / "touched"
    torch.save(rosinality_content(args=Command(Path.touch, touched)), tmp_path / "evil.pt")
    assert refused(tmp_path / "evil.pt", tmp_path).startswith("holds Python objects besides weights")
    assert not touched.exists()


def test_the_reader_of_weights_points_here(files):
    with pytest.raises(InputError, match=r"Convert StyleGAN2 pickles of NVIDIA with tools/convert_bank.py\.$"):
        checkpoints.read(files["nvidia"])


@pytest.mark.parametrize("kind", ["rosinality", "nvidia"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(files, tmp_path, kind, share):
    content = files[kind].read_bytes()
    source = tmp_path / "cut"
    source.write_bytes(content[: int(share * len(content))])
    assert re.search("is truncated(,| or) damaged.*Get it anew.$", refused(source, tmp_path))


NOTHING = {
    "empty": (b"", "is empty. Get it anew."),
    "text": (b"not found\n", "is no checkpoint: neither torch.save nor pickle wrote it. Get it anew."),
    "web page": (b"<!DOCTYPE html>", "is no checkpoint: neither torch.save nor pickle wrote it. Get it anew."),
    "number": (pickle.dumps(7), "holds no StyleGAN2 of NVIDIA's: G_ema, G or D, but a int. Take a network pickle."),
    "dict": (
        pickle.dumps({"b": 1, "a": 2}),
        "holds no StyleGAN2 of NVIDIA's: G_ema, G or D, but a, b. Take a network pickle.",
    ),
}


@pytest.mark.parametrize(("content", "message"), NOTHING.values(), ids=NOTHING)
def test_a_file_that_is_no_checkpoint(tmp_path, content, message):
    source = tmp_path / "file"
    source.write_bytes(content)
    assert refused(source, tmp_path) == message


@pytest.mark.parametrize("name", ["bank.safetensors", "renamed.pt"])
def test_a_safetensors_file_needs_no_conversion(tmp_path, name):
    checkpoints.save({"generator_ema.x": torch.zeros(1)}, tmp_path / "bank.safetensors")
    source = (tmp_path / "bank.safetensors").rename(tmp_path / name)
    assert refused(source, tmp_path).startswith("is a safetensors file, which configs take as it is")


def test_a_missing_file_and_a_wrong_output(files, tmp_path):
    assert refused(tmp_path / "none.pt", tmp_path) == "there is no such file. Give the path or URL of a checkpoint."
    with pytest.raises(InputError, match="must end in"):
        convert_bank(files["nvidia"], tmp_path / "bank.pth")
    with pytest.raises(InputError, match="cannot be written"):
        convert_bank(files["nvidia"], files["nvidia"] / "bank.safetensors")


def test_the_kind_must_be_the_files(files, tmp_path):
    assert refused(files["nvidia"], tmp_path, "mmagic") == "is a nvidia checkpoint, not mmagic. Take --from nvidia."


@pytest.mark.parametrize("nested", [True, False])
def test_mmagic_with_another_prefix(tmp_path, nested):
    state = {"net_g.conv1.activate.bias": torch.zeros(1), "net_d.weight": torch.zeros(1)}
    torch.save({"state_dict": state} if nested else state, tmp_path / "net.pth")
    assert refused(tmp_path / "net.pth", tmp_path) == (
        "holds no StyleGAN2 that is known: its entries are net_d, net_g. MMagic's has generator_ema or generator, "
        "rosinality's g_ema or g, NVIDIA's G_ema or G."
    )


def test_a_discriminator_alone(tmp_path):
    torch.save({"d": ref.rosinality_discriminator(WIDTHS)}, tmp_path / "d.pt")
    assert refused(tmp_path / "d.pt", tmp_path) == (
        "has no generator: of g_ema and g it holds neither, only d. Take a checkpoint with the generator."
    )


def without(state: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if k not in keys}


G = ref.rosinality_generator(WIDTHS, STYLE, LAYERS)
MISFITS = {
    "missing": (
        without(G, "convs.3.activate.bias"),
        "lacks convs.3.activate.bias, so it is not the StyleGAN2 expected.",
    ),
    "some noise": (without(G, "noises.noise_2"), "lacks noises.noise_2, so it is not the StyleGAN2 expected."),
    "unknown": (
        G | {f"extra.{i}": torch.zeros(1) for i in range(5)},
        "has the unknown extra.0, extra.1, extra.2 and 2 more, so it is not the StyleGAN2 expected.",
    ),
    "swagan": (
        G | {"iwt.ll": torch.zeros(2, 2)},
        "is a SWAGAN network (iwt.ll). Only unconditional StyleGAN2 can be converted.",
    ),
    "channels": (
        ref.rosinality_generator({**WIDTHS, 16: 20}, STYLE, LAYERS),
        "has 20 channels at 16x16 (convs.3.conv.weight), where no channel_multiplier and max_channels give that: with "
        "8 at 32x32 it should be 16.",
    ),
    "constant": (
        G | {"input.input": torch.zeros(1, 24, 4, 6)},
        "has input.input (1, 24, 4, 6), where a StyleGAN2 of its sizes has (1, 24, 4, 4).",
    ),
    "kernel size": (
        G | {"convs.0.conv.weight": torch.zeros(1, 24, 24, 5, 5)},
        "has convs.0.conv.weight (1, 24, 24, 5, 5), where a StyleGAN2 of its sizes has (1, 24, 24, 3, 3).",
    ),
    "taps": (
        G | {"convs.0.conv.blur.kernel": torch.full((4, 4), 0.25)},
        "has convs.0.conv.blur.kernel with other taps than 1, 3, 3, 1, which are the ones known.",
    ),
    "latents of another width": (
        G | {"style.1.weight": torch.zeros(STYLE, 20)},
        f"has style.1.weight ({STYLE}, 20), where a StyleGAN2 of its sizes has ({STYLE}, {STYLE}).",
    ),
    "no weight": (
        G | {"input.input": torch.zeros(3)},
        "has input.input (3,), which is no layer's weight.",
    ),
    "not finite": (
        G | {"conv1.activate.bias": torch.full((24,), float("nan"))},
        "has conv1.activate.bias with values that are not finite. Take a checkpoint before that.",
    ),
    "4x4": (
        ref.rosinality_generator({4: 24}, STYLE, LAYERS),
        "makes or takes images of 4x4; StyleGAN2's are 8x8 at least.",
    ),
}


@pytest.mark.parametrize(("state", "message"), MISFITS.values(), ids=MISFITS)
def test_a_generator_that_is_not_expected(tmp_path, state, message):
    torch.save({"g_ema": state}, tmp_path / "g.pt")
    assert refused(tmp_path / "g.pt", tmp_path) == f"g_ema {message}"


def test_a_discriminator_that_does_not_fit_can_be_left_out(tmp_path):
    small = {res: width for res, width in WIDTHS.items() if res < SIZE}
    torch.save(rosinality_content(d=ref.rosinality_discriminator(small)), tmp_path / "a.pt")
    assert refused(tmp_path / "a.pt", tmp_path) == (
        "d takes 16x16 images, but the generator makes 32x32. --no-discriminator converts the generator alone."
    )
    bank = convert_bank(tmp_path / "a.pt", tmp_path / "bank.safetensors", discriminator=False)
    assert bank.discriminator == {}
    assert all(key.startswith("generator_ema.") for key in checkpoints.read(tmp_path / "bank.safetensors"))


N = ref.nvidia_generator(WIDTHS, STYLE, LAYERS)
ND = ref.nvidia_discriminator(WIDTHS)
STYLEGAN3 = {
    "mapping.w_avg": torch.zeros(STYLE),
    "synthesis.input.freqs": torch.zeros(8, 2),
    "synthesis.L0_36_8.magnitude_ema": torch.ones([]),
}
ONLY = "Only unconditional StyleGAN2 can be converted."
VARIANTS = {
    "conditional": (
        nvidia.generator(N | {"mapping.embed.weight": torch.zeros(STYLE, 10)}, root={"c_dim": 10}),
        f"is a conditional network (mapping.embed.weight). {ONLY}",
    ),
    "conditional by its argument": (
        nvidia.generator(N, root={"c_dim": 10}),
        "cannot be converted: it has c_dim=10 (a conditional network).",
    ),
    "stylegan3": (nvidia.generator(STYLEGAN3), f"is a StyleGAN3 network (synthesis.input.freqs). {ONLY}"),
    "resnet": (
        nvidia.generator(N | {"synthesis.b8.skip.weight": torch.zeros(24, 24, 1, 1)}),
        f"is a StyleGAN2 generator of the architecture 'resnet' (synthesis.b8.skip.weight). {ONLY}",
    ),
    "orig": (
        nvidia.generator(N, synthesis__b8={"architecture": "orig"}),
        "cannot be converted: synthesis.b8 has architecture='orig' (another architecture).",
    ),
    "activation": (
        nvidia.generator(N, synthesis__b16__conv1={"activation": "relu"}),
        "cannot be converted: synthesis.b16.conv1 has activation='relu' (another activation).",
    ),
    "no noise": (
        nvidia.generator(without(N, "synthesis.b8.conv0.noise_const"), synthesis__b8__conv0={"use_noise": False}),
        "cannot be converted: synthesis.b8.conv0 has use_noise=False (layers without noise).",
    ),
    "mapping rate": (
        nvidia.generator(N, mapping__fc1={"bias_gain": 0.1}),
        "cannot be converted: mapping.fc1 has bias_gain=0.1 (another learning-rate multiplier of the mapping network).",
    ),
    "filter": (
        nvidia.generator(N | {"synthesis.b8.resample_filter": torch.full((4, 4), 1 / 16)}),
        "has synthesis.b8.resample_filter with other taps than 1, 3, 3, 1, which are the ones known.",
    ),
    "longer filter": (
        nvidia.generator(N | {"synthesis.b8.conv0.resample_filter": torch.full((6, 6), 1 / 36)}),
        "has synthesis.b8.conv0.resample_filter (6, 6), where a StyleGAN2 of its sizes has (4, 4).",
    ),
    "grey": (
        nvidia.generator(N | {"synthesis.b4.torgb.bias": torch.zeros(1)}),
        "has synthesis.b4.torgb.bias (1, 1, 1, 1), where a StyleGAN2 of its sizes has (1, 3, 1, 1).",
    ),
    "another class": (
        nvidia.module_tree("TriPlaneGenerator", N, {}),
        "cannot be converted: it is a TriPlaneGenerator.",
    ),
}


@pytest.mark.parametrize(("network", "message"), VARIANTS.values(), ids=VARIANTS)
def test_other_networks_of_nvidias_are_named(tmp_path, network, message):
    source = nvidia.write({"G_ema": network}, tmp_path / "a.pkl")
    assert refused(source, tmp_path) == f"G_ema {message}"


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            nvidia.discriminator(ND | {"mapping.fc0.weight": torch.zeros(24, 24)}, root={"c_dim": 10}),
            f"is a conditional network (mapping.fc0.weight). {ONLY}",
        ),
        (
            nvidia.discriminator(ND | {"b4.fromrgb.weight": torch.zeros(24, 3, 1, 1)}),
            f"is a StyleGAN2 discriminator of the architecture 'skip' (b4.fromrgb.weight). {ONLY}",
        ),
        (
            nvidia.discriminator(ND | {"b4.conv.weight": torch.zeros(24, 24, 3, 3)}),
            "has b4.conv.weight (24, 24, 3, 3), where a StyleGAN2 of its sizes has (24, 25, 3, 3).",
        ),
    ],
    ids=["conditional", "skip", "no minibatch stddev"],
)
def test_other_discriminators_of_nvidias_are_named(tmp_path, network, message):
    source = nvidia.write(nvidia_content(D=network), tmp_path / "a.pkl")
    assert refused(source, tmp_path) == f"D {message} --no-discriminator converts the generator alone."


def test_tensorflow_networks_are_named(tmp_path):
    (tmp_path / "tf.pkl").write_bytes(b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01.")
    assert refused(tmp_path / "tf.pkl", tmp_path) == (
        "holds TensorFlow networks. Make a PyTorch pickle of it with legacy.py of NVIDIA's stylegan2-ada-pytorch, then "
        "convert that."
    )


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("embed.linear.weight_orig", "a conditional network"),
        ("to_rgb.0.conv.weight_orig", "a StyleGAN1 network"),
        ("synthesis.input.freqs", "a StyleGAN3 network"),
    ],
)
def test_other_networks_of_mmagics_are_named(tmp_path, key, meaning):
    state = StyleGAN2Generator(**ARGUMENTS).state_dict() if "embed" in key else {}
    torch.save(
        {"state_dict": {f"generator_ema.{k}": v for k, v in (state | {key: torch.zeros(1)}).items()}},
        tmp_path / "a.pth",
    )
    assert refused(tmp_path / "a.pth", tmp_path) == f"generator_ema is {meaning} ({key}). {ONLY}"


# ---------------------------------------------------------------- the maps and the tool


@pytest.mark.parametrize("kind", FORMATS)
def test_the_maps_fill_our_networks_and_nothing_twice(kind):
    from glean_ext.convert.bank import _numbers

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


def run_tool(*arguments: object) -> int:
    spec = importlib.util.spec_from_file_location("convert_bank_tool", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with pytest.raises(SystemExit) as leaving:
        cli.run(lambda: tool.main([str(argument) for argument in arguments]))
    return leaving.value.code


def test_the_tool_prints_what_a_config_needs(files, tmp_path, capsys):
    out = tmp_path / "bank.safetensors"
    assert run_tool(files["nvidia"], out) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{files['nvidia']}: nvidia, G_ema and D, 32x32"
    assert [line for line in lines[1:-3] if not line.startswith("note: ")] == []
    assert lines[-3] == f"wrote {out}; for the config:"
    network = eval(lines[-2].strip().removeprefix("generator="))
    assert network == ARGUMENTS | {"init_cfg": pretrained(out, "generator_ema")}
    network = eval(lines[-1].strip().removeprefix("discriminator="))
    assert network == {"in_size": SIZE, **CHANNELS, "init_cfg": pretrained(out, "discriminator")}

    assert run_tool(files["nvidia"], out, "--from", "nvidia", "--no-discriminator", "--bgr") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(lines) - 1
    assert checkpoints.metadata(out)["source_channels"] == "BGR, reversed"


def test_the_tool_tells_each_mistake_in_one_line(files, tmp_path, capsys):
    out = tmp_path / "bank.safetensors"
    for arguments, message in (
        ((files["nvidia"], out, "--from", "rosinality"), "is a nvidia checkpoint, not rosinality"),
        ((files["nvidia"], out, "--from", "tensorflow"), "invalid choice"),
        ((tmp_path / "none.pkl", out), "there is no such file"),
        ((files["nvidia"],), "the following arguments are required: OUT"),
    ):
        assert run_tool(*arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_the_command_leaves_nothing_when_it_fails(tmp_path):
    source = nvidia.write({"G_ema": Command(os.system, "echo run")}, tmp_path / "evil.pkl")
    tool = [sys.executable, str(TOOL), str(source), str(tmp_path / "bank.safetensors")]
    env = os.environ | {"PYTHONPATH": str(TOOL.parents[1])}
    done = subprocess.run(tool, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {source} names {os.system.__module__}.system")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pkl"]
