"""Checks of a config before anything is built from it."""

from __future__ import annotations

from mmengine import Config

from glean_ext.errors import InputError


def require(cfg: Config, *settings: str) -> None:
    """Raise InputError for settings that are not in the config."""
    missing = [name for name in settings if not cfg.get(name)]
    if missing:
        raise InputError(f"config: it has no {', '.join(missing)}. Add it; configs/_base_ has examples.")


def check_training(cfg: Config) -> None:
    """Everything that can be checked of a config for training.

    Raises:
        InputError: The first mistake.
    """
    check_optimizers(cfg)


def check_test(cfg: Config) -> None:
    """Everything that can be checked of a config for a test.

    Raises:
        InputError: The first mistake.
    """


def check_optimizers(cfg: Config) -> None:
    """Refuse unknown optimisers, of which mmengine would say ``None is not a callable object``."""
    from mmagic.registry import OPTIMIZERS

    for name, wrapper in cfg.optim_wrapper.items():
        if name == "discriminator" and not cfg.model.get("discriminator"):
            continue  # it is dropped
        kind = wrapper.get("optimizer", {}).get("type") if isinstance(wrapper, dict) else None
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            raise InputError(f"config: optim_wrapper.{name}: there is no optimizer {kind!r}. Correct the type.")
