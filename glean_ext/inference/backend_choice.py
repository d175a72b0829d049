"""Which backend ``auto`` takes: a rule from measurements (docs/performance.md); nothing is tried out.

1. PyTorch where an engine cannot do what is asked for: for a model that takes references, whether it gets some or not
   (``load_backend`` sees to that); on a GPU, for a seed or a fidelity, with ``torch.compile``, or in another dtype than
   float32; and on processors with instructions for bfloat16, where no engine was measured yet.
2. Otherwise OpenVINO, where it is installed, its model is in the cache, and memory is free for it: it is fastest (64 ->
   1024: 2.2 times MMagic's class, PyTorch's fast form 1.6), but holds weights about four times.
3. Otherwise onnxruntime, in the same way: as fast as the fast form, and it maps the weights from the file, so it takes
   least memory of all.
4. The same, with a model to be made, where that pays: that takes one to two minutes, and saves a quarter of a second to
   a second an image. So many images are :data:`WORTH_MAKING`; networks with less than :data:`LARGE` bytes of weights
   are too quick for it to pay ever. onnxruntime is no faster, so none is made for it.
5. Otherwise PyTorch.

Exported ``.onnx`` files run with OpenVINO where it is installed, which matters for int8: 2.8 to 3.2 times as fast as
fp32 with OpenVINO and 1.9 times with onnxruntime (processor time, VNNI).
"""

from __future__ import annotations

from glean_ext.inference.backend import NetworkOptions, NetworkSource
from glean_ext.inference.engine_models import can_make, is_cached
from glean_ext.inference.engines import installed
from glean_ext.inference.memory_budget import at_hand
from glean_ext.utils.hardware import BF16_INSTRUCTIONS, instructions, may_have_cuda

WORTH_MAKING = 200  # images
LARGE = 20_000_000  # bytes of weights
ROOM = {"openvino": 6, "onnxruntime": 3}  # free memory that an engine needs, in sizes of the weights
ROOM_TO_MAKE = 7  # the same, to make OpenVINO's model, of which a process has most


def choose(source: NetworkSource, options: NetworkOptions) -> str:
    """``'torch'``, ``'onnxruntime'`` or ``'openvino'``.

    Raises:
        InputError: The config or the checkpoint cannot be used.
    """
    if not _engines_may(options):
        return "torch"
    size, memory = source.weights.stat().st_size, at_hand()[0]
    for engine in (engine for engine, room in ROOM.items() if installed(engine) and memory >= room * size):
        if options.cache and is_cached(source, engine):
            return engine
    pays = options.images >= WORTH_MAKING and size >= LARGE and memory >= ROOM_TO_MAKE * size
    return "openvino" if pays and installed("openvino") and can_make() else "torch"


def _engines_may(options: NetworkOptions) -> bool:
    if options.dtype not in (None, "float32") or options.compile is not None:
        return False
    if options.seed is not None or options.fidelity is not None:
        return False
    if options.device is not None and str(options.device) != "cpu":
        return False
    if not any(map(installed, ("onnxruntime", "openvino"))):
        return False
    known = instructions()
    if known and (options.device is not None or not may_have_cuda()):
        return options.dtype == "float32" or not set(BF16_INSTRUCTIONS) & set(known)
    from glean_ext.inference.torch_backend import default_dtype, pick_device

    device = pick_device(options.device)
    return device.type == "cpu" and (options.dtype or default_dtype(device)) == "float32"
