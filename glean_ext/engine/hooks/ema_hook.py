"""The moving average of a restorer's weights."""

from __future__ import annotations

from mmengine.hooks import EMAHook as MMEngineEMAHook
from mmengine.registry import MODELS
from mmengine.runner import Runner

from glean_ext.engine.config_checks import COUNT
from glean_ext.engine.unwrap import unwrap, view_without_wrappers
from glean_ext.errors import InputError


class EMAHook(MMEngineEMAHook):
    """mmengine's hook of the same name, for models whose networks each have a wrapper for distributed training, too.

    mmengine averages the wrapped networks, and the wrappers become part of the keys of the checkpoint: it could be
    resumed neither by several processes nor by one.
    """

    def before_run(self, runner: Runner) -> None:
        """Start the average at the model's weights.

        Raises:
            InputError: An ``interval`` below 1.
        """
        interval = self.ema_cfg.get("interval", 1)
        if not COUNT.accepts(interval):
            raise InputError(f"config: EMAHook.interval is {interval!r}, but it must be {COUNT}. Correct it.")
        self.src_model = view_without_wrappers(unwrap(runner.model))
        self.ema_model = MODELS.build(self.ema_cfg, default_args={"model": self.src_model})
