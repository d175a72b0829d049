"""How BigGAN's authors name the tensors of their PyTorch release: key maps, as data.

The rows name MMagic's keys and the authors', as in :mod:`.key_maps`. Those of a block or of self-attention are below
``conv_blocks.{n}``, which counts both, and below ``blocks.{i}.0`` or ``blocks.{i}.1``.

Source of the names: ajbrock/BigGAN-PyTorch, ``BigGAN.py``, ``BigGANdeep.py`` and ``layers.py``.
"""

from __future__ import annotations

from glean_ext.bank_conversion.key_maps import Format, KeyMap, Row

SPECTRAL = ("weight", "u0", "sv0")  # a layer with spectral norm


def _layer(target: str, source: str, bias: bool = True) -> tuple[Row, ...]:
    return tuple(Row(f"{target}.{part}", f"{source}.{part}") for part in (*SPECTRAL, *(["bias"] if bias else [])))


def _statistics(target: str, source: str) -> tuple[Row, ...]:
    return tuple(Row(f"{target}.running_{part}", f"{source}.stored_{part}") for part in ("mean", "var"))


def _conditional_norm(name: str) -> tuple[Row, ...]:
    parts = (row for part in ("gain", "bias") for row in _layer(f"{name}.{part}", f"{name}.{part}", bias=False))
    return (*parts, *_statistics(f"{name}.bn", name))


ONCE = (
    Row("shared_embedding.weight", "shared.weight"),
    *_layer("noise2feat", "linear"),
    Row("output_layer.bn.weight", "output_layer.0.gain"),
    Row("output_layer.bn.bias", "output_layer.0.bias"),
    *_statistics("output_layer.bn", "output_layer.0"),
    *_layer("output_layer.conv", "output_layer.2"),
)
BLOCK = (
    *(row for i in (1, 2) for row in _conditional_norm(f"bn{i}")),
    *(row for i in (1, 2) for row in _layer(f"conv{i}.conv", f"conv{i}")),
    *_layer("shortcut.conv", "conv_sc"),
)
DEEP_BLOCK = (
    *(row for i in (1, 2, 3, 4) for row in _conditional_norm(f"bn{i}")),
    *(row for i in (1, 2, 3, 4) for row in _layer(f"conv{i}.conv", f"conv{i}")),
)
ATTENTION = (
    *(row for part in ("theta", "phi", "g", "o") for row in _layer(f"{part}.conv", part, bias=False)),
    Row("gamma", "gamma"),
)
# Networks trained with batch norm over several GPUs keep their statistics elsewhere: pattern, its plain form.
SYNCHRONIZED = (
    (r"(.*)\.bn\.running_(mean|var)", r"\1.stored_\2"),
    (r".*\.bn\.num_batches_tracked", ""),  # not needed
)

FORMAT = Format((), (), KeyMap(ONCE, ()))
