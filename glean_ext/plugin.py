"""Registers this package into MMagic: the one table of what it adds.

A config loads it with ``custom_imports = dict(imports=['glean_ext.plugin'])``.
"""

from glean_ext import compat

compat.apply()

from mmagic.registry import (  # noqa: E402
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    TRANSFORMS,
)
from mmagic.utils import register_all_modules  # noqa: E402
from mmengine.fileio import register_backend  # noqa: E402
from mmengine.registry import Registry  # noqa: E402

# MMagic first: what has one of its names here takes its place.
register_all_modules(init_default_scope=False)

from glean_ext import (  # noqa: E402
    bank_training,
    datasets,
    hooks,
    logs,
    loops,
    losses,
    metrics,
    networks,
    optim,
    restorer,
    resume,
    watching,
)
from glean_ext.apis import inferencer  # noqa: E402

TABLE: dict[Registry, dict[str, type]] = {
    MODELS: {
        "GLEAN": restorer.GLEAN,
        "GLEANStyleGANv2": networks.GLEANStyleGANv2,  # in place of MMagic's
        "LightGLEANStyleGANv2": networks.LightGLEANStyleGANv2,
        "PerceptualLoss": losses.PerceptualLoss,  # in place of MMagic's, which always downloads
        # In place of MMagic's alias that only GLEAN's configs use; MMagic's own name is StyleGAN2Discriminator.
        "StyleGANv2Discriminator": networks.StyleGAN2Discriminator,
        "TrainableBank": bank_training.TrainableBank,
    },
    DATA_SAMPLERS: {"ResumableSampler": datasets.ResumableSampler},
    DATASETS: {"SRFolderDataset": datasets.SRFolderDataset},
    TRANSFORMS: {"LoadOrMakeLQ": datasets.LoadOrMakeLQ, "LoadRGB": datasets.LoadRGB},
    HOOKS: {
        "BankFIDHook": watching.BankFIDHook,
        "BankSamplesHook": watching.BankSamplesHook,
        "ComparisonHook": watching.ComparisonHook,
        "FrozenBankHook": hooks.FrozenBankHook,
        "ProgressBarHook": watching.ProgressBarHook,
    },
    LOOPS: {"ResumableTrainLoop": loops.ResumableTrainLoop},
    METRICS: {
        "IdentitySimilarity": metrics.IdentitySimilarity,
        "LPIPS": metrics.LPIPS,
        "LRConsistency": metrics.LRConsistency,
        "NIQE": metrics.NIQE,  # in place of MMagic's, whose defaults do not fit its own tensors
        "RestorationFID": metrics.RestorationFID,
    },
    OPTIM_WRAPPERS: {"MixedPrecisionOptimWrapper": optim.MixedPrecisionOptimWrapper},
}

for registry, entries in TABLE.items():
    for name, entry in entries.items():
        registry.register_module(name=name, module=entry, force=True)

compat.offer_inferencers(
    inferencer.GLEANInferencer, inferencer.settings, dict.fromkeys(inferencer.MODELS, inferencer.TASK)
)
register_backend("atomic", resume.AtomicBackend, force=True)
logs.forward_to_mmengine()
