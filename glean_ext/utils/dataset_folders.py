"""Where the images of a data set are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.utils.file_listing import Listing, list_files
from glean_ext.utils.image_io import EXTENSIONS


def require_folders(data_root: str, data_prefix: Mapping[str, str], ann_file: str = "") -> None:
    """Check where the images of a ``SRFolderDataset`` are.

    Raises:
        InputError: A folder of ``data_prefix`` or the list ``ann_file`` is not in ``data_root``, or the prefix names
            other folders than that of the ground truth and that of the low-resolution images.
    """
    if "gt" not in data_prefix or set(data_prefix) - {"gt", "img"}:
        raise InputError(
            f"SRFolderDataset.data_prefix is {dict(data_prefix)}, but it must be dict(gt='<folder>') or "
            "dict(gt='<folder>', img='<folder>')."
        )
    for name, folder in data_prefix.items():
        if not (Path(data_root) / folder).is_dir():
            raise InputError(
                f"{Path(data_root) / folder}: there is no such folder. Set data_root and data_prefix.{name} of the "
                "dataset to where the images are."
            )
    if ann_file and not (Path(data_root) / ann_file).is_file():
        raise InputError(
            f"{Path(data_root) / ann_file}: there is no such annotation file. Set ann_file='' to take all images."
        )


def list_images(folder: str, recursive: bool = False) -> Listing:
    """What a folder of a data set holds.

    Raises:
        InputError: It cannot be read, or holds no images.
    """
    listing = list_files(folder, EXTENSIONS, recursive, follow_links=True)
    if not listing.files:
        raise InputError(f"{folder} holds no images. Put PNG or JPEG files there.")
    return listing
