"""docs/training.md: its configs load, and its commands name configs and settings that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support.training import ROOT

from glean_ext.config import load_config
from glean_ext.utils.tar_shards import list_shards, read_contents

PAGE = re.sub(r"\\\n\s*", "", (ROOT / "docs/training.md").read_text())
COMMANDS = re.findall(r"^ {4,}glean (\S+)([^\n#]*)", PAGE, re.M)
CONFIGS = dict(
    zip(
        ("my_cats.py", "my_faces.py", "my_shards.py", "my_eval.py"),
        re.findall(r"```python\n(.*?)```", PAGE, re.S),
        strict=True,
    )
)


@pytest.fixture
def configs(tmp_path) -> Path:
    """The configs of the page beside those of this package."""
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    for path in (ROOT / "configs").iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def test_a_category_of_ones_own(configs):
    config = load_config(configs / "my_cats.py")
    bank = "work_dirs/bank_256/iter_800000.pth"
    assert config.model.generator.init_cfg == {"type": "Pretrained", "checkpoint": bank, "prefix": "generator_ema"}
    assert config.model.discriminator.init_cfg == {"type": "Pretrained", "checkpoint": bank, "prefix": "discriminator"}
    assert config.train_dataloader.dataset.data_root == "data/bank/train"
    assert config.test_dataloader == config.val_dataloader
    assert config.test_dataloader.dataset.data_root == "data/bank/test" and config.test_dataloader.dataset.scale == 8
    assert load_config(ROOT / "configs/bank_256.py").train_cfg.max_iters == 800_000
    assert load_config(ROOT / "configs/bank_256.py").train_dataloader.dataset.data_root == "data/bank/train"


def test_fine_tuning_of_a_released_model(configs):
    config = load_config(configs / "my_faces.py")
    assert config.load_from.endswith("glean_in128out1024_4x2_300k_ffhq_celebahq_20210812-acbcb04f.pth")
    for network in "generator", "discriminator":
        optimizer = config.optim_wrapper[network].optimizer
        assert (optimizer.type, optimizer.lr) == ("Adam", 1e-5)
    assert config.train_cfg.max_iters == config.param_scheduler.T_max == 10_000
    for loader in config.train_dataloader, config.val_dataloader:
        assert loader.dataset.data_prefix == {"gt": "GT"}  # where glean prepare-data puts the images


def test_images_in_tar_shards(configs, tmp_path, monkeypatch):
    """The config of the page takes the shards that its command writes."""
    config = load_config(configs / "my_shards.py")
    dataset = config.train_dataloader.dataset
    assert (config.train_dataloader.sampler.type, dataset.type) == ("ResumableSampler", "SRShardDataset")
    monkeypatch.chdir(tmp_path)
    folder = Path("data/mine/train/GT")
    folder.mkdir(parents=True)
    for number in range(1003):
        (folder / f"{number:04d} a.png").touch()
    (command,) = re.findall(r"^ {4}(mkdir -p shards && .*)$", PAGE, re.M)
    subprocess.run(["bash", "-c", command], check=True)
    contents = read_contents(list_shards(dataset.shards.replace("s3://bucket", "shards").replace("099", "001")))
    assert [len(shard.members) for shard in contents] == [1000, 3] and not any(shard.damage for shard in contents)
    assert contents[1].members[2].name == "1002 a.png"


def test_more_metrics(configs):
    names = [metric["type"] for metric in load_config(configs / "my_eval.py").test_evaluator]
    assert names == ["PSNR", "SSIM", "MAE", "LRConsistency", "LPIPS", "RestorationFID", "NIQE"]


@pytest.mark.parametrize(("command", "arguments"), COMMANDS)
def test_the_configs_of_the_commands(command, arguments):
    words = shlex.split(arguments)
    paths = [word for word in words if word.startswith("configs/") and Path(word).name not in CONFIGS]
    options = words[words.index("--cfg-options") + 1 :] if "--cfg-options" in words else []
    for path in paths:
        load_config(ROOT / path, [word for word in options if "=" in word])


def test_the_page_has_commands():
    assert {command for command, _ in COMMANDS} >= {"prepare-data", "train", "test", "restore"}
