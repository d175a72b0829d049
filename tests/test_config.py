"""glean_ext.config: what a run is set to, where configs are found, and mistakes as one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glean_ext.cli.base import as_option
from glean_ext.config import find_config, load_config, load_run_config, with_options
from glean_ext.errors import InputError

CONFIG = "model = dict(generator=dict(type='GLEANStyleGANv2', in_size=8, out_size=64))\n"


@pytest.fixture
def config(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")  # so that it is as before afterwards
    monkeypatch.delenv("LOCAL_RANK")
    path = tmp_path / "my.run.py"
    path.write_text(CONFIG)
    return path


def test_a_run_goes_where_the_config_is_named(config):
    cfg = load_run_config(config)
    assert (cfg.work_dir, cfg.launcher, os.environ["LOCAL_RANK"]) == ("work_dirs/my.run", "none", "0")
    assert cfg.model.generator == {"type": "GLEANStyleGANv2", "in_size": 8, "out_size": 64}


def test_the_work_dir_of_the_caller_goes_before_that_of_the_config(config):
    config.write_text(CONFIG + "work_dir = 'of the config'\n")
    assert load_run_config(config).work_dir == "of the config"
    assert load_run_config(config, work_dir="of the caller").work_dir == "of the caller"
    assert load_run_config(config, ["work_dir=option"]).work_dir == "option"


def test_launcher_and_rank(config, monkeypatch):
    cfg = load_run_config(config, ["model.generator.in_size=16"], launcher="pytorch", local_rank=3)
    assert (cfg.launcher, cfg.model.generator.in_size, os.environ["LOCAL_RANK"]) == ("pytorch", 16, "3")
    monkeypatch.setenv("LOCAL_RANK", "1")  # as torchrun sets it
    load_run_config(config, local_rank=3)
    assert os.environ["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("model.generator", "model.generator: it must be key=value, e.g. model.generator.in_size=64."),
        ("=1", "=1: it must be key=value, e.g. model.generator.in_size=64."),
        ("model..x=1", "model..x=1: it must be key=value, e.g. model.generator.in_size=64."),
        ("modell.x={a}", "modell.x={a}: the config has no 'modell'. Correct the key."),
        ("model.generator.type.x=1", "model.generator.type.x=1: "),
    ],
)
def test_a_bad_option_is_named_as_its_reader_knows_it(config, option, problem):
    with pytest.raises(InputError) as caught:
        load_config(config, [option])
    assert caught.value.parameter == "cfg_options"
    assert str(caught.value).startswith(f"cfg_options {problem}")
    assert caught.value.render(as_option).startswith(f"--cfg-options {problem}")


@pytest.mark.parametrize("name", ["glean_x16_ffhq", "glean_x16_ffhq.py", "configs/glean_x16_ffhq.py"])
def test_shipped_configs_are_found_from_everywhere(config, name):
    assert find_config(name).read_text() == (Path(__file__).parents[1] / "configs/glean_x16_ffhq.py").read_text()


def test_a_file_of_the_user_goes_before_a_shipped_config(config):
    Path("glean_x16_ffhq.py").write_text(CONFIG)
    assert find_config("glean_x16_ffhq.py").read_text() == CONFIG
    for name in "no", "../configs/no.py", "/configs/glean_x16_ffhq.py":
        with pytest.raises(InputError) as caught:
            find_config(name)
        assert str(caught.value) == f"{name}: there is no such file. Give the path of a config."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "cannot be read: ZeroDivisionError: division by zero. Correct it."),
        ("_base_ = 'no.py'", ": a file that it names is missing ("),
        ("model = 5", "has no model.generator = dict(type='GLEANStyleGANv2', ...). Add it, or take another config."),
        ("model = dict(generator=dict())", "has no model.generator = dict(type='GLEANStyleGANv2', ...). Add it"),
        ("raise SystemError", "cannot be read: SystemError"),
    ],
)
def test_a_config_that_cannot_be_used(config, text, message):
    config.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(config)
    assert str(caught.value).removeprefix(str(config)).strip().startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", ["{}x4", "{:08d}.png", "{x:02d}", "{}.pth"])
def test_a_template_is_a_text(template):
    cfg = load_config("demo_glean_x8", [f"val_dataloader.dataset.filename_tmpl.img={template}"])
    assert cfg.val_dataloader.dataset.filename_tmpl.img == template


@pytest.mark.parametrize("label", ["golden retriever", "7", "a, b", "true", "None", "1e3", "x=y", "{}"])
def test_a_label_is_a_text(label):
    options = ["model.generator.in_size=16", f"model.generator.label={label}"]
    generator = load_config("demo_glean_biggan_x8", options).model.generator
    assert (generator.label, generator.in_size) == (label, 16)
    config = {"model": {"generator": dict(generator, label=None)}, "text": "of a dict that is no file"}
    assert with_options(config, options[1:])["model"]["generator"]["label"] == label
    assert config["model"]["generator"]["label"] is None


@pytest.mark.parametrize("value", ["{'a': 1}", "{'a':1}", "dict(a=1)", "{}", "[{'a': 1}]"])
def test_a_dict_is_refused(value):
    with pytest.raises(InputError, match="a value cannot be a dict"):
        load_config("demo_glean_x8", [f"model.pixel_loss={value}"])
