"""GLEAN super-resolution: restore images with a pre-trained generator as latent bank.

``__all__`` is the public API. Each name is loaded when it is first used, so that importing this package takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glean_ext.bank_conversion import convert_bank
    from glean_ext.errors import InputError
    from glean_ext.faces.photo_restorer import PhotoRestorer
    from glean_ext.inference.image_restorer import ImageRestorer
    from glean_ext.inference.torch_backend import load_network
    from glean_ext.utils.image_io import read_picture as read_image
    from glean_ext.utils.image_types import write_image
    from glean_ext.video.restore_video import restore_video
    from glean_ext.zoo import list_models

__version__ = "0.1.0"
__all__ = [
    "ImageRestorer",
    "InputError",
    "PhotoRestorer",
    "convert_bank",
    "list_models",
    "load_network",
    "read_image",
    "restore_video",
    "write_image",
]

_PLACES = {  # name -> module, and what it is called there
    "ImageRestorer": ("glean_ext.inference.image_restorer", "ImageRestorer"),
    "InputError": ("glean_ext.errors", "InputError"),
    "PhotoRestorer": ("glean_ext.faces.photo_restorer", "PhotoRestorer"),
    "convert_bank": ("glean_ext.bank_conversion", "convert_bank"),
    "list_models": ("glean_ext.zoo", "list_models"),
    "load_network": ("glean_ext.inference.torch_backend", "load_network"),
    "read_image": ("glean_ext.utils.image_io", "read_picture"),
    "restore_video": ("glean_ext.video.restore_video", "restore_video"),
    "write_image": ("glean_ext.utils.image_types", "write_image"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
