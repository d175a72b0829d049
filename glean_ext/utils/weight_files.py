"""Finds files of weights by path, URL or shipped name, and recognises their formats, without loading torch."""

from __future__ import annotations

import pickle
from pathlib import Path

from glean_ext.errors import InputError
from glean_ext.utils.downloads import cache_folder, download, is_url
from glean_ext.utils.files import expand_home

ASSET_SCHEME = "glean-ext://"  # a file that this package ships, e.g. glean-ext://demo_bank.safetensors
ASSETS = Path(__file__).parents[1] / "assets"
ZIP = b"PK\3\4"
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # torch.serialization's, of its format before zip
LEGACY_MAGIC = tuple(pickle.dumps(MAGIC_NUMBER, protocol) for protocol in range(6))
# How pickles of protocols 0 and 1 begin, whose first byte is no version: with a dict, or as torch.save's.
OLD_BEGINNINGS = b"(d", b"}q", b"ccollections\nOrderedDict\n", *LEGACY_MAGIC
GET_AGAIN = "Get it again."


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
    path = Path(source := expand_home(source))
    try:
        if path.is_file():
            path.open("rb").close()
            return path
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error.strerror or error}). Give another file.") from error
    raise InputError(f"{source}: there is no such file. Give the path or URL of a checkpoint.")


def is_safetensors(path: Path) -> bool:
    """Whether a file is named or begins as a safetensors file: the length of its header, and a brace."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        return file.read(9)[5:] == b"\0\0\0{"


def written_by_torch(path: Path) -> bool:
    """Whether a file begins as what ``torch.save`` writes, in its present zip format or the one before."""
    return _begins_with(path, ZIP, *LEGACY_MAGIC)


def require_pickle(path: Path) -> None:
    """Refuse a file that does not even begin as what ``torch.save`` or ``pickle`` write: a web page, say.

    Raises:
        InputError: It does not, or it is empty.
    """
    if not path.stat().st_size:
        raise InputError(f"{path} is empty. {GET_AGAIN}")
    if not _begins_with(path, b"PK", pickle.PROTO, *OLD_BEGINNINGS):
        raise InputError(f"{path} is no checkpoint: neither torch.save nor pickle wrote it. {GET_AGAIN}")


def weights_file(source: str) -> Path:
    """As :func:`local_path`, of a file that begins as weights do.

    Raises:
        InputError: As :func:`local_path` and, unless it is a safetensors file, :func:`require_pickle`.
    """
    path = local_path(source)
    if not is_safetensors(path):
        require_pickle(path)
    return path


def require_weights(source: str) -> None:
    """Raise InputError where a path is no file of weights, as :func:`weights_file`; URLs are not looked at."""
    if not is_url(source):
        weights_file(source)


def require_convertible(path: Path) -> None:
    """Refuse what ``convert_bank`` cannot read, by the file's first bytes.

    Raises:
        InputError: It is a safetensors file, or as :func:`require_pickle`.
    """
    if path.stat().st_size and is_safetensors(path):
        raise InputError(
            f"{path} is a safetensors file, which configs take as it is when it has this package's names: "
            "checkpoint='<the file>', prefix='generator_ema'. Convert what MMagic, rosinality or NVIDIA wrote."
        )
    require_pickle(path)


def _begins_with(path: Path, *beginnings: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(max(map(len, beginnings))).startswith(beginnings)
