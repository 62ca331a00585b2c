"""Numbers as a training script gives them: of Python, of NumPy, or tensors; counts, losses, rates and norms."""

import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from indexer.errors import RecordError

Number = Tensor | float | int
Count = SupportsIndex | SupportsFloat


def count(value: Count, name: str, least: int, expected: str) -> int:
    """Return a whole number; ``np.ceil`` and tensors give such, too. expected: what it is, for the message.

    Raises:
        RecordError: it is no whole number, or less than the least.

    >>> count(np.ceil(10 / 3), "steps_per_epoch", 1, "a number of steps")
    4
    """
    found = _whole(value)
    if found is None or found < least:
        raise RecordError(f"{name} = {value}: expected {expected}")
    return found


def checked_every(every: Count | None, steps_per_epoch: int | None) -> int:
    """Return the steps from checkpoint to checkpoint.

    Raises:
        RecordError: they are not known or out of range.
    """
    if every is not None:
        return count(every, "every", 0, "a number of steps, or 0 to save with save() alone")
    if steps_per_epoch is None:
        raise RecordError(
            "expected steps_per_epoch, the optimizer's steps an epoch (a checkpoint is saved after each), or every, "
            "the steps from checkpoint to checkpoint"
        )
    return steps_per_epoch


def checked_loss(value: object) -> Number | None:
    """Return a loss that later changes in place leave alone: a tensor stays on its device, others are Python's float.

    Raises:
        RecordError: it is not one number.
    """
    if value is None:
        return None
    if isinstance(value, Tensor | np.ndarray):
        if math.prod(value.shape) != 1:
            raise RecordError(
                f"record() expects the loss of the batch, one number; found a tensor of shape {tuple(value.shape)}. "
                "Give the mean that you call backward() on"
            )
        return value.detach().clone() if isinstance(value, Tensor) else float(value.item())
    if not isinstance(value, SupportsFloat):
        raise RecordError(
            f"record() expects the loss of the batch, a number or a tensor with one; found {type(value).__name__}. "
            "Give the mean that you call backward() on"
        )
    return float(value)


def floats(values: Sequence[Number]) -> list[float]:
    """Return numbers as Python's: all tensors of a device and dtype in one copy, for which it waits.

    >>> floats([torch.tensor(0.5), 2, torch.tensor([0.25])])
    [0.5, 2.0, 0.25]
    """
    found = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
    alike: dict[tuple[torch.device, torch.dtype], list[tuple[int, Tensor]]] = {}
    for place, value in enumerate(values):
        if isinstance(value, Tensor):
            alike.setdefault((value.device, value.dtype), []).append((place, value.detach().reshape(())))
    for own in alike.values():
        moved = torch.stack([tensor for _, tensor in own]).cpu().double().tolist()
        for (place, _), value in zip(own, moved, strict=True):
            found[place] = value
    return found


def _whole(value: Count) -> int | None:
    """Return a number as Python's, None where it is none or not whole."""
    try:
        if isinstance(value, SupportsIndex):
            return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        pass  # a tensor of floats has the method all the same
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return int(number) if number.is_integer() else None
