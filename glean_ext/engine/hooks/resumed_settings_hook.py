"""Reports which settings a resumed run takes from its checkpoint instead of the config."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from glean_ext.compat import is_resuming
from glean_ext.engine.checkpoint_resume import images_per_iteration
from glean_ext.errors import Notice

# What schedules and optimisers save that is their progress, or a reference, and not a setting.
STATE_KEYS = {
    "last_step",
    "_global_step",
    "_last_value",
    "base_values",
    "verbose",
    "params",
    "param_name",
    "optimizer",
}

Settings = dict[str, object]


class ResumedSettingsHook(Hook):
    """Warns of each setting that a resumed run takes from the checkpoint although the config has another value.

    mmengine restores the schedules of the learning rates, including their end, and the settings of the optimisers.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not is_resuming(runner):
            return
        kept = [
            *_differences(_schedules(runner.param_schedulers), _schedules(checkpoint.get("param_schedulers"))),
            *_differences(_optimizers(runner.optim_wrapper.state_dict()), _optimizers(checkpoint["optimizer"])),
        ]
        if kept:
            runner.logger.warning(
                Notice(
                    f"The settings of the checkpoint stay, those of the config do not count: {', '.join(kept)}.",
                    ("resume", "load_from"),
                    "For others start a new run from the weights: {load_from=<checkpoint>} without {resume}.",
                )
            )
        before, now = checkpoint.get("random_states", {}).get("batch"), images_per_iteration(runner)
        if before and before != now:
            runner.logger.warning(
                f"An iteration had {before} images and has {now} from here on: the learning rates were for {before}, "
                "and the run continues at another position in the data."
            )


def _schedules(schedulers: dict | list | None) -> dict[str, Settings]:
    """The settings of schedulers, or of their saved states, by a name for each."""
    lists = schedulers if isinstance(schedulers, dict) else {"": schedulers or []}
    return {
        f"{name} schedule".strip() + (f" {k + 1}" if k else ""): dict(
            scheduler if isinstance(scheduler, dict) else vars(scheduler)
        )
        for name, of_network in lists.items()
        for k, scheduler in enumerate(of_network)
    }


def _optimizers(state: dict) -> dict[str, Settings]:
    """The settings of each optimiser's first parameter group, with the initial learning rate as ``lr``."""
    states = {"": state} if "param_groups" in state else state
    groups = {name: saved["param_groups"][0] for name, saved in states.items() if "param_groups" in saved}
    return {
        f"{name} optimizer".strip(): {**group, "lr": group.get("initial_lr", group["lr"]), "initial_lr": None}
        for name, group in groups.items()
    }


def _differences(wanted: dict[str, Settings], saved: dict[str, Settings]) -> list[str]:
    return [
        f"{name} {key} {saved[name][key]} instead of {value}"
        for name, settings in wanted.items()
        for key, value in settings.items()
        if name in saved and key in saved[name] and key not in STATE_KEYS and saved[name][key] != value
    ]
