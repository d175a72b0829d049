"""What a training or test works with, in a few lines at its start."""

from __future__ import annotations

from typing import Any

import torch
from mmengine import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from glean_ext.engine.checkpoint_resume import images_per_iteration
from glean_ext.engine.hooks.evaluation_check_hook import evaluations
from glean_ext.engine.unwrap import unwrap
from glean_ext.utils.downloads import without_secrets


class StartSummaryHook(Hook):
    """Logs the numbers of iterations, images and parameters, the device, the bank, and where checkpoints go."""

    def before_train(self, runner: Runner) -> None:
        images = f"{len(runner.train_dataloader.dataset):,} images to train"
        if runner.val_loop is not None:
            images += f", {_count_images(runner.val_loop):,} to validate"
        steps = f"iterations {runner.iter + 1:,} to {runner.max_iters:,}, {images_per_iteration(runner)} images in each"
        runner.logger.info(f"{images}; {steps}")
        runner.logger.info(_describe_model(runner, trained=True))
        runner.logger.info(f"Checkpoints go to {runner.work_dir}.")

    def before_test(self, runner: Runner) -> None:
        runner.logger.info(f"{_count_images(runner.test_loop):,} images to test; {_describe_model(runner)}")


def _count_images(loop: Any) -> int:
    return sum(len(loader.dataset) for _, loader in evaluations(loop))


def _describe_model(runner: Runner, trained: bool = False) -> str:
    model = unwrap(runner.model)
    parts = {name: list(part.parameters()) for name, part in model.named_children()}
    sizes = []
    for name, parameters in parts.items():
        if total := sum(parameter.numel() for parameter in parameters):
            free = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            share = "" if free == total or not trained else f", {free:,} of them trained" if free else ", not trained"
            sizes.append(f"{name} with {total:,} parameters{share}")
    if "generator" in parts and (bank := describe_bank(unwrap(model.get_submodule("generator")), runner.cfg)):
        sizes.append(f"bank: {bank}")
    device = next(model.parameters()).device
    sizes.append(f"on {torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type}")
    return "; ".join(sizes)


def describe_bank(net: nn.Module, cfg: Config) -> str | None:
    """What a restorer's bank is and where it comes from; None for other networks."""
    if not isinstance(bank := getattr(net, "bank", None), str):
        return None
    source = (cfg.model.generator.get("init_cfg") or {}).get("checkpoint")
    return f"{bank}, from {without_secrets(str(source)) if source else 'random weights'}"
