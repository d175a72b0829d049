"""Which backend ``auto`` takes: a rule from measurements (docs/performance.md, "Backends"); nothing is tried out.

1. PyTorch where an engine cannot do what is asked for: for a model that takes references, whether it gets some or not
   (``load_backend`` sees to that); on a GPU, for a seed or a fidelity, with ``torch.compile``, or in another dtype than
   float32; and on processors with instructions for bfloat16, where no engine was measured yet.
2. Otherwise OpenVINO, where it is installed and its model is in the cache. It took 0.79 to 0.88 of the time of the
   fast form in PyTorch, on two processors. onnxruntime was faster on one of them only, so ``auto`` leaves it out.
3. The same, with a model to be made, where that pays: making one takes one to two minutes, and OpenVINO saves a
   quarter of a second (16 -> 256) to a second (64 -> 1024) an image. So many images are :data:`WORTH_MAKING`; networks
   with less than :data:`LARGE` bytes of weights are too quick for it to pay ever.
4. Otherwise PyTorch; and also where less than :data:`ROOM` times the weights' size of memory is free: OpenVINO holds
   them nearly three times (16 -> 256: 1.8 GiB against 0.9), and to make its model takes more.

Exported ``.onnx`` files run with OpenVINO where it is installed, which matters for int8: 2.8 to 3.2 times as fast as
fp32 with OpenVINO and 1.9 times with onnxruntime (processor time, VNNI).
"""

from __future__ import annotations

from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_models import can_make, is_cached
from glean_ext.inference.engines import installed
from glean_ext.inference.memory_budget import at_hand

WORTH_MAKING = 200  # images
LARGE = 20_000_000
ROOM = 6


def choose(source: NetworkSource, options: NetworkOptions) -> str:
    """``'torch'`` or ``'openvino'``.

    Raises:
        InputError: The config or the checkpoint cannot be used.
    """
    if not _engines_may(options):
        return "torch"
    size = source.weights.stat().st_size
    if at_hand()[0] < ROOM * size:
        return "torch"
    if options.cache and is_cached(source):
        return "openvino"
    pays = options.images >= WORTH_MAKING and size >= LARGE
    return "openvino" if pays and can_make() else "torch"


def _engines_may(options: NetworkOptions) -> bool:
    if options.dtype not in (None, "float32") or options.compile is not None:
        return False
    if options.seed is not None or options.fidelity is not None:
        return False
    if options.device is not None and str(options.device) != "cpu":
        return False
    if not installed("openvino"):
        return False  # before torch is loaded
    from glean_ext.inference.torch_backend import default_dtype, pick_device

    device = pick_device(options.device)
    return device.type == "cpu" and (options.dtype or default_dtype(device)) == "float32"
