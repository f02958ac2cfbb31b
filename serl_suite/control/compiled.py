"""How every law of this package is compiled, and where the compiled code is kept.

numba's cache notices a change in a function's own file, not in the files of the functions that it calls:
after an edit of `limits.py` a cached tick would go on running the old limits. So the cache lies in a folder
named after a hash of all sources of this package; changing any of them compiles everything anew, callers in
other packages included (as long as they import this package before they decorate). `NUMBA_CACHE_DIR`, where
set, is respected.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "compiled"]

Array = NDArray[np.float64]

Function = TypeVar("Function", bound=Callable[..., object])


def _cache_folder() -> str:
    sources = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sources.update(path.read_bytes())
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "serl" / "numba" / sources.hexdigest()[:16])


if not os.environ.get("NUMBA_CACHE_DIR"):
    numba.config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined]  # made at run time


def compiled(function: Function) -> Function:
    """Compiles a law on its first call: IEEE arithmetic in the order written, and no exceptions.

    Division by zero gives inf or NaN, as in numpy, for the finite checks of the tick to catch: a tick must
    never leave through an exception.
    """
    return cast(Function, numba.njit(cache=True, fastmath=False, error_model="numpy")(function))
