"""The level that a noisy loss has fallen to, step by step, and whether it falls at all.

1. Bins: the median of the losses in each. Up to 200 losses are a bin each. Of more there are at most 200, half of them
   even in steps and half in their logarithm: a loss falls most in the first steps, and even bins alone would see one
   level there. A median of many forgets the spikes among them.
2. A rise that never comes back (a run that broke) is cut off, at the cut after which a fit that never falls takes most
   off the whole error, if that is more than noise gains and the losses do not come down again.
3. Isotonic median regression, min sum_i |x_i - fit_i| over fits that never rise, by pooling adjacent violators: a
   pooled block lies at its median (Robertson, Wright 1973). Medians and not means, so that a spike wider than a bin
   pools as many of its neighbours as it is wide and no more, and because equal levels are then equal numbers. Of the
   two middle values the lower, as spikes go up. In a block of several bins the loss fluctuates and does not fall.
   Medians leave nothing to do for a running median before them, which would level the neighbours of a spike.

Noise of single losses is the larger of two estimates. Residuals about the fit are too small where losses are few: most
are a block of their own, with a residual of 0. Differences of neighbours are too small where each loss is a mean that
overlaps with the next.

Nothing here depends on units: a loss + b gives a level + b, for every a > 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MOST_BINS = 200  # of more losses each is one batch of many; of fewer each tells of many steps, and is a bin
LEAST_IN_BIN = 5  # of more losses than bins: their median forgets two bad batches
BROKEN = 2.5  # / sqrt(m) of the error about the median is what a cut gains in 1 to 3 of 100 series of m random losses
LATEST = 0.01  # of the gain of the best cut: before a rise from a flat stretch, cuts differ by noise alone
BACK = 0.1  # of the bins in a row: shorter dips of noise, lower than half of a rise, do not end it
UNSURE = 0.1  # of the fall, half a share of five checkpoints: so much may be called noise of the end, not more
LEAST_EXPLAINED = 0.5  # is enough of few losses: no rule can tell five of them that fall from five that happen to
NULL = 2.2  # times H_m / m is explained in 2 to 4 of 100 series of m random losses, m = 15 to 200 (by simulation)
TREND = 2.33  # standard deviations of Kendall's count are exceeded by 1 of 100 random orders


@dataclass(frozen=True, slots=True)
class Falling:
    """The smoothed curve.

    steps, losses, counts: middle step, median loss and number of losses of each bin before the rise.
    levels: the fit at each; it never rises. rises_from: the step of the first bin that was cut off, or None.
    noise: the standard deviation of single losses before the rise about the level, by the larger estimate.
    """

    steps: Float[np.ndarray, " m"]
    losses: Float[np.ndarray, " m"]
    counts: Int[np.ndarray, " m"]
    levels: Float[np.ndarray, " m"]
    rises_from: float | None
    noise: float

    def flat_until(self, share: float) -> float:
        """Return the step until which the loss does not fall steadily yet; -inf where it does from the first.

        It is the end of the last block of several bins that lies at the first level, and above the straight line from
        the first level to the last one by more than two standard errors: on a steady fall there are such blocks too,
        but they lie on the line. At the first level is what is lower by no more than this share of the whole fall or,
        if that is more, than two standard errors of the first bin, which may lie high by chance.
        """
        _, block, sizes = np.unique(-self.levels, return_inverse=True, return_counts=True)
        errors = self.noise / np.sqrt(np.bincount(block, self.counts)[block])
        middles = (np.bincount(block, self.steps) / sizes)[block]
        below = self.levels[0] - self.levels
        passed = (middles - self.steps[0]) / max(self.steps[-1] - self.steps[0], 1.0)
        line = passed * below[-1] - 2 * np.hypot(errors, passed * errors[-1])
        first = max(share * below[-1], 2 * self.noise / float(np.sqrt(self.counts[0])))
        early = (sizes[block] > 1) & (below <= first) & (below < line)
        return float(self.steps[early].max(initial=-np.inf))

    def flat_below(self, share: float, start: float) -> tuple[float, bool]:
        """Return the level below which the loss has converged, and whether noise put it there.

        It lies above the end by a share of the fall from a level at the start or, if that is more, by two standard
        errors of the last level, for the end of such a fit lies low; but not by more than a tenth of the whole fall, as
        residuals are no noise where the loss swings.
        """
        end = float(self.levels[-1])
        rest = (self.losses - self.levels)[len(self.losses) // 2 :]  # of large bins, less noisy than those before
        noise = 2 * spread(rest) / float(np.sqrt((self.levels == end).sum()))
        noise = min(noise, UNSURE * (float(self.levels[0]) - end))
        return end + max(share * (start - end), noise), noise > share * (start - end)

    @property
    def falls(self) -> bool:
        """Whether the loss falls by more than random losses in as many bins seem to.

        The fit must explain more than twice of what the best fit that never falls explains, as a loss that only wanders
        is fitted by both. And it must explain more than 2.2 H_m / m (H_m = 1 + 1/2 + ... + 1/m; at most 0.5), or the
        bins must be ordered: Kendall's sum_{i < j} sign(x_i - x_j), of variance m (m - 1) (2 m + 5) / 18 in random
        order, sees a slow fall in few bins. The fit sees one that is over after the first of them.
        """
        down, up = self.explained
        count, signs = len(self.losses), np.sign(self.losses[:, None] - self.losses)
        ordered = float(np.triu(signs).sum()) > TREND * np.sqrt(count * (count - 1) * (2 * count + 5) / 18)
        return bool(down > 2 * up and (down > self.least_explained or ordered))

    @property
    def explained(self) -> tuple[float, float]:
        """The shares of the deviation that the fit and the best fit that never falls explain; (0, 0) without deviation.

        1 - sum_i w_i |x_i - fit_i| / sum_i w_i |x_i - median|, w_i = sqrt(count_i), which gives bins equal noise.
        """
        weights, clipped = np.sqrt(self.counts), _clipped(self.losses)

        def error(fit: Float[np.ndarray, " m"] | np.floating) -> float:
            return float((weights * np.abs(clipped - fit)).sum())

        whole = error(np.median(clipped))
        if whole == 0:
            return 0.0, 0.0
        return 1 - error(self.levels) / whole, 1 - error(never_rising(clipped[::-1])[0][::-1]) / whole

    @property
    def least_explained(self) -> float:
        """The share of the deviation that a fall must explain, unless the bins are ordered."""
        count = len(self.losses)
        return min(NULL * float((1 / np.arange(1, count + 1)).sum()) / count, LEAST_EXPLAINED)

    def at(self, steps: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
        """Return the level at steps, linear between the middles of two bins."""
        return np.asarray(np.interp(steps, self.steps, self.levels))


def falling(steps: Int[np.ndarray, " s"], losses: Float[np.ndarray, " s"]) -> Falling:
    """Return the curve of at least one loss, all of them finite, at ascending steps.

    >>> falling(np.array([1, 2, 3, 4, 5]), np.array([4.0, 3.0, 9.0, 2.0, 1.0])).levels.tolist()
    [4.0, 3.0, 3.0, 2.0, 1.0]
    """
    starts = _starts(steps)
    ends = np.append(starts[1:], len(steps))
    pairs = list(zip(starts, ends, strict=True))
    middles = np.array([np.median(steps[a:b]) for a, b in pairs])
    medians = np.array([np.median(losses[a:b]) for a, b in pairs])
    kept = _before_rise(_clipped(medians))
    levels, end = never_rising(medians[:kept])[0], ends[kept - 1]
    before = losses[:end]
    near = spread_of_neighbours(before if len(steps) > MOST_BINS else _clipped(before))
    noise = max(spread(before - np.interp(steps[:end], middles[:kept], levels)), near)
    rises_from = float(steps[end]) if kept < len(starts) else None
    return Falling(middles[:kept], medians[:kept], (ends - starts)[:kept], levels, rises_from, noise)


def never_rising(values: Float[np.ndarray, " m"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return the isotonic median regression of values, and its error sum |x - fit| on each of their beginnings.

    The stack of blocks after i values is the regression of these i, so one pass has all the errors.

    >>> fit, errors = never_rising(np.array([3.0, 1.0, 2.0, 0.0]))
    >>> fit.tolist(), errors.tolist()
    ([3.0, 1.0, 1.0, 0.0], [0.0, 0.0, 1.0, 1.0])
    """
    blocks: list[list[float]] = []  # each ascending
    middles: list[float] = []
    errors: list[float] = []
    sums = []
    for value in values.tolist():
        block, middle = [value], value
        while middles and middles[-1] <= middle:
            block = sorted(blocks.pop() + block)
            middle = block[(len(block) - 1) // 2]
            middles.pop()
            errors.pop()
        blocks.append(block)
        middles.append(middle)
        errors.append(sum(abs(member - middle) for member in block))
        sums.append(sum(errors))
    return np.repeat(middles, [len(block) for block in blocks]), np.array(sums)


def spread(residuals: Float[np.ndarray, " m"]) -> float:
    """Return the standard deviation that residuals about zero have if they are normal: 1.4826 median |r|."""
    return 1.4826 * float(np.median(np.abs(residuals)))


def spread_of_neighbours(values: Float[np.ndarray, " m"]) -> float:
    """Return the standard deviation that values have about a slow change: the spread of their differences / sqrt(2)."""
    return spread(np.diff(values)) / float(np.sqrt(2)) if len(values) > 1 else 0.0


def _starts(steps: Int[np.ndarray, " s"]) -> Int[np.ndarray, " m"]:
    """Return where each bin starts among the steps."""
    if len(steps) <= MOST_BINS:
        return np.arange(len(steps))
    first, last = int(steps[0]), int(steps[-1])
    even = np.linspace(first, last, MOST_BINS // 2, endpoint=False)
    early = first - 1 + np.geomspace(1, last - first + 1, MOST_BINS // 2)
    starts = np.searchsorted(steps, np.concatenate([even, early[:-1]]))
    return np.unique(starts // LEAST_IN_BIN * LEAST_IN_BIN)


def _clipped(values: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Return values without the height of spikes: none above the first level and two spreads above the median."""
    middle = float(np.median(values))
    highest = max(float(never_rising(values)[0][0]), middle + 2 * spread(values - middle))
    return np.asarray(np.minimum(values, highest))


def _before_rise(values: Float[np.ndarray, " m"]) -> int:
    """Return how many values lie before a rise that never comes back: all, where there is none."""
    down, up = never_rising(values)[1], never_rising(values[::-1])[1][::-1]
    cut = down + np.append(up[1:], 0.0)  # the error if value i is the last of the fall
    gain = down[-1] - cut.min()
    if gain <= BROKEN / np.sqrt(len(values)) * np.abs(values - np.median(values)).sum():
        return len(values)
    last = int(np.flatnonzero(cut <= cut.min() + LATEST * gain)[-1])
    return (
        len(values)
        if _comes_back(values[last + 1 :], down_to=float(never_rising(values[: last + 1])[0][-1]))
        else last + 1
    )


def _comes_back(risen: Float[np.ndarray, " t"], down_to: float) -> bool:
    """Return whether values come back to less than half of the rise, in a row, after they were above it."""
    half = (down_to + float(np.median(risen))) / 2
    first = int(np.argmax(never_rising(risen[::-1])[0][::-1] > half))
    row = longest = 0
    for value in risen[first:].tolist():
        row = row + 1 if value < half else 0
        longest = max(longest, row)
    return longest >= BACK * len(risen)
