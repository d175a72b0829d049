"""Results read from their files, and their means and spreads over the seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.experiment import FIRST, RESULTS, SECOND, Budget, Experiment
from experiments.metric_names import METRICS


@dataclass(frozen=True)
class Group:
    """The results of one system with different seeds."""

    results: tuple[dict, ...]

    def __len__(self) -> int:
        return len(self.results)

    def values(self, metric: str, stage: str = "metrics") -> list[float]:
        return [result[stage][metric] for result in self.results if metric in result.get(stage, {})]

    def mean(self, metric: str, stage: str = "metrics") -> float:
        return mean(self.values(metric, stage))

    def spread(self, metric: str, stage: str = "metrics") -> float:
        """The sample standard deviation; 0 for a single seed."""
        values = self.values(metric, stage)
        return stdev(values) if len(values) > 1 else 0.0

    def average(self, field: str) -> float | None:
        """The mean of a field beside the metrics, or None where the results do not have it."""
        values = [result[field] for result in self.results if field in result]
        return mean(values) if values else None


@dataclass(frozen=True)
class Summary:
    """All results of one protocol."""

    results: dict[str, dict]  # by experiment's name
    budget: Budget = SECOND  # of its tables

    @classmethod
    def read(cls, folder: Path = RESULTS, budget: Budget = SECOND) -> Summary:
        files = sorted(folder.glob("*.json"))
        contents = {file.stem: json.loads(file.read_text()) for file in files}
        return cls({name: content for name, content in contents.items() if "config" in content}, budget)

    @classmethod
    def first(cls) -> Summary:
        """The results of the first protocol."""
        return cls.read(RESULTS / "first", FIRST)

    def of(self, system: str, **settings: Any) -> Group | None:
        """The results of a system in this protocol, whatever the seed; None where there are none."""
        return self.group(Experiment(system, budget=self.budget, **settings))

    @cached_property
    def _by_group(self) -> dict[str, list[dict]]:
        groups: dict[str, list[dict]] = {}
        for name, result in self.results.items():
            groups.setdefault(name.rpartition("-")[0], []).append(result)
        return groups

    def group(self, experiment: Experiment) -> Group | None:
        """The results with an experiment's configuration, whatever the seed; None where there are none."""
        config = experiment.config()
        found = self._by_group.get(experiment.name.rpartition("-")[0], [])
        same = [result for result in found if {**result["config"], "seed": experiment.seed} == config]
        return Group(tuple(same)) if same else None


def better(a: Group, b: Group, metric: str) -> bool:
    """Whether ``a`` is better than ``b`` by more than the sum of the spreads over the seeds."""
    gain = a.mean(metric) - b.mean(metric)
    return (gain if METRICS[metric] else -gain) > a.spread(metric) + b.spread(metric)
