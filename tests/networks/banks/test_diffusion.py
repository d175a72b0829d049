"""The diffusion bank beside diffusers' own forward passes, its references, and its files."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from support.diffusion import IMAGES, LATENTS, NETWORK, PIPELINES, network, save_pipeline

from glean_ext.errors import InputError
from glean_ext.inference.export import export_network, load_torch
from glean_ext.inference.export_formats import SUFFIXES
from glean_ext.inference.onnx_backend import OnnxBackend
from glean_ext.networks import GLEANDiffusion
from glean_ext.networks.banks.diffusion import DiffusionBank
from glean_ext.networks.banks.reference_attention import attend, key_and_value_layers, remember

TIMESTEP = 250
LEVELS = {"block_out_channels": [8] * 6, "down_block_types": ["DownBlock2D"] * 6, "up_block_types": ["UpBlock2D"] * 6}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The pipelines' folders, and the networks in them."""
    root = tmp_path_factory.mktemp("pipelines")
    return {kind: (root / kind, save_pipeline(root / kind, kind)) for kind in PIPELINES}


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of a pipeline's folder, to be damaged."""

    def copy(kind: str):
        shutil.copytree(folders[kind][0], tmp_path / kind)
        return tmp_path / kind

    return copy


@pytest.mark.parametrize("kind", PIPELINES)
@torch.no_grad()
def test_a_pass_is_that_of_diffusers(folders, kind, rng):
    """The bank's image is x_0 of what the U-Net predicts, decoded; its codes are the text."""
    path, parts = folders[kind]
    bank = DiffusionBank(path, out_size=32, timestep=TIMESTEP, num_codes=3)
    bank.load_folder()
    image = torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1
    x = bank.encode(image)
    codes = torch.randn(2, bank.spec.num_codes, bank.spec.code_channels, generator=rng)
    if kind == "images":
        codes.zero_()  # the U-Net of diffusers takes none
        torch.testing.assert_close(x, image)
        prediction = parts["unet"](x, TIMESTEP).sample
    else:
        torch.testing.assert_close(x, parts["vae"].encode(image).latents)
        prediction = parts["unet"](x, TIMESTEP, codes).sample
    levels = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)  # DDPM's linear schedule
    alpha, sigma = levels[TIMESTEP].sqrt().float(), (1 - levels[TIMESTEP]).sqrt().float()
    if kind == "images":
        expected = (x - sigma * prediction) / alpha
    else:
        expected = parts["vae"].decode(alpha * x - sigma * prediction).sample
    features = bank.features(x, codes, lambda states: states)
    torch.testing.assert_close(bank.image(x, features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), [("images", "onnx"), ("latents", "torch")])
@torch.no_grad()
def test_exported(kind, form, tmp_path, rng):
    """A file takes batches of any size, and says what the network says."""
    net = network(kind)
    file = tmp_path / f"net{SUFFIXES[form]}"
    assert export_network(net, file, form).max_difference < 1e-5
    run = OnnxBackend(file) if form == "onnx" else load_torch(file)[0]
    lq = torch.rand(3, 3, 8, 8, generator=rng) * 2 - 1
    torch.testing.assert_close(torch.as_tensor(run(lq.numpy() if form == "onnx" else lq)), net(lq), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_encoder_s_features_enter_as_those_of_a_controlnet(folders, rng):
    path, parts = folders["latents"]
    net = network("latents", pipeline=path, num_codes=3, decoder="none")
    net.generator.load_folder()
    lq = torch.rand(2, 3, 8, 8, generator=rng) * 2 - 1
    features, codes = net.encoder(lq)
    x = net.generator.encode(F.interpolate(lq, 32, mode="bicubic", align_corners=False).clamp(-1, 1))
    spec = net.generator.spec
    added = [net.residuals[str(i)](features[res]) for i, (_, res) in enumerate((*spec.skips, spec.middle))]
    assert all(residual.abs().max() > 0.01 for residual in added)
    prediction = parts["unet"](
        x, 200, codes, down_block_additional_residuals=added[:-1], mid_block_additional_residual=added[-1]
    ).sample
    alpha, sigma = net.generator.alpha, net.generator.sigma
    torch.testing.assert_close(
        net(lq), parts["vae"].decode(alpha * x - sigma * prediction).sample, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", PIPELINES)
@torch.no_grad()
def test_references(kind, rng):
    net = network(kind)
    lq, references = torch.rand(2, 3, 8, 8, generator=rng), torch.rand(2, 3, 3, 32, 32, generator=rng)
    alone, with_references = net(lq), net(lq, references)
    assert (alone - with_references).abs().max() > 1e-4
    torch.testing.assert_close(net(lq, references[:, [2, 0, 1]]), with_references)
    torch.testing.assert_close(net(lq[1:], references[1:]), with_references[1:], msg="others' references have no part")
    assert torch.equal(net(lq), alone), "bit for bit, also after a pass with references"


@pytest.mark.parametrize("kind", PIPELINES)
@torch.no_grad()
def test_references_that_all_images_share_pass_once(kind, rng):
    net, sizes = network(kind), []
    lq, references = torch.rand(2, 3, 8, 8, generator=rng), torch.rand(1, 3, 3, 32, 32, generator=rng)
    net.encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    shared = net(lq, references.expand(2, -1, -1, -1, -1))
    torch.testing.assert_close(shared, net(lq, references.repeat(2, 1, 1, 1, 1)))
    assert sizes == [3, 2, 6, 2]


@torch.no_grad()
def test_attention_to_references_by_the_formula(rng):
    """softmax(Q [K; K_r]^T / sqrt(d)) [V; AdaIN(V_r)], of one layer."""
    unet = network("images").generator.unet
    layer = unet.up_blocks[1].attentions[0]
    x, reference = torch.randn(1, 16, 4, 4, generator=rng), torch.randn(2, 16, 4, 4, generator=rng)
    with remember(unet) as seen:
        layer(reference)
    names = [name for name, module in key_and_value_layers(unet) if module in (layer.to_k, layer.to_v)]
    assert len(names) == 2 and set(names) <= set(seen)
    with attend(unet, {name: seen.get(name) for name, _ in key_and_value_layers(unet)}):
        output = layer(x)

    def tokens(image):
        return layer.group_norm(image.flatten(2)).transpose(1, 2)

    def heads(y):
        return y.reshape(1, -1, layer.heads, 16 // layer.heads).transpose(1, 2)

    others = tokens(reference).reshape(1, 32, 16)
    key = torch.cat([layer.to_k(tokens(x)), layer.to_k(others)], 1)
    value, other = layer.to_v(tokens(x)), layer.to_v(others)
    scale = value.std(1, keepdim=True) / other.std(1, keepdim=True)
    adapted = (other - other.mean(1, keepdim=True)) * scale + value.mean(1, keepdim=True)
    weights = heads(layer.to_q(tokens(x))) @ heads(key).transpose(2, 3) / (16 / layer.heads) ** 0.5
    attended = weights.softmax(-1) @ heads(torch.cat([value, adapted], 1))
    expected = layer.to_out[0](attended.transpose(1, 2).reshape(1, 16, 16)).transpose(1, 2).reshape(1, 16, 4, 4) + x
    torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 9, 3, 32, 32), "1 to 8 references, but got 9"),
        ((1, 0, 3, 32, 32), "1 to 8 references, but got 0"),
        ((1, 2, 3, 16, 16), "(images, references, 3, 32, 32)"),
        ((2, 2, 3, 32, 32), "for 1 images"),
    ],
)
def test_references_that_do_not_fit(shape, message):
    with pytest.raises(InputError) as error:
        network()(torch.zeros(1, 3, 8, 8), torch.zeros(shape))
    assert message in str(error.value)


@pytest.mark.parametrize("bank", ["frozen", "lora", "tuned"])
@pytest.mark.parametrize("kind", PIPELINES)
def test_what_is_trained(kind, bank, rng):
    """Every trainable parameter gets a gradient, and LoRA starts as the bank itself."""
    net = GLEANDiffusion(8, 32, PIPELINES[kind], 200, 3, 8, 8, 1, bank=bank, bank_init="random")
    lq = torch.rand(1, 3, 8, 8, generator=rng)
    net(lq).square().mean().backward()
    trained = {name for name, param in net.named_parameters() if param.requires_grad}
    assert [name for name in trained if net.get_parameter(name).grad is None] == []
    of_bank = {name for name in trained if name.startswith("generator.")}
    assert all("parametrizations" in name for name in of_bank) if bank == "lora" else bool(of_bank) == (bank == "tuned")
    assert not any(name.startswith("generator.vae") for name in trained)


@pytest.mark.parametrize("bank", ["frozen", "lora"])
@pytest.mark.parametrize("kind", PIPELINES)
def test_weights_come_from_the_folder_or_a_file(folders, tmp_path, kind, bank):
    path, parts = folders[kind]
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    save_file({f"bank.{key}": value for key, value in tensors.items()}, tmp_path / "bank.safetensors")
    file = {"type": "Pretrained", "checkpoint": str(tmp_path / "bank.safetensors"), "prefix": "bank"}
    for settings in {"pipeline": path}, {"pipeline": PIPELINES[kind], "init_cfg": file}:
        net = network(kind, bank=bank, bank_init="pretrained", **settings)
        net.init_weights()
        state = net.generator.state_dict()
        for key, value in tensors.items():
            name, _, leaf = key.rpartition(".")
            own = key if key in state else f"{name}.parametrizations.{leaf}.original"
            assert torch.equal(state[own], value), key


def test_a_pipeline_in_which_the_unet_lies_alone(folders):
    net = network("images", pipeline=folders["images"][0] / "unet", bank_init="pretrained")
    net.init_weights()
    assert net.generator.prediction == "sample", "without scheduler"


def test_no_weights_for_a_pretrained_bank():
    with pytest.raises(InputError, match="pipeline is a dict"):
        network(bank_init="pretrained").init_weights()


def edit(path, **changes):
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_folders_that_do_not_fit(folder, tmp_path):
    path = folder("images")
    weights = path / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({key: value for key, value in state.items() if key != "conv_in.bias"}, weights)
    with pytest.raises(InputError, match=r"do not fit its config: conv_in\.bias"):
        network("images", pipeline=path, bank_init="pretrained").init_weights()
    weights.unlink()
    with pytest.raises(InputError, match="weights cannot be read"):
        network("images", pipeline=path, bank_init="pretrained").init_weights()
    with pytest.raises(InputError, match="there is no such folder"):
        network("images", pipeline=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no U-Net"):
        network("images", pipeline=tmp_path / "empty")
    edit(path / "unet/config.json", _class_name="UNet3DConditionModel")
    with pytest.raises(InputError, match="is a UNet3DConditionModel"):
        network("images", pipeline=path)
    (path / "unet/config.json").write_text("{")
    with pytest.raises(InputError, match=r"unet.config\.json"):
        network("images", pipeline=path)


@pytest.mark.parametrize(
    ("pipeline", "settings", "message"),
    [
        ({"unet": LATENTS["unet"]}, {}, "takes 4 channels, but images"),
        ({**IMAGES, "vae": LATENTS["vae"]}, {}, "takes 3 channels, but the VAE's latents have 4"),
        ({"unet": {**IMAGES["unet"], "num_class_embeds": 5}}, {}, "takes class labels"),
        ({"unet": {**IMAGES["unet"], "down_block_types": ["Nothing"]}}, {}, "UNet2DModel cannot be used"),
        (IMAGES, {"timestep": 1000}, "timestep must be from 0 to 999"),
        ({**IMAGES, "scheduler": {"prediction_type": "flow"}}, {}, "prediction_type"),
        ({**LATENTS, "unet": {**LATENTS["unet"], "cross_attention_dim": [12, 16]}}, {}, "of several widths"),
        ({"unet": {**IMAGES["unet"], **LEVELS}}, {"out_size": 16}, "halves its input 5 times, but it has 16 pixels"),
    ],
)
def test_pipelines_that_cannot_be_a_bank(pipeline, settings, message):
    with pytest.raises(InputError) as error:
        network(pipeline=pipeline, **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_it_trains_by_its_config(folders, tmp_path, monkeypatch):
    """Two iterations; the frozen U-Net stays what it was, and the checkpoint restores images without its weights."""
    from support.training import make_home, small_config

    import glean_ext
    from glean_ext.config import load_config
    from glean_ext.engine import runner as runners

    monkeypatch.chdir(tmp_path)
    generator = {
        "type": "GLEANDiffusion",
        **NETWORK,
        "in_size": 8,
        "out_size": 16,
        "pipeline": str(folders["images"][0]),
    }
    lines = f"model['generator'] = dict(_delete_=True, **{generator!r})", "train_cfg = dict(max_iters=2)"
    make_home(tmp_path, small_config(*lines, bank="bank_init='random'", validate=False), images=4)
    cfg = load_config("config.py")
    cfg.work_dir, cfg.log_level = "work", "ERROR"
    cfg.custom_hooks = [{"type": "FrozenBankHook", "interval": 1}]
    runner = runners.train(cfg)
    expected = load_file(folders["images"][0] / "unet/diffusion_pytorch_model.safetensors")
    state = runner.model.generator.generator.unet.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    restorer = glean_ext.ImageRestorer("config.py", "work/iter_2.pth", device="cpu")
    image = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    assert restorer.restore(image).shape == (16, 16, 3)
