"""Write a network as one file that runs without this package, and compare its results with the network's.

onnx: an ONNX model, which onnxruntime runs without PyTorch. torch: a .pt2 program of torch.export.

Input `lq` (N, 3, h, w) and output `output` (N, 3, H, W) are float32 RGB in [-1, 1]. N is free; h and w are free for
LightGLEAN (from 8 on) and fixed for GLEAN.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file")
    parser.add_argument("checkpoint", help="weights of the network, or a training checkpoint: path or URL")
    parser.add_argument("out", metavar="OUT", help=".onnx or .pt2 file to write")
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="default: onnx")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="of weights and computation (default: float32); float16 halves the file",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="8-bit weights and activations in the convolutions; those that would cost too much accuracy stay in fp32, "
        "so that the results are at least 40 dB from fp32",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER",
        help="images like those that are going to be restored, from which --int8 learns",
    )
    cli.add_config_options(parser)
    args = parser.parse_args(argv)
    if args.int8 != (args.calibrate is not None):
        parser.error("--int8 and --calibrate FOLDER need each other")
    if args.int8 and (args.format, args.dtype) != ("onnx", "float32"):
        parser.error("--int8 makes an ONNX model, and has its own type: leave --format and --dtype out")

    from glean_ext.cli.early_checks import require_output, require_packages
    from glean_ext.config import generator_config, load_config
    from glean_ext.inference.export_formats import PACKAGES, require_suffix
    from glean_ext.network_settings import require_network
    from glean_ext.utils.dataset_folders import list_images
    from glean_ext.utils.messages import printable
    from glean_ext.utils.weight_files import weights_file

    require_suffix(args.out, args.format)
    require_output(args.out)
    require_network(generator_config(load_config(args.config, args.cfg_options), args.config))
    require_packages(*PACKAGES[args.format])
    weights_file(args.checkpoint)
    if args.calibrate:
        list_images(args.calibrate, recursive=True)

    from glean_ext.inference.export import export, export_int8

    if args.int8:
        report = export_int8(args.config, args.checkpoint, args.out, args.calibrate, args.cfg_options, print)
        print(printable(f"wrote {args.out}"))
        print("\n".join(report.lines()))
        return 0
    metadata = export(args.config, args.checkpoint, args.out, args.format, args.dtype, args.cfg_options, print)
    difference = f"results differ from the network's by at most {metadata.max_difference:.2g} of the range"
    print(printable(f"wrote {args.out}: {difference}"))
    return 0
