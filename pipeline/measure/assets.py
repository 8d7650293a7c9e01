"""The files that measures read: models, block lists, scores; shipped, local or in a bucket."""

import functools
import hashlib
import tempfile
from importlib.resources import files
from pathlib import Path

from schemas import storage

__all__ = ["BUILTIN", "asset_path", "asset_sha256"]

BUILTIN = "builtin:"


def asset_path(uri: str) -> Path:
    """The local path of an asset that a recipe names: shipped ("builtin:NAME"), local or in a bucket (fetched once).

    Raises ValueError for an unknown shipped name, StorageError or FileNotFoundError for what cannot be read.
    """
    if not uri.startswith(BUILTIN):
        return storage.fetch(uri, Path(tempfile.gettempdir()) / "gristmill-assets")
    path = Path(str(files("pipeline.assets").joinpath(uri.removeprefix(BUILTIN))))
    if not path.is_file():
        shipped = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".ftz", ".bin"))
        raise ValueError(f"{uri}: no such model is shipped; shipped: {', '.join(BUILTIN + name for name in shipped)}")
    return path


def asset_sha256(uri: str) -> str:
    """sha256 (hex) of an asset; read again only when its size or age changes. Raises as `asset_path` does."""
    path = asset_path(uri)
    found = path.stat()
    return _sha256(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, num_bytes: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()
