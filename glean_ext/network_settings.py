"""What a config says of its network, checked without loading torch: that would take seconds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from glean_ext.errors import InputError, did_you_mean
from glean_ext.size_requirements import MIN_INPUT, MIN_SIZE, SizeRequirements, SquareSize, require_scale
from glean_ext.utils.argument_checks import require_names, require_types
from glean_ext.utils.class_sources import ClassSources, Signature, signature
from glean_ext.utils.downloads import without_secrets

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
BANK_FILES = {  # networks whose bank is loaded from a file, and whose
    "GLEANBigGAN": "BigGAN",
    "GLEANColorization": "StyleGAN2",
    "GLEANStyleGANv2": "StyleGAN2",
    "LightGLEANStyleGANv2": "StyleGAN2",
}
LEAST = {  # the smallest numbers that make a network
    **dict.fromkeys(("img_channels", "rrdb_channels", "style_channels", "max_channels", "decoder_channels"), 1),
    **dict.fromkeys(("num_classes", "base_channels", "noise_size", "num_codes", "encoder_channels", "lora_rank"), 1),
    **dict.fromkeys(("num_rrdbs", "num_mlps", "timestep"), 0),
}
MAX_REFERENCES = 8  # that a network takes for an image
TAKE_REFERENCES = {"GLEANDiffusion": MAX_REFERENCES}  # networks that always take references, and how many at most
LABEL = "model.generator.label"  # an option whose value is a text as it stands: "golden retriever", "7", "a, b"
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
    """Refuse arguments of a ``model.generator`` that its network cannot take; other types than ours are not checked.

    Raises:
        InputError: The first name, missing argument, value or size that is wrong.
    """
    kind = generator.get("type")
    if kind not in MODULES:
        return
    given = {name: value for name, value in generator.items() if name != "type"}
    takes, owner = arguments(kind), f"model.generator ({kind})"
    if "label" in given and "label" not in takes.annotations:
        raise InputError(NO_CLASSES, "label", "Leave it out.")
    require_names(owner, given, takes)
    require_types(owner, given, takes)
    for name in given:
        if name in LEAST and given[name] < LEAST[name]:
            raise InputError(f"{owner}: {name} is {given[name]}, but it must be at least {LEAST[name]}. Correct it.")
    try:
        _require_sizes(kind, given)
    except ValueError as error:
        raise InputError(f"{owner}: {error}") from error


def _require_sizes(kind: str, given: Mapping) -> None:
    """Raise ValueError for sizes that no network has."""
    if kind == "GLEANColorization":
        if given["in_size"] != given["out_size"]:
            raise ValueError(
                f"in_size and out_size must be equal, but they are {given['in_size']} and {given['out_size']}."
            )
        small = SquareSize("encoder_size", given["encoder_size"])
    else:
        small = SquareSize("in_size", given["in_size"], MIN_INPUT if kind == "LightGLEANStyleGANv2" else MIN_SIZE)
    require_scale(small, SquareSize("out_size", given["out_size"], 2 * MIN_SIZE))


@cache
def arguments(kind: str) -> Signature:
    """What a network's constructor takes, read from its source.

    >>> list(arguments("GLEANStyleGANv2").annotations)[:2]
    ['in_size', 'out_size']
    """
    takes = signature(kind, [ClassSources([Path(__file__).parent / "networks" / f"{MODULES[kind]}.py"])])
    assert takes is not None
    return takes


def require_adversarial(model: Mapping) -> None:
    """Check that the parts of a ``model`` that judge its images fit together.

    Raises:
        InputError: Only one of ``discriminator`` and ``gan_loss``, or a discriminator for images of another size.
    """
    discriminator, out_size = model.get("discriminator"), model["generator"].get("out_size")
    if bool(discriminator) != bool(model.get("gan_loss")):
        raise InputError(
            "model.discriminator and model.gan_loss go together. Set both, or both to None to train without "
            "adversarial loss."
        )
    if discriminator and discriminator.get("in_size", out_size) != out_size:
        raise InputError(
            f"model.discriminator.in_size is {discriminator['in_size']}, but model.generator.out_size is {out_size}. "
            "Make them equal."
        )


def require_bank_source(generator: Mapping) -> None:
    """Raise InputError where the bank of a ``model.generator`` is to be loaded from no file, or from a wrong one."""
    kind = str(generator.get("type"))
    if (init_cfg := generator.get("init_cfg")) is not None:
        require_pretrained(init_cfg)
    if kind in BANK_FILES:
        bank, bank_init = generator.get("bank", "frozen"), generator.get("bank_init", "pretrained")
        require_file(kind, generator.get("init_cfg"), bank, bank_init, BANK_FILES[kind])


def require_file(network: str, init_cfg: Mapping | None, bank: str, bank_init: str, kind: str = "StyleGAN2") -> None:
    """Raise InputError where there is no ``init_cfg``, although the bank is neither absent nor random.

    Args:
        network: Type of the network, for the message.
        init_cfg: The network's argument; so are ``bank`` and ``bank_init``.
        kind: Whose file the bank is loaded from.
    """
    if init_cfg is None and bank_init == "pretrained" and bank != "absent":
        raise InputError(
            f"{network} has no pre-trained bank to train with. Set generator.init_cfg=dict(type='Pretrained', "
            f"checkpoint='<{kind} file>', prefix='generator_ema'), or generator.bank_init='random' if a random bank is "
            "what you want."
        )


def require_pretrained(init_cfg: Mapping) -> None:
    """Raise InputError for an ``init_cfg`` that names no file of weights, or has unknown keys."""
    known = {"type", "checkpoint", "prefix", "map_location"}
    source = init_cfg.get("checkpoint")
    if init_cfg.get("type") != "Pretrained" or set(init_cfg) - known or not source:
        given = dict(init_cfg) | ({"checkpoint": without_secrets(str(source))} if source else {})
        raise InputError(
            "init_cfg must be dict(type='Pretrained', checkpoint='<path or URL>', prefix='<prefix>'), but it is "
            f"{given}."
        )
    if str(init_cfg.get("map_location") or "cpu") != "cpu":
        raise InputError(
            f"init_cfg.map_location is {str(init_cfg['map_location'])!r}, but weights are read on the CPU and copied "
            "to the device of the network. Remove it."
        )


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
