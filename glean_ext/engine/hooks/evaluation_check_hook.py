"""Checks, before training starts, that the metrics can measure the data set, and which checkpoint is the best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.engine.config_checks import check_rule
from glean_ext.errors import InputError


class EvaluationCheckHook(Hook):
    """Finds mistakes that would stop training at the first validation, or make it keep the worst checkpoint.

    Raises:
        InputError: A metric needs more images, or larger ones; ``save_best`` is not measured, or its rule is wrong.
    """

    priority = "VERY_HIGH"

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is not None:
            check_data(runner.val_loop)
            for hook in runner.hooks:
                if isinstance(hook, CheckpointHook) and hook.save_best:
                    check_best(hook, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        check_data(runner.test_loop)


def check_data(loop: Any) -> None:
    """Let the metrics check the number of the images, and the size of the first one."""
    for evaluator, loader in evaluations(loop):
        for metric in evaluator.metrics:
            if hasattr(metric, "check_count"):
                metric.check_count(len(loader.dataset))
            if hasattr(metric, "check_size"):
                with seeded(0):  # reading draws no random numbers of the training
                    sample = loader.dataset[0]["data_samples"]
                metric.check_size(*sample.gt_img.shape[1:])


def check_best(hook: CheckpointHook, loop: Any) -> None:
    """Check that a validation measures what decides about the best checkpoint, and that the rule fits."""
    measured = measured_names(loop)
    for name, rule in zip(hook.key_indicators, hook.rules, strict=True):
        if measured is not None and name != "auto" and name not in measured:
            raise InputError(
                f"config: default_hooks.checkpoint.save_best is {name!r}, but val_evaluator measures "
                f"{', '.join(measured)}. Set it to one of these, or to None."
            )
        check_rule(name, rule)


def measured_names(loop: Any) -> list[str] | None:
    """The names of the values that a validation gives; None if one of its metrics does not tell them."""
    names: list[str] = []
    for evaluator, _ in evaluations(loop):
        for metric in evaluator.metrics:
            own = getattr(metric, "names", ()) or [getattr(metric, "metric", None)]  # as MMagic calls it
            if not isinstance(own[0], str):
                return None
            names += [f"{metric.prefix}/{name}" if metric.prefix else name for name in own]
    return names


def evaluations(loop: Any) -> Iterator[tuple[Any, Any]]:
    """The evaluator and the data loader of each data set; MMagic's loops have several, mmengine's one."""
    if hasattr(loop, "evaluators"):
        yield from zip(loop.evaluators, loop.dataloaders, strict=True)
    else:
        yield loop.evaluator, loop.dataloader
