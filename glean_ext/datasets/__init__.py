"""The dataset, the transforms and the sampler that MMagic does not have, and checks of dataloaders."""

from glean_ext.datasets.dataloader_check import check_dataloader
from glean_ext.datasets.image_references import LoadReferences
from glean_ext.datasets.resumable_sampler import ResumableSampler
from glean_ext.datasets.sr_folder_dataset import LoadOrMakeLQ, LoadRGB, SRFolderDataset

__all__ = ["LoadOrMakeLQ", "LoadRGB", "LoadReferences", "ResumableSampler", "SRFolderDataset", "check_dataloader"]
