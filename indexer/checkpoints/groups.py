"""Which parameters an optimizer's groups hold, found again from what its saved state keeps.

An optimizer that was made from ``model.named_parameters()`` keeps names. Most keep numbers only; then the shapes of
their state (momentum, second moments) tell, where there is exactly one way to deal the model's parameters, in order,
out to the groups. Where there are several ways, or no shapes, nothing is guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from indexer.checkpoints.prefix import Shape
from indexer.checkpoints.run import ParameterGroup
from indexer.errors import CheckpointError

_MOST_WAYS = 10_000  # partial ways that are followed at most: more than that are no longer one


@dataclass(frozen=True, slots=True)
class OwnParameters:
    """The parameters of the task's model.

    shapes: of all, in its order; trainable: those that require a gradient; renamed: their names by those that the
    trained model had, where it was another.
    """

    shapes: Mapping[str, Shape]
    trainable: Sequence[str]
    renamed: Mapping[str, str] = field(default_factory=dict)


def group_names(groups: Sequence[ParameterGroup], own: OwnParameters, where: str) -> list[tuple[str, ...]]:
    """Return the names of the parameters of each group, as the task's model has them; it may be a part of the trained.

    Raises:
        CheckpointError: no name is known, or the parameters of the groups cannot be told apart.
    """
    if names_are_kept(groups):
        if not names_are_known(groups, own):
            raise CheckpointError(f"{where} names a parameter {groups[0].names[0]!r}, which the task's model has not")
        return _renamed(groups, own)
    count = sum(group.size for group in groups)
    for candidate in (list(own.shapes), list(own.trainable)):
        if len(candidate) == count:
            found = _dealt(groups, [(name, own.shapes[name]) for name in candidate])
            if found is not None:
                return found
    raise CheckpointError(
        f"{where} keeps {count} parameters in {len(groups)} groups without names, and they fit the model's "
        f"{len(own.shapes)} parameters ({len(own.trainable)} trainable) in no single way, by order and shape. "
        "Construct the optimizer with model.named_parameters(), so that it keeps names, or record with "
        "indexer.CheckpointRecorder"
    )


def names_are_kept(groups: Sequence[ParameterGroup]) -> bool:
    """Say whether the optimizer kept the names of its parameters."""
    return bool(groups) and all(len(group.names) == group.size for group in groups)


def names_are_known(groups: Sequence[ParameterGroup], own: OwnParameters) -> bool:
    """Say whether it kept names, and some of them are those of the task's model."""
    return names_are_kept(groups) and any(name in own.shapes for names in _renamed(groups, own) for name in names)


def _renamed(groups: Sequence[ParameterGroup], own: OwnParameters) -> list[tuple[str, ...]]:
    return [tuple(own.renamed.get(name, name) for name in group.names) for group in groups]


def check_count(groups: Sequence[ParameterGroup], wanted: int, where: str) -> None:
    """Make sure that an optimizer without names had as many parameters as the gradient has, or more.

    Raises:
        CheckpointError: it had fewer: some of the gradient never moved a weight, and nothing says which.
    """
    count = sum(group.size for group in groups)
    if groups and count < wanted:
        raise CheckpointError(
            f"{where} stepped {count} parameters, and the gradient has {wanted}; expected those that were trained. "
            "Choose them with `--parameters`, or freeze the others in the task's model"
        )


def _dealt(groups: Sequence[ParameterGroup], parameters: Sequence[tuple[str, Shape]]) -> list[tuple[str, ...]] | None:
    """Return the one way to deal the parameters out, each group in order and every shape as kept; None for no or many.

    A single group has one way without any shapes.
    """
    ways: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {(0,) * len(groups): (1, ())}
    for _, shape in parameters:
        following: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {}
        for taken, (number, path) in ways.items():
            for g, group in enumerate(groups):
                kept = group.shapes[taken[g]] if taken[g] < len(group.shapes) else None
                if taken[g] == group.size or (kept is not None and kept != shape):
                    continue
                then = (*taken[:g], taken[g] + 1, *taken[g + 1 :])
                following[then] = (following.get(then, (0, ()))[0] + number, (*path, g))
        if not following or len(following) > _MOST_WAYS:
            return None
        ways = following
    [(number, path)] = ways.values()
    if number != 1:
        return None
    return [tuple(name for (name, _), at in zip(parameters, path, strict=True) if at == g) for g in range(len(groups))]


def parameter_groups(state: Mapping[str, Any]) -> tuple[ParameterGroup, ...]:
    """Return the groups of an ``optimizer.state_dict()``, with the shapes of what it keeps for each parameter."""
    return tuple(
        ParameterGroup(
            names=tuple(group.get("param_names", ())),
            shapes=tuple(_kept_shape(state["state"].get(number, {})) for number in group["params"]),
        )
        for group in state["param_groups"]
    )


def _kept_shape(entry: Mapping[str, Any]) -> Shape | None:
    """Return the shape of the largest tensor that an optimizer keeps for a parameter: steps are single numbers."""
    tensors = [value for value in entry.values() if isinstance(value, Tensor)]
    largest = max(tensors, key=lambda tensor: (tensor.ndim, tensor.numel()), default=None)
    return None if largest is None or largest.ndim == 0 else tuple(largest.shape)
