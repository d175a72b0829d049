"""glean_ext.checkpoints: a file is read completely and safely, or refused in one line that says how to mend it."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import TINY, randomize
from safetensors.torch import load_file
from torch import Tensor, nn

from glean_ext import checkpoints
from glean_ext.errors import InputError
from glean_ext.files import atomic_path, write_json
from glean_ext.networks import GLEANStyleGANv2, StyleGAN2Discriminator, StyleGAN2Generator

BANK = {"style_channels": 16, "num_mlps": 2, "channel_multiplier": 0.125, "max_channels": 16}
ROOT = Path(__file__).parents[1]


def fault(call, *args) -> str:
    """The message of the InputError that ``call`` raises: one line."""
    with pytest.raises(InputError) as error:
        call(*args)
    message = str(error.value)
    assert "\n" not in message
    return message


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


def prefixed(**parts: nn.Module | dict[str, Tensor]) -> dict[str, Tensor]:
    """``generator_ema=net`` -> ``generator_ema.<key>`` for each of its keys."""
    states = {name: part.state_dict() if isinstance(part, nn.Module) else part for name, part in parts.items()}
    return {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}


def tiny(**changes) -> GLEANStyleGANv2:
    return GLEANStyleGANv2(**{k: v for k, v in TINY.items() if k != "type"} | changes)


@pytest.fixture
def bank() -> StyleGAN2Generator:
    return randomize(StyleGAN2Generator(16, **BANK), seed=1)


@pytest.fixture
def bank_file(bank, tmp_path) -> Path:
    """A file as MMagic writes it, with a bank and a discriminator that fit TINY."""
    ema = randomize(StyleGAN2Generator(16, **BANK), seed=2)
    discriminator = randomize(StyleGAN2Discriminator(16, max_channels=16), seed=3)
    state = prefixed(generator=bank, generator_ema=ema, discriminator=discriminator)
    torch.save({"meta": {"iter": 7}, "state_dict": state}, tmp_path / "bank.pth")
    return tmp_path / "bank.pth"


def pretrained(path: object, prefix: str | None = "generator_ema", **more) -> dict:
    return {"type": "Pretrained", "checkpoint": str(path), "prefix": prefix, **more}


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


def test_the_running_mean_of_the_styles_may_be_left_over(bank, tmp_path):
    extra = {name: torch.zeros(1, 16) for name in checkpoints.UNUSED_BANK_KEYS}
    torch.save(prefixed(generator_ema=bank.state_dict() | extra), tmp_path / "bank.pth")
    net = tiny(init_cfg=pretrained(tmp_path / "bank.pth"))
    net.init_weights()
    assert_same(net.generator.state_dict(), bank.state_dict())


# ---------------------------------------------------------------- where files come from


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and one answer that is no HTTP."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/nonsense.pth":
            self.wfile.write(b"nonsense\r\n\r\n")
        else:
            super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serves ``tmp_path / 'served'``; ``server.asked`` is what was asked for. Downloads go to ``tmp_path / 'home'``."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    (tmp_path / "served").mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served")))
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server: http.server.ThreadingHTTPServer, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_url_is_downloaded_once_and_its_hash_checked(server, bank, bank_file, tmp_path):
    content = bank_file.read_bytes()
    name = f"bank_20210327-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "served" / name).write_bytes(content)
    for _ in range(2):
        net = tiny(init_cfg=pretrained(url(server, name), "generator"))
        net.init_weights()
        assert_same(net.generator.state_dict(), bank.state_dict())
    assert server.asked == [f"/{name}"]
    assert [path.name for path in (tmp_path / "home/hub/checkpoints").iterdir()] == [name]


def test_url_with_another_hash_in_its_name_is_refused_and_not_kept(server, bank_file, tmp_path):
    content = bank_file.read_bytes()
    (tmp_path / "served/bank-01234567.pth").write_bytes(content)
    source = url(server, "bank-01234567.pth")
    for _ in range(2):
        assert fault(checkpoints.read, source) == (
            f'{source} could not be downloaded (invalid hash value (expected "01234567", got '
            f'"{hashlib.sha256(content).hexdigest()}")). Download it elsewhere and give the path of the file.'
        )
    assert list((tmp_path / "home/hub/checkpoints").iterdir()) == []
    assert len(server.asked) == 2


@pytest.mark.parametrize("name", ["bank.pth", "bank-0123456.pth", "bank-config-f.pth"])
def test_url_without_a_hash_in_its_name(server, bank_file, tmp_path, name):
    (tmp_path / "served" / name).write_bytes(bank_file.read_bytes())
    assert_same(checkpoints.read(url(server, name)), checkpoints.read(bank_file))


def test_url_that_gives_nothing(server, tmp_path):
    missing = url(server, "no.pth")
    assert fault(checkpoints.read, missing) == (
        f"{missing} could not be downloaded (HTTP Error 404: File not found). Download it elsewhere and give the path "
        "of the file."
    )
    for source in url(server, "nonsense.pth"), "http://127.0.0.1:9/x.pth", "http://[x/x.pth":
        message = fault(checkpoints.read, source)
        assert message.startswith(f"{source} could not be downloaded (") and message.endswith("the path of the file.")
    assert list((tmp_path / "home/hub/checkpoints").iterdir()) == []


@pytest.mark.parametrize("source", ["no.pth", "", "file:///no.pth"])
def test_missing_file(source):
    message = fault(checkpoints.read, source)
    assert message == f"{source}: there is no such file. Give the path or URL of a checkpoint."


def test_shipped_files_have_a_scheme_of_their_own():
    path = ROOT / "glean_ext/assets/no.safetensors"
    assert fault(checkpoints.read, "glean-ext://no.safetensors") == (
        f"{path}: there is no such file. Give the path or URL of a checkpoint."
    )
    shipped = checkpoints.read("glean-ext://demo_bank.safetensors")
    assert_same(shipped, load_file(ROOT / "glean_ext/assets/demo_bank.safetensors"))


# ---------------------------------------------------------------- what is in files


def test_safetensors_round_trip(tmp_path, bank):
    state = bank.state_dict() | {"half": torch.rand(3).half(), "turned": torch.rand(2, 3).T, "one": torch.tensor(5)}
    checkpoints.save(state, tmp_path / "new/bank.safetensors", {"made_by": "a test"})
    assert_same(checkpoints.read(tmp_path / "new/bank.safetensors"), state)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["bank.safetensors"]


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files(bank, bank_file, tmp_path, part):
    checkpoints.save(bank.state_dict(), tmp_path / "bank.safetensors")
    for path in bank_file, tmp_path / "bank.safetensors":
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        message = fault(checkpoints.read, path)
        kind = "truncated, damaged or no checkpoint" if path.suffix == ".pth" else "damaged or no safetensors file"
        assert message.startswith(f"{path} is {kind} (") and message.endswith("). Get it anew.")


@pytest.mark.parametrize("text", ["", "just a text\n", "<html>404</html>", "(no", "}"])
def test_text_files(tmp_path, text):
    for name in "x.pth", "x.safetensors":
        path = tmp_path / name
        path.write_text(text)
        message = fault(checkpoints.read, path)
        assert re.fullmatch(
            r"is (.*damaged or )?no (checkpoint|safetensors file)( \(.*\))?\. Get it anew\.",
            message.removeprefix(f"{path} "),
        ), message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "PATH holds a list, not a state dict."),
        (torch.zeros(1), "PATH holds a Tensor, not a state dict."),
        ({}, "PATH holds no tensors. Is it a checkpoint of a network?"),
        ({"state_dict": {"epoch": 3}}, "PATH holds no tensors. Is it a checkpoint of a network?"),
        ({0: torch.zeros(1)}, "PATH holds no tensors. Is it a checkpoint of a network?"),
    ],
)
def test_files_without_weights(tmp_path, content, message):
    path = tmp_path / "x.pth"
    torch.save(content, path)
    assert fault(checkpoints.read, path) == message.replace("PATH", str(path))


def test_prefix_of_distributed_training_is_taken_off(tmp_path):
    """Around the model, and around each network of it as MMagic has it."""
    state = {"module.a.weight": torch.ones(2), "generator.module.b": torch.ones(3), "epoch": 1}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    assert_same(checkpoints.read(tmp_path / "x.pth"), {"a.weight": torch.ones(2), "generator.b": torch.ones(3)})


class Touch:
    """Is pickled as code that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_not_run(tmp_path, new_format):
    path, touched = tmp_path / "evil.pth", tmp_path / "touched"
    content = {"state_dict": {"weight": torch.zeros(1)}, "meta": Touch(touched)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    assert fault(checkpoints.read, path) == (
        f"{path} holds Python objects besides weights, and reading them could run code, so it was not read. If you "
        "trust it, convert it once: torch.save(torch.load(path, weights_only=False)['state_dict'], new)."
    )
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "the pickle does nothing, so this test shows nothing"


# ---------------------------------------------------------------- training checkpoints

TRAINING = """
import sys, torch
from conftest import TINY, randomize
from glean_ext import compat
compat.apply()
from glean_ext.networks import GLEANStyleGANv2
from mmengine.model import BaseModel
from mmengine.runner import Runner

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
    checkpoints.load_restorer(net, trained)
    assert_same(net.state_dict(), checkpoints.with_prefix(checkpoints.read(trained), "generator", "x"))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_restorer_from_its_bare_weights(tmp_path, name):
    net, expected = tiny(), randomize(tiny())
    if name.endswith(".pth"):
        torch.save(expected.state_dict(), tmp_path / name)
    else:
        checkpoints.save(expected.state_dict(), tmp_path / name)
    checkpoints.load_restorer(net, tmp_path / name)
    assert_same(net.state_dict(), expected.state_dict())


@pytest.mark.parametrize("in_training", [False, True])
def test_restorer_of_another_architecture(tmp_path, in_training):
    path, net = tmp_path / "net.pth", tiny()
    other = tiny(rrdb_channels=12, num_rrdbs=2)
    torch.save(prefixed(generator=other) if in_training else other.state_dict(), path)
    before = snapshot(net)
    message = fault(checkpoints.load_restorer, net, path)
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
    message = fault(checkpoints.load_restorer, tiny(), path)
    assert message.startswith(f"{path} does not fit GLEANStyleGANv2: ")
    assert message.endswith("; 2 keys fit nothing (weight, bias). Take a file of this architecture.")


# ---------------------------------------------------------------- writing


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoints.save({"a": torch.zeros(2)}, path)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        checkpoints.save({"a": shared, "b": shared}, path)
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial_path:
        partial_path.write_bytes(b"half of it")
        _ = 1 / 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert_same(checkpoints.read(path), {"a": torch.zeros(2)})


def test_the_old_file_stays_whole_for_who_reads_it(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoints.save({"a": torch.zeros(2)}, path)
    content = path.read_bytes()
    with path.open("rb") as reader:
        checkpoints.save({"a": torch.ones(2)}, path)
        assert reader.read() == content != path.read_bytes()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    for name in "file/x.safetensors", "folder.safetensors", f"{'x' * 250}.safetensors":
        target = tmp_path / name
        message = fault(checkpoints.save, {"a": torch.zeros(2)}, target)
        assert message.startswith(f"{target} cannot be written (") and message.endswith("Choose another output.")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.safetensors"]
    assert fault(write_json, {}, tmp_path / "file/x.json") == (
        f"{tmp_path}/file/x.json cannot be written (File exists). Choose another output."
    )


def test_json_is_written_whole(tmp_path):
    write_json({"PSNR": 1.5}, tmp_path / "new/m.json")
    assert json.loads((tmp_path / "new/m.json").read_text()) == {"PSNR": 1.5}
    with pytest.raises(TypeError):
        write_json({"a": object()}, tmp_path / "new/m.json")
    assert json.loads((tmp_path / "new/m.json").read_text()) == {"PSNR": 1.5}
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_saved_files_have_the_permissions_of_any_new_file(tmp_path):
    checkpoints.save({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    (tmp_path / "b").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode
