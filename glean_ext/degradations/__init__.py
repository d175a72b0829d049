"""Degradations of sharp images, by presets or by recipes of one's own, for training and validation on blind inputs."""

from glean_ext.degradations.presets import PRESETS
from glean_ext.degradations.recipes import STAGES, Recipe
from glean_ext.degradations.transform import BlindDegradation

__all__ = ["PRESETS", "STAGES", "BlindDegradation", "Recipe"]
