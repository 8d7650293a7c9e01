"""Compiled functions: numba's `njit` for those that others call, and `kernel` for those that Python calls.

A kernel is compiled, or read from the cache, at its first call and not when its module is imported: a command starts
without the kernels that it does not use (all of them took 2 of the 3 s of CPU that `gristmill decide` needed to
start). `schemas/kernel_cache.py` says where the cache lies and why it is never out of date.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import typeof, types

from pipeline.kernel_digest import kernel_digest
from schemas.kernel_cache import njit_cached

__all__ = ["kernel", "kernel_digest", "njit", "typeof", "types"]

Function = TypeVar("Function", bound=Callable[..., Any])

PACKAGE = Path(__file__).parent


def njit(*arguments: Any, cache: bool = False, **options: Any) -> Callable[[Function], Function]:
    """Compile a function with numba; with `cache`, keep it in a folder named by the sources of all kernels."""
    if not cache:
        return numba.njit(*arguments, **options)  # type: ignore[no-any-return, call-overload]

    def wrap(function: Function) -> Function:
        modules = _kernel_modules()
        own = () if function.__module__ in modules else (function.__module__,)
        return njit_cached(*arguments, sources=kernel_digest((*modules, *own)), **options)(function)

    return wrap


@functools.cache
def _kernel_modules() -> tuple[str, ...]:
    """Return the modules of `pipeline` that hold compiled functions."""
    files = (file for file in PACKAGE.rglob("*.py") if b"numba_kernels" in file.read_bytes())
    return tuple(sorted(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files))


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
