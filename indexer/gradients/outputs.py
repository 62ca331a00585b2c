"""Probe outputs: what a model says of a few fixed training examples at every checkpoint.

An index stores them; whoever opens it with a task computes them again, and refuses a task that says otherwise.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from indexer.gradients.at_checkpoints import ModelAtCheckpoints

FIXED_ROWS = 8
LARGEST = 4096  # numbers of one output that are kept
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
    """Return outputs [c, b, ...] and loss [c, b] at all checkpoints, on the CPU.

    Of an output of more than 4,096 numbers, as a language model has, that many are taken, evenly spaced: [c, b, 4096].
    """
    kept, losses = [], []
    for i in range(len(model)):
        outputs = model.outputs(i, batch[0])
        losses.append(model.loss(outputs, model.cast(batch[1])))
        kept.append(_thinned(outputs))
    return {"outputs": torch.stack(kept).cpu().contiguous(), "loss": torch.stack(losses).cpu().contiguous()}


def _thinned(outputs: Tensor) -> Tensor:
    if outputs[0].numel() <= LARGEST:
        return outputs
    flat = outputs.flatten(1)
    return flat[:, torch.arange(LARGEST, device=flat.device) * flat.shape[1] // LARGEST]


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
