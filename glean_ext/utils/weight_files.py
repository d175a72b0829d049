"""Files of weights by path or by the name of a file that this package ships. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from glean_ext.errors import InputError

ASSET_SCHEME = "glean-ext://"  # a file that this package ships, e.g. glean-ext://demo_bank.safetensors
ASSETS = Path(__file__).parents[1] / "assets"


def require_weights(source: str) -> Path:
    """The file that a path or ``glean-ext://`` name stands for.

    Raises:
        InputError: There is no such file, or it cannot be read.
    """
    path = ASSETS / source.removeprefix(ASSET_SCHEME) if source.startswith(ASSET_SCHEME) else Path(source)
    try:
        if path.is_file():
            path.open("rb").close()
            return path
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}). Give another file.") from error
    raise InputError(f"{path}: there is no such file. Give the path or URL of a checkpoint.")
