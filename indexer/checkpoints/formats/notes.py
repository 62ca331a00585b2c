"""Gathering what was noted of a run's steps from several places, and reading it at a checkpoint."""

from dataclasses import dataclass, field

import numpy as np

from indexer.checkpoints.history import History, history
from indexer.checkpoints.values import Rates

NEXT = "the rate of the next step, as the optimizer was saved"


@dataclass(frozen=True, slots=True)
class Notes:
    """By step, from 1: rates used, by group, as many at every step; training losses; gradient norms.

    held: whether rates stay between those, as `indexer.checkpoints.history.History` has it.
    """

    rates: dict[int, Rates] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    gradient_norms: dict[int, float] = field(default_factory=dict)
    held: bool = False

    def history(self) -> History:
        """Return them as one history."""
        steps = sorted({*self.rates, *self.losses, *self.gradient_norms})
        unknown = (None,) * len(next(iter(self.rates.values()), ()))
        return history(
            steps,
            [self.rates.get(step, unknown) for step in steps] if self.rates else None,
            [self.losses.get(step) for step in steps],
            [self.gradient_norms.get(step) for step in steps],
            self.held,
        )


def rates_at(noted: History, step: int) -> tuple[Rates, str | None] | None:
    """Return the rates used in a step, and how they are known if they were not noted; None where only one side was."""
    if not np.isfinite(noted.learning_rates).any():
        return None
    rates = tuple(noted.rates([step])[0].tolist())
    if noted.noted([step])[0]:
        return rates, None
    rated = noted.steps[~np.isnan(noted.learning_rates).any(axis=1)]
    before, after = rated[rated < step], rated[rated > step]
    if not len(before) or not len(after):
        return None
    if noted.held:
        return rates, f"as noted at step {before[-1]}, taken to be held until step {after[0]}"
    return rates, f"interpolated between the steps {before[-1]} and {after[0]}"


def loss_at(noted: History, step: int) -> float | None:
    """Return the training loss noted nearest to a step, at it or before."""
    known = noted.losses[(noted.steps <= step) & ~np.isnan(noted.losses)]
    return float(known[-1]) if len(known) else None
