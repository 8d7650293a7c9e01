"""Where compiled functions are kept: a folder named by all that decides what is in it.

numba compares a cached function with the file that defines it, not with those of the functions that it calls. So the
folder's name is a digest of the sources that a function is made of, of the versions of numba and NumPy, and of the
processor: after a change of any, another folder is used and nothing is deleted.
"""

import contextlib
import functools
import hashlib
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import llvmlite.binding
import numba
import numpy

__all__ = ["njit_cached"]

Function = TypeVar("Function", bound=Callable[..., Any])

config: Any = numba.core.config  # its settings are known at run time only
_config_lock = threading.RLock()
_announced: list[Path] = []


def njit_cached(*arguments: Any, sources: str | None = None, **options: Any) -> Callable[[Function], Function]:
    """Compile a function with numba's `njit` and keep what is compiled in our own folder, whatever numba's is.

    `sources` is a digest of the sources that the function is made of; by default it is made of its own file alone.
    """

    def wrap(function: Function) -> Function:
        digest = sources or _file_digest(function.__code__.co_filename)
        with _config_lock:
            before = config.CACHE_DIR
            config.CACHE_DIR = str(_folder(digest))
            try:
                return numba.njit(*arguments, cache=True, **options)(function)  # type: ignore[no-any-return, call-overload]
            finally:
                config.CACHE_DIR = before

    return wrap


@functools.cache
def _file_digest(file: str) -> str:
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest()


@functools.cache
def _folder(sources: str) -> Path:
    """Return the folder for what is made of these sources, made where it is not there.

    It lies in NUMBA_CACHE_DIR where that is set, else in this package, else in the user's cache folder, else among the
    temporary files: the first of these that can be written to. A process that makes one logs one line.
    """
    parts = (sources, numba.__version__, numpy.__version__, *_processor())
    name = f"kernels-{hashlib.blake2b(' '.join(parts).encode(), digest_size=10).hexdigest()}"
    for place, reason in _places(name):
        with contextlib.suppress(OSError):
            if _make(place) and not _announced:
                _announced.append(place)
                line = "compiling functions for this machine, once, into %s%s"
                logging.getLogger(__name__).warning(line, place, reason)
            return place
    raise OSError("no folder for compiled functions can be written to: set NUMBA_CACHE_DIR to one, or TMPDIR")


def _processor() -> tuple[str, str]:
    """Return the processor's name and features, as compiled code depends on them."""
    features = config.CPU_FEATURES
    if features is None:
        with contextlib.suppress(RuntimeError):  # LLVM cannot tell of every processor
            features = llvmlite.binding.get_host_cpu_features().flatten()
    return config.CPU_NAME or llvmlite.binding.get_host_cpu_name(), features or ""


def _places(name: str) -> Iterator[tuple[Path, str]]:
    """Yield folders to try, the best first, each with what to add to the line about it."""
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR) / name, ""
    yield Path(__file__).parent / "__pycache__" / name, ""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # a user without a home keeps the ~
        yield Path(home) / "gristmill" / name, ""
    reason = " (neither the package nor a home can be written to; NUMBA_CACHE_DIR names another place)"
    shared = Path(tempfile.gettempdir()) / f"gristmill-{os.getuid()}-{name}"
    if _is_ours(shared):
        yield shared, reason
    yield Path(tempfile.mkdtemp(prefix="gristmill-")), reason


def _make(folder: Path) -> bool:
    """Make a folder unless it is there; return whether it is new. Raises OSError where it cannot be written to."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o755)
        new = True
    except FileExistsError:
        new = False
    tempfile.TemporaryFile(dir=folder).close()
    return new


def _is_ours(folder: Path) -> bool:
    """Return whether nobody else can have put compiled code, which is run unseen, into a folder for all users."""
    with contextlib.suppress(FileNotFoundError):
        found = folder.lstat()
        return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return True
