"""What is read of types and arguments without importing them is what they are; mistakes of each kind are found."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from mmagic import registry as registries
from mmengine import Config

import glean_ext.plugin  # noqa: F401  (makes MMagic importable)
from glean_ext.engine.config_arguments import FOR_TEST, FOR_TRAINING, check_arguments, class_of, names_in
from glean_ext.errors import InputError

ROOT = Path(__file__).parents[2]
KINDS = sorted({part.registry for part in (FOR_TRAINING | FOR_TEST).values()})
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.parent.name != "_base_")


@cache
def live(kind: str) -> dict[str, type]:
    """All entries of one of MMagic's registries and its parents, without those that tests register."""
    registry, found = getattr(registries, kind), {}
    while registry is not None:
        found = registry.module_dict | found
        registry = registry.parent
    return {name: entry for name, entry in found.items() if not entry.__module__.startswith("test_")}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("MODELS", "OPTIMIZERS")])
def test_every_type_is_known_from_the_sources(kind):
    assert set(live(kind)) == set(names_in(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_read_from_sources_are_those_of_the_constructors(kind):
    compared = 0
    for name, entry in live(kind).items():
        found = class_of(name, kind)
        takes = found and found[1]
        if takes is None or not inspect.isclass(entry) or entry.__init__ is object.__init__:
            continue
        parameters = [*inspect.signature(entry.__init__).parameters.values()][1:]
        named = {each.name: each for each in parameters if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)}
        if any(each.kind is each.VAR_KEYWORD for each in parameters):  # goes to base classes, or anywhere
            assert set(named) <= set(takes.annotations), name
        else:
            assert not takes.further and set(named) == set(takes.annotations), name
            assert takes.required == {key for key, each in named.items() if each.default is each.empty}, name
        compared += 1
    assert compared > 0.6 * len([name for name in live(kind) if name in names_in(kind)])


CONFIG = {
    "default_scope": "mmagic",
    "model": {
        "type": "GLEAN",
        "generator": {"type": "GLEANStyleGANv2", "in_size": 8, "out_size": 64},
        "pixel_loss": {"type": "MSELoss"},
    },
    "train_dataloader": {
        "dataset": {
            "type": "SRFolderDataset",
            "data_root": "data",
            "data_prefix": {"gt": "GT"},
            "scale": 8,
            "pipeline": [{"type": "LoadRGB", "key": "gt"}],
        },
        "sampler": {"type": "ResumableSampler", "shuffle": True},
    },
    "train_cfg": {"type": "ResumableTrainLoop", "max_iters": 9},
    "optim_wrapper": {
        "constructor": "MultiOptimWrapperConstructor",
        "generator": {"type": "AmpOptimWrapper", "dtype": "bfloat16", "optimizer": {"type": "Adam", "lr": 1e-4}},
    },
    "param_scheduler": {"generator": [{"type": "StepLR", "step_size": 3, "by_epoch": False}]},
    "custom_hooks": [{"type": "FrozenBankHook", "interval": 3, "priority": "LOW"}],
    "val_evaluator": [{"type": "PSNR"}],
}
FAULTS = [  # setting, its value, and the message after "config: <setting or its part>"
    ("model.type", "GLEEN", "model.type: there is no model 'GLEEN'. Did you mean GLEAN? Correct the type, or name"),
    ("model.pixel_los", 1, "model (GLEAN): there is no argument 'pixel_los'. Did you mean pixel_loss?"),
    ("model.r1_gamma", "ten", "model (GLEAN): r1_gamma is 'ten', but it must be a number. Correct it."),
    (
        "model.pixel_loss.weight",
        1,
        "model.pixel_loss (MSELoss): there is no argument 'weight'. Did you mean loss_weight",
    ),
    (
        "train_dataloader.dataset.scales",
        8,
        "train_dataloader.dataset (SRFolderDataset): there is no argument 'scales'. D",
    ),
    (
        "train_dataloader.dataset.unreadable",
        "skipp",
        "train_dataloader.dataset (SRFolderDataset): unreadable must",
    ),
    (
        "train_dataloader.dataset.pipeline.0.type",
        "LoadRBG",
        "train_dataloader.dataset.pipeline.0.type: there is no transf",
    ),
    (
        "train_dataloader.dataset.pipeline.0.key",
        3,
        "train_dataloader.dataset.pipeline.0 (LoadRGB): key is 3, but it mus",
    ),
    (
        "train_dataloader.dataset.pipeline",
        [{"type": "LoadRGB"}],
        "train_dataloader.dataset.pipeline.0 (LoadRGB): key is ",
    ),
    (
        "train_dataloader.sampler.shufle",
        True,
        "train_dataloader.sampler (ResumableSampler): there is no argument 'shufl",
    ),
    (
        "train_cfg.max_iter",
        9,
        "train_cfg (ResumableTrainLoop): there is no argument 'max_iter'. Did you mean max_iters",
    ),
    (
        "optim_wrapper.generator.type",
        "AmpOptim",
        "optim_wrapper.generator.type: there is no optimizer wrapper 'AmpOptim",
    ),
    ("optim_wrapper.generator.clip", 1, "optim_wrapper.generator (AmpOptimWrapper): there is no argument 'clip'. Did"),
    (
        "optim_wrapper.generator.optimizer.type",
        "Adamm",
        "optim_wrapper.generator.optimizer.type: there is no optimizer",
    ),
    (
        "optim_wrapper.generator.optimizer.lrr",
        1,
        "optim_wrapper.generator.optimizer (Adam): there is no argument 'lrr'",
    ),
    (
        "param_scheduler.generator.0.type",
        "StepLRR",
        "param_scheduler.generator.0.type: there is no parameter scheduler",
    ),
    (
        "param_scheduler.generator",
        [{"type": "StepLR"}],
        "param_scheduler.generator.0 (StepLR): step_size is missing. A",
    ),
    (
        "custom_hooks.0.intervall",
        1,
        "custom_hooks.0 (FrozenBankHook): there is no argument 'intervall'. Did you mean int",
    ),
    (
        "custom_hooks.0.type",
        "FrozenBank",
        "custom_hooks.0.type: there is no hook 'FrozenBank'. Did you mean FrozenBankHo",
    ),
    ("val_evaluator.0.type", "PSNRR", "val_evaluator.0.type: there is no metric 'PSNRR'. Did you mean PSNR or SNR?"),
    (
        "val_evaluator.0.crop",
        1,
        "val_evaluator.0 (PSNR): there is no argument 'crop'. There are collect_device, convert_to,",
    ),
    ("custom_imports.imports", ["no_such.x"], "custom_imports: there is no module 'no_such'. Correct it, or install"),
]
TAKEN = {  # types that only MMagic knows when it is loaded, other packages' and settings that mmengine takes out
    "model.generator.type": "AutoencoderKL",
    "model.pixel_loss.type": "mypackage.MyLoss",
    "optim_wrapper.generator.optimizer.type": "AdamW8bit",
    "optim_wrapper.generator.paramwise_cfg": {},
    "param_scheduler.generator.0.convert_to_iter_based": True,
    "custom_hooks.0.type": "mmengine.EMAHook",
    "custom_hooks": [{"type": "EMAHook", "_scope_": "mmengine"}, {"type": "NoSuchHook", "_scope_": "mmdet"}],
    "val_evaluator": {"_delete_": True, "type": "Evaluator", "metrics": [{"type": "PSNR"}, {"type": "SSIM"}]},
    "model": {  # ProgressiveGrowingGAN gives its generator noise_size and out_scale
        "_delete_": True,
        "type": "ProgressiveGrowingGAN",
        "generator": {"type": "PGGANGenerator"},
        "discriminator": {"type": "PGGANDiscriminator", "in_scale": 64},
        "nkimgs_per_scale": {"64": 9},
        "data_preprocessor": {"type": "DataPreprocessor"},
    },
    "train_dataloader.dataset.type": "mmagic.SRFolderDataset",
    "custom_imports": {"imports": "no_such.x", "allow_failed_imports": True},
    "custom_imports.imports": ["json"],  # and with it any type
}


@pytest.fixture
def unloaded(monkeypatch):
    """As in a process that has not loaded MMagic."""
    monkeypatch.delitem(sys.modules, "mmagic.registry")


def changed(key: str, value: object) -> Config:
    config = Config(json.loads(json.dumps(CONFIG)))
    config.merge_from_dict({key: value})
    return config


@pytest.mark.parametrize(("key", "value", "message"), FAULTS, ids=[f"{key}={value}" for key, value, _ in FAULTS])
def test_a_mistake_is_named_with_the_setting(unloaded, key, value, message):
    with pytest.raises(InputError) as error:
        check_arguments(changed(key, value), FOR_TRAINING)
    assert str(error.value).startswith(f"config: {message}")


@pytest.mark.parametrize("key", TAKEN)
def test_what_is_not_known_for_certain_is_not_refused(unloaded, key):
    check_arguments(changed(key, TAKEN[key]), FOR_TRAINING)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("metrics", [{"type": "PSNRR"}, [{"type": "PSNRR"}]])
def test_metrics_of_evaluators_are_checked(unloaded, several, metrics):
    evaluator = {"_delete_": True, "type": "GenEvaluator", "metrics": metrics}
    config = changed("val_evaluator", [{"type": "GenEvaluator", "metrics": metrics}] if several else evaluator)
    with pytest.raises(InputError, match=r"config: val_evaluator\.[\w.]*type: there is no metric 'PSNRR'"):
        check_arguments(config, FOR_TRAINING)


def test_shipped_configs_pass_without_torch():
    code = (
        "import sys\nfrom glean_ext.config import load_config\n"
        "from glean_ext.engine.config_arguments import FOR_TEST, FOR_TRAINING, check_arguments\n"
        "for path in sys.argv[1:]:\n"
        "    for parts in FOR_TRAINING, FOR_TEST: check_arguments(load_config(path), parts)\n"
        "print('torch' in sys.modules)"
    )
    some = [str(path) for path in CONFIGS[::9]]
    done = subprocess.run([sys.executable, "-c", code, *some], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
