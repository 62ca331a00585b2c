"""What the optimizer's steps since the last checkpoint did, collected as they happen.

Losses, norms and rates that are tensors stay where they are until they are asked for, or until there are a thousand
steps of them: other steps wait for no device, and what was converted takes a few bytes a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool

from indexer.checkpoints.history import History, history
from indexer.record.numbers import Number, floats

_AT_ONCE = 1_000  # steps, or losses of one step, that are converted together


@dataclass(frozen=True, slots=True)
class _Step:
    rates: Sequence[Number]
    norm: Number
    losses: list[Number]


class Steps:
    """The steps after number ``after``, in order, none missing."""

    def __init__(self, after: int, noted: History | None = None) -> None:
        self.after = after
        self._converted = history([]) if noted is None else noted
        self._has_loss = ~np.isnan(self._converted.losses)  # a loss that is NaN is one, too
        self._recent: list[_Step] = []
        self._used: Sequence[Number] | None = (
            None if noted is None else _last_used(noted)
        )  # rates of the last step that was made
        self._early: list[Number] = []  # losses of batches whose step is still to come
        self._expects_loss = False  # whether the next loss is that of the last step's last batch

    @property
    def last(self) -> int:
        """The number of the last step."""
        return self.after + len(self._converted.steps) + len(self._recent)

    def made(self, rates: Sequence[Number], norm: Number) -> None:
        """Note a step of the optimizer: the rate of each group and the norm of the gradient."""
        self._used = rates
        self._add(rates, norm)

    def skipped(self, groups: int) -> None:
        """Note a step that a trainer counts and the optimizer did not make: it moved nothing and had no gradient."""
        self._add([0.0] * groups, np.nan)

    def loss(self, value: Number | None) -> None:
        """Note the loss of a batch, None where it has none.

        The first loss after a step belongs to it: the step ended that batch. Others belong to the step to come.
        """
        if value is not None:
            (self._recent[-1].losses if self._expects_loss else self._early).append(value)
        self._expects_loss = False
        if len(self._early) % _AT_ONCE == 0:
            self._early = list(floats(self._early))

    def restart(self) -> None:
        """Forget the steps, which are saved now; losses of the step to come stay."""
        self.after, self._recent, self._used, self._expects_loss = self.last, [], None, False
        self._converted, self._has_loss = history([]), np.array([], dtype=bool)

    def history(self) -> History:
        """Return the steps as they are saved."""
        waits = self._recent[-1:] if self._expects_loss else []
        self._convert(len(self._recent) - len(waits))
        return joined(self._converted, _converted(self.last, waits)[0])

    def rates(self) -> list[float]:
        """Return the rates that the last step used, skipped ones aside."""
        return self.history().learning_rates[-1].tolist() if self._used is None else floats(self._used)

    def mean_loss(self) -> float | None:
        """Return the mean over the steps; one that has no loss counts with the next one that has. None: no loss."""
        losses = self.history().losses
        recent = np.array([bool(step.losses) for step in self._recent], dtype=bool)
        has_loss = np.append(self._has_loss, recent)
        numbers = np.flatnonzero(has_loss) + 1
        return float(np.average(losses[has_loss], weights=np.diff(numbers, prepend=0))) if len(numbers) else None

    def _add(self, rates: Sequence[Number], norm: Number) -> None:
        self._recent.append(_Step(rates, norm, self._early))
        self._early, self._expects_loss = [], True
        if len(self._recent) > _AT_ONCE:
            self._convert(_AT_ONCE)

    def _convert(self, number: int) -> None:
        """Convert the first of the recent steps, whose losses are complete."""
        if number:
            first = self.after + len(self._converted.steps) + 1
            found, has_loss = _converted(first, self._recent[:number])
            self._converted, self._has_loss = joined(self._converted, found), np.append(self._has_loss, has_loss)
            del self._recent[:number]


def joined(first: History, second: History) -> History:
    """Return both, one after the other; an empty one has no groups either."""
    if not len(first.steps) or not len(second.steps):
        return first if len(first.steps) else second
    return History(
        np.concatenate([first.steps, second.steps]),
        np.concatenate([first.learning_rates, second.learning_rates]),
        np.concatenate([first.losses, second.losses]),
        np.concatenate([first.gradient_norms, second.gradient_norms]),
    )


def _converted(first: int, steps: Sequence[_Step]) -> tuple[History, Bool[np.ndarray, " s"]]:
    """Return steps as they are saved, the first with its number, and which of them have a loss."""
    values = iter(floats([value for step in steps for value in (*step.rates, step.norm, *step.losses)]))
    rates, norms, losses = [], [], []
    for step in steps:
        rates.append(list(islice(values, len(step.rates))))
        norms.append(next(values))
        own = list(islice(values, len(step.losses)))
        losses.append(sum(own) / len(own) if own else None)
    found = history(range(first, first + len(steps)), rates, losses, norms)
    return found, np.array([loss is not None for loss in losses], dtype=bool)


def _last_used(noted: History) -> list[float] | None:
    """Return the rates of the last step that was made: a skipped one is kept with rates of zero and without a norm."""
    made = np.flatnonzero(~np.isnan(noted.gradient_norms) | noted.learning_rates.any(axis=1))
    return noted.learning_rates[made[-1]].tolist() if len(made) else None
