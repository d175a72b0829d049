"""Images as arrays of 8-bit and 16-bit pixels, and as floats and tensors in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch takes seconds to import, and processes that only read images do not need it
    import torch
    from torch import Tensor


PIXEL_TYPES = (np.uint8, np.uint16)
ROWS = 64  # converted at a time, so that the intermediate numbers stay small in memory


def to_8_bits(image: np.ndarray) -> np.ndarray:
    """(H, ...) uint8 or uint16 -> uint8, rounded: 65535 / 257 = 255. An uint8 image is returned itself."""
    if image.dtype == np.uint8:
        return image
    out = np.empty(image.shape, np.uint8)
    for top in range(0, len(image), ROWS):
        out[top : top + ROWS] = (image[top : top + ROWS].astype(np.uint32) + 128) // 257
    return out


def blend(image: np.ndarray, other: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """``weight`` of ``other`` and the rest of ``image``, both uint8 or uint16; exactly ``image`` where it is 0."""
    mixed = image + np.float32(weight) * (other.astype(np.float32) - image)
    return np.clip(np.round(mixed), 0, np.iinfo(image.dtype).max).astype(image.dtype)


def to_floats(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 or uint16 -> (1, 3, H, W) float32 in [-1, 1]."""
    if image.dtype not in PIXEL_TYPES or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError(f"an image is (H, W, 3) uint8 or uint16, but got {image.shape} {image.dtype}.")
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)  # (1, 3, H, W)
    pixels /= _half_range(image.dtype)
    pixels -= 1
    return pixels


def from_floats(pixels: np.ndarray, dtype: npt.DTypeLike = np.uint8) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) float32 in [-1, 1] -> (H, W, 3) uint8 or uint16, rounded and clamped."""
    pixels = pixels[0] if pixels.ndim == 4 and len(pixels) == 1 else pixels
    if pixels.ndim != 3 or len(pixels) != 3:
        raise TypeError(f"one RGB image is (3, H, W), but got an array of shape {pixels.shape}.")
    half = _half_range(dtype)
    pixels = pixels + np.float32(1)
    pixels *= half
    np.rint(pixels, out=pixels)
    np.clip(pixels, 0, 2 * half, out=pixels)
    return np.ascontiguousarray(pixels.astype(dtype).transpose(1, 2, 0))


def _half_range(dtype: npt.DTypeLike) -> np.float32:
    return np.float32(np.iinfo(dtype).max / 2)


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 or uint16 -> (1, 3, H, W) float32 in [-1, 1]."""
    import torch

    return torch.from_numpy(to_floats(image))


def upload(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images of one size, (H, W, 3) uint8 or uint16 -> (N, 3, H, W) float32 in [-1, 1] on a device.

    To other devices than the CPU the integers are moved, which are a quarter or half of the floats.
    """
    import torch

    if device.type == "cpu":
        return torch.cat([to_tensor(image) for image in images])
    batches = []
    for image in images:
        signed = image.view(np.int16) if image.dtype == np.uint16 else image  # few devices know uint16
        pixels = torch.from_numpy(np.ascontiguousarray(signed))  # (H, W, 3)
        if device.type == "cuda":
            pixels = pixels.pin_memory().to(device, non_blocking=True)
        pixels = pixels.to(device).permute(2, 0, 1)[None]  # (1, 3, H, W)
        if image.dtype == np.uint16:
            pixels = pixels.to(torch.int32).bitwise_and_(0xFFFF)
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        batches.append(values.div_(float(_half_range(image.dtype))).sub_(1))
    return torch.cat(batches)


def to_uint8(tensor: Tensor) -> np.ndarray:
    """(1, 3, H, W) or (3, H, W) float in [-1, 1] -> (H, W, 3) uint8, rounded; values outside are clamped."""
    return from_tensor(tensor, np.uint8)


def from_tensor(tensor: Tensor, dtype: npt.DTypeLike) -> np.ndarray:
    """As :func:`from_floats`, for a tensor on any device."""
    tensor = tensor.detach().float()
    if tensor.device.type == "cpu":
        return from_floats(tensor.numpy(), dtype)
    import torch

    half = float(_half_range(dtype))  # converted on the tensor's device, so that less data is copied from it
    pixels = ((tensor + 1) * half).round().clamp(0, 2 * half)
    pixels = pixels.to(torch.uint8 if dtype == np.uint8 else torch.int32).reshape(tensor.shape[-3:])
    return pixels.permute(1, 2, 0).contiguous().cpu().numpy().astype(dtype, copy=False)
