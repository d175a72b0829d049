"""Pairs of low-resolution and ground-truth images, from two folders or from ground truth alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmagic.datasets import BasicImageDataset
from mmagic.datasets.transforms import LoadImageFromFile
from mmcv.transforms import BaseTransform

from glean_ext.errors import InputError
from glean_ext.imresize import imresize


class SRFolderDataset(BasicImageDataset):
    """A folder of ground-truth images; low-resolution ones are made on the fly, or come from a second folder.

    Args:
        data_root: Where the folders are.
        data_prefix: ``dict(gt='images')``, or ``dict(gt='images', img='lr')`` for pairs of the same file names.
        scale: How much smaller the low-resolution images are, 16 for 1024 -> 64.
        pipeline: Transforms; :class:`LoadOrMakeLQ` does the loading or making.
        ann_file: A text file with a file name a line, below ``data_root``; default: every image of the folder.
        metainfo: As in mmengine.
        test_mode: As in mmengine.
        recursive: Also look in subfolders.

    Raises:
        InputError: A folder or annotation file is missing, or there is no image.
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
    ):
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
        if not samples:
            raise InputError(f"{self.data_prefix['gt']} holds no images. Put PNG or JPEG files there.")
        return [{**sample, "scale": self.scale} for sample in samples]


class LoadOrMakeLQ(BaseTransform):
    """Sets ``img``, the low-resolution image: (h, w, 3), uint8, RGB.

    From the file ``img_path`` when the dataset has pairs; else from ``gt`` by MATLAB's antialiased bicubic
    ``imresize`` with factor ``1 / scale``, rounded to 8 bits as a file would be.

    Raises:
        InputError: The sides of ``gt`` are no multiples of ``scale``.
    """

    def __init__(self) -> None:
        self._load = LoadImageFromFile(key="img", color_type="color", channel_order="rgb")

    def transform(self, results: dict) -> dict:
        if "img_path" in results:
            return self._load(results)
        gt, scale = results["gt"], results["scale"]
        h, w = gt.shape[:2]
        if h % scale or w % scale:
            raise InputError(
                f"{results['gt_path']} has {w}x{h} pixels, which {scale} does not divide. Crop or resize the ground "
                "truth, or change the dataset's scale."
            )
        results["img"] = imresize(gt, size=(h // scale, w // scale))
        return results
