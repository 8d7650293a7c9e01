"""Compiled functions: numba's `njit` for those that others call, and `kernel` for those that Python calls.

A kernel is compiled, or read from numba's cache beside its module, at its first call and not when its module is
imported: a command starts without the kernels that it does not use (all of them took 2 of the 3 s of CPU that
`gristmill decide` needed to start).
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pipeline.kernel_digest import kernel_digest

# numba imports SciPy's linear algebra, a quarter of a second, for matrix products; there are none here.
_hidden = "scipy" not in sys.modules and "numba" not in sys.modules
if _hidden:
    sys.modules["scipy"] = None  # type: ignore[assignment]
try:
    import numba.np.arraymath  # noqa: F401  where it looks for SciPy
    from numba import njit, typeof, types
finally:
    if _hidden:
        del sys.modules["scipy"]

__all__ = ["kernel", "kernel_digest", "njit", "typeof", "types"]

Function = TypeVar("Function", bound=Callable[..., Any])


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
