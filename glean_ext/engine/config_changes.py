"""Changes of a config that a front end offers as options. They need no torch."""

from __future__ import annotations

from mmengine import Config

from glean_ext.errors import InputError

AMP_WRAPPERS = ("MixedPrecisionOptimWrapper", "AmpOptimWrapper")


def use_mixed_precision(cfg: Config, dtype: str = "bfloat16") -> None:
    """Give every optimiser of ``cfg`` the mixed-precision wrapper.

    Raises:
        InputError: An optimiser has a wrapper of another kind, or there is no optimiser.
    """
    wrappers = {k: v for k, v in (cfg.get("optim_wrapper") or {}).items() if isinstance(v, dict) and "optimizer" in v}
    for name, wrapper in wrappers.items():
        kind = wrapper.get("type", "OptimWrapper")
        if kind == "OptimWrapper":
            wrapper.update(type="MixedPrecisionOptimWrapper", dtype=dtype)
        elif kind not in AMP_WRAPPERS:
            raise InputError(
                f"optim_wrapper.{name} is a {kind}, which has no mixed precision.",
                parameter="amp",
                hint="Remove its type, or train without {amp}.",
            )
    if not wrappers:
        raise InputError(
            "The config has no optim_wrapper=dict(generator=dict(optimizer=...), ...) for mixed precision.",
            parameter="amp",
            hint="Add it, or train without {amp}.",
        )


def scale_learning_rates(cfg: Config) -> None:
    """Let mmengine scale the learning rates by the real batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        InputError: The config does not say what batch size its learning rates are for.
    """
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise InputError(
            "The config has no auto_scale_lr=dict(base_batch_size=...), the batch size of all GPUs together that its "
            "learning rates are for.",
            parameter="auto_scale_lr",
            hint="Add it, or train without {auto_scale_lr}.",
        )
    cfg.auto_scale_lr.enable = True
