"""The datasets, the transforms and the sampler that MMagic does not have, and checks of dataloaders."""

from glean_ext import compat

compat.apply()  # before MMagic is imported: loading processes that are not forks import this first

from glean_ext.datasets.image_references import LoadReferences  # noqa: E402
from glean_ext.datasets.resumable_sampler import ResumableSampler  # noqa: E402
from glean_ext.datasets.sr_folder_dataset import SRFolderDataset  # noqa: E402
from glean_ext.datasets.sr_shard_dataset import SRShardDataset  # noqa: E402
from glean_ext.datasets.sr_transforms import LoadOrMakeLQ, LoadRGB  # noqa: E402

__all__ = ["LoadOrMakeLQ", "LoadRGB", "LoadReferences", "ResumableSampler", "SRFolderDataset", "SRShardDataset"]
