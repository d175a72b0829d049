"""The types and arguments in a config of a run, checked without loading torch, MMagic or mmengine's registries."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from mmengine import Config

from glean_ext.engine.config_checks import RESTORERS, find_settings
from glean_ext.errors import InputError, did_you_mean
from glean_ext.network_settings import MODULES
from glean_ext.utils.argument_checks import require_names, require_types
from glean_ext.utils.class_sources import ClassSources, Signature, signature

PACKAGE = "glean_ext"
PLUGIN = Path(__file__).parents[1] / "plugin.py"
SCOPES = ("mmagic", "mmengine", "mmcv")  # where mmengine looks for a type, in this order, after our own
NEAR = 0.8  # how alike a name must be to one that is known, to be a misspelt one where not all names are known


@dataclass(frozen=True)
class Part:
    """A part of a config from which an object is built.

    Attributes:
        registry: Where its type is looked up.
        kind: What messages call such an object.
        default: The type of a part without one.
        supplied: Arguments that mmengine adds.
        others: Settings that mmengine takes out before the object is built.
        partly_known: The registry has names that cannot be read from sources, such as those of diffusers.
    """

    registry: str
    kind: str
    default: str = ""
    supplied: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    partly_known: bool = False


MODEL = Part("MODELS", "model", partly_known=True)
DATASET = Part("DATASETS", "dataset")
TRANSFORM = Part("TRANSFORMS", "transform")
SAMPLER = Part("DATA_SAMPLERS", "data sampler", supplied=("dataset", "seed"))
LOOP = Part("LOOPS", "loop", supplied=("runner", "dataloader", "evaluator"))
METRIC = Part("METRICS", "metric")
HOOK = Part("HOOKS", "hook", others=("priority",))
OPTIMIZER = Part("OPTIMIZERS", "optimizer", supplied=("params",), partly_known=True)
WRAPPER = Part(
    "OPTIM_WRAPPERS", "optimizer wrapper", "OptimWrapper", others=("constructor", "paramwise_cfg", "modules")
)
SCHEDULER = Part("PARAM_SCHEDULERS", "parameter scheduler", supplied=("optimizer",), others=("convert_to_iter_based",))
# Settings, as in :data:`~glean_ext.engine.config_checks.NUMBERS`, and what is built from them.
TRAINED = {"model": MODEL, **dict.fromkeys((f"model.{name}" for name in (
    "generator", "discriminator", "pixel_loss", "gan_loss", "perceptual_loss", "identity_loss", "data_preprocessor"
)), MODEL)}  # fmt: skip
LOADERS = {
    "dataset": DATASET,
    "dataset.dataset": DATASET,
    "dataset.pipeline.*": TRANSFORM,
    "dataset.dataset.pipeline.*": TRANSFORM,
    "sampler": SAMPLER,
}
RUN = {"default_hooks.*": HOOK, "custom_hooks": HOOK, "custom_hooks.*": HOOK}
TRAINING = {
    "optim_wrapper": WRAPPER,
    "optim_wrapper.*": WRAPPER,
    "optim_wrapper.optimizer": OPTIMIZER,
    "optim_wrapper.*.optimizer": OPTIMIZER,
    "param_scheduler": SCHEDULER,
    "param_scheduler.*": SCHEDULER,
    "param_scheduler.*.*": SCHEDULER,
}


def _split(name: str) -> dict[str, Part]:
    """The parts of a split: its loader, loop and metrics."""
    loader, metrics = f"{name}_dataloader", f"{name}_evaluator"
    parts = {f"{start}.{key}": part for start in (loader, f"{loader}.*") for key, part in LOADERS.items()}
    depths = ("", ".*", ".*.*", ".*.*.*")  # a metric, some of them, an evaluator with ``metrics``, some of these
    return {**parts, f"{name}_cfg": LOOP, **{metrics + depth: METRIC for depth in depths}}


FOR_TRAINING = {**TRAINED, **RUN, **TRAINING, **_split("train"), **_split("val")}
FOR_TEST = {"model": MODEL, "model.generator": MODEL, "model.data_preprocessor": MODEL, **RUN, **_split("test")}


def check_arguments(cfg: Config, parts: Mapping[str, Part]) -> None:
    """Check types and arguments.

    Nothing is checked where there may be other types than the sources show: a config imports further modules, or MMagic
    is loaded already.

    Raises:
        InputError: A type that no registry has, an argument that its constructor does not have, or a missing one.
    """
    modules = _custom_imports(cfg)
    if (
        "mmagic.registry" in sys.modules
        or cfg.get("default_scope") != SCOPES[0]
        or any(not module.startswith(f"{PACKAGE}.") for module in modules)
    ):
        return
    content = cfg.to_dict()
    ours = (content.get("model") or {}).get("type") in RESTORERS
    for pattern, part in parts.items():
        if pattern.startswith("model.") and not ours:  # a model adds arguments to its parts, and others' are not known
            continue
        for name, value in find_settings(content, pattern.split(".")):
            if isinstance(value, Mapping) and _is_built(value, part):
                _check(name, dict(value), part)


def _custom_imports(cfg: Config) -> list[str]:
    """The modules that a config imports.

    Raises:
        InputError: One is not installed, though the config does not allow that.
    """
    custom = cfg.get("custom_imports")
    if not isinstance(custom, Mapping):
        return []
    given = custom.get("imports") or []
    modules = [given] if isinstance(given, str) else [str(module) for module in given]
    for top in {module.partition(".")[0] for module in modules} - {""}:
        if find_spec(top) is None and not custom.get("allow_failed_imports"):
            raise InputError(
                f"config: custom_imports: there is no module {top!r}. Correct it, or install what is missing."
            )
    return modules


def _is_built(value: Mapping, part: Part) -> bool:
    """Whether a part of a config is an object's, rather than a dict of such parts."""
    if part is METRIC and "metrics" in value:  # an evaluator
        return False
    return "optimizer" in value if part is WRAPPER else "type" in value


def _check(name: str, given: dict, part: Part) -> None:
    kind = given.pop("type", part.default)
    scope, _, kind = str(kind).rpartition(".") if isinstance(kind, str) else ("", "", "")
    own_scope = given.pop("_scope_", None)
    scope = scope or str(own_scope or "")
    if not kind or scope not in ("", *SCOPES):  # a class, or a path of another package
        return
    found = class_of(kind, part.registry, scope)
    if found is None:
        _refuse(name, kind, part)
        return
    if kind in MODULES:  # a config's generator is checked when it is read
        return
    owner, own, takes = f"config: {name} ({kind})", *found
    given = {key: value for key, value in given.items() if key not in part.others}
    if takes is not None:
        require_names(owner, given, takes, part.supplied)
        if own:
            require_types(owner, given, takes)


def _refuse(name: str, kind: str, part: Part) -> None:
    """Raise InputError for a type that does not exist, if that is certain enough."""
    known = names_in(part.registry)
    near = did_you_mean(kind, known, cutoff=NEAR) if part.partly_known else did_you_mean(kind, known)
    if part.partly_known and (not near or kind in _elsewhere()):
        return
    raise InputError(
        f"config: {name}.type: there is no {part.kind} {kind!r}. {near}Correct the type, or name the module that has "
        "it in custom_imports."
    )


@cache
def _sources() -> dict[str, ClassSources]:
    """The sources of each package, in the order in which a type is looked up."""
    return {name: ClassSources.of_package(name) for name in (PACKAGE, *SCOPES)}


@cache
def _optimizers() -> ClassSources:
    return ClassSources.of_package("torch", "optim")


@cache
def _own() -> dict[str, dict[str, str]]:
    """Registry -> name -> class, from the plug-in's table."""
    for node in ast.parse(PLUGIN.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TABLE":
            assert isinstance(node.value, ast.Dict)
            return {
                ast.unparse(registry): {
                    ast.literal_eval(name): ast.unparse(kind).rpartition(".")[2]
                    for name, kind in zip(entries.keys, entries.values, strict=True)
                    if name
                }
                for registry, entries in zip(node.value.keys, node.value.values, strict=True)
                if registry and isinstance(entries, ast.Dict)
            }
    raise AssertionError("the plug-in has no table")


def _registered(registry: str, package: str) -> dict[str, str]:
    """Name in a registry -> class, of what a package adds to it."""
    if package == PACKAGE:
        return _own().get(registry, {})
    if (registry, package) == ("OPTIMIZERS", "mmengine"):  # it registers those of torch
        return {name: name for name in _optimizers().files if name != "Adafactor"}  # or transformers' of that name
    return _sources()[package].registered.get(registry, {})


def names_in(registry: str) -> list[str]:
    """The names that the sources show of a registry."""
    return [name for package in _sources() for name in _registered(registry, package)]


def class_of(kind: str, registry: str, scope: str = "") -> tuple[bool, Signature | None] | None:
    """Whether a type is ours, and what its constructor takes, where that is known; None: it is not registered."""
    order = list(_sources())
    first = 0 if scope in ("", SCOPES[0]) else order.index(scope)  # ours stand in MMagic's registries
    for package in order[first:]:
        if kind not in (registered := _registered(registry, package)):
            continue
        if package != PACKAGE and kind in _elsewhere():
            return False, None
        later = [_sources()[name] for name in order[order.index(package) :]]
        return package == PACKAGE, signature(registered[kind], [_optimizers()] if registry == "OPTIMIZERS" else later)
    return None


@cache
def _elsewhere() -> frozenset[str]:
    """Names that MMagic registers when it is loaded: what diffusers exports."""
    spec = find_spec("diffusers")
    if spec is None or spec.origin is None:
        return frozenset()
    return frozenset(re.findall(r"\"(\w+)\"", Path(spec.origin).read_text(encoding="utf-8")))
