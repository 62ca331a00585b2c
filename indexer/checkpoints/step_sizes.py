"""Adam's step sizes from its saved state, to precondition gradients with.

TracInCP accounts for plain SGD: a step on z moves the weights by eta grad l(z). Adam moves every weight by a step size
of its own. At a checkpoint whose optimizer state was saved, and momentum aside, one step on z moves the weights by

    eta D grad l(z),    D = 1 / (sqrt(v / (1 - beta2^t)) + eps)      (Kingma and Ba 2015, algorithm 1)

with v the running mean of squared gradients after t steps, so that <D grad l(z), grad h(z')> takes the place of the
product of gradients. ``proponent build --preconditioner adam`` does that; nothing does it unasked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torch import Tensor

from indexer.checkpoints.groups import OwnParameters, group_names, parameter_groups
from indexer.checkpoints.optimizer_state import read_optimizer_state
from indexer.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class StepSizes:
    """D by parameter name, of those that the optimizer has stepped; named: whether it kept the names itself."""

    by_name: Mapping[str, Tensor]
    named: bool


def adam_step_sizes(path: Path, own: OwnParameters) -> StepSizes:
    """Return D in float32, from a file that holds ``optimizer.state_dict()`` of Adam or AdamW, by itself or in more.

    Frozen parameters, which an optimizer lists but never steps, have none.

    Raises:
        CheckpointError: the file is unreadable, of another optimizer, or its entries cannot be told apart by name.
    """
    where = f"optimizer state {path.name!r}"
    state = read_optimizer_state(path, "save it with torch.save(optimizer.state_dict(), file)")
    entries, groups = state["state"], state["param_groups"]
    numbered = [(number, group) for group in groups for number in group["params"]]
    kept = parameter_groups(state)
    names = group_names(kept, own, where)
    found = {}
    for name, (number, group) in zip(chain.from_iterable(names), numbered, strict=True):
        entry = entries.get(number)
        if entry is None or name not in own.shapes:
            continue
        if "exp_avg_sq" not in entry or "betas" not in group:
            raise CheckpointError(
                f"{where} has no second moments (exp_avg_sq) of {name!r}; expected the state of Adam or AdamW"
            )
        moments = entry["max_exp_avg_sq"] if group.get("amsgrad") else entry["exp_avg_sq"]
        if tuple(moments.shape) != own.shapes[name]:
            raise CheckpointError(
                f"{where}: expected second moments of {name!r} of shape {own.shapes[name]}, found "
                f"{tuple(moments.shape)}; construct the optimizer with model.named_parameters(), so that it keeps names"
            )
        corrected = moments.double() / (1 - group["betas"][1] ** float(entry["step"]))
        found[name] = (1 / (corrected.sqrt() + group["eps"])).float()
    if not found:
        raise CheckpointError(f"{where} is from before the optimizer's first step; save it after one")
    return StepSizes(found, all(group.names for group in kept))
