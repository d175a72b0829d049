"""Which backend ``auto`` takes: a rule from measurements (docs/performance.md), nothing is tried out.

1. PyTorch where an engine cannot do what is asked for: on a GPU, for a seed or a fidelity, with ``torch.compile``, or
   in another dtype than float32; and on processors with instructions for bfloat16, in which PyTorch's form was measured
   only.
2. Otherwise the first of :data:`FASTEST` that is installed, if its model is in the cache, or if so many images are
   restored that the time to make it comes back (:data:`WORTH_MAKING`).
3. Otherwise PyTorch.
"""

from __future__ import annotations

from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_models import can_make, is_cached
from glean_ext.inference.engines import installed

FASTEST = ("openvino",)
WORTH_MAKING = 200  # images


def choose(source: NetworkSource, options: NetworkOptions) -> str:
    """``'torch'`` or an engine.

    Raises:
        InputError: The config or the checkpoint cannot be used.
    """
    if not _engines_may(options):
        return "torch"
    engine = next((name for name in FASTEST if installed(name)), None)
    if engine is None:
        return "torch"
    cached = options.cache and is_cached(source)
    return engine if cached or (options.images >= WORTH_MAKING and can_make()) else "torch"


def _engines_may(options: NetworkOptions) -> bool:
    if options.dtype not in (None, "float32") or options.compile is not None:
        return False
    if options.seed is not None or options.fidelity is not None:
        return False
    if options.device is not None and str(options.device) != "cpu":
        return False
    if not any(installed(name) for name in FASTEST):
        return False  # before torch is loaded
    from glean_ext.inference.torch_backend import default_dtype, pick_device

    device = pick_device(options.device)
    return device.type == "cpu" and (options.dtype or default_dtype(device)) == "float32"
