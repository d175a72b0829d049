"""The transforms that load pairs of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from glean_ext.errors import InputError
from glean_ext.utils.image_io import decode_rgb, read_rgb
from glean_ext.utils.imresize import imresize


class LoadRGB(BaseTransform):
    """Sets ``key`` (``'gt'`` or ``'img'``) to the image of the file ``<key>_path``: (H, W, 3), uint8, RGB.

    Where there is a ``<key>_member``, a :class:`~glean_ext.utils.tar_shards.Member`, it is read from that.

    MMagic's ``LoadImageFromFile`` stops with a traceback at some damaged files and reads others in part.

    Raises:
        UnreadableImageError: The file is damaged, or no image.
        InputError: The file is missing or may not be read.
    """

    def __init__(self, key: str) -> None:
        self.key = key

    def transform(self, results: dict) -> dict:
        return _set_image(results, self.key, read_image(results, self.key))


class LoadOrMakeLQ(BaseTransform):
    """Sets ``img``, the low-resolution image: (h, w, 3), uint8, RGB.

    It is read from the file ``img_path`` when the dataset has pairs, or when there is no ``gt``, as in inference;
    otherwise it is made from ``gt`` by MATLAB's antialiased bicubic ``imresize`` with factor ``1 / scale``, rounded to
    8 bits as in a file.

    Raises:
        UnreadableImageError: The file is damaged, or no image.
        InputError: The sides of ``gt`` are not multiples of ``scale``; ``gt`` is not ``scale`` times as large as the
            image of the pair; ``gt`` was loaded as BGR.
    """

    def transform(self, results: dict) -> dict:
        if "gt" not in results:
            return _set_image(results, "img", read_image(results, "img"))
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
        img = read_image(results, "img")
        if (h, w) != (scale * img.shape[0], scale * img.shape[1]):
            raise InputError(
                f"{results['img_path']} has {img.shape[1]}x{img.shape[0]} pixels, but the ground truth {path} has "
                f"{w}x{h}, which is not {scale} times as much. Correct the files or the dataset's scale."
            )
        return _set_image(results, "img", img)


def _set_image(results: dict, key: str, image: np.ndarray) -> dict:
    """Set an image and what MMagic's preprocessor must know about it: without the order, metrics swap red and blue."""
    return results | {key: image, f"{key}_channel_order": "rgb", f"{key}_color_type": "color"}


def read_image(sample: Mapping[str, Any], key: str) -> np.ndarray:
    """An image of a sample: (H, W, 3), uint8, RGB.

    Args:
        sample: With ``<key>_path`` and, where that is in a shard, ``<key>_member``.
        key: ``'gt'`` or ``'img'``.

    Raises:
        UnreadableImageError: The file is damaged, or no image.
        InputError: The file, or its shard, is missing or may not be read.
    """
    path, member = sample[f"{key}_path"], sample.get(f"{key}_member")
    return read_rgb(path) if member is None else decode_rgb(member.read(), path)
