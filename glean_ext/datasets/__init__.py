"""The datasets, the transforms and the sampler that MMagic does not have, and checks of dataloaders."""

from glean_ext.datasets.image_references import LoadReferences
from glean_ext.datasets.resumable_sampler import ResumableSampler
from glean_ext.datasets.sr_folder_dataset import SRFolderDataset
from glean_ext.datasets.sr_shard_dataset import SRShardDataset
from glean_ext.datasets.sr_transforms import LoadOrMakeLQ, LoadRGB

__all__ = ["LoadOrMakeLQ", "LoadRGB", "LoadReferences", "ResumableSampler", "SRFolderDataset", "SRShardDataset"]
