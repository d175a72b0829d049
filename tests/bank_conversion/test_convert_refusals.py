"""What is no bank is refused in one line, and no code of a pickle is run."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
from pathlib import Path

import pytest
import torch
from support import nvidia_pickles as nvidia
from support import stylegan2_references as ref
from support.conversion_sources import (
    ARGUMENTS,
    LAYERS,
    SIZE,
    STYLE,
    WIDTHS,
    Command,
    nvidia_content,
    rosinality_content,
)
from torch import Tensor

from glean_ext import checkpoints
from glean_ext.bank_conversion import convert_bank
from glean_ext.cli.base import as_option
from glean_ext.errors import InputError
from glean_ext.networks import StyleGAN2Generator


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
    assert refused(source, tmp_path).startswith("names builtins.getattr, which is neither")
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
        assert refused(source, tmp_path) == "is truncated or damaged (it sets __name__ of a function). Get it again."


def test_a_pickle_cannot_change_a_module(tmp_path):
    class Changed(nvidia.Persistent):
        def __reduce__(self) -> tuple:
            return (*super().__reduce__()[:2], {"own_tensors": 7})

    source = nvidia.write({"G_ema": Changed("Generator")}, tmp_path / "evil.pkl")
    assert refused(source, tmp_path) == "is truncated or damaged (it changes a Generator). Get it again."


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
    assert re.search("is truncated(,| or) damaged.*Get it again.$", refused(source, tmp_path))


NOTHING = {
    "empty": (b"", "is empty. Get it again."),
    "text": (b"not found\n", "is no checkpoint: neither torch.save nor pickle wrote it. Get it again."),
    "web page": (b"<!DOCTYPE html>", "is no checkpoint: neither torch.save nor pickle wrote it. Get it again."),
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
    assert refused(files["nvidia"], tmp_path, "mmagic") == "is a nvidia checkpoint, not mmagic. Set kind='nvidia'."


def test_the_tool_names_its_own_options(files, tmp_path):
    small = {res: width for res, width in WIDTHS.items() if res < SIZE}
    torch.save(rosinality_content(d=ref.rosinality_discriminator(small)), tmp_path / "a.pt")
    for source, kind, advice in (files["nvidia"], "mmagic", "Set --kind nvidia."), (
        tmp_path / "a.pt", "auto", "--no-discriminator converts the generator alone.",
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            convert_bank(source, tmp_path / "bank.safetensors", kind)
        assert caught.value.render(as_option).endswith(f". {advice}")


@pytest.mark.parametrize("nested", [True, False])
def test_mmagic_with_another_prefix(tmp_path, nested):
    state = {"net_g.conv1.activate.bias": torch.zeros(1), "net_d.weight": torch.zeros(1)}
    torch.save({"state_dict": state} if nested else state, tmp_path / "net.pth")
    assert refused(tmp_path / "net.pth", tmp_path) == (
        "holds no StyleGAN2 or BigGAN that is known: its entries are net_d, net_g. MMagic's has generator_ema or "
        "generator, rosinality's g_ema or g, NVIDIA's G_ema or G."
    )


def test_an_empty_file_of_weights(tmp_path):
    torch.save({}, tmp_path / "net.pth")
    fault = refused(tmp_path / "net.pth", tmp_path)
    assert fault.startswith("holds no StyleGAN2 or BigGAN that is known: it is empty. MMagic's has generator_ema")


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
        "d takes 16x16 images, but the generator makes 32x32. discriminator=False converts the generator alone."
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
    assert refused(source, tmp_path) == f"D {message} discriminator=False converts the generator alone."


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
