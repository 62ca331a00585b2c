"""When a scheduler stepped: from the states that were saved along a run to the rates of the run's steps.

A scheduler counts its own steps, here *ticks*: one a step of the optimizer, or one an epoch; tick 0 is before any.
Step t of the optimizer, from 1, used the rates of tick (t - 1) // p, with p the steps a tick.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.checkpoints.formats.schedule import SAME, replay
from indexer.checkpoints.values import count

Rates = tuple[float, ...]


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


def scheduled(marks: Sequence[Mark], steps_per_epoch: float | None, noted: Mapping[int, Rates]) -> dict[int, Rates]:
    """Return the rates of the steps that the marks tell, up to the one after the last mark.

    That is all of them where the schedule can be replayed and agrees with every mark; else those of the ticks that were
    marked or in which a step was noted.
    """
    per_tick = _steps_per_tick(marks, steps_per_epoch)
    if per_tick is None:
        return {}
    ticks = _replayed(marks)
    if ticks is None:
        ticks = {(step - 1) // per_tick: rates for step, rates in noted.items()} if per_tick > 1 else {}
        ticks.update((mark.tick or 0, mark.rates) for mark in marks)
    end = max(mark.step for mark in marks) + 1
    return {
        step: rates
        for tick, rates in ticks.items()
        for step in range(tick * per_tick + 1, min((tick + 1) * per_tick, end) + 1)
    }


def _steps_per_tick(marks: Sequence[Mark], steps_per_epoch: float | None) -> int | None:
    """Return 1, or the steps an epoch, as the marks have it; None where they have neither, or another scheduler."""
    if not marks or any(mark.tick is None for mark in marks):
        return None
    for steps in (1, steps_per_epoch):
        if steps is not None and steps == int(steps) and all(_agrees(mark, int(steps)) for mark in marks):
            return int(steps)
    if all(mark.tick == 0 for mark in marks):  # within the first epoch
        return max(mark.step for mark in marks) + 1
    return None


def _agrees(mark: Mark, steps: int) -> bool:
    """Whether the scheduler stood where it stands just before or just after its step, if one was due."""
    return mark.tick in {mark.step // steps, (mark.step - 1) // steps}


def _replayed(marks: Sequence[Mark]) -> dict[int, Rates] | None:
    newest = max(marks, key=lambda mark: mark.step)
    rates = replay(newest.scheduler, newest.groups)
    if rates is None:
        return None
    for mark in marks:
        tick = mark.tick or 0
        if tick >= len(rates) or not close(mark.rates, rates[tick].tolist()):
            return None
    return dict(enumerate(map(tuple, rates.tolist())))


def close(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two lists of rates are the same, as far as float64 keeps them along a schedule."""
    return len(some) == len(others) and np.allclose(some, others, rtol=SAME, atol=0)
