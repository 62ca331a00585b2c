"""Which checkpoints of a run to build an index from, by its loss (TracIn, appendix D, "Selecting Checkpoints").

The paper: take them where the loss decreases steadily, more of them where it decreases faster, none at the beginning
while it fluctuates, none after training has converged, and more than just the last. As a rule, on the level that the
loss has fallen to (`indexer.checkpoints.falling`):

1. Out are checkpoints before the end of an early stretch where the loss does not fall (early fluctuation, a warm-up:
   a block of several bins at the first level that lies above a steady fall by more than noise), where the loss stands
   far above the level (a spike: such weights are no part of the descent), after the loss is not finite any more or
   rises for good, and where no step or no loss is known.
2. The run has converged where the level lies within 2% of its end, measured on the fall since the first checkpoint that
   is left (no checkpoint can stand for what fell before), or within two standard errors of the last level, if that is
   more, up to a tenth of the fall. The first checkpoint there may be chosen, later ones not.
3. Of checkpoints at one level the earliest stays: it ends the fall to that level, the others saw none.
4. The fall between the first and the last that are left is cut into k equal shares, and k checkpoints at distinct
   levels L are matched in order to the middles of the shares, L_1 - (j - 1/2)/k (L_1 - L_n), j = 1 ... k, with the
   least sum of squared distances. Ties go to the earlier checkpoint: gradients are larger there.

Why equal shares: to first order a step lowers the loss by eta ||gradient||^2, so the decrease *is* the sum of what
training did, and each chosen checkpoint stands for an equal part of it. Where the loss falls faster, shares are shorter
in steps. Why their middles: no point is nearer to all of a share than its middle, and the two ends of the fall (half a
fluctuation, half converged) are taken only when no others are left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from indexer.checkpoints.falling import Falling, falling
from indexer.checkpoints.losses import Losses, losses_of
from indexer.checkpoints.run import Checkpoint, Run
from indexer.errors import ChoiceError

CONVERGED = 0.02  # of the fall: half a share of 25 checkpoints, more than anybody chooses, so that no share is lost
SPIKE = 6.0  # standard deviations of single losses: beyond lie 1 of 700 with heavy tails (t of 4), of normal ones none
HIGH = 0.2  # and this much of the fall: early noise is larger than that of most losses, and lower bumps do no harm
FEW = 8  # losses: of so few that are random, more than 10 of 100 series seem to fall; the choice is called rough
TIE = 1e-12  # of the squared fall: squared distances are counted in it, so that ties are ties whatever the rounding

Why = list[str | None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checkpoint, and why it is not chosen: None where it is.

    loss: about its step. level: of the smoothed curve there. None where there is none.
    """

    checkpoint: Checkpoint
    loss: float | None
    level: float | None
    why_not: str | None

    @property
    def chosen(self) -> bool:
        """Whether it is."""
        return self.why_not is None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of all checkpoints of a run are chosen, and the losses and the curve that it was made by.

    asked: k. verdicts: one for each checkpoint, in training order. notes: for people.
    """

    asked: int
    verdicts: tuple[Verdict, ...]
    losses: Losses
    curve: Falling
    notes: tuple[str, ...]

    @property
    def chosen(self) -> tuple[Checkpoint, ...]:
        """The chosen checkpoints, in training order; ``run.at([c.step for c in choice.chosen])`` is a run of them."""
        return tuple(verdict.checkpoint for verdict in self.verdicts if verdict.chosen)


def choose(run: Run, k: int, converged: float = CONVERGED, spike: float = SPIKE) -> Choice:
    """Choose up to k checkpoints of a run, by the rule above.

    converged: share of the fall. spike: standard deviations above the level.

    >>> from pathlib import Path
    >>> run = Run(Path("runs"), "by hand", tuple(
    ...     Checkpoint(Path(f"{step}.pt"), step=step, train_loss=2.0**-step) for step in range(1, 11)))
    >>> [checkpoint.step for checkpoint in choose(run, 3).chosen]
    [1, 2, 4]

    Raises:
        ChoiceError: k is below 1, there are no losses, the loss does not fall, or no checkpoint lies where it does.
    """
    if k < 1:
        raise ChoiceError(f"{k} checkpoints to choose: expected at least 1")
    losses = losses_of(run)
    curve = falling(losses.steps, losses.values)
    _check(run, curve)
    steps = np.array([np.nan if c.step is None else c.step for c in run.checkpoints], dtype=np.float64)
    levels, near = curve.at(steps), losses.near(steps)
    early = curve.flat_until(converged)
    why = [_out(step, losses, curve, early) for step in steps.tolist()]
    _drop_spikes(why, near - levels, levels, curve, spike)
    _drop_converged(why, steps, levels, curve, converged)
    candidates = _left(why, steps)
    if not candidates:
        told = "; ".join(f"{c.name}: {reason}" for c, reason in zip(run.checkpoints, why, strict=True))
        raise ChoiceError(
            f"{str(run.folder)!r} has no checkpoint where the loss falls steadily ({told}); name the checkpoints with "
            "`--steps`"
        )
    found = [candidates[i] for i in matched(levels[candidates], k)]
    for i in set(candidates) - set(found):
        nearest = min(found, key=lambda j: abs(levels[i] - levels[j]))
        why[i] = f"step {run.checkpoints[nearest].step:,} stands for it"
    verdicts = tuple(
        Verdict(checkpoint, _known(loss), _known(level), reason)
        for checkpoint, loss, level, reason in zip(run.checkpoints, near.tolist(), levels.tolist(), why, strict=True)
    )
    return Choice(k, verdicts, losses, curve, tuple(_notes(losses, curve, len(found), k)))


def matched(levels: Float[np.ndarray, " n"], k: int) -> list[int]:
    """Return which of falling levels, all distinct, match the middles of k equal shares best, ascending; all if n <= k.

    Exact, by dynamic programming over costs[j, i] = least cost of the first j middles among the first i levels.

    >>> matched(np.array([8.0, 7.0, 6.0, 4.0, 2.0, 0.0]), 2)
    [2, 4]
    """
    count = len(levels)
    if count <= k:
        return list(range(count))
    places = (levels[0] - levels) / (levels[0] - levels[-1])
    middles = (np.arange(k) + 0.5) / k
    distances = np.rint((places - middles[:, None]) ** 2 / TIE).astype(np.int64)  # integers: sums stay exact
    beyond = np.iinfo(np.int64).max // 2
    costs = np.full((k + 1, count + 1), beyond)
    costs[0] = 0
    for j in range(k):
        costs[j + 1, 1:] = np.minimum.accumulate(np.minimum(costs[j, :-1] + distances[j], beyond))
    found, end = [], count
    for j in range(k, 0, -1):
        end = int(np.argmax(costs[j] == costs[j, end]))  # the first with this cost: the earlier of equals
        found.append(end - 1)
        end -= 1
    return found[::-1]


def _check(run: Run, curve: Falling) -> None:
    if curve.falls:
        return
    if curve.rises_from is not None:
        found = f"rises from step {curve.rises_from:,.0f} on, and does not fall steadily before"
    elif len(curve.steps) == 1:
        found = "is noted only once"
    elif np.ptp(curve.losses) == 0:
        found = f"is {curve.losses[0]:.4g} throughout"
    else:
        (down, up), least = curve.explained, curve.least_explained
        first, last = curve.losses[0], curve.losses[-1]
        enough = f"with {len(curve.losses)} values it would have to explain more than {least:.1%}"
        found = (
            f"does not fall by more than noise: from {first:.4g} to {last:.4g}, a falling curve explains {down:.1%} of "
            "how far the losses lie from their median; "
            + (enough if down <= least else f"a rising one explains {up:.1%}, which is no less than half as much")
        )
    raise ChoiceError(
        f"the loss of {str(run.folder)!r} {found}; expected a loss that falls, as checkpoints are chosen by its "
        "decrease. Log more often, or name the checkpoints with `--steps`"
    )


def _out(step: float, losses: Losses, curve: Falling, early: float) -> str | None:
    """Return why a checkpoint is out before its level is looked at."""
    if np.isnan(step):
        return "no step is noted for it"
    if step < 1:
        return "no step of the training leads to it"
    if losses.broken is not None and step >= losses.broken:
        return f"the loss is not finite from step {losses.broken:,} on"
    if curve.rises_from is not None and step >= curve.rises_from:
        return f"the loss rises from step {curve.rises_from:,.0f} on"
    reach = float(np.median(np.diff(curve.steps)))  # of a bin
    if not losses.steps[0] - reach <= step <= losses.steps[-1] + reach:
        return "no loss is noted near its step"
    if step < early:
        return "early: the loss does not fall steadily yet"
    return None


def _left(why: Why, steps: Float[np.ndarray, " c"]) -> list[int]:
    """Return the numbers of the checkpoints that are not out, by step."""
    return sorted((i for i, reason in enumerate(why) if reason is None), key=lambda i: steps[i])


def _drop_spikes(
    why: Why, above: Float[np.ndarray, " c"], levels: Float[np.ndarray, " c"], curve: Falling, deviations: float
) -> None:
    left = [i for i, reason in enumerate(why) if reason is None]
    if left:
        threshold = max(deviations * curve.noise, HIGH * float(levels[left].max() - curve.levels[-1]))
        for i in left:
            if above[i] > threshold:
                why[i] = "at a spike of the loss"


def _drop_converged(
    why: Why, steps: Float[np.ndarray, " c"], levels: Float[np.ndarray, " c"], curve: Falling, share: float
) -> None:
    """Drop what comes after the first checkpoint within reach of the end, and all but the first at a level."""
    left = _left(why, steps)
    end, unsure = curve.flat_below(share, float(levels[left[0]])) if left else (0.0, False)
    for before, i in pairwise(left):
        if levels[before] <= end:
            why[i] = f"after convergence (within {'noise' if unsure else f'{share:.0%}'} of the end)"
        elif levels[i] == levels[before]:
            why[i] = "no fall since the checkpoint before"


def _notes(losses: Losses, curve: Falling, found: int, asked: int) -> Iterator[str]:
    if found < asked:
        yield f"{found} of {asked}: no other checkpoint lies where the loss falls steadily"
    if len(losses.steps) < FEW:
        yield f"only {len(losses.steps)} losses are noted, so that the choice is rough"
    if losses.broken is not None:
        yield f"the loss is not finite from step {losses.broken:,} on"
    if curve.rises_from is not None:
        yield f"the loss rises from step {curve.rises_from:,.0f} on and does not come back"


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
