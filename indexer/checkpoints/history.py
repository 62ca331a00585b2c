"""What a run noted while it trained, step by step of its optimizer: learning rates, losses, gradient norms.

The first step is 1. A rate is noted at the step that *used* it. A run that notes every tenth step leaves the steps
between to interpolation, which is exact where the schedule is linear, or, where it goes down in steps, to the rate
noted before; ``noted`` says at how many steps neither is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, slots=True)
class History:
    """Series over noted steps, ascending; NaN is what was not noted at a step.

    learning_rates: used in that step, by parameter group, in the order of the optimizer's groups.
    losses: of training, the mean since the step noted before; as they came, so they may be infinite.
    gradient_norms: of the whole gradient, as the optimizer got it.
    held: whether rates stay as noted until the next step that is, as those of ReduceLROnPlateau do, where else they lie
    on a line between.
    """

    steps: Int[np.ndarray, " s"]
    learning_rates: Float[np.ndarray, "s g"]
    losses: Float[np.ndarray, " s"]
    gradient_norms: Float[np.ndarray, " s"]
    held: bool = False

    def rates(self, steps: Sequence[int] | Int[np.ndarray, " t"]) -> Float[np.ndarray, "t g"]:
        """Return the rates used in the steps: as noted, else linear between the noted ones, and constant beyond them.

        Where rates are held, that of the noted step before, and before the first one its.

        NaN where a group has no noted rate at all.
        """
        found = np.full((len(steps), self.learning_rates.shape[1]), np.nan)
        for group, rates in enumerate(self.learning_rates.T):
            known = ~np.isnan(rates)
            if known.any() and self.held:
                before = np.searchsorted(self.steps[known], steps, side="right") - 1
                found[:, group] = rates[known][np.maximum(before, 0)]
            elif known.any():
                found[:, group] = np.interp(steps, self.steps[known], rates[known])
        return found

    def noted(self, steps: Sequence[int] | Int[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
        """Return for each step whether the rates of all groups were noted at it."""
        if self.learning_rates.shape[1] == 0:
            return np.zeros(len(steps), dtype=bool)
        return np.isin(steps, self.steps[~np.isnan(self.learning_rates).any(axis=1)])


SERIES = ("steps", "learning_rates", "losses", "gradient_norms")


def from_series(series: Mapping[str, np.ndarray]) -> History:
    """Return a history from its arrays by the names of SERIES."""
    return History(series["steps"], series["learning_rates"], series["losses"], series["gradient_norms"])


def history(
    steps: Sequence[int],
    learning_rates: Sequence[Sequence[float | None]] | None = None,
    losses: Sequence[float | None] | None = None,
    gradient_norms: Sequence[float | None] | None = None,
    held: bool = False,
) -> History:
    """Return a history from plain lists, None and absent lists being what was not noted.

    >>> history([10, 20], [[0.1], [0.2]]).rates([15, 30]).round(3).tolist()
    [[0.15], [0.2]]
    """
    count = len(steps)

    def series(values: Sequence[float | None] | None) -> Float[np.ndarray, " s"]:
        return np.array([np.nan] * count if values is None else values, dtype=np.float64)

    rates = np.array([[]] * count if learning_rates is None else learning_rates, dtype=np.float64)
    return History(
        np.array(steps, dtype=np.int64), rates.reshape(count, -1 if rates.size else 0), series(losses),
        series(gradient_norms), held,
    )  # fmt: skip
