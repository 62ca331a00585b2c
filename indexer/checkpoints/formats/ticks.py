"""When a scheduler stepped: from the states that were saved along a run to the rates of the run's steps.

A scheduler counts its own steps, here *ticks*: one a step of the optimizer, or one an epoch; tick 0 is before any.
Step t of the optimizer, from 1, used the rates of tick (t - 1) // p, with p the steps a tick.

A schedule that is replayed is proven at the marks alone: between them a script may have set the rate by hand. So it
must agree with every rate that was noted, and what was noted wins where it does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.checkpoints.formats.schedule import SAME, is_known, replay
from indexer.checkpoints.values import Rates, count

PRINTED = 1e-6  # relative: a rate that went through a log in float32
REPLAYED = "the learning rates between the steps that were saved are those of the saved schedule, replayed"
_PLATEAU = {"factor", "patience", "cooldown"}  # what of the known schedulers only ReduceLROnPlateau keeps


@dataclass(frozen=True, slots=True)
class Mark:
    """What was saved after a step: the optimizer's rates, its groups, and its scheduler's state."""

    step: int
    rates: Rates
    groups: Sequence[Mapping[str, Any]]
    scheduler: Mapping[str, Any]

    @property
    def tick(self) -> int | None:
        """The tick whose rates were saved."""
        return count(self.scheduler.get("last_epoch"))

    @property
    def goes_down_in_steps(self) -> bool:
        """Whether the scheduler holds a rate until it lowers it, when nobody knows beforehand: ReduceLROnPlateau."""
        return _PLATEAU <= self.scheduler.keys()


def scheduled(
    marks: Sequence[Mark], steps_per_epoch: float | None, noted: Mapping[int, Rates]
) -> tuple[dict[int, Rates], tuple[str, ...]]:
    """Return the rates of the steps that the marks tell, up to the one after the last mark, and what to know of them.

    That is all of them where the schedule can be replayed and agrees with every mark and with all that was noted. Where
    it can be and does not, rates were set by hand, and the marks tell one step each. Where it cannot, the ticks that
    were marked or in which a step was noted are known. Nothing of it contradicts what was noted.
    """
    per_tick = steps_per_tick(marks, steps_per_epoch)
    if per_tick is None:
        return {}, ()
    found = replayed(marks, steps_per_epoch)
    if found is not None and agree(found, noted):
        return found, unproven(marks, noted)
    ticks = None if is_known(marks[-1].scheduler, marks[-1].groups) else _told(marks, per_tick, noted)
    found = _spread(ticks, per_tick, _end(marks)) if ticks is not None else _at_marks(marks, per_tick)
    return {step: rates for step, rates in found.items() if agree({step: rates}, noted)}, ()


def replayed(marks: Sequence[Mark], steps_per_epoch: float | None) -> dict[int, Rates] | None:
    """Return the rates of all steps up to the one after the last mark, or None where they cannot be replayed.

    They agree with every mark.
    """
    per_tick = steps_per_tick(marks, steps_per_epoch)
    if per_tick is None:
        return None
    newest = max(marks, key=lambda mark: mark.step)
    rates = replay(newest.scheduler, newest.groups)
    if rates is None:
        return None
    for mark in marks:
        tick = mark.tick or 0
        if tick >= len(rates) or not close(mark.rates, rates[tick].tolist()):
            return None
    return _spread(dict(enumerate(map(tuple, rates.tolist()))), per_tick, _end(marks))


def steps_per_tick(marks: Sequence[Mark], steps_per_epoch: float | None) -> int | None:
    """Return 1, or the steps an epoch, as the marks have it; None where they have neither, or another scheduler."""
    if not marks or any(mark.tick is None for mark in marks):
        return None
    for steps in (1, steps_per_epoch):
        if steps is not None and steps == int(steps) and all(_agrees(mark, int(steps)) for mark in marks):
            return int(steps)
    if all(mark.tick == 0 for mark in marks):  # within the first epoch
        return _end(marks)
    return None


def agree(known: Mapping[int, Rates], noted: Mapping[int, Rates]) -> bool:
    """Whether rates are those that were noted, at every step that has both; of the first group, where only its were."""
    return all(step not in known or close(known[step][: len(rates)], rates, PRINTED) for step, rates in noted.items())


def unproven(marks: Sequence[Mark], noted: Iterable[int]) -> tuple[str, ...]:
    """Return what a reader must know of a replayed schedule: one mark, its end, is no proof of the way there."""
    return () if len(marks) > 1 or any(step <= _end(marks) for step in noted) else (REPLAYED,)


def close(some: Sequence[float], others: Sequence[float], relative: float = SAME) -> bool:
    """Whether two lists of rates are the same, by default as far as float64 keeps them along a schedule."""
    return len(some) == len(others) and np.allclose(some, others, rtol=relative, atol=0)


def _end(marks: Sequence[Mark]) -> int:
    return max(mark.step for mark in marks) + 1


def _agrees(mark: Mark, steps: int) -> bool:
    """Whether the scheduler stood where it stands just before or just after its step, if one was due."""
    return mark.tick in {mark.step // steps, (mark.step - 1) // steps}


def _spread(ticks: Mapping[int, Rates], per_tick: int, end: int) -> dict[int, Rates]:
    return {
        step: rates
        for tick, rates in ticks.items()
        for step in range(tick * per_tick + 1, min((tick + 1) * per_tick, end) + 1)
    }


def _told(marks: Sequence[Mark], per_tick: int, noted: Mapping[int, Rates]) -> dict[int, Rates] | None:
    """Return the rates of the ticks that were marked, or noted; None where one tick has several, set by hand."""
    steps = noted.items() if per_tick > 1 else ()
    ticks: dict[int, Rates] = {}
    for tick, rates in (*(((step - 1) // per_tick, rates) for step, rates in steps), *_ticked(marks)):
        if not close(ticks.get(tick, rates), rates, PRINTED):
            return None
        ticks[tick] = rates
    return ticks


def _ticked(marks: Sequence[Mark]) -> list[tuple[int, Rates]]:
    return [(mark.tick or 0, mark.rates) for mark in marks]


def _at_marks(marks: Sequence[Mark], per_tick: int) -> dict[int, Rates]:
    """Return each mark's rates at the one step that certainly used them: the next one, if that is of its tick."""
    return {mark.step + int(mark.step // per_tick == mark.tick): mark.rates for mark in marks}
