"""docs/training.md: its config loads, and its commands are ones that the tools know."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.training import ROOT

from glean_ext.config import load_config

PAGE = (ROOT / "docs/training.md").read_text().replace("\\\n", "")
COMMANDS = re.findall(r"(?:python|bash) (tools/\w+\.(?:py|sh))([^\n#`]*)", PAGE)


def test_the_config_of_the_page(tmp_path):
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_cats.py").write_text(text.replace("glean_x8_cat.py", str(ROOT / "configs/glean_x8_cat.py")))
    config = load_config(tmp_path / "my_cats.py")
    bank = "work_dirs/bank_256/iter_800000.pth"
    assert config.model.generator.init_cfg == {"type": "Pretrained", "checkpoint": bank, "prefix": "generator_ema"}
    assert config.model.discriminator.init_cfg == {"type": "Pretrained", "checkpoint": bank, "prefix": "discriminator"}
    assert config.train_dataloader.dataset.data_root == "data/bank/train"
    assert config.test_dataloader == config.val_dataloader
    assert config.test_dataloader.dataset.data_root == "data/bank/test" and config.test_dataloader.dataset.scale == 8
    assert load_config(ROOT / "configs/bank_256.py").train_cfg.max_iters == 800_000
    assert load_config(ROOT / "configs/bank_256.py").train_dataloader.dataset.data_root == "data/bank/train"


@pytest.mark.parametrize(("tool", "arguments"), COMMANDS)
def test_the_commands_of_the_page(tool, arguments):
    options = ["glean_ext/cli/base.py", "glean_ext/cli/restore_options.py"]  # of several tools, and of tools/infer.py
    own = ROOT / "glean_ext/cli" / f"{Path(tool).stem}.py"  # where the tool itself is a call of this module
    text = "".join(
        path.read_text() for path in (ROOT / tool, *(ROOT / file for file in options), own) if path.is_file()
    )
    words = shlex.split(arguments)
    for word in words:
        if word.startswith("-"):
            assert f'"{word}"' in text, f"{tool} has no {word}"
        if word.startswith("configs/") and "my_" not in word:
            assert Path(ROOT, word).is_file()
    assert len(COMMANDS) > 8
