"""Training and testing through mmengine's runner."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine import Config
from mmengine.runner import Runner

from glean_ext import checkpoints
from glean_ext.errors import InputError

# mmengine puts this before the message of whatever a constructor raises.
_BUILT_FROM = re.compile(r"^class `[^`]+` in \S+\.py: ")


@contextmanager
def config_mistakes_as_input_errors() -> Iterator[None]:
    """Turn what mmengine raises for a wrong config into an InputError; anything else passes."""
    try:
        yield
    except InputError as error:  # raised in a constructor or, with a traceback in its text, in a data worker
        text = str(error).strip().splitlines()[-1].removeprefix("glean_ext.errors.InputError: ")
        while _BUILT_FROM.match(text):
            text = _BUILT_FROM.sub("", text)
        raise InputError(text) from error
    except (TypeError, ValueError, AssertionError) as error:
        text = str(error)
        if not _BUILT_FROM.match(text):
            raise
        while _BUILT_FROM.match(text):
            text = _BUILT_FROM.sub("", text)
        raise InputError(f"config: {text}") from error
    except KeyError as error:
        if "registry" not in str(error):
            raise
        raise InputError(f"config: {error.args[0]}") from error


def use_mixed_precision(cfg: Config, dtype: str = "bfloat16") -> None:
    """Give every optimiser of ``cfg`` the mixed-precision wrapper."""
    for wrapper in cfg.optim_wrapper.values():
        if isinstance(wrapper, dict) and wrapper.get("type", "OptimWrapper") == "OptimWrapper":
            wrapper.update(type="MixedPrecisionOptimWrapper", dtype=dtype)


def train(cfg: Config) -> Runner:
    """Train as ``cfg`` says; with ``cfg.resume``, from the newest checkpoint of ``cfg.work_dir``.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    with config_mistakes_as_input_errors():
        import glean_ext.plugin  # noqa: F401

        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


def test(cfg: Config, checkpoint: str | Path) -> dict[str, float]:
    """The metrics of ``cfg.test_evaluator`` over ``cfg.test_dataloader``, with the weights of ``checkpoint``.

    Raises:
        InputError: A mistake in the config, or a file that is missing or does not fit.
    """
    with config_mistakes_as_input_errors():
        import glean_ext.plugin  # noqa: F401

        cfg = cfg.copy()
        for key in "discriminator", "gan_loss", "perceptual_loss":  # only training needs them
            cfg.model.pop(key, None)
        for key in "train_cfg", "train_dataloader", "optim_wrapper", "param_scheduler":
            cfg.pop(key, None)
        for key in "val_cfg", "val_dataloader", "val_evaluator":
            cfg.pop(key, None)
        runner = Runner.from_cfg(cfg)
        checkpoints.load_restorer(runner.model.generator, checkpoint)
        return {name: float(value) for name, value in runner.test().items()}
