"""The optimizer of a run: what it was, what that means for scores, and Adam's step sizes from its saved state.

TracInCP accounts for plain SGD: a step on z moves the weights by eta grad l(z). Adam moves every weight by a step size
of its own. At a checkpoint whose optimizer state was saved, and momentum aside, one step on z moves the weights by

    eta D grad l(z),    D = 1 / (sqrt(v / (1 - beta2^t)) + eps)      (Kingma and Ba 2015, algorithm 1)

with v the running mean of squared gradients after t steps, so that <D grad l(z), grad h(z')> takes the place of the
product of gradients. ``proponent build --preconditioner adam`` does that; nothing does it unasked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from indexer.checkpoints.weights_only import load_weights_only
from indexer.errors import CheckpointError

PRECONDITIONED = frozenset({"adam", "adamw"})  # others keep second moments too, but step differently
_KEPT = ("momentum", "nesterov", "betas", "eps", "weight_decay", "amsgrad")


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
    """Return an optimizer as ``checkpoints.json`` keeps it under ``optimizer``.

    >>> describe_optimizer(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9))["momentum"]
    0.9
    """
    group = optimizer.param_groups[0]
    kept = {key: group[key] for key in _KEPT if key in group}
    return {"name": type(optimizer).__name__.lower(), **kept}


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


@dataclass(frozen=True, slots=True)
class StepSizes:
    """D by parameter name, of those that the optimizer has stepped; named: whether it kept the names itself."""

    by_name: Mapping[str, Tensor]
    named: bool


def adam_step_sizes(path: Path, shapes: Mapping[str, Sequence[int]], trainable: Sequence[str]) -> StepSizes:
    """Return D in float32, from a file that holds ``optimizer.state_dict()`` of Adam or AdamW.

    shapes: of all parameters of the model, in its order; trainable: those that require a gradient. Frozen parameters,
    which an optimizer lists but never steps, have none.

    Raises:
        CheckpointError: the file is unreadable, of another optimizer, or its entries cannot be told apart by name.
    """
    where = f"optimizer state {path.name!r}"
    advice = "save it with torch.save(optimizer.state_dict(), file)"
    state = load_weights_only(path, advice)
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        raise CheckpointError(f"{where} is no state of an optimizer; {advice}")
    entries, groups = state["state"], state["param_groups"]
    numbered = [(number, group) for group in groups for number in group["params"]]
    names = _names(groups, len(numbered), list(shapes), trainable, where)
    found = {}
    for name, (number, group) in zip(names, numbered, strict=True):
        entry = entries.get(number)
        if entry is None:
            continue
        if "exp_avg_sq" not in entry or "betas" not in group:
            raise CheckpointError(
                f"{where} has no second moments (exp_avg_sq) of {name!r}; expected the state of Adam or AdamW"
            )
        moments = entry["max_exp_avg_sq"] if group.get("amsgrad") else entry["exp_avg_sq"]
        if tuple(moments.shape) != tuple(shapes[name]):
            raise CheckpointError(
                f"{where}: expected second moments of {name!r} of shape {tuple(shapes[name])}, found "
                f"{tuple(moments.shape)}; construct the optimizer with model.named_parameters(), so that it keeps names"
            )
        corrected = moments.double() / (1 - group["betas"][1] ** float(entry["step"]))
        found[name] = (1 / (corrected.sqrt() + group["eps"])).float()
    if not found:
        raise CheckpointError(f"{where} is from before the optimizer's first step; save it after one")
    return StepSizes(found, all("param_names" in group for group in groups))


def _names(
    groups: Sequence[Mapping[str, Any]], count: int, everything: Sequence[str], trainable: Sequence[str], where: str
) -> Sequence[str]:
    """Return the parameter names of an optimizer's entries: those that it keeps, else the order of the model's own.

    Raises:
        CheckpointError: it keeps none, and the order cannot be known.
    """
    if all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
        unknown = [name for name in names if name not in everything]
        if unknown:
            raise CheckpointError(f"{where} names a parameter {unknown[0]!r}, which the task's model has not")
        return names
    for candidate in (everything, trainable):
        if len(groups) == 1 and len(candidate) == count:
            return candidate
    raise CheckpointError(
        f"{where} keeps {count} parameters in {len(groups)} groups without names; the model has {len(everything)}, "
        f"{len(trainable)} of them trainable. Construct the optimizer with model.named_parameters(), so that it keeps "
        "names"
    )
