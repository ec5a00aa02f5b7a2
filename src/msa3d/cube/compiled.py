"""Functions in machine code, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """Compile a function with numba when it is first called.

    Parameters
    ----------
    function : callable
        Of arrays and numbers.

    Returns
    -------
    callable
        Its machine code is kept beside the source, in NUMBA_CACHE_DIR or in the home directory; where none of these
        can be written to, every process compiles it anew.
    """
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # numba found no place for its cache
        return njit(function)
