"""Measuring texts: languages, signals, edits and signatures.

Compiled kernels are cached beside their modules. numba throws a cached kernel away when its own file changes, but not
when a file does whose functions it calls; so kernels older than the newest file of this folder are deleted before any
is loaded.
"""

import contextlib
from pathlib import Path


def _delete_stale_kernels(folder: Path) -> None:
    newest = max((source.stat().st_mtime for source in folder.glob("*.py")), default=0.0)
    for index in (folder / "__pycache__").glob("*.nbi"):
        # Another worker may delete it first, or the folder be read-only, where no file has changed either.
        with contextlib.suppress(OSError):
            if index.stat().st_mtime < newest:
                index.unlink()


_delete_stale_kernels(Path(__file__).parent)
