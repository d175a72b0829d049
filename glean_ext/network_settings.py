"""What a config says of its network, checked without loading torch: that would take seconds."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from glean_ext.errors import InputError, did_you_mean
from glean_ext.size_requirements import SizeRequirements

# The networks that restore images, as ``model.generator.type``, and their modules in glean_ext.networks.
MODULES = {
    "GLEANBigGAN": "glean_biggan",
    "GLEANColorization": "colorization",
    "GLEANDiffusion": "glean_diffusion",
    "GLEANStyleGANv2": "glean",
    "LightGLEANStyleGANv2": "lightglean",
}
ONE_SIZE = ("GLEANBigGAN", "GLEANDiffusion", "GLEANStyleGANv2")  # take images of their in_size only
SEVERAL_RESULTS = ("GLEANColorization",)  # have another result for each seed
TAKE_REFERENCES = {"GLEANDiffusion": 8}  # networks that always take references, and how many at most
MAX_REFERENCES = 8  # that a network with references=True takes
NO_CLASSES = "{label} has no effect: this network has a bank without classes."


def require_network(generator: Mapping) -> str:
    """The type of a config's ``model.generator``.

    Raises:
        InputError: It is none of :data:`MODULES`.
    """
    kind = generator.get("type")
    if kind not in MODULES:
        choices, hint = ", ".join(MODULES), did_you_mean(str(kind), MODULES)
        raise InputError(f"model.generator.type is {kind!r}, but it must be one of {choices}. {hint}".strip())
    return str(kind)


def require_arguments(generator: Mapping) -> None:
    """Refuse settings of a ``model.generator`` that its network does not have; other types than ours are not checked.

    Raises:
        InputError: The first of them; the nearest names are in the message.
    """
    kind = generator.get("type")
    if kind not in MODULES:
        return
    known = arguments(kind)
    for name in generator:
        if name == "label" and name not in known:
            raise InputError(NO_CLASSES, "label", "Leave it out.")
        if name not in known and name != "type" and not name.startswith("_"):  # those are mmengine's
            hint = did_you_mean(name, known)
            raise InputError(f"model.generator ({kind}): there is no argument {name!r}. {hint}".strip())


@cache
def arguments(kind: str) -> tuple[str, ...]:
    """The names of a network's arguments, read from its source.

    >>> arguments("GLEANStyleGANv2")[:2]
    ('in_size', 'out_size')
    """
    module = ast.parse((Path(__file__).parent / "networks" / f"{MODULES[kind]}.py").read_text(encoding="utf-8"))
    (network,) = (node for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind)
    (init,) = (node for node in network.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return tuple(argument.arg for argument in init.args.args[1:])


def require_several_results(generator: Mapping) -> None:
    """Raise InputError where ``seed`` has no effect on the network of a ``model.generator``."""
    if generator.get("type") not in SEVERAL_RESULTS:
        raise InputError("{seed} has no effect: this model has one result for an image.", "seed", "Leave {seed} out.")


def max_references(generator: Mapping) -> int:
    """How many reference images the network of a ``model.generator`` takes at most; 0: none.

    >>> max_references({"type": "GLEANDiffusion"}), max_references({"type": "GLEANStyleGANv2"})
    (8, 0)
    """
    return TAKE_REFERENCES.get(str(generator.get("type")), MAX_REFERENCES if generator.get("references") else 0)


def require_number_of_references(number: int, at_most: int) -> None:
    """Raise InputError where so many reference images are given to a network that takes fewer, or none."""
    if number and not at_most:
        raise InputError(
            "{references} has no effect: this model takes no reference images.", "references", "Leave it out."
        )
    if number > at_most:
        raise InputError(
            f"{number} reference images are given, but this model takes at most {at_most}.",
            "references",
            "Give fewer with {references}.",
        )


def sizes_of(generator: Mapping) -> SizeRequirements | None:
    """What the network of a ``model.generator`` takes, where that is its ``in_size`` only; None: build it to know.

    >>> str(sizes_of({"type": "GLEANStyleGANv2", "in_size": 64, "out_size": 1024}))
    '64x64 only'
    """
    small, large = generator.get("in_size"), generator.get("out_size")
    if generator.get("type") not in ONE_SIZE or not isinstance(small, int) or not isinstance(large, int) or small < 1:
        return None
    return SizeRequirements((small, small), large // small, any_size=False)
