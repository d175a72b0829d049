"""Pairs of low-resolution and ground-truth images, from two folders or from ground truth alone."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from mmengine.dist import get_dist_info

from glean_ext.datasets.image_labels import image_labels
from glean_ext.datasets.image_references import image_references
from glean_ext.datasets.sr_dataset import SRDataset
from glean_ext.errors import InputError
from glean_ext.utils.dataset_folders import list_images, require_folders
from glean_ext.utils.file_listing import Listing
from glean_ext.utils.file_lists import read_file_list
from glean_ext.utils.files import expand_home
from glean_ext.utils.image_io import EXTENSIONS
from glean_ext.utils.messages import summarize_names

logger = logging.getLogger(__name__)


class SRFolderDataset(SRDataset):
    """A folder of ground-truth images; low-resolution ones are made on the fly, or come from a second folder.

    Without ``ann_file``, the images are all files with one of :data:`~glean_ext.utils.image_io.EXTENSIONS`, in upper or
    lower case, except hidden ones, whose name or folder's name begins with a dot. A warning names what is left out.

    Args:
        data_root: Where the folders are.
        data_prefix: ``dict(gt='images')``, or ``dict(gt='images', img='lr')`` for pairs of the same file names.
        scale: The factor by which the low-resolution images are smaller, 16 for 1024 -> 64.
        pipeline: Transforms; :class:`LoadRGB` and :class:`LoadOrMakeLQ` load or make the images.
        ann_file: A text file below ``data_root`` with a file name on each line, see
            :func:`~glean_ext.utils.file_lists.read_file_list`. Names are absolute, or relative to the ground-truth
            folder, to ``data_root`` or to the list. Default: every image of the folder.
        metainfo: As in mmengine.
        test_mode: As in mmengine.
        recursive: Also look in subfolders.
        unreadable: What a damaged file does to training: ``'stop'``, or ``'skip'``: another image takes its place, and
            the sample names the file under ``skipped`` (``SkippedFilesHook`` counts them). Testing always stops.
        labels: Where the class of an image is known from, see :func:`~glean_ext.datasets.image_labels.image_labels`:
            ``'folders'`` or a JSON file; the samples then have it as ``gt_label``. Empty: images have no classes.
        classes: The classes in the order of their numbers; images of others are left out. A number: all, sorted, and
            there must be so many. None: all, sorted.
        references: Where others of the same identity are known from, see
            :func:`~glean_ext.datasets.image_references.image_references`: ``'folders'`` or a JSON file; the samples
            then have their files as ``ref_paths``, which ``LoadReferences`` loads. Empty: there are none.

    Raises:
        InputError: A folder, an annotation file or a file that it names is missing, there is no image, or
            ``data_prefix``, ``scale`` or ``unreadable`` has a wrong value.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: dict,
        scale: int,
        pipeline: list[dict | Callable],
        ann_file: str = "",
        metainfo: dict | None = None,
        test_mode: bool = False,
        recursive: bool = False,
        unreadable: Literal["stop", "skip"] = "stop",
        labels: str = "",
        classes: Sequence[str] | int | None = None,
        references: str = "",
    ):
        self.check(scale, unreadable)
        data_root = expand_home(data_root)
        require_folders(data_root, data_prefix, ann_file)
        if classes is not None and not labels:
            raise InputError("SRFolderDataset.classes goes with labels: say where the class of an image is known from.")
        if references and str(data_prefix["gt"]).endswith(".lmdb"):
            raise InputError(
                f"SRFolderDataset.references needs files, but data_prefix.gt is {data_prefix['gt']}. Extract its "
                "images into a folder, or leave references out."
            )
        self.scale = scale
        self.labels, self.classes, self.references = labels, classes, references
        self.skips = unreadable == "skip" and not test_mode
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=data_prefix,
            pipeline=pipeline,
            test_mode=test_mode,
            search_key="gt",
            filename_tmpl={},
            recursive=recursive,
        )

    def load_data_list(self) -> list[dict]:
        names = self._read_names() if self.ann_file else self._list_names()
        labels = image_labels(names, self.labels, self.data_root or "", self.classes) if self.labels else {}
        names = list(labels) or names
        references = image_references(names, self.references, self.data_root or "") if self.references else {}
        samples: list[dict] = []
        missing: list[str] = []
        for name in list(references) or names:
            sample: dict[str, Any] = {"key": os.path.splitext(name)[0], "scale": self.scale}
            if labels:
                sample["gt_label"] = labels[name]
            for key, folder in self.data_prefix.items():
                path = os.path.join(folder, name)
                sample[f"{key}_path"] = path
                listed = key == "gt" and not self.ann_file  # just now
                # Images in an LMDB are looked up when they are read.
                if not listed and not folder.endswith(".lmdb") and not os.path.isfile(path):
                    missing.append(path)
            if references:
                sample["ref_paths"] = [os.path.join(self.data_prefix["gt"], other) for other in references[name]]
            samples.append(sample)
        _require_none_missing(missing, self.ann_file or self.data_prefix["gt"])
        others = {other for found in references.values() for other in found} - set(names)
        paths = [os.path.join(self.data_prefix["gt"], other) for other in sorted(others)]
        _require_none_missing([path for path in paths if not os.path.isfile(path)], self.references)
        return samples

    def _list_names(self) -> list[str]:
        """The images of the ground-truth folder, relative to it."""
        folder = self.data_prefix["gt"]
        if folder.endswith(".lmdb"):
            raise InputError(f"{folder} is a database, whose images a list has to name. Set ann_file of the dataset.")
        listing = list_images(folder, self.recursive)
        if get_dist_info()[0] == 0:
            _warn_of_left_out(folder, listing, self.recursive)
        return sorted(os.path.relpath(path, folder) for path in listing.files)

    def _read_names(self) -> list[str]:
        """The images that the annotation file names, relative to the ground-truth folder, or absolute."""
        folder = self.data_prefix["gt"]
        in_database = folder.endswith(".lmdb")
        bases = folder, self.data_root or "", os.path.dirname(self.ann_file)

        def locate(name: str) -> str | None:
            paths = (os.path.join(base, part) for part in (name, name.lstrip("/")) for base in bases)
            return None if in_database else next(filter(os.path.isfile, paths), None)

        names = read_file_list(self.ann_file, lambda name: locate(name) is not None)
        if not names:
            raise InputError(f"{self.ann_file} names no images. Put a file name on each line, or set ann_file=''.")
        return [self._relate(path) if (path := locate(name)) else name for name in names]

    def _relate(self, path: str) -> str:
        """The path relative to the ground-truth folder if it is inside, otherwise the absolute path."""
        folder = self.data_prefix["gt"]
        relative = os.path.relpath(path, folder)
        if Path(relative).parts[0] != os.pardir:
            return relative
        if "img" in self.data_prefix:
            raise InputError(
                f"{self.ann_file} names {path}, which is not in {folder}, so that its low-resolution image is unknown. "
                "Move it there, or leave data_prefix.img out."
            )
        return os.path.abspath(path)


def _require_none_missing(paths: Sequence[str], source: str) -> None:
    """Raise InputError where there are files that ``source`` names and that are missing."""
    if paths:
        raise InputError(
            f"{summarize_names(paths, shown=1)}: no such file, but {source} names it. Correct the list or the files."
        )


def _warn_of_left_out(folder: str, listing: Listing, recursive: bool) -> None:
    hint = ""
    if not recursive and any(path.is_dir() for path in listing.left_out):
        hint = " Set recursive=True to look in subfolders, too."
    if line := listing.describe_left_out(folder, EXTENSIONS):
        logger.warning("%s%s", line, hint)
