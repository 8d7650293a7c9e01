"""Compiled functions: numba's `njit` for those that others call, and `kernel` for those that Python calls.

A kernel is compiled, or read from the cache, at its first call and not when its module is imported: a command starts
without the kernels that it does not use (all of them took 2 of the 3 s of CPU that `gristmill decide` needed to
start). `kernel_cache` says where the cache lies and why it is never out of date.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import typeof, types

from pipeline.kernel_cache import cache_folder
from pipeline.kernel_digest import kernel_digest

__all__ = ["kernel", "kernel_digest", "njit", "typeof", "types"]

Function = TypeVar("Function", bound=Callable[..., Any])

config: Any = numba.core.config  # its settings are known at run time only
compile_with: Any = numba.njit
_config_lock = threading.RLock()


def njit(*arguments: Any, cache: bool = False, **options: Any) -> Callable[[Function], Function]:
    """Compile a function with numba; with `cache`, keep what is compiled in our own folder, whatever numba's is."""
    if not cache:
        return compile_with(*arguments, **options)  # type: ignore[no-any-return]

    def wrap(function: Function) -> Function:
        with _config_lock:
            before = config.CACHE_DIR
            config.CACHE_DIR = str(cache_folder(function.__module__))
            try:
                return compile_with(*arguments, cache=True, **options)(function)  # type: ignore[no-any-return]
            finally:
                config.CACHE_DIR = before

    return wrap


def kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function for one signature, which says what its callers must give; runs without the interpreter's lock.

    Other compiled functions cannot call it: they see no signature through the wrapper, so give them `njit`.
    """

    def wrap(function: Function) -> Function:
        compiled: Any = None

        @functools.wraps(function)
        def call(*arguments: Any) -> Any:
            nonlocal compiled
            if compiled is None:
                compiled = njit(signature, nogil=True, cache=True)(function)
            return compiled(*arguments)

        return call  # type: ignore[return-value]

    return wrap
