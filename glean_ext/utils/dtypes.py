"""The data types that networks can be computed in."""

DTYPES = ("float32", "bfloat16", "float16")  # as torch names them: getattr(torch, name) is the dtype
