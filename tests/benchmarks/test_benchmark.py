"""``python -m benchmarks``: what it measures, and that it measures it correctly."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from support.networks import TINY, randomize
from torch import nn

from benchmarks import __main__ as tool
from benchmarks import command, comparison, data_loading, measure, page
from benchmarks.cases import Case, Inference, Training, build, mmagic_arguments, random_vgg, shared_weights
from benchmarks.measure import Memory, SampleStats
from benchmarks.options import ComparisonOptions, DataOptions, MeasureOptions, PageOptions
from glean_ext import cli
from glean_ext.errors import InputError
from glean_ext.inference.export import export_network
from glean_ext.networks import build_network

ROOT = Path(__file__).parents[2]
MIB = 2**20
CELLS = page.cells_of([1, 4, 16])
# The smallest that MMagic's class can be, too.
SMALL = {k: v for k, v in TINY.items() if k not in ("max_channels", "channel_multiplier", "style_channels")}
SMALL["style_channels"] = 32
ADAM = {"optimizer": {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.99), "fused": True}}
LOSSES = {
    "type": "GLEAN",
    "discriminator": {"type": "StyleGANv2Discriminator", "in_size": 16},
    "pixel_loss": {"type": "MSELoss"},
    "perceptual_loss": {
        "type": "PerceptualLoss", "layer_weights": {"3": 1.0}, "vgg_type": "vgg16", "perceptual_weight": 1e-2,
        "style_weight": 0, "input_range": (-1, 1), "criterion": "mse", "pretrained": "torchvision://vgg16",
    },
    "gan_loss": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 1e-2},
    "data_preprocessor": {"type": "DataPreprocessor", "mean": [127.5] * 3, "std": [127.5] * 3},
}  # fmt: skip


def infer_case(mmagic: bool = False, dtype: str = "float32", batch: int = 1, **generator: object) -> Case:
    return Case("infer", {"generator": {**SMALL, **generator}}, mmagic, dtype, "cpu", batch)


def train_case(mmagic: bool = False, dtype: str = "float32") -> Case:
    wrappers = {"generator": ADAM, "discriminator": ADAM, "constructor": "MultiOptimWrapperConstructor"}
    return Case("train", {**LOSSES, "generator": SMALL}, mmagic, dtype, "cpu", 2, optim_wrapper=wrappers)


@pytest.fixture
def console() -> Console:
    return Console(file=open(os.devnull, "w"), width=200)


# ---------------------------------------------------------------- measuring


def test_statistics_by_hand():
    assert SampleStats.of([4.0, 1.0, 2.0, 3.0, 100.0]) == SampleStats(3.0, 2.0, 4.0, 1.0, 100.0, 5)
    assert SampleStats.of([2.0]) == SampleStats(2.0, 2.0, 2.0, 2.0, 2.0, 1)


def test_candidates_alternate():
    order: list[str] = []
    ticks: list[int] = []

    def slow() -> None:
        order.append("b")
        time.sleep(0.02)

    runs = [lambda: order.append("a"), slow]
    a, b = measure.time_alternately(runs, 3, lambda: ticks.append(len(order)))
    assert order == ["a", "b"] * 3 and ticks == [1, 2, 3, 4, 5, 6]
    assert len(a) == len(b) == 3 and min(b) >= 0.02 > max(a)


def test_difference_by_hand():
    reference = torch.tensor([0.0, 1.0, 2.0, 4.0])
    found = measure.difference(reference + torch.tensor([0.0, 0.0, 0.4, 0.0]), reference)
    assert found["max_of_range"] == pytest.approx(0.1, rel=1e-6)
    assert found["psnr"] == pytest.approx(10 * math.log10(16 / (0.16 / 4)), rel=1e-6)
    assert measure.difference(reference, reference) == {"max_of_range": 0.0, "psnr": math.inf}


@pytest.mark.slow
def test_memory_is_of_a_process_of_its_own():
    small, large = (measure.peak_memory(infer_case(batch=batch), 1) for batch in (1, 64))
    for memory in small, large:
        assert 50 * MIB < memory.imports < memory.ready <= memory.peak
    weights = sum(t.nbytes for t in build_network({**SMALL, "bank_init": "random"}).state_dict().values())
    assert small.ready - small.imports > 0.5 * weights
    assert Memory(imports=3, ready=4, peak=10).own == 7


@pytest.mark.slow
def test_the_error_of_a_failed_memory_process():
    with pytest.raises(
        InputError, match=r"^The process that measures the memory of glean-ext GLEAN float32 failed: .*\b9"
    ):
        measure.peak_memory(infer_case(in_size=9), 1)


def test_machine_peak_is_plausible(monkeypatch):
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.zeros([min(side, 64) for side in shape]))
    peak = measure.machine_peak(torch.float32, "cpu", min_seconds=0.01)
    assert set(peak) == {"matmul", "conv"} and all(value > 0 for value in peak.values())


def test_the_environment():
    found = measure.describe_environment("cpu")
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["mmagic"] == "1.2.0"
    assert found["machine"]["threads"] == torch.get_num_threads() and found["machine"]["cpu"]


# ---------------------------------------------------------------- candidates


def test_inference_candidates_compute_the_same():
    weights = shared_weights(infer_case())
    assert all(tensor.any() for tensor in weights["generator"].values())  # nothing that would hide a difference
    ours, theirs = (build(infer_case(mmagic, batch=2), weights) for mmagic in (False, True))
    assert ours.shares_weights and theirs.shares_weights
    assert type(theirs.networks["generator"]).__module__.startswith("mmagic.")
    (flops, a), (same, b) = ours.first_run(), theirs.first_run()
    assert a.shape == (2, 3, 16, 16) and measure.difference(a, b)["max_of_range"] < 1e-5
    assert flops == same > 1e6 and flops == 2 * build(infer_case(), weights).first_run()[0]


@pytest.mark.slow
def test_an_exported_network_is_a_candidate(tmp_path, console):
    net = randomize(build_network({**SMALL, "bank_init": "random"}), seed=4)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    export_network(net, tmp_path / "net.onnx", notify=lambda step: None)
    sizes = [f"model.generator.{name}={value}" for name, value in SMALL.items() if name != "type"]
    arguments = ["infer", "--dtype", "float32", "--against", str(tmp_path / "net.onnx"), "--cfg-options", *sizes]
    options, _ = tool.parse([*arguments, "model.generator.init_cfg=None"])
    with pytest.raises(
        InputError, match=r"net\.onnx: an exported model is compared with the network it was exported from"
    ):
        command.make_cases(options)
    cases = command.make_cases(replace(options, checkpoint=str(tmp_path / "net.pth")))
    report = comparison.compare(cases, MeasureOptions(repeats=2, memory=False, peak=False), console)
    ours, theirs = report["results"]
    assert (ours.label, theirs.label) == ("glean-ext GLEAN float32", "onnxruntime GLEAN float32")
    assert ours.relative.difference["max_of_range"] < 1e-5 and theirs.gflop == ours.gflop
    assert measure.peak_memory(cases[1], 1).own > 0


def test_a_network_of_other_weights_is_not_compared():
    light = Inference(infer_case(type="LightGLEANStyleGANv2"), shared_weights(infer_case()))
    assert not light.shares_weights and light.run().shape == (1, 3, 16, 16)


def test_checkpoint_is_what_runs(tmp_path):
    net = randomize(build_network({**SMALL, "bank_init": "random"}), seed=3)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    case = Case("infer", {"generator": SMALL}, False, "float32", "cpu", 1, checkpoint=str(tmp_path / "net.pth"))
    subject = Inference(case, shared_weights(case))
    with torch.no_grad():
        assert measure.difference(subject.run(), net(subject.lq))["max_of_range"] < 1e-5


@pytest.mark.parametrize(
    ("name", "value"), [("max_channels", 16), ("bank", "tuned"), ("decoder", "slim"), ("inject_at", [4])]
)
def test_what_mmagics_class_does_not_have(name, value):
    with pytest.raises(InputError) as error:
        mmagic_arguments({**SMALL, name: value})
    assert str(error.value) == (
        f"MMagic's GLEAN has no {name}, but the config sets it to {value!r}. Compare with --against CONFIG or "
        "--against none."
    )


def test_arguments_for_mmagics_class():
    light = {"type": "LightGLEANStyleGANv2", "decoder": "slim", "decoder_channels": 8}
    for changes in {}, {"init_cfg": {}, "checkpoint_trunk": True, "max_channels": 512}, light:
        assert mmagic_arguments({**SMALL, **changes}) == {k: v for k, v in SMALL.items() if k != "type"}


@pytest.mark.slow
def test_training_candidates_have_the_same_losses():
    ours, theirs = train_case(), train_case(mmagic=True)
    weights = shared_weights(ours)
    subjects = [Training(case, weights) for case in (ours, theirs)]
    for module in subjects[1].restorer.children():
        assert type(module).__module__.startswith(("mmagic.", "mmengine."))
    assert all(subject.shares_weights for subject in subjects)
    (flops, a), (more, b) = (subject.first_run() for subject in subjects)
    assert a.keys() == b.keys() == {"loss_pix", "loss_perceptual", "loss_gan", "loss_d_real", "loss_d_fake"}
    assert a == pytest.approx(b, rel=1e-4)
    assert 0 < flops <= more
    after_a, after_b = (subject.run() for subject in subjects)
    assert after_a == pytest.approx(after_b, rel=1e-3) and after_a["loss_pix"] != a["loss_pix"]


def test_vgg_is_random_and_torchvisions_cache_as_before():
    before = torch.hub.get_dir()
    with random_vgg("vgg11") as path:
        state = torch.load(path)
        from torchvision.models import vgg11

        net = vgg11(weights="DEFAULT")  # finds the file, so nothing is downloaded
        assert torch.equal(net.features[0].weight, state["features.0.weight"])
        assert path.stat().st_size < 50e6
    assert torch.hub.get_dir() == before and not path.exists()
    assert state["features.0.weight"].std() == pytest.approx(math.sqrt(2 / 27), rel=0.1)


# ---------------------------------------------------------------- reports


def test_compare(console):
    cases = [infer_case(dtype="bfloat16"), infer_case(mmagic=True)]
    report = comparison.compare(cases, MeasureOptions(repeats=3, memory=False, peak=False), console)
    ours, theirs = report["results"]
    assert (ours.label, theirs.label) == ("glean-ext GLEAN bfloat16", "MMagic GLEAN float32")
    assert ours.images_per_second == 1 / ours.seconds.median and ours.seconds.count == 3
    assert ours.gflop_per_second == ours.gflop / ours.seconds.median
    assert theirs.relative is None and ours.relative.label == theirs.label and ours.relative.memory is None
    assert ours.relative.speed.count == 3
    assert ours.relative.speed.minimum <= theirs.seconds.maximum / ours.seconds.minimum
    assert 30 < ours.relative.difference["psnr"] < 100
    sentences = list(comparison.summary_lines(ours))
    assert (
        sentences[0].startswith("glean-ext GLEAN bfloat16 is ") and "as fast as MMagic GLEAN float32." in sentences[0]
    )
    assert "PSNR" in sentences[1]
    assert json.loads(json.dumps(measure.as_json(report)))["results"][0]["seconds"]["count"] == 3


def test_losses_are_compared_one_by_one():
    assert comparison.result_difference({"a": 1.1, "b": 2.0}, {"a": 1.0, "b": -2.0}) == pytest.approx(
        {"a": 0.1, "b": 2.0}
    )
    assert comparison.result_difference(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 9)) is None


def test_share_of_peak(monkeypatch, console):
    monkeypatch.setattr(measure, "machine_peak", lambda dtype, device: {"matmul": 2e12, "conv": 4e12})
    report = comparison.compare([infer_case()], MeasureOptions(repeats=1, memory=False), console)
    (result,) = report["results"]
    assert report["peak"] == {"float32": {"matmul": 2000, "conv": 4000}}
    assert result.share_of_peak == pytest.approx(result.gflop_per_second / 4000)


def test_data_loading(console):
    pipeline = [{"type": "LoadRGB", "key": "gt"}, {"type": "LoadOrMakeLQ"}, {"type": "PackInputs"}]
    report = data_loading.compare_formats(pipeline, {32: 4}, 2, console)
    assert [(one.size, one.scale, one.format) for one in report["loading"]] == [(32, 4, "png"), (32, 4, "jpg")]
    for one in report["loading"]:
        assert one.decode.median > 0 and 0 < one.resize.minimum < one.pipeline.maximum
        assert one.images_per_second == 1 / one.pipeline.median
    assert data_loading.make_test_image(64).shape == (64, 64, 3) and data_loading.make_test_image(64).std() > 20


# ---------------------------------------------------------------- the page


def fake_report(seconds: list[float]) -> dict:
    def result(i: int, value: float) -> comparison.Result:
        label = ("ours bf16", "ours fp32", "light", "onnxruntime", "MMagic GLEAN float32")[i]
        relative = comparison.RelativeResult(
            "MMagic", SampleStats.of([seconds[-1] / value]), 0.25, 0.5, {"psnr": 47.6, "max_of_range": 0.1}
        )
        generator = {"in_size": 32, "out_size": 256, "checkpoint_trunk": i == 0}
        case = {"task": "infer", "batch": 1, "device": "cpu", "model": {"generator": generator}}
        return comparison.Result(
            label, case, SampleStats.of([value]), 1 / value, None, 10.0, 10 / value, 0.5, Memory(0, 0, 2**30),
            None if i == len(seconds) - 1 else relative,
        )  # fmt: skip

    return {
        "results": [result(i, value) for i, value in enumerate(seconds)],
        **measure.describe_environment("cpu"),
        "peak": {},
    }


@pytest.mark.parametrize("seconds", [(1.0, 2.0, 0.5, 3.0, 4.0), (1.0, 2.0, 0.5, 4.0)])  # with bf16, without
def test_page(tmp_path, seconds):
    inference = [fake_report([batch * one for one in seconds]) for _, batch in CELLS]
    report = {
        "command": "the command",
        "cells": CELLS,
        "inference": inference,
        "training": fake_report([5.0, 10.0, 20.0]),
    }
    page.write(report, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| 256 | 16 | ours bf16 | 1 | 1.00 | 4.00 | 0.25 | 48 |" in text
    assert re.search(r"\| 1024 \| 1 \| [\w ]+ \| 4 \| 1.00 \| 1 \| 1 \|  \|", text)  # what the others are compared with
    assert "| ours bf16, trunk checkpointed | 5 | 0.2 | 1.00 | 4.00 | 0.25 |" in text
    assert "| light | 20 | 0.05 | 1.00 | 1 | 1 |" in text
    assert "![seconds and memory against output size and batch](page.png)" in text
    assert "    the command\n" in text
    assert Image.open(tmp_path / "page.png").size == (990, 770)


def test_measuring_the_page(tmp_path, monkeypatch):
    """A report for each cell in order, the machine's peak at the largest size only, and the command that repeats it."""
    calls: list[tuple[object, MeasureOptions]] = []
    monkeypatch.setattr(page, "inference_cases", lambda size, batch, folder: (size, batch))
    monkeypatch.setattr(page, "training_cases", lambda: "training")

    def compare(cases: object, options: MeasureOptions, console: Console) -> dict:
        calls.append((cases, options))
        return fake_report([float(len(calls)), 2.0])

    monkeypatch.setattr(page, "compare", compare)
    report = page.measure_page([1, 4], 3, Console(quiet=True))
    assert calls == [
        ((256, 1), MeasureOptions(3, peak=False)),
        ((256, 4), MeasureOptions(3, peak=False)),
        ((512, 1), MeasureOptions(3, peak=False)),
        ((1024, 1), MeasureOptions(3, peak=True)),
        ("training", MeasureOptions(3, peak=False)),
    ]
    assert report["command"] == "python -m benchmarks page --batches 1 4 --repeats 3"
    assert report["cells"] == [(256, 1), (256, 4), (512, 1), (1024, 1)]
    assert [part["results"][0].seconds.median for part in report["inference"]] == [1, 2, 3, 4]
    assert report["training"]["results"][0].seconds.median == 5
    page.write(report, tmp_path / "page.md")
    assert "    python -m benchmarks page --batches 1 4 --repeats 3\n" in (tmp_path / "page.md").read_text()


def test_the_training_section_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "compare", lambda cases, options, console: fake_report([5.0, 10.0, 20.0]))
    report = page.measure_training(2, Console(quiet=True))
    (path := tmp_path / "page.md").write_text("# Page\n\n## Training, old\n\n| old |\n\n## Backends\n\nas before\n")
    page.write_training(report, path)
    text = path.read_text()
    assert text.startswith("# Page\n\n## Training, 32 -> 256, batch 2") and text.endswith(
        "\n\n## Backends\n\nas before\n"
    )
    assert "Made by `python -m benchmarks page --only training --repeats 2` on " in text and "old" not in text
    assert "| light | 20 | 0.05 | 1.00 | 1 | 1 |\n" in text
    with pytest.raises(InputError, match="has no section on training"):
        page.write_training(report, tmp_path / "other.md")


@pytest.mark.parametrize(
    ("fast", "dtypes"), [("bfloat16", ["bfloat16", "float32", "bfloat16"]), ("float32", ["float32", "float32"])]
)
def test_cases_of_the_page(tmp_path, monkeypatch, fast, dtypes):
    exported: list[Path] = []
    monkeypatch.setattr(page, "default_dtype", lambda device: fast)
    monkeypatch.setattr(page, "shared_network", lambda case: case)  # full-sized ones take seconds to make
    monkeypatch.setattr(page, "export_network", lambda net, path, notify: exported.append(path) or path.touch())
    for out_size, batch in CELLS:
        *ours, onnx, theirs = page.inference_cases(out_size, batch, tmp_path)
        assert theirs.mmagic and theirs.dtype == "float32" and not any(case.mmagic for case in ours)
        assert [case.dtype for case in ours] == dtypes
        assert onnx.onnx == str(tmp_path / f"{out_size}.onnx")
        for case in (*ours, onnx, theirs):
            generator = case.model["generator"]
            assert (generator["in_size"], generator["out_size"], case.batch) == (out_size // 16, out_size, batch)
    assert exported == [tmp_path / f"{out_size}.onnx" for out_size in (256, 512, 1024)]  # once each
    small, plain, theirs = page.training_cases()
    assert small.dtype == plain.dtype == fast
    assert small.model["generator"]["checkpoint_trunk"] and not plain.model["generator"].get("checkpoint_trunk")
    assert theirs.mmagic and theirs.batch == 2 and plain.optim_wrapper["generator"]["optimizer"]["lr"] == 1e-4


# ---------------------------------------------------------------- the command line


def test_options_of_the_commands():
    """Each command has its typed options; none is an argparse namespace."""
    options, json_file = tool.parse(["infer", "--batch", "3", "--no-peak", "--json", "r.json", "--compile", "default"])
    assert json_file == Path("r.json")
    assert options == ComparisonOptions(
        task="infer",
        config=ROOT / "configs/glean_x16_ffhq.py",
        measure=MeasureOptions(repeats=5, memory=True, peak=False),
        network=None,
        in_size=None,
        out_size=None,
        batch=3,
        dtype="bfloat16",
        device="cpu",
        against="mmagic",
        against_dtype=None,
        compile="default",
    )
    assert tool.parse(["train"])[0].batch == 2 and tool.parse(["train"])[0].checkpoint is None
    assert tool.parse(["data", "--repeats", "2"]) == (DataOptions(ROOT / "configs/glean_x8_cat.py", 2), None)
    assert tool.parse(["page", "--batches", "1", "8"])[0] == PageOptions((1, 8), 3, ROOT / "docs/performance.md")
    assert tool.parse(["page", "--only", "training"])[0].only == "training"


@pytest.mark.slow
def test_the_tool_writes_json(tmp_path, capsys):
    sizes = ["--in-size", "8", "--out-size", "16", "--cfg-options", "model.generator.num_rrdbs=1"]
    arguments = ["--repeats", "2", "--no-memory", "--no-peak", "--json", str(tmp_path / "r.json"), *sizes]
    assert tool.main(["infer", "--dtype", "float32", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Inference, 8 -> 16, batch 1, cpu" in printed and "times as fast as MMagic GLEAN float32" not in printed
    assert "as fast as MMagic GLEAN float32" in printed
    report = json.loads((tmp_path / "r.json").read_text())
    ours, theirs = report["results"]
    assert ours["relative"]["difference"]["max_of_range"] < 1e-5 and theirs["case"]["mmagic"]
    assert ours["relative"]["speed"]["count"] == 2


def test_the_tool_against_a_config(tmp_path):
    demo = str(ROOT / "configs/demo_glean_x8.py")
    options = ["--checkpoint", "glean-ext://demo_glean_x8.safetensors", "--against", demo, "--against-dtype", "float32"]
    json_file = tmp_path / "r.json"
    quick = ["--repeats", "1", "--no-memory", "--no-peak", "--json", str(json_file)]
    assert tool.main(["infer", "--config", demo, *options, *quick]) == 0
    ours, theirs = json.loads(json_file.read_text())["results"]
    assert (ours["label"], theirs["label"]) == ("glean-ext GLEAN bfloat16", "glean-ext GLEAN float32")
    assert ours["relative"]["difference"]["psnr"] > 45


def test_networks_and_sizes_of_the_options():
    options, _ = tool.parse(["train", "--network", "lightglean", "--in-size", "8", "--out-size", "32"])
    ours, theirs = command.make_cases(options)
    generator = ours.model["generator"]
    assert (generator["type"], generator["in_size"], generator["out_size"]) == ("LightGLEANStyleGANv2", 8, 32)
    assert ours.model["discriminator"]["in_size"] == 32 and (ours.batch, ours.dtype) == (2, "bfloat16")
    assert ours.label == "glean-ext LightGLEAN bfloat16" and theirs.label == "MMagic GLEAN float32"
    assert command.make_cases(replace(options, against="none")) == [ours]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["infer", "--repeats", "0"], "--repeats, --batch and --batches must be at least 1."),
        (["infer", "--dtype", "float16"], "--dtype float16 needs a GPU; on a CPU use bfloat16."),
        (["infer", "--against", "no.py"], "no.py: there is no such file. Give the path of a config."),
        (["train", "--config", "no.py"], "no.py: there is no such file. Give the path of a config."),
        (["startup"], "argument command: invalid choice: 'startup' "),
        ([], "the following arguments are required: command. See "),
    ],
)
def test_mistakes_take_one_line(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.run(tool.main)
    assert caught.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(errors) == 1 and errors[0].startswith(f"error: {message}")


def test_help_is_light():
    command = [sys.executable, "-X", "importtime", "-m", "benchmarks", "infer", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--against" in done.stdout and "torch" not in done.stderr and "rich" not in done.stderr


def test_compiled_networks_are_timed_after_compiling(monkeypatch, console):
    compiled: list[nn.Module] = []

    def fake_compile(net: nn.Module, mode: str) -> nn.Module:
        compiled.append(net)
        time.sleep(0.05)
        return net

    monkeypatch.setattr(torch, "compile", fake_compile)
    case = Case("infer", {"generator": SMALL}, False, "float32", "cpu", 1, compile="default")
    report = comparison.compare([case], MeasureOptions(repeats=2, memory=False, peak=False), console)
    assert len(compiled) == 1 and report["results"][0].compile_seconds > 0
    assert "compiled (default)" in report["results"][0].label
