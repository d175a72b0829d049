"""Mistakes in a config are found before training starts, each with its fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine import Config
from support.runners import NO_VALIDATION, ROOT, Recorder, train

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.config import load_config
from glean_ext.engine import config_checks
from glean_ext.engine import runner as runners
from glean_ext.engine.config_checks import RULES, _check_schedules, check_training
from glean_ext.engine.dry_run import dry_run
from glean_ext.errors import InputError

pytest_plugins = ["support.runners"]
pytestmark = pytest.mark.usefixtures("fast", "hooks", "clean_mmengine")
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.parent.name != "_base_")


def fault(home: Path, *options: str, validate: bool = True) -> str:
    """The message; nothing has been trained."""
    with pytest.raises(InputError) as error:
        train(home, *options, validate=validate)
    assert not list(Path("work").glob("*.pth"))
    return str(error.value)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_pass(path):
    check_training(load_config(path))


@pytest.mark.parametrize(("batch", "group"), [(5, 4), (6, 4), (9, 6)])
@pytest.mark.parametrize("run", [runners.train, dry_run])
def test_batch_sizes_that_the_discriminator_cannot_group(home, batch, group, run):
    options = f"train_dataloader.batch_size={batch}", f"model.discriminator.mbstd_cfg.group_size={group}"
    cfg = load_config("config.py", [*options[: 1 if group == 4 else 2], *NO_VALIDATION])
    cfg.work_dir = "work"
    Recorder.last = None
    with pytest.raises(InputError) as error:
        run(cfg)
    assert str(error.value) == (
        f"The discriminator compares images in groups of {group}, so a batch of {batch} does not fit: take at most "
        f"{group} images or a multiple of {group} (train_dataloader.batch_size, which is per GPU), or set "
        "model.discriminator.mbstd_cfg.group_size."
    )
    assert not Recorder.last.iterations, "nothing has been trained"


@pytest.mark.parametrize(("batch", "options"), [(3, ()), (6, ("model.discriminator.mbstd_cfg.group_size=3",))])
def test_other_batch_sizes_train(home, batch, options):
    assert train(home, f"train_dataloader.batch_size={batch}", "train_cfg.max_iters=1", *options).iter == 1


@pytest.mark.parametrize("option", ["strategy=dict(type='FSDPStrategy')", "runner_type='FlexibleRunner'"])
def test_sharded_training_is_refused(home, option):
    name, _, value = option.partition("=")
    change(home, f"{name} = {value}\n")
    assert fault(home) == (
        f"config: {name} asks for mmengine's FlexibleRunner (FSDP, DeepSpeed), "
        "which cannot train a generator and a discriminator. Remove it: several GPUs train through DDP, see "
        "tools/dist_train.sh."
    )


NUMBERS = {
    "train_cfg.max_iters=many": "train_cfg.max_iters is 'many', but it must be a whole number of at least 1.",
    "train_cfg.max_iters=2.5": "train_cfg.max_iters is 2.5, but it must be a whole number of at least 1.",
    "train_cfg.val_interval=0": "train_cfg.val_interval is 0, but it must be a whole number of at least 1.",
    "model.r1_gamma=ten": "model.r1_gamma is 'ten', but it must be a number of at least 0.",
    "model.train_cfg.disc_steps=0": "model.train_cfg.disc_steps is 0, but it must be a whole number of at least 1.",
    "optim_wrapper.generator.optimizer.lr=-1e-4": (
        "optim_wrapper.generator.optimizer.lr is -0.0001, but it must be a number above 0."
    ),
    "optim_wrapper.discriminator.accumulative_counts=True": (
        "optim_wrapper.discriminator.accumulative_counts is True, but it must be a whole number of at least 1."
    ),
    "custom_hooks.0.interval=often": (
        "custom_hooks.0.interval is 'often', but it must be a whole number of at least -1."
    ),
    "default_hooks.logger.interval=0": (
        "default_hooks.logger.interval is 0, but it must be a whole number of at least 1."
    ),
    "train_dataloader.dataset.scale=0": (
        "train_dataloader.dataset.scale is 0, but it must be a whole number of at least 1."
    ),
    "model.gan_loss.loss_weight=-1": "model.gan_loss.loss_weight is -1, but it must be a number of at least 0.",
    "model.gan_loss.real_label_val=yes": "model.gan_loss.real_label_val is 'yes', but it must be a number.",
    "model.data_preprocessor.std=[0,1,1]": "model.data_preprocessor.std.0 is 0, but it must be a number above 0.",
    "model.adversarial_from=1.5": "model.adversarial_from is 1.5, but it must be a whole number of at least 0.",
    "model.label_weight=inf": "model.label_weight is inf, but it must be a number of at least 0.",
    "param_scheduler.T_max=0": "param_scheduler.T_max is 0, but it must be a whole number of at least 1.",
}


@pytest.mark.parametrize(("option", "message"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_of_the_wrong_kind(home, option, message):
    assert fault(home, option) == f"config: {message} Correct it."


OTHERS = {
    "param_scheduler.by_epoch=True": (
        "config: param_scheduler counts epochs, but training counts iterations, so the learning rate would never "
        "change. Set param_scheduler.by_epoch=False."
    ),
    "optim_wrapper.generator.clip_grad.norm_typ=2": (
        "config: optim_wrapper.generator.clip_grad: there is no argument 'norm_typ'. Did you mean norm_type?"
    ),
    "default_hooks.checkpoint.by_epoch=True": (
        "config: default_hooks.checkpoint counts epochs, but training counts iterations, so nothing would be saved "
        "before its end. Set default_hooks.checkpoint.by_epoch=False."
    ),
    "default_hooks.checkpoint.out_dir=config.py/below": (
        "config: default_hooks.checkpoint.out_dir is config.py/below, where nothing can be written. Choose another "
        "folder."
    ),
    "train_dataloader.dataset.pipeline=[]": (
        "The batch lacks images. The dataset's pipeline must make 'img' and, to train, 'gt', and end in "
        "dict(type='PackInputs'); configs/_base_/data.py has one."
    ),
    "load_from=5": "config: load_from is 5, but it must be a path or URL. Correct it.",
    "custom_hooks.0.type=EMAHook custom_hooks.0.interval=0": (
        "config: EMAHook.interval is 0, but it must be a whole number of at least 1. Correct it."
    ),
    "optim_wrapper.generator.clip_grad=dict(max_norm=1,norm_type=2)": (
        "cfg_options optim_wrapper.generator.clip_grad=dict(max_norm=1,norm_type=2): a value cannot be a dict. Give "
        "its settings one by one: optim_wrapper.generator.clip_grad.<name>=<value>."
    ),
    "work_dir=runs(1,2)": ("cfg_options work_dir=runs(1,2): a text with a comma in brackets cannot be given here."),
    "optim_wrapper=3": "config: optim_wrapper is 3, but it must be a dict. configs/_base_ has examples.",
    "train_dataloader.persistent_workers=True": (
        "train_dataloader.persistent_workers=True needs loading processes, but train_dataloader.num_workers is 0. Set "
        "train_dataloader.persistent_workers=False, or train_dataloader.num_workers=1 or more."
    ),
    "val_dataloader.persistent_workers=True": (
        "val_dataloader.persistent_workers=True needs loading processes, but val_dataloader.num_workers is 0. Set "
        "val_dataloader.persistent_workers=False, or val_dataloader.num_workers=1 or more."
    ),
}


@pytest.mark.parametrize(("option", "message"), OTHERS.items(), ids=OTHERS)
def test_other_settings(home, option, message):
    assert fault(home, *option.split()) == message


def test_a_dry_run_without_hooks(home):
    cfg = load_config("config.py", [*NO_VALIDATION, "custom_hooks=None", "default_hooks.checkpoint=None"])
    cfg.work_dir = "work"
    assert dry_run(cfg).steps == 3


def test_schedules_that_count_iterations_are_needed_in_lists_too():
    cfg = Config(
        {
            "model": {},
            "train_cfg": {"max_iters": 9},
            "train_dataloader": {},
            "optim_wrapper": {},
            "param_scheduler": {"generator": [{"type": "LinearLR", "by_epoch": False}, {"type": "StepLR"}]},
        }
    )
    with pytest.raises(InputError, match=r"config: param_scheduler.generator.1 counts epochs"):
        _check_schedules(cfg)
    cfg.train_cfg = {"by_epoch": True, "max_epochs": 9}
    _check_schedules(cfg)


def test_a_work_dir_that_cannot_be_made(home):
    Path("file").touch()
    for work_dir in "file", "file/below":
        cfg = load_config("config.py", NO_VALIDATION)
        cfg.work_dir = work_dir
        for run in runners.train, dry_run:
            with pytest.raises(InputError) as error:
                run(cfg)
            assert str(error.value).startswith(f"{work_dir} cannot be made a folder")
            assert str(error.value).endswith(" Choose another work_dir.")


# ---------------------------------------------------------------- metrics and the best checkpoint


def change(home: Path, text: str) -> None:
    config = home / "config.py"
    config.write_text(config.read_text() + text)


BEST = {
    ("PSNR", "less", "dict(type='PSNR')"): (
        "config: default_hooks.checkpoint.rule is 'less', but a greater PSNR is better. Set "
        "default_hooks.checkpoint.rule='greater'."
    ),
    ("MAE", "greater", "dict(type='MAE')"): (
        "config: default_hooks.checkpoint.rule is 'greater', but a lower MAE is better. Set "
        "default_hooks.checkpoint.rule='less'."
    ),
    ("faces/LR_MAE", "greater", "dict(type='LRConsistency', prefix='faces')"): (
        "config: default_hooks.checkpoint.rule is 'greater', but a lower faces/LR_MAE is better. Set "
        "default_hooks.checkpoint.rule='less'."
    ),
    ("PSNR", "greater", "dict(type='SSIM'), dict(type='LRConsistency')"): (
        "config: default_hooks.checkpoint.save_best is 'PSNR', but val_evaluator measures SSIM, LR_PSNR, LR_MAE. Set "
        "it to one of these, or to None."
    ),
}


@pytest.mark.parametrize(("setting", "message"), BEST.items(), ids=[" ".join(setting) for setting in BEST])
def test_the_best_checkpoint_can_be_found(home, setting, message):
    best, rule, metrics = setting
    change(
        home, f"val_evaluator = [{metrics}]\ndefault_hooks['checkpoint'].update(save_best={best!r}, rule={rule!r})\n"
    )
    assert fault(home) == message
    cfg = load_config("config.py")
    cfg.work_dir = "work"
    with pytest.raises(InputError) as error:
        dry_run(cfg)
    assert str(error.value) == message


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_keep_the_best(path):
    checkpoint = load_config(path).default_hooks.checkpoint
    if checkpoint.save_best is not None:
        assert RULES[checkpoint.save_best] == checkpoint.rule


def test_metrics_that_cannot_measure_the_validation_set(home, inception_file):
    """16x16 images; and one image, of which there is no distribution."""
    change(home, "val_evaluator = [dict(type='PSNR'), dict(type='NIQE')]\n")
    assert fault(home) == (
        "NIQE needs images of at least 96x192 pixels, but the output has 16x16. Remove NIQE from the evaluator."
    )
    change(
        home, f"val_evaluator = [dict(type='PSNR'), dict(type='RestorationFID', pretrained={str(inception_file)!r})]\n"
    )
    change(home, "val_dataloader['dataset'] = dict(data, ann_file='one.txt')\n")
    Path("data/one.txt").write_text("0.png\n")
    assert fault(home) == "FID needs at least 2 images, but the dataset has 1. Remove RestorationFID."


def test_a_norm_without_limit_is_only_logged():
    kind = config_checks.NUMBERS["optim_wrapper.*.clip_grad.max_norm"]
    assert kind.accepts(float("inf")) and not kind.accepts(float("nan")) and not kind.accepts(0)
    assert not config_checks.NUMBERS["model.r1_gamma"].accepts(float("inf"))
