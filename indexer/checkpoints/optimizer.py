"""The optimizer of a run: what it was, and what that means for scores, which account for plain steps of SGD."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from indexer.errors import CheckpointError

PRECONDITIONED = frozenset({"adam", "adamw"})  # others keep second moments too, but step differently
KEPT = ("momentum", "nesterov", "betas", "eps", "weight_decay", "amsgrad")


@dataclass(frozen=True, slots=True)
class Optimizer:
    """An optimizer by name, in small letters as PyTorch calls it, and the parameters that matter for scores."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def caveat(self, preconditioned: bool) -> str | None:
        """Return what a reader of scores must know, or None where TracInCP's account of a step is this optimizer's."""
        if preconditioned:
            return f"trained with {self.name}: gradients are scaled by its second moments; its momentum is left out"
        momentum = float(self.parameters.get("momentum") or 0)
        if self.name != "sgd":
            return (
                f"trained with {self.name}, which scales every weight's step by itself; scores account for plain "
                "gradient steps"
            )
        if momentum:
            return (
                f"trained with momentum {momentum:g}: over the steps after it a gradient moves the weights about "
                f"{1 / (1 - momentum):.3g} times as far as scores say"
            )
        return None


def describe_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return an optimizer as ``checkpoints.json`` keeps it under ``optimizer``, with plain numbers.

    >>> describe_optimizer(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9))["momentum"]
    0.9
    """
    group = optimizer.param_groups[0]
    kept = {key: _plain(group[key]) for key in KEPT if key in group}
    return {"name": type(optimizer).__name__.lower(), **kept}


def _plain(value: Any) -> Any:
    """Return a value with Python's numbers in place of NumPy's and of tensors."""
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value] if isinstance(value, list) else tuple(map(_plain, value))
    return value.tolist() if isinstance(value, Tensor | np.generic | np.ndarray) else value


def read_optimizer(entry: Any, where: str) -> Optimizer | None:
    """Return the optimizer of a listing, or None where it names none.

    Raises:
        CheckpointError: it is not {"name": ...} with plain values.
    """
    if entry is None:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise CheckpointError(f'{where}: expected optimizer {{"name": "sgd", "momentum": 0.9}}, found {entry!r}')
    parameters = {key: value for key, value in entry.items() if key != "name"}
    momentum = parameters.get("momentum")
    if momentum is not None and (not isinstance(momentum, int | float) or not 0 <= momentum < 1):
        raise CheckpointError(f"{where}: optimizer has momentum {momentum!r}; expected a number from 0 to below 1")
    return Optimizer(entry["name"].lower(), parameters)
