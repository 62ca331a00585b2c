"""What the optimizer's steps since the last checkpoint did, collected as they happen.

Losses, norms and rates that are tensors stay where they are until they are asked for: a step waits for no device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from indexer.checkpoints.history import History, history

Number = Tensor | float | int


@dataclass(slots=True)
class _Step:
    rates: Sequence[Number]
    norm: Number
    losses: list[Number] = field(default_factory=list)

    def loss(self) -> float | None:
        """Return the mean over the step's batches; None where no loss was noted."""
        return sum(map(float, self.losses)) / len(self.losses) if self.losses else None


class Steps:
    """The steps after number ``after``, in order, none missing."""

    def __init__(self, after: int, noted: History | None = None) -> None:
        self.after = after
        self._steps = [] if noted is None else _as_noted(noted)
        self._early: list[Number] = []  # losses of batches whose step is still to come
        self._expects_loss = False  # whether the next loss is that of the last step's last batch

    @property
    def last(self) -> int:
        """The number of the last step."""
        return self.after + len(self._steps)

    def made(self, rates: Sequence[Number], norm: Number) -> None:
        """Note a step of the optimizer: the rate of each group and the norm of the gradient."""
        self._steps.append(_Step(rates, norm, self._early))
        self._early, self._expects_loss = [], True

    def skipped(self, groups: int) -> None:
        """Note a step that a trainer counts and the optimizer did not make: it moved nothing and had no gradient."""
        self.made([0.0] * groups, np.nan)

    def loss(self, value: Number | None) -> None:
        """Note the loss of a batch, None where it has none.

        The first loss after a step belongs to it: the step ended that batch. Others belong to the step to come.
        """
        if value is not None:
            (self._steps[-1].losses if self._expects_loss else self._early).append(value)
        self._expects_loss = False

    def restart(self) -> None:
        """Forget the steps, which are saved now; losses of the step to come stay."""
        self.after, self._steps, self._expects_loss = self.last, [], False

    def history(self) -> History:
        """Return the steps as they are saved."""
        return history(
            range(self.after + 1, self.last + 1),
            [[float(rate) for rate in step.rates] for step in self._steps],
            [step.loss() for step in self._steps],
            [float(step.norm) for step in self._steps],
        )

    def rates(self) -> list[float]:
        """Return the rates that the last step used, skipped ones aside."""
        made = [step for step in self._steps if not np.isnan(float(step.norm))] or self._steps
        return [float(rate) for rate in made[-1].rates]

    def mean_loss(self) -> float | None:
        """Return the mean over the steps; one that has no loss counts with the next one that has. None: no loss."""
        known = [(number, loss) for number, step in enumerate(self._steps, 1) if (loss := step.loss()) is not None]
        if not known:
            return None
        numbers, losses = zip(*known, strict=True)
        return float(np.average(losses, weights=np.diff(numbers, prepend=0)))


def _as_noted(noted: History) -> list[_Step]:
    rows = zip(noted.learning_rates.tolist(), noted.gradient_norms.tolist(), noted.losses.tolist(), strict=True)
    return [_Step(rates, norm, [] if np.isnan(loss) else [loss]) for rates, norm, loss in rows]
