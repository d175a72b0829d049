"""What a config's network costs at its nominal size, batch 1: parameters, FLOPs and memory, per part and in total.

Nothing is computed for the table: FLOPs are what torch.utils.flop_counter counts, the peak of activations is the
largest sum of tensors alive at once, without weights and without the workspaces of libraries. --memory runs a real
forward on this machine's CPU in a process of its own and prints the peak of that process.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("--memory", action="store_true", help="also run a forward and print the peak of its process")
    cli.add_config_options(parser)
    args = parser.parse_args(argv)

    from glean_ext.config import generator_config, load_config
    from glean_ext.network_settings import require_network

    config = load_config(args.config, args.cfg_options)  # a mistake is answered before torch is loaded
    require_network(generator_config(config, args.config))

    from glean_ext.cli.model_info_table import model_info

    model_info(args.config, args.cfg_options, args.memory)
    return 0
