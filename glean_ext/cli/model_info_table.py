"""What ``glean model-info`` prints."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from glean_ext.inference.model_cost import MIB, Cost, NetworkCosts, config_costs, peak_of_a_forward

TITLES = {
    "style_codes": "style codes",
    "generator": "bank",
    "fusion_out": "fusion",
    "fusion_skip": "RGB fusion (not computed)",
}


def model_info(config: str | os.PathLike, cfg_options: Sequence[str] = (), memory: bool = False) -> dict[str, Cost]:
    """Print the costs of a config's network at its nominal size, batch 1, and return them by part.

    Args:
        config: A config file.
        cfg_options: ``key=value`` changes to it.
        memory: Run a real forward, too, in a process of its own, and print the peak of that process.

    Raises:
        InputError: A config or option that cannot be used, or ``memory`` on another system than Linux.
    """
    costs = config_costs(config, cfg_options)
    console = Console(highlight=False, soft_wrap=True)
    console.print(_table(costs))
    console.print(
        f"Weights and stored noise: {costs.weight_bytes / MIB:.1f} MiB. Activations: what is alive at once, without "
        "the workspaces of libraries."
    )
    if memory:
        before, peak = peak_of_a_forward(config, cfg_options)
        console.print(
            f"A forward on this CPU: the process had {before / MIB:.0f} MiB with the network loaded, and at most "
            f"{peak / MIB:.0f} MiB while it ran."
        )
    return costs.parts


def _table(costs: NetworkCosts) -> Table:
    table = Table("part", title=costs.title)
    for column in "parameters", "trainable", "GFLOP", "peak of activations (MiB)":
        table.add_column(column, justify="right")
    for name, cost in costs.parts.items():
        if name == "total":
            table.add_section()
        numbers = f"{cost.parameters:,}", f"{cost.trainable:,}", f"{cost.flops / 1e9:.2f}", f"{cost.peak / MIB:.1f}"
        table.add_row(TITLES.get(name, name), *numbers)
    return table
