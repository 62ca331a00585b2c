"""How sure a figure is that was measured on a few queries: the percentile bootstrap over queries.

    interval = quantiles 0.025 and 0.975 of the figure over 2,000 draws of q of the q queries, with replacement
    (Efron, Tibshirani 1993, chapter 13)

Whole queries are drawn and never single scores: the scores of one query share its gradient and its errors, so that n
of them tell much less than n independent ones would. An interval speaks of queries that were not asked, not of other
training sets; where all queries agree it is a point, and of one query alone there is none.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

CONFIDENCE = 0.95
RESAMPLES = 2_000
SEED = 5
CONSTANT = 1e-12  # of the mean square, a variance is that of equal numbers: 64-bit sums round at 1e-16 a term


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure over queries and the interval that holds it for all such queries, or None for one query alone."""

    value: float
    interval: tuple[float, float] | None


def mean(values: Float[np.ndarray, " q"]) -> Measured:
    """Return the mean over queries of a figure of each.

    >>> mean(np.array([0.5, 0.5, 0.5]))
    Measured(value=0.5, interval=(0.5, 0.5))
    """
    return Measured(float(values.mean()), _interval(values[_draws(len(values))].mean(axis=1), len(values)))


def correlation(moments: Float[np.ndarray, "q 6"]) -> Measured | None:
    """Return Pearson's correlation over all pairs of numbers of all queries, or None where either side is constant.

    moments: of the pairs (x, y) of each query: their count, and the sums of x, y, x², y² and x y, about an origin near
    the means of all. Draws in which a side is constant, such as one query over and over, have no say in the interval.
    """
    whole = _correlations(moments.sum(axis=0)[None])
    if not len(whole):
        return None
    draws = _draws(len(moments))
    drawn = np.stack([column[draws].sum(axis=1) for column in moments.T], axis=1)
    return Measured(float(whole[0]), _interval(_correlations(drawn), len(moments)))


def _draws(queries: int) -> Int[np.ndarray, "r q"]:
    """Draw queries with replacement; the same ones for every figure of as many queries."""
    generator = np.random.Generator(np.random.Philox(key=SEED))
    return generator.integers(queries, size=(RESAMPLES, queries))


def _correlations(sums: Float[np.ndarray, "r 6"]) -> Float[np.ndarray, " s"]:
    """Return the correlation of every row of sums in which both sides vary."""
    count, x, y, xx, yy, xy = sums.T
    across, along = xx - x * x / count, yy - y * y / count
    varies = (across > CONSTANT * xx) & (along > CONSTANT * yy)
    shared = (xy - x * y / count)[varies]
    return np.asarray((shared / np.sqrt(across[varies] * along[varies])).clip(-1, 1))


def _interval(figures: Float[np.ndarray, " r"], queries: int) -> tuple[float, float] | None:
    if queries < 2 or not len(figures):
        return None
    low, high = np.quantile(figures, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
