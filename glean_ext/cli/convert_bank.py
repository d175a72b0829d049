"""Make a bank for GLEAN of a StyleGAN2 of MMagic, rosinality's stylegan2-pytorch or NVIDIA's PyTorch repositories, or
of a BigGAN of its authors' PyTorch release.

The output is a .safetensors file with the generator (the averaged one where there is one) and the discriminator. Its
path goes into a config; the arguments that belong to it are printed. NVIDIA's pickles are read without running code.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="IN", help="the checkpoint: path or URL")
    parser.add_argument("out", metavar="OUT", help="the bank to write, a .safetensors file")
    parser.add_argument(
        "--from",
        "--kind",
        dest="kind",
        default="auto",
        choices=["mmagic", "rosinality", "nvidia", "biggan", "auto"],
        help="who wrote the checkpoint (default: auto, the file shows it)",
    )
    parser.add_argument("--no-discriminator", action="store_true", help="convert the generator alone")
    parser.add_argument("--bgr", action="store_true", help="the source's images are BGR; make the bank's RGB")
    args = parser.parse_args(argv)

    from glean_ext.cli.early_checks import require_output
    from glean_ext.utils.files import require_suffix
    from glean_ext.utils.messages import printable
    from glean_ext.utils.weight_files import local_path, require_convertible

    require_suffix(args.out, ".safetensors")
    require_output(args.out)
    require_convertible(local_path(args.source))

    from glean_ext.bank_conversion import convert_bank

    bank = convert_bank(args.source, args.out, args.kind, not args.no_discriminator, args.bgr)
    size = bank.generator["out_size"]
    print(printable(f"{args.source}: {bank.format}, {' and '.join(bank.taken)}, {size}x{size}"))
    for note in bank.notes:
        print(f"note: {note}")
    print(printable(f"wrote {args.out}; for the config:"))
    print(f"    generator=dict({_arguments(bank.generator, args.out, 'generator_ema')})")
    if bank.discriminator:
        print(f"    discriminator=dict({_arguments(bank.discriminator, args.out, 'discriminator')})")
    return 0


def _arguments(arguments: Mapping[str, object], out: str, prefix: str) -> str:
    pairs = [f"{key}={value!r}" for key, value in arguments.items()]
    return ", ".join([*pairs, f"init_cfg=dict(type='Pretrained', checkpoint={out!r}, prefix={prefix!r})"])
