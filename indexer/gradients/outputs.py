"""Probe outputs: what a model says of a few fixed training examples at every checkpoint.

An index stores them; whoever opens it with a task computes them again, and refuses a task that says otherwise.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints

FIXED_ROWS = 8
TOLERANCE = (
    1e-3  # of the largest value at a checkpoint: float32 on another machine differs by 1e-5, another task by 1e-1
)


def fixed_rows(rows: int) -> list[int]:
    """Return the numbers of up to eight training examples, evenly spaced.

    >>> fixed_rows(4500)[:3]
    [0, 562, 1125]
    """
    count = min(FIXED_ROWS, rows)
    return [i * rows // count for i in range(count)]


def probe_outputs(model: ModelAtCheckpoints, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Return outputs [c, b, ...] and loss [c, b] at all checkpoints."""
    outputs = torch.stack([model.outputs(i, batch[0]) for i in range(len(model))])
    losses = torch.stack([model.loss(outputs[i], batch[1]) for i in range(len(model))])
    return {"outputs": outputs.contiguous(), "loss": losses.contiguous()}


def difference(found: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str | None:
    """Return what differs between two sets of probe outputs, for people, or None."""
    for name, expected in stored.items():
        value = found.get(name)
        if value is None or value.shape != expected.shape:
            return f"{name} of shape {tuple(expected.shape)} became {None if value is None else tuple(value.shape)}"
        error = (value - expected).abs().reshape(len(expected), -1).amax(1)
        scale = expected.abs().reshape(len(expected), -1).amax(1).clamp_min(1e-6)
        if not (error <= TOLERANCE * scale).all():
            return f"{name} of the probe examples differ by up to {error.max().item():.3g}"
    return None
