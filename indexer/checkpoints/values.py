"""Plain values out of files that others wrote: the value if it is of the expected kind, else None."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Rates = tuple[float, ...]  # learning rates, one a parameter group
MOST_STEPS = 10_000_000  # of one run; a larger number is a broken file, and would fill the memory with steps


def number(value: Any) -> float | None:
    """Return a finite number, which may be a tensor of one number, as capturable optimizers keep them.

    >>> number(3), number("3"), number(True), number(float("nan"))
    (3.0, None, None, None)
    """
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300 or not math.isfinite(value):
        return None
    return float(value)


def measured(value: Any) -> float | None:
    """Return what was measured of a training that may have diverged: a number or infinity, but not NaN.

    >>> measured(float("inf")), measured(float("nan"))
    (inf, None)
    """
    return value if isinstance(value, float) and math.isinf(value) else number(value)


def count(value: Any) -> int | None:
    """Return a number of steps or epochs, from 0 to MOST_STEPS.

    >>> count(3), count(3.0), count(3.5), count(-1)
    (3, 3, None, None)
    """
    found = number(value)
    return int(found) if found is not None and found == int(found) and 0 <= found <= MOST_STEPS else None


def at(document: Any, *keys: str) -> Any:
    """Return what nested mappings hold under the keys, one after the other, or None.

    >>> at({"a": {"b": 1}}, "a", "b"), at({"a": 1}, "a", "b")
    (1, None)
    """
    for key in keys:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document
