"""The rates that Trainer's optimizer used, from the log, which has the first group's alone, and the saved optimizers.

In this order: the schedule, where the scheduler's state tells it and it agrees with the log (Trainer's own are
functions, which no state keeps); the log and the saved optimizers, each at the step that used its rate.
"""

from collections.abc import Mapping, Sequence

from indexer.checkpoints.formats.ticks import PRINTED, Mark, agree, close, replayed, unproven
from indexer.checkpoints.formats.trainer_log import TrainerLog, rates_used
from indexer.checkpoints.values import Rates, number

_FIRST_ALONE = "no optimizer was saved: the logged learning rate, of the first parameter group, is taken for all"
_UNSURE = "the log's learning rates may be of the step after: older versions of Trainer logged that, and nothing tells"
_CHANGED = "the optimizer got parameter groups while it trained: their learning rates are not known"
_DIFFERENT = (
    "the parameter groups follow different schedules, and Trainer logs the first alone: their learning rates are not "
    "known"
)


def known_rates(log: TrainerLog, marks: Sequence[Mark]) -> tuple[dict[int, Rates], tuple[str, ...]]:
    """Return the rates used, by step, and what a reader must know of them."""
    used, sure = rates_used(log.rates, {mark.step: mark.rates[0] for mark in marks})
    unsure = () if sure else (_UNSURE,)
    if not marks:
        return {step: (rate,) for step, rate in used.items()}, (_FIRST_ALONE, *unsure)
    if len({len(mark.rates) for mark in marks}) > 1:
        return {}, (_CHANGED,)
    base = _base(marks)
    from_log = {step: _in_proportion(rate, base) for step, rate in used.items()} if base is not None else {}
    found = replayed(marks, None)
    if found is not None and _is_logged(found, log.rates, used, sure):
        return {**from_log, **found}, unproven(marks, used)
    if base is None:
        return {}, (_DIFFERENT,)
    following = {mark.step + 1: mark.rates for mark in marks}
    known = {**following, **from_log} if sure else {**from_log, **following}
    return _from_start(known, base), unsure


def contradicted(log: TrainerLog, marks: Sequence[Mark]) -> Mark | None:
    """Return the first mark of another training than the log: started at other rates, or followed by another one.

    The last mark's rates are taken for the log's, which lies beside it. Where a rate goes down in steps, it may have
    gone down just after a mark.
    """
    used, sure = rates_used(log.rates, {mark.step: mark.rates[0] for mark in marks})
    told = sure and len(set(log.rates.values())) > 1
    for mark in marks:
        first, own = _initial(marks[-1]), _initial(mark)
        if None not in (*first, *own) and len(first) == len(own) and first != own:
            return mark
        following = used.get(mark.step + 1, mark.rates[0]) if told else mark.rates[0]
        if not mark.goes_down_in_steps and not close([following], mark.rates[:1], PRINTED):
            return mark
    return None


def _initial(mark: Mark) -> list[float | None]:
    """Return the rates that a group's schedule multiplies, which the optimizer keeps."""
    return [number(group.get("initial_lr")) for group in mark.groups]


def _is_logged(found: Mapping[int, Rates], logged: Mapping[int, float], used: Mapping[int, float], sure: bool) -> bool:
    """Whether a replayed schedule is the log's; where the log's convention is not sure, by either."""
    readings = [used] if sure else [used, {step + 1: rate for step, rate in logged.items()}]
    return any(agree(found, {step: (rate,) for step, rate in reading.items()}) for reading in readings)


def _in_proportion(rate: float, base: Rates) -> Rates:
    return (rate, *(rate * initial / base[0] for initial in base[1:]))


def _base(marks: Sequence[Mark]) -> Rates | None:
    """Return rates that those of the groups are in proportion to at every mark, or None where there are none."""
    initial = _initial(marks[-1])
    base = tuple(rate for rate in initial if rate is not None)
    if len(base) < len(initial):  # ReduceLROnPlateau notes none
        base = marks[0].rates
    if base[0] == 0:
        return None
    proportional = all(close(mark.rates, _in_proportion(mark.rates[0], base)) for mark in marks)
    return base if proportional else None


def _from_start(known: dict[int, Rates], base: Rates) -> dict[int, Rates]:
    """Add the first step's rates where it used ``initial_lr``: the later ones, two at least, fall on a line from there.

    All on a level says nothing of the first steps: they may have been a warm-up.
    """
    if 1 in known or len(known) < 2:
        return known
    last = max(known)
    slope = (known[last][0] - base[0]) / (last - 1)
    on_line = all(abs(rates[0] - base[0] - slope * (step - 1)) < 1e-9 * base[0] for step, rates in known.items())
    return {1: base, **known} if on_line and slope < 0 else known
