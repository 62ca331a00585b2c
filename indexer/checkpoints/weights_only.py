"""Reading what ``torch.save`` wrote without running code from it."""

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from indexer.errors import CheckpointError

_UNREADABLE = (
    *(pickle.UnpicklingError, OSError, EOFError),
    # what torch's unpickler raises on bytes that are no checkpoint
    *(RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error),
)
_OBJECT = re.compile(r"GLOBAL ([\w.]{1,200}) was not an allowed global")


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
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except _UNREADABLE as exc:
        other = _OBJECT.search(str(exc)) if isinstance(exc, pickle.UnpicklingError) else None
        why = "" if other is None else f" (it holds an object of {other[1]})"
        raise CheckpointError(f"{str(path)!r} cannot be read as weights only; {advice}{why}") from exc
