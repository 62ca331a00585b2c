"""Reading what ``torch.save`` wrote without running code from it.

NumPy's numbers are read too, as plain ones, as of ``"loss": np.mean(losses)``: pickle writes ``scalar(dtype, bytes)``,
and both names stand for what is here instead, so that a file reaches nothing of NumPy.
"""

import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexer.errors import CheckpointError

_UNREADABLE = (
    *(pickle.UnpicklingError, OSError, EOFError),
    # what torch's unpickler raises on bytes that are no checkpoint
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error),
)
_OBJECT = re.compile(r"GLOBAL ([\w.]{1,200}) was not an allowed global")
_NUMBER = re.compile(r"[biuf]\d{1,2}")  # NumPy's names of booleans, integers and floats


def load_weights_only(path: Path, advice: str) -> Any:
    """Return the tensors and plain values of a file, on the CPU.

    Raises:
        CheckpointError: the file is unreadable or holds other objects; ``advice`` says how to save it.
    """
    return _load(path, advice, mapped=False)


def peek_weights_only(path: Path, advice: str) -> Any:
    """Return the same without reading the tensors before they are used, where the file's format lets them wait.

    The file must stay as it is while they are in use.

    Raises:
        CheckpointError: the file is unreadable or holds other objects; ``advice`` says how to save it.
    """
    return _load(path, advice, mapped=zipfile.is_zipfile(path))  # what torch < 1.6 wrote cannot be mapped


def _load(path: Path, advice: str, mapped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as exc:
        other = _OBJECT.search(str(exc)) if isinstance(exc, pickle.UnpicklingError) else None
        why = "" if other is None else f" (it holds an object of {other[1]})"
        raise CheckpointError(f"{str(path)!r} cannot be read as weights only; {advice}{why}") from exc


class _Kind:
    """Stands for ``numpy.dtype``: the type of one number."""

    def __init__(self, name: str, *_: bool) -> None:
        if not _NUMBER.fullmatch(name):
            raise pickle.UnpicklingError(f"expected NumPy's booleans, integers or floats, found {name!r}")
        self.name = name

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError(f"expected an order of bytes, found {state[1]!r}")
        self.name = f"{state[1]}{self.name}"


def _scalar(kind: _Kind, data: bytes) -> Any:
    """Stand for ``numpy.core.multiarray.scalar``: the plain number."""
    [found] = np.frombuffer(data, np.dtype(kind.name))
    return found.item()


_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Kind, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),  # before NumPy 2
    (_scalar, "numpy._core.multiarray.scalar"),
]
