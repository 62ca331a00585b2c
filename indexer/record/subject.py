"""What is recorded: a model, the optimizer that trains it, and what a checkpoint holds of both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from torch import Tensor, nn
from torch.optim import Optimizer

from indexer.checkpoints.optimizer import describe_optimizer
from indexer.errors import RecordError
from indexer.record.model import (
    check_recordable,
    group_names,
    optimizer_state,
    unwrapped,
    unwrapped_optimizer,
    weights,
)


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint holds; optimizer: ``state_dict()`` with names, None to leave it out."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any] | None
    epoch: float | None


class Subject:
    """A model and its optimizer, free of what wraps them; groups: the names of the optimizer's parameters.

    steps_per_epoch: None where it is not known. optimizer_state: whether a checkpoint holds it.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, *, steps_per_epoch: int | None, optimizer_state: bool
    ) -> None:
        self._model, self.optimizer = unwrapped(model), unwrapped_optimizer(optimizer)
        self.groups = group_names(self._model, self.optimizer)
        self._steps_per_epoch = steps_per_epoch
        self._optimizer_state = optimizer_state
        check_recordable(self._model)
        _check_listable(self.about())

    def about(self) -> dict[str, Any]:
        """Return what is known of the run as a whole, as it is listed."""
        return {
            "optimizer": describe_optimizer(self.optimizer),
            "steps_per_epoch": self._steps_per_epoch,
            "parameter_groups": self.groups,
        }

    def state(self, step: int, *, copy: bool) -> State:
        """Return what a checkpoint at a step holds; copy: so that steps to come leave it alone."""
        return State(
            weights(self._model, copy=copy),
            optimizer_state(self.optimizer, self.groups, copy=copy) if self._optimizer_state else None,
            None if self._steps_per_epoch is None else step / self._steps_per_epoch,
        )

    def check_groups(self) -> None:
        """Check that the optimizer has the groups that it had.

        Raises:
            RecordError: it has others.
        """
        if len(self.optimizer.param_groups) != len(self.groups):
            raise RecordError(
                f"the optimizer had {len(self.groups)} parameter groups when the recording began and has "
                f"{len(self.optimizer.param_groups)} now; give it all of them before, with a learning rate of zero "
                "while they are frozen"
            )


def _check_listable(about: Mapping[str, Any]) -> None:
    """Check that what is known of the run can be listed.

    Raises:
        RecordError: the optimizer has a value that is no plain one.
    """
    for key, value in about["optimizer"].items():
        try:
            orjson.dumps(value)
        except TypeError as exc:
            raise RecordError(
                f"the optimizer has {key} = {value!r}, {type(value).__name__}; expected a plain number, which can be "
                "listed in checkpoints.json"
            ) from exc
