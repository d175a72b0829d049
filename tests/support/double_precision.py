"""For the ``custom_imports`` of a config: everything in that process is computed in double precision.

Rounding then is far too small to show, so that two ways of computing the same can be compared. In single precision an
input of a leaky ReLU that is within rounding of zero may change its sign, and the gradients with it.
"""

import torch

torch.set_default_dtype(torch.float64)
torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
