"""Measure folders of restored images, by any restorer: a table, and a report that shows the worst cases."""

from glean_ext.evaluation.run import Evaluation, EvaluationOptions, evaluate

__all__ = ["Evaluation", "EvaluationOptions", "evaluate"]
