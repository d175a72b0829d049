"""Keeps the wrappers of distributed training out of checkpoints."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from glean_ext.checkpoints import plain_keys
from glean_ext.engine.unwrap import unwrap


class PlainKeysHook(Hook):
    """Keeps the wrappers of distributed training out of the keys of checkpoints.

    mmengine writes ``generator.module.encoder...`` when each network has its own wrapper, and looks for
    ``generator.encoder...`` when it reads: it would resume with nothing but a warning, from the initial weights.
    """

    priority = "VERY_HIGH"  # before the average of the weights (EMAHook), which takes and gives plain keys

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["state_dict"] = _without_wrappers(checkpoint["state_dict"], unwrap(runner.model))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = unwrap(runner.model)
        if "state_dict" in checkpoint:
            checkpoint["state_dict"] = _without_wrappers(checkpoint["state_dict"], model)
        if average := checkpoint.get("ema_state_dict"):
            checkpoint["ema_state_dict"] = _average_without_wrappers(average, model)


def _without_wrappers(state: dict, model: nn.Module) -> dict:
    # The model's own keys decide: an average of weights inside it has a "module", too, which is no wrapper.
    parts = model.named_children()
    own = plain_keys({key: key for name, part in parts for key in _keys(name, unwrap(part))})
    renamed = plain_keys({key: key for key in state})
    return {own.get(plain, plain): state[key] for plain, key in renamed.items()}


def _average_without_wrappers(state: dict, model: nn.Module) -> dict:
    """Of ``EMAHook``: the average's weights are below ``module.``, beside how many steps it has made."""
    weights = {key.removeprefix("module."): value for key, value in state.items() if key.startswith("module.")}
    others = {key: value for key, value in state.items() if not key.startswith("module.")}
    return {**others, **{f"module.{key}": value for key, value in _without_wrappers(weights, model).items()}}


def _keys(name: str, part: nn.Module) -> list[str]:
    return [f"{name}.{key}" for key in part.state_dict()]
