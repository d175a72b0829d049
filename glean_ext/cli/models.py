"""List the models: what each is for, the sizes it takes and makes, and whether it is downloaded already."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from glean_ext import cli


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="show all that is known of this model")
    parser.add_argument("--banks", action="store_true", help="list latent banks, which GLEAN is trained with, too")
    args = parser.parse_args(argv)
    show_model(args.name) if args.name else show_models(banks=args.banks)
    return 0


def show_models(banks: bool = False) -> None:
    """Print the models, two lines each, which fit into 80 columns."""
    from glean_ext.zoo import CARDS, DEFAULT

    shown = [card for card in CARDS if banks or card.kind == "restorer"]
    name_width, size_width = (max(map(len, column)) for column in zip(*((c.name, c.sizes) for c in shown), strict=True))
    for card in shown:
        weights = f"{card.megabytes:3} MB, {where(card.weights)}"
        default = " (default)" if card.name == DEFAULT else ""
        print(f"{card.name:{name_width}}  {card.sizes:{size_width}}  {weights}\n    {card.purpose}{default}")


def show_model(name: str) -> None:
    """Print the card of a model.

    Raises:
        InputError: There is no such model.
    """
    from rich.console import Console

    from glean_ext.zoo import find_model

    card = find_model(name)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    rows = {
        "name": card.name,
        "purpose": card.purpose,
        "pixels": card.sizes,
        "config": card.config,
        "weights": f"{card.weights} ({card.megabytes} MB or more, {where(card.weights)})",
        "SHA-256": card.sha256 if len(card.sha256) == 64 else f"{card.sha256}... (the digits that are published)",
        "licence": card.licence,
        "source": card.source,
    }
    if card.aliases:
        rows["also called"] = ", ".join(card.aliases)
    for key, value in rows.items():
        console.print(f"{key:11}  {value}")


def download_line(weights: str, purpose: str = "") -> str:
    """What is downloaded before a model of the zoo can run; empty where nothing is.

    Args:
        weights: Its URL.
        purpose: What is going to be done with it.
    """
    from glean_ext.utils.downloads import cache_folder, cached_name
    from glean_ext.zoo import card_of

    card = card_of(weights)
    if card is None or where(weights) != "not downloaded":
        return ""
    return (
        f"{card.name} {purpose or f'restores {card.purpose}'}; downloading its weights, {card.megabytes} MB or more "
        f"({card.licence}), to {cache_folder() / cached_name(weights)}"
    )


def where(weights: str) -> str:
    """``'shipped'``, ``'downloaded'`` or ``'not downloaded'``."""
    from glean_ext.utils.downloads import cache_folder, cached_name, is_url

    if not is_url(weights):
        return "shipped"
    return "downloaded" if (cache_folder() / cached_name(weights)).is_file() else "not downloaded"
