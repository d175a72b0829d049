"""Reading, checking and writing weights: strict and safe.

Strict: a network is filled completely from a file or not at all, and the error names what does not fit. Safe: files are
read with ``weights_only=True`` or as safetensors, so no file can run code.
"""

from __future__ import annotations

import importlib
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError, first_line
from glean_ext.utils.files import atomic_path

# Keys that some bank files have besides the network's own, and that a restorer does not use.
UNUSED_BANK_KEYS = ("w_avg", "truncation_latent", "steps")  # the last one counts for mmengine's average
ASSET_SCHEME = "glean-ext://"  # a file that this package ships, e.g. glean-ext://demo_bank.safetensors
LEGACY_MAGIC = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
Value = TypeVar("Value")

SHOWN = 4  # keys that an error names before it counts the rest
TRUST = "If you trust it, convert it once: torch.save(torch.load(path, weights_only=False)['state_dict'], new)."


def read(source: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a ``.safetensors`` file or what ``torch.save`` wrote, by path, http(s) URL or
    ``glean-ext://`` name of a shipped file.

    The weights of a training checkpoint are under ``state_dict``; the ``module.`` of DDP is taken out of the keys.

    Raises:
        InputError: The file is missing, truncated, no checkpoint, or a pickle that holds more than weights.
    """
    path = local_path(str(source))
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    else:
        content = read_torch(path)
        inner = content.get("state_dict", content)
        state = inner if isinstance(inner, dict) else content
    state = plain_keys({k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)})
    if not state:
        raise InputError(f"{source} holds no tensors. Is it a checkpoint of a network?")
    return state


def metadata(source: str | os.PathLike) -> dict[str, str]:
    """What :func:`save` wrote beside the tensors of a ``.safetensors`` file.

    Raises:
        InputError: The file is missing or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    path = local_path(str(source))
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}). Get it anew.") from error


def plain_keys(state: Mapping[str, Value]) -> dict[str, Value]:
    """Keys as they are without distributed training: ``generator.module.encoder`` -> ``generator.encoder``."""
    return {re.sub(r"(^|\.)module\.", r"\1", key): value for key, value in state.items()}


def local_path(source: str) -> Path:
    """The file that a path, URL or ``glean-ext://`` name stands for; a URL is downloaded once.

    Raises:
        InputError: There is no such file, or the download failed.
    """
    if source.startswith(ASSET_SCHEME):
        source = str(Path(__file__).parent / "assets" / source.removeprefix(ASSET_SCHEME))
    if not source.startswith(("http://", "https://")):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{source}: there is no such file. Give the path or URL of a checkpoint.")
        return path
    try:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(source).path).name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(source, str(path), hash_prefix=_hash_in_name(path))
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise InputError(
            f"{source} could not be downloaded ({first_line(error)}). Download it elsewhere and give the path of the "
            "file."
        ) from error
    return path


def _hash_in_name(path: Path) -> str | None:
    """OpenMMLab ends names with the first 8 hex digits of the SHA-256: ``..._20210327-bce9310c.pth``."""
    digits = path.stem.rpartition("-")[2]
    return digits if len(digits) == 8 and set(digits) <= set("0123456789abcdef") else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error}). Get it anew.") from error


def read_torch(path: Path) -> dict:
    """All that ``torch.save`` wrote to ``path``, a training checkpoint for one, as far as it is data.

    Raises:
        InputError: The file is truncated, no checkpoint, or a pickle that holds more than data.
    """
    try:
        with torch.serialization.safe_globals(_not_yet_allowed()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of files that are then refused
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if _is_pickle(path):
            raise InputError(
                f"{path} holds Python objects besides weights, and reading them could run code, so it was not read. "
                + (
                    TRUST
                    if written_by_torch(path)
                    else "Convert StyleGAN2 pickles of NVIDIA with tools/convert_bank.py."
                )
            ) from error
        raise InputError(f"{path} is no checkpoint. Get it anew.") from error
    except Exception as error:  # the bytes of a damaged file lead anywhere
        reason = first_line(error)
        raise InputError(f"{path} is truncated, damaged or no checkpoint ({reason}). Get it anew.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return content


def written_by_torch(path: Path) -> bool:
    """Whether a file begins as ``torch.save`` lets it, in its present zip format or the one before."""
    with path.open("rb") as file:
        return file.read(len(LEGACY_MAGIC)).startswith((b"PK", LEGACY_MAGIC))


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as what ``torch.save`` or ``pickle`` write, and not as a web page, say."""
    with path.open("rb") as file:
        head = file.read(2)
    return head == b"PK" or head[:1] == pickle.PROTO


def numpy_globals() -> list:
    """What numpy arrays and scalars in a checkpoint are rebuilt from; all of it only makes data."""
    try:
        import numpy as np
    except ImportError:
        return []
    core = importlib.import_module("numpy.core" if np.__version__ < "2" else "numpy._core")
    dtypes = [getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType")]
    both_paths = [
        (getattr(core.multiarray, name), f"numpy.{package}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for package in ("core", "_core")
    ]
    return [np.ndarray, np.dtype, *dtypes, *both_paths]


class _Placeholder:
    """Stands for a training log or options in a checkpoint; they are not looked at."""

    def __setstate__(self, state: object) -> None:
        pass


def _nothing(*_: object) -> None:
    """Stands for ``getattr``, by which the training logs name their own methods."""


def _not_yet_allowed() -> list:
    """What training checkpoints hold besides weights, less what the process allows already.

    mmengine puts its log buffers into them; weights can be read without importing mmengine. What is allowed already,
    e.g. by ``compat``, is left alone, for torch would disallow it after the reading.
    """
    log = [
        (_Placeholder, "mmengine.logging.history_buffer.HistoryBuffer"),
        (_nothing, "builtins.getattr"),
        (_Placeholder, "argparse.Namespace"),  # the options, in checkpoints of rosinality's stylegan2-pytorch
    ]
    allowed = set(map(_global_name, torch.serialization.get_safe_globals()))
    return [entry for entry in log + numpy_globals() if _global_name(entry) not in allowed]


def _global_name(entry: Any) -> str:
    """The name that an allow-list entry stands for: a class, or a pair of what is called and its name."""
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def with_prefix(state: Mapping[str, Tensor], prefix: str, source: object) -> dict[str, Tensor]:
    """The entries below ``prefix.``, without it. An empty prefix takes everything.

    Raises:
        InputError: No key has the prefix.
    """
    if not prefix:
        return dict(state)
    dotted = prefix.rstrip(".") + "."
    found = {k.removeprefix(dotted): v for k, v in state.items() if k.startswith(dotted)}
    if not found:
        raise InputError(
            f"{source} has no keys with prefix {prefix!r}; its prefixes are {_prefixes(state)}. Set one of them."
        )
    return found


def _prefixes(state: Iterable[str]) -> str:
    return _some(sorted({key.split(".")[0] for key in state}), 8)


def _some(names: Iterable[str], shown: int = SHOWN) -> str:
    names = list(names)
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def load_strict(
    net: nn.Module, state: Mapping[str, Tensor], source: object, ignore: Iterable[str] = (), prefix: str = ""
) -> None:
    """Fill every parameter and buffer of ``net`` from ``state``; nothing is changed when anything does not fit.

    Args:
        net: What to fill.
        state: Tensors by the network's own key names.
        source: Named in errors.
        ignore: Keys of ``state`` that may be left over.
        prefix: What was taken off the keys of the file; for the advice in errors.

    Raises:
        InputError: Missing keys, left-over keys, or other shapes.
    """
    own = net.state_dict()
    missing = [k for k in own if k not in state]
    surplus = [k for k in state if k not in own and k not in set(ignore)]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} keys are missing ({_some(missing)})")
    if surplus:
        problems.append(f"{len(surplus)} keys fit nothing ({_some(surplus)})")
    if shapes:
        problems.append(f"{len(shapes)} have another shape ({_some(shapes, 2)})")
    if problems:
        raise InputError(
            f"{source} does not fit {type(net).__name__}: {'; '.join(problems)}. {_mend(own, state, missing, prefix)}"
        )
    net.load_state_dict({k: state[k] for k in own}, strict=True)


def _mend(own: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], prefix: str) -> str:
    """What the user should change."""
    if len(missing) <= len(own) / 2:
        return "The sizes in the config (in_size, out_size, channel_multiplier, ...) must be those of the file."
    for deeper in sorted({k.split(".")[0] for k in state}, reverse=True):  # generator_ema before generator
        below = {k.removeprefix(deeper + ".") for k in state if k.startswith(deeper + ".")}
        if len(below & set(own)) > len(own) / 2:
            fitting = f"{prefix.rstrip('.')}.{deeper}".lstrip(".")
            return f"The keys below {fitting!r} do fit: set prefix={fitting!r}."
    return "Take a file of this architecture."


def load_pretrained(net: nn.Module, init_cfg: Mapping) -> None:
    """Fill ``net`` as ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)`` says, strictly.

    Raises:
        InputError: An unknown key or type, or a file that does not fit.
    """
    known = {"type", "checkpoint", "prefix", "map_location"}
    if init_cfg.get("type") != "Pretrained" or set(init_cfg) - known or not init_cfg.get("checkpoint"):
        raise InputError(
            f"init_cfg must be dict(type='Pretrained', checkpoint='<path or URL>', prefix='<prefix>'), but it is "
            f"{dict(init_cfg)}."
        )
    source = init_cfg["checkpoint"]
    prefix = init_cfg.get("prefix") or ""
    load_strict(net, with_prefix(read(source), prefix, source), source, UNUSED_BANK_KEYS, prefix)


def load_restorer(net: nn.Module, source: str | os.PathLike) -> None:
    """Fill a restoration network from its own state dict or from a training checkpoint of MMagic or this package.

    Raises:
        InputError: The file does not hold such a network.
    """
    state = read(source)
    if any(key.startswith("generator.encoder.") for key in state):
        state = with_prefix(state, "generator", source)
    load_strict(net, state, source)


def save(state: Mapping[str, Tensor], path: str | os.PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        InputError: The file cannot be written.
    """
    from safetensors.torch import save as serialize

    with atomic_path(path) as partial:  # save_file would make it readable for its owner only
        partial.write_bytes(
            serialize({k: v.detach().cpu().contiguous() for k, v in state.items()}, dict(metadata or {}))
        )
