"""Files of weights by path, by URL, or by the name of a shipped file; found without loading torch."""

from __future__ import annotations

from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.utils.downloads import cache_folder, download, is_url

ASSET_SCHEME = "glean-ext://"  # a file that this package ships, e.g. glean-ext://demo_bank.safetensors
ASSETS = Path(__file__).parents[1] / "assets"


def local_path(source: str) -> Path:
    """The file that a path, URL or ``glean-ext://`` name stands for; a URL is downloaded once.

    Downloads are kept in torch's folder for them, which ``TORCH_HOME`` and ``XDG_CACHE_HOME`` move.

    Raises:
        InputError: There is no such file, or the download failed.
    """
    if is_url(source):
        return download(source, cache_folder())
    if source.startswith(ASSET_SCHEME):
        source = str(ASSETS / source.removeprefix(ASSET_SCHEME))
    path = Path(source)
    try:
        if path.is_file():
            path.open("rb").close()
            return path
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror or error}). Give another file.") from error
    raise InputError(f"{source}: there is no such file. Give the path or URL of a checkpoint.")
