"""Serve a page on which images are restored in a browser.

An image or photo is uploaded there, restored, compared with the original and downloaded. The shipped demo models are
always offered. Only this machine can open the page unless --host names another address: the page has no password.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s; 0 takes a free one")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="MODEL",
        help="offer it, too: a name of glean models, or NAME=CONFIG,CHECKPOINT; the first one given is the default",
    )
    parser.add_argument(
        "--device", type=cli.device_name, help="cpu, cuda, cuda:1 ... (default: the GPU when there is one)"
    )
    args = parser.parse_args(argv)

    from glean_ext.cli.early_checks import require_model, require_packages
    from glean_ext.cli.models import download_line
    from glean_ext.web.model_specs import offered

    specs = offered(args.model)
    for spec in specs:
        require_model(spec.config, spec.checkpoint)
    require_packages("fastapi", "uvicorn")
    for spec in specs:
        if line := download_line(spec.checkpoint):
            print(line, flush=True)

    from glean_ext.web.server import serve

    serve(args.host, args.port, specs, args.device)
    return 0
