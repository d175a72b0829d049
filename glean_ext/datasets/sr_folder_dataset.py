"""Pairs of low-resolution and ground-truth images, from two folders or from ground truth alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmagic.datasets import BasicImageDataset
from mmcv.transforms import BaseTransform

from glean_ext.datasets.resumable_sampler import seeded
from glean_ext.errors import InputError
from glean_ext.utils.image_io import read_rgb
from glean_ext.utils.imresize import imresize

MOST_SKIPPED = 20  # damaged files in a row, after which the data cannot be what was meant


class SRFolderDataset(BasicImageDataset):
    """A folder of ground-truth images; low-resolution ones are made on the fly, or come from a second folder.

    Args:
        data_root: Where the folders are.
        data_prefix: ``dict(gt='images')``, or ``dict(gt='images', img='lr')`` for pairs of the same file names.
        scale: How much smaller the low-resolution images are, 16 for 1024 -> 64.
        pipeline: Transforms; :class:`LoadRGB` and :class:`LoadOrMakeLQ` do the loading or making.
        ann_file: A text file with a file name a line, below ``data_root``; default: every image of the folder.
        metainfo: As in mmengine.
        test_mode: As in mmengine.
        recursive: Also look in subfolders.
        unreadable: What a damaged file does to training: ``'stop'``, or ``'skip'``: another image takes its place, and
            the sample says so under ``skipped`` (``SkippedFilesHook`` counts them). Testing always stops.

    Raises:
        InputError: A folder, an annotation file or a file that it names is missing, there is no image,
            ``data_prefix`` names others, or an unknown ``unreadable``.
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
        unreadable: str = "stop",
    ):
        if unreadable not in ("stop", "skip"):
            raise InputError(f"SRFolderDataset.unreadable is {unreadable!r}, but it must be 'stop' or 'skip'.")
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
        self.scale = scale
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
        samples = super().load_data_list()
        if not samples and self.ann_file:
            raise InputError(f"{self.ann_file} names no images. Put a file name on each line, or set ann_file=''.")
        if not samples:
            raise InputError(f"{self.data_prefix['gt']} holds no images. Put PNG or JPEG files there.")
        if not self.ann_file:  # a folder is listed in no order
            samples.sort(key=lambda sample: sample["gt_path"])
        missing = [sample[key] for sample in samples for key in ("gt_path", "img_path") if _is_missing(sample, key)]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            named_by = self.ann_file or self.data_prefix["gt"]
            raise InputError(
                f"{missing[0]}{more}: no such file, but {named_by} names it. Correct the list or the files."
            )
        return [{**sample, "scale": self.scale} for sample in samples]

    def __getitem__(self, position: int | tuple[int, int]) -> dict:
        """Sample ``index``; for ``(index, seed)``, see :class:`ResumableSampler`, its random transforms are seeded."""
        if isinstance(position, int):
            return super().__getitem__(position)
        index, seed = position
        with seeded(seed):
            return super().__getitem__(index)

    def prepare_data(self, index: int) -> dict:
        """A packed sample; with ``unreadable='skip'`` it has the damaged files whose place it takes as ``skipped``."""
        if not self.skips:
            return self.pipeline(self.get_data_info(index))
        skipped: list[str] = []
        while True:
            sample = self.get_data_info(index)
            try:
                packed = self.pipeline(sample)
                packed["data_samples"].set_metainfo({"skipped": skipped})
                return packed
            except InputError:
                skipped.append(sample["gt_path"])
                if len(skipped) == MOST_SKIPPED:
                    raise
            index = self._rand_another()


class LoadRGB(BaseTransform):
    """Sets ``key`` (``'gt'`` or ``'img'``) to the image of the file ``<key>_path``: (H, W, 3), uint8, RGB.

    MMagic's ``LoadImageFromFile`` stops with a traceback at some damaged files and reads others in part.

    Raises:
        InputError: The file is missing, damaged, or no image.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def transform(self, results: dict) -> dict:
        return _set_image(results, self.key, read_rgb(results[f"{self.key}_path"]))


class LoadOrMakeLQ(BaseTransform):
    """Sets ``img``, the low-resolution image: (h, w, 3), uint8, RGB.

    From the file ``img_path`` when the dataset has pairs, or when there is no ``gt``, as in inference; else from ``gt``
    by MATLAB's antialiased bicubic ``imresize`` with factor ``1 / scale``, rounded to 8 bits as a file would be.

    Raises:
        InputError: The sides of ``gt`` are no multiples of ``scale``; ``gt`` is not ``scale`` times as large as the
            image of the pair; ``gt`` was loaded as BGR.
    """

    def transform(self, results: dict) -> dict:
        if "gt" not in results:
            return _set_image(results, "img", read_rgb(results["img_path"]))
        gt, scale, path = results["gt"], results["scale"], results["gt_path"]
        h, w = gt.shape[:2]
        if results.get("gt_channel_order", "rgb") != "rgb":
            raise InputError("GLEAN works in RGB, but gt was loaded as BGR. Load it with channel_order='rgb'.")
        if h % scale or w % scale:
            raise InputError(
                f"{path} has {w}x{h} pixels, which {scale} does not divide. Crop or resize the ground truth, or change "
                "the dataset's scale."
            )
        if "img_path" not in results:
            return _set_image(results, "img", imresize(gt, size=(h // scale, w // scale)))
        img = read_rgb(results["img_path"])
        if (h, w) != (scale * img.shape[0], scale * img.shape[1]):
            raise InputError(
                f"{results['img_path']} has {img.shape[1]}x{img.shape[0]} pixels, but the ground truth {path} has "
                f"{w}x{h}, which is not {scale} times as much. Correct the files or the dataset's scale."
            )
        return _set_image(results, "img", img)


def _is_missing(sample: dict, key: str) -> bool:
    """Files of an LMDB are looked for when they are read."""
    return key in sample and Path(sample[key]).parent.suffix != ".lmdb" and not Path(sample[key]).is_file()


def _set_image(results: dict, key: str, image: np.ndarray) -> dict:
    """Set an image and what MMagic's preprocessor has to know of it: without the order, metrics swap red and blue."""
    return results | {key: image, f"{key}_channel_order": "rgb", f"{key}_color_type": "color"}
