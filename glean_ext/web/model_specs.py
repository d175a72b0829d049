"""Which models the page offers. Imports nothing heavy, since the tool checks its arguments with it."""

from __future__ import annotations

from dataclasses import dataclass

from glean_ext.errors import InputError
from glean_ext.utils.files import expand_home
from glean_ext.zoo import CARTOONS, find_restorer


@dataclass(frozen=True)
class ModelSpec:
    """A model to offer.

    Attributes:
        name: What the page calls it.
        config: As in :class:`glean_ext.inference.image_restorer.ImageRestorer`; so is ``checkpoint``.
        about: A sentence that helps to choose a model.
    """

    name: str
    config: str
    checkpoint: str
    about: str = ""


SHIPPED = (
    ModelSpec("Demo GLEAN", "demo_glean_x8", "glean-ext://demo_glean_x8.safetensors", CARTOONS),
    ModelSpec("Demo LightGLEAN", "demo_lightglean_x8", "glean-ext://demo_lightglean_x8.safetensors", CARTOONS),
    ModelSpec("Demo colorizer", "demo_glean_color", "glean-ext://demo_glean_color.safetensors", CARTOONS),
)


def parse_model(argument: str) -> ModelSpec:
    """The model of ``NAME=CONFIG,CHECKPOINT``, or of a name of the zoo.

    Raises:
        InputError: The argument has another form, or an unknown home folder; no model has that name, or it is a bank.
    """
    if not set(argument) & set("=,"):
        card = find_restorer(argument)
        about = card.warning or f"For {card.purpose}."
        return ModelSpec(card.name, card.config, card.weights, about)
    name, equals, paths = argument.partition("=")
    config, comma, checkpoint = paths.partition(",")
    parts = [part.strip() for part in (name, config, checkpoint)]
    if not (equals and comma and all(parts)):
        raise InputError(
            f"{{model}} {argument}: it must be the name of a model, or read NAME=CONFIG,CHECKPOINT, say "
            "Faces=configs/a.py,a.pth.",
            "model",
        )
    return ModelSpec(parts[0], *map(expand_home, parts[1:]))


def offered(arguments: list[str]) -> list[ModelSpec]:
    """The models of the arguments, then the shipped ones.

    Raises:
        InputError: An argument of another form, or a name that occurs twice.
    """
    specs = [*map(parse_model, arguments), *SHIPPED]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{{model}}: the name {name} is taken. Give each model a name of its own.", parameter="model"
            )
    return specs
