"""Registers this package into MMagic: the one table of everything it adds.

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

# MMagic first, so that entries below with the same name replace its own.
register_all_modules(init_default_scope=False)

from glean_ext import datasets, degradations, metrics, networks  # noqa: E402
from glean_ext.apis import mmagic_inferencer  # noqa: E402
from glean_ext.engine import log_forwarding  # noqa: E402
from glean_ext.engine.amp_optim_wrapper import MixedPrecisionOptimWrapper  # noqa: E402
from glean_ext.engine.checkpoint_resume import AtomicBackend  # noqa: E402
from glean_ext.engine.hooks.bank_fid_hook import BankFIDHook  # noqa: E402
from glean_ext.engine.hooks.bank_samples_hook import BankSamplesHook  # noqa: E402
from glean_ext.engine.hooks.checkpoint_hook import CheckpointHook  # noqa: E402
from glean_ext.engine.hooks.comparison_hook import ComparisonHook  # noqa: E402
from glean_ext.engine.hooks.ema_hook import EMAHook  # noqa: E402
from glean_ext.engine.hooks.frozen_bank_hook import FrozenBankHook  # noqa: E402
from glean_ext.engine.hooks.progress_bar_hook import ProgressBarHook  # noqa: E402
from glean_ext.engine.resumable_train_loop import ResumableTrainLoop  # noqa: E402
from glean_ext.models.bank_trainer import BankTrainer  # noqa: E402
from glean_ext.models.colorization import GLEANColorizer  # noqa: E402
from glean_ext.models.feature_discriminator import FeatureDiscriminator  # noqa: E402
from glean_ext.models.glean import GLEAN  # noqa: E402
from glean_ext.models.identity_loss import IdentityLoss  # noqa: E402
from glean_ext.models.lpips_loss import LPIPSLoss  # noqa: E402
from glean_ext.models.perceptual_loss import PerceptualLoss, VGGFeatures  # noqa: E402
from glean_ext.models.stylegan2_trainer_bank import TrainableBank  # noqa: E402

TABLE: dict[Registry, dict[str, type]] = {
    MODELS: {
        "FeatureDiscriminator": FeatureDiscriminator,
        "GLEAN": GLEAN,
        "GLEANBigGAN": networks.GLEANBigGAN,
        "GLEANColorization": networks.GLEANColorization,
        "GLEANColorizer": GLEANColorizer,
        "GLEANDiffusion": networks.GLEANDiffusion,
        "GLEANStyleGANv2": networks.GLEANStyleGANv2,  # in place of MMagic's
        "IdentityLoss": IdentityLoss,
        "LPIPSLoss": LPIPSLoss,
        "LightGLEANStyleGANv2": networks.LightGLEANStyleGANv2,
        "PerceptualLoss": PerceptualLoss,  # in place of MMagic's, which always downloads
        "StyleGAN2": BankTrainer,  # in place of MMagic's, which computes R1 in fp16
        # In place of MMagic's alias that only GLEAN's configs use; MMagic's own name is StyleGAN2Discriminator.
        "StyleGANv2Discriminator": networks.StyleGAN2Discriminator,
        "TrainableBank": TrainableBank,
        "VGGFeatures": VGGFeatures,
    },
    DATA_SAMPLERS: {"ResumableSampler": datasets.ResumableSampler},
    DATASETS: {"SRFolderDataset": datasets.SRFolderDataset, "SRShardDataset": datasets.SRShardDataset},
    TRANSFORMS: {
        "BlindDegradation": degradations.BlindDegradation,
        "LoadOrMakeLQ": datasets.LoadOrMakeLQ,
        "LoadRGB": datasets.LoadRGB,
        "LoadReferences": datasets.LoadReferences,
    },
    HOOKS: {
        "BankFIDHook": BankFIDHook,
        "BankSamplesHook": BankSamplesHook,
        "CheckpointHook": CheckpointHook,  # in place of mmengine's, which deletes before it writes
        "ComparisonHook": ComparisonHook,
        "EMAHook": EMAHook,  # in place of mmengine's, whose checkpoints several processes cannot resume
        "FrozenBankHook": FrozenBankHook,
        "ProgressBarHook": ProgressBarHook,
    },
    LOOPS: {"ResumableTrainLoop": ResumableTrainLoop},
    METRICS: {
        "IdentitySimilarity": metrics.IdentitySimilarity,
        "LPIPS": metrics.LPIPS,
        "LRConsistency": metrics.LRConsistency,
        "NIQE": metrics.NIQE,  # in place of MMagic's, whose defaults do not fit its own tensors
        "RestorationFID": metrics.RestorationFID,
    },
    OPTIM_WRAPPERS: {"MixedPrecisionOptimWrapper": MixedPrecisionOptimWrapper},
}

for registry, entries in TABLE.items():
    for name, entry in entries.items():
        registry.register_module(name=name, module=entry, force=True)

for name in compat.LEFT_OUT:
    if name not in MODELS:
        MODELS.register_module(name=name, module=compat.refusing(name))

compat.offer_inferencers(
    mmagic_inferencer.GLEANInferencer,
    mmagic_inferencer.settings,
    mmagic_inferencer.TASKS,
)
register_backend("atomic", AtomicBackend, force=True)
log_forwarding.forward_to_mmengine()
