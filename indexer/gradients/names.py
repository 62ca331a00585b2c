"""Which parameter a function was given: the parameter itself, or some of its rows.

Attention over another sequence splits its packed projection and hands parts of it to three calls; they are views of
consecutive rows, and are found by what they are views of. ``vmap`` hides that, so such a model takes its checkpoints
one after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """A parameter by name; rows: (start, stop) along its first axis, or None for the whole of it."""

    name: str
    rows: tuple[int, int] | None = None


class ParameterNames:
    """Finds the piece of a parameter that a tensor is."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._named = {id(tensor): (name, tensor) for name, tensor in tensors.items()}

    def of(self, tensor: Tensor | None) -> Piece | None:
        """Return the piece, or None for a tensor that is none of the parameters."""
        if tensor is None:
            return None
        if id(tensor) in self._named:
            return Piece(self._named[id(tensor)][0])
        base = tensor._base if tensor._is_view() else None
        if base is None or id(base) not in self._named:
            return None
        name, whole = self._named[id(base)]
        rows = _rows(tensor, whole)
        return None if rows is None else Piece(name, rows)


def _rows(part: Tensor, whole: Tensor) -> tuple[int, int] | None:
    """Return which rows of the whole a view of it is; None where it is something else, such as a transpose."""
    if part.shape[1:] != whole.shape[1:] or part.stride() != whole.stride() or not whole.is_contiguous():
        return None
    start, remainder = divmod(int(part.storage_offset() - whole.storage_offset()), max(whole.stride(0), 1))
    return None if remainder else (start, start + part.shape[0])
