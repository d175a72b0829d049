"""Reading, checking and writing weights: strict and safe.

Strict: a network is filled completely from a file or not at all, and the error names what does not fit. Safe: a file is
read as data, whoever wrote it: it can run no code, and it takes no more memory than a few times its size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from glean_ext.errors import InputError, first_line
from glean_ext.network_settings import require_pretrained
from glean_ext.utils.downloads import without_secrets
from glean_ext.utils.files import atomic_path
from glean_ext.utils.messages import summarize_names
from glean_ext.utils.safe_unpickler import NUMBERS, ForbiddenNameError, Function, SkippedObject
from glean_ext.utils.torch_files import read_torch_file
from glean_ext.utils.weight_files import GET_AGAIN, is_safetensors, local_path, require_pickle

# Keys that some bank files have besides the network's own, and that a restorer does not use.
UNUSED_BANK_KEYS = ("w_avg", "truncation_latent", "steps")  # the last one counts for mmengine's average
Value = TypeVar("Value")

MAX_KEYS = 4  # that an error names before it counts the rest
MAX_NESTING = 4  # dicts in dicts in which tensors are looked for
MAX_ENTRIES = 1_000_000  # of them; a small file can refer to one dict very often
TRUST = "If you trust it, convert it once: torch.save(torch.load(path, weights_only=False)['state_dict'], new)."
# What training checkpoints hold besides weights and NumPy's numbers; none of it is looked at.
TRAINING_LOG_NAMES = {
    "mmengine.logging.history_buffer.HistoryBuffer": Function(SkippedObject),
    "builtins.getattr": Function(SkippedObject),  # by which the logs of mmengine name their own methods
    "argparse.Namespace": Function(SkippedObject),  # the options, in checkpoints of rosinality's stylegan2-pytorch
}


def read(source: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a checkpoint: a ``.safetensors`` file or what ``torch.save`` wrote, by path, http(s) URL or
    ``glean-ext://`` name of a shipped file.

    The weights of a training checkpoint are under ``state_dict``; the ``module.`` of DDP is taken out of the keys. The
    tensors of dicts in dicts have dotted keys: ``{'G_ema': {'bias': ...}}`` gives ``G_ema.bias``.

    Raises:
        InputError: The file is missing, truncated, no checkpoint, or a pickle that holds more than weights.
    """
    path = local_path(str(source))
    state = _read_safetensors(path) if is_safetensors(path) else tensors(read_torch(path), path)
    if not state:
        raise InputError(f"{without_secrets(str(source))} holds no tensors. Is it a checkpoint of a network?")
    return plain_keys(state)


def tensors(content: Mapping[Any, Any], source: object) -> dict[str, Tensor]:
    """The tensors of a checkpoint's content, and of the dicts in it by dotted keys; a ``state_dict`` stands for all.

    Raises:
        InputError: The dicts have too many entries.
    """
    found: dict[str, Tensor] = {}
    waiting, entries = [("", content, 1)], 0
    while waiting:
        prefix, part, depth = waiting.pop()
        if isinstance(inner := part.get("state_dict"), Mapping):
            part = inner
        entries += len(part)
        if entries > MAX_ENTRIES:
            raise InputError(f"{source} has more than {MAX_ENTRIES} entries. Is it a checkpoint of a network?")
        for key, value in part.items():
            if isinstance(key, str) and isinstance(value, Tensor):
                found[f"{prefix}{key}"] = value
            elif isinstance(key, str) and isinstance(value, Mapping) and depth < MAX_NESTING:
                waiting.append((f"{prefix}{key}.", value, depth + 1))
    return found


def metadata(source: str | os.PathLike) -> dict[str, str]:
    """What :func:`save` wrote beside the tensors of a ``.safetensors`` file.

    Raises:
        InputError: The file is missing or no safetensors file.
    """
    from safetensors import safe_open

    path = local_path(str(source))
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:
        raise _no_safetensors(path, error) from error


def plain_keys(state: Mapping[str, Value]) -> dict[str, Value]:
    """Keys as they are without distributed training: ``generator.module.encoder`` -> ``generator.encoder``."""
    return {re.sub(r"(^|\.)module\.", r"\1", key): value for key, value in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise _no_safetensors(path, error) from error


def _no_safetensors(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or no safetensors file ({first_line(error)}). {GET_AGAIN}")


def read_torch(path: Path, more_names: Mapping[str, Any] | None = None) -> dict:
    """All that ``torch.save`` or ``pickle`` wrote to ``path``, a training checkpoint for one, as far as it is data.

    ``more_names`` are stand-ins for further names in it, as in :func:`~glean_ext.utils.torch_files.read_torch_file`.

    Raises:
        InputError: The file is truncated, no checkpoint, or a pickle that holds more than data.
    """
    require_pickle(path)
    try:
        content = read_torch_file(path, {**TRAINING_LOG_NAMES, **(more_names or {})})
    except ForbiddenNameError as error:
        nvidia = error.name.startswith(("dnnlib.", "torch_utils."))
        advice = "Convert StyleGAN2 pickles of NVIDIA with tools/convert_bank.py." if nvidia else TRUST
        raise InputError(
            f"{path} holds Python objects besides weights, and reading them could run code, so it was not read. "
            f"{advice}"
        ) from error
    except Exception as error:  # the bytes of a damaged file lead anywhere
        reason = first_line(error)
        raise InputError(f"{path} is truncated, damaged or no checkpoint ({reason}). {GET_AGAIN}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict.")
    return content


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
        prefixes = summarize_names(sorted({key.split(".")[0] for key in state}))
        raise InputError(
            f"{without_secrets(str(source))} has no keys with prefix {prefix!r}; its prefixes are {prefixes}. Set one "
            "of them."
        )
    return found


def load_strict(
    net: nn.Module,
    state: Mapping[str, Tensor],
    source: object,
    ignore: Iterable[str] = (),
    prefix: str = "",
    assign: bool = False,
) -> None:
    """Fill every parameter and buffer of ``net`` from ``state``; nothing is changed when anything does not fit.

    Args:
        net: What to fill.
        state: Tensors by the network's own key names.
        source: Named in errors.
        ignore: Keys of ``state`` that may be left over.
        prefix: What was taken off the keys of the file; for the advice in errors.
        assign: The tensors become the network's own, without a copy. Then nothing else may use them.

    Raises:
        InputError: Missing keys, left-over keys, other shapes, or data types whose values would change.
    """
    own = net.state_dict()
    require_fit(own, state, type(net).__name__, source, ignore, prefix)
    if assign:
        net.load_state_dict({k: state[k].to(v.dtype).contiguous() for k, v in own.items()}, strict=True, assign=True)
    else:
        net.load_state_dict({k: state[k] for k in own}, strict=True)


def require_fit(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    name: str,
    source: object,
    ignore: Iterable[str] = (),
    prefix: str = "",
) -> None:
    """Raise InputError, as :func:`load_strict` does, unless ``state`` has what ``own``, the network ``name``, has."""
    missing = [k for k in own if k not in state]
    surplus = [k for k in state if k not in own and k not in set(ignore)]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    kinds = [
        f"{k} {state[k].dtype} instead of {v.dtype}"
        for k, v in own.items()
        if k in state and not (NUMBERS.fullmatch(str(state[k].dtype)) and torch.can_cast(state[k].dtype, v.dtype))
    ]
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} keys are missing ({summarize_names(missing, MAX_KEYS)})")
    if surplus:
        problems.append(f"{len(surplus)} keys fit nothing ({summarize_names(surplus, MAX_KEYS)})")
    if shapes:
        problems.append(f"{len(shapes)} have another shape ({summarize_names(shapes, 2)})")
    if kinds:
        problems.append(f"{len(kinds)} have another data type ({summarize_names(kinds, 2)})")
    if problems:
        advice = _advice(own, state, missing, prefix)
        raise InputError(f"{without_secrets(str(source))} does not fit {name}: {'; '.join(problems)}. {advice}")


def _advice(own: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], prefix: str) -> str:
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
    state, source, prefix = read_pretrained(init_cfg)
    load_strict(net, state, source, UNUSED_BANK_KEYS, prefix)


def read_pretrained(init_cfg: Mapping) -> tuple[dict[str, Tensor], str, str]:
    """The tensors that an ``init_cfg`` names, without the prefix of their keys; the file; the prefix.

    Raises:
        InputError: An unknown key or type, or a file that has no such tensors.
    """
    require_pretrained(init_cfg)
    source, prefix = init_cfg["checkpoint"], init_cfg.get("prefix") or ""
    return with_prefix(read(source), prefix, source), source, prefix


def load_network_weights(net: nn.Module, source: str | os.PathLike, assign: bool = False) -> None:
    """Fill a restoration network from its own state dict or from a training checkpoint of MMagic or this package.

    With ``assign`` the tensors that are read become the network's own, without a copy.

    Raises:
        InputError: The file does not hold such a network.
    """
    load_strict(net, network_state(read(source), source), source, assign=assign)


def network_state(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """The entries of a restoration network, whose keys begin with ``encoder.``, in a checkpoint's state dict.

    Where its keys are below a prefix, that is found: ``generator`` if there is one, then an average (``params_ema``).
    Where there is no such network, all entries.
    """
    if any(key.startswith("encoder.") for key in state):
        return dict(state)
    prefixes = {key.partition(".encoder.")[0] for key in state if ".encoder." in key}
    prefix = min(prefixes, key=lambda name: (name != "generator", not name.endswith("_ema"), name), default="")
    return with_prefix(state, prefix, source)


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
