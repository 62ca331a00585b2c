"""Trainer's rates out of logs of the first group and saved optimizers, and marks that are of another training."""

from typing import Any

import pytest

from indexer.checkpoints.formats.ticks import REPLAYED, Mark
from indexer.checkpoints.formats.trainer_log import TrainerLog
from indexer.checkpoints.formats.trainer_rates import contradicted, known_rates

LINEAR = {step: 1 - (step - 1) / 10 for step in range(1, 12)}  # used in each step
UNSURE = "the log's learning rates may be of the step after"


def mark(step: int, *rates: float, initial: tuple[float, ...] = (), **scheduler: Any) -> Mark:
    groups = [{"lr": rate} for rate in rates]
    for group, first in zip(groups, initial, strict=False):
        group["initial_lr"] = first
    return Mark(step, rates, groups, scheduler)


def halving(step: int) -> Mark:
    """As StepLR leaves it after each step."""
    rate = 0.5**step
    more = {"last_epoch": step, "_last_lr": [rate], "base_lrs": [1.0], "step_size": 1, "gamma": 0.5}
    return mark(step, rate, initial=(1.0,), **more)


def log(rates: dict[int, float]) -> TrainerLog:
    return TrainerLog(10, 2.0, rates)


def test_groups_are_in_proportion_to_their_first_rates() -> None:
    """By ``initial_lr``, or, where a scheduler keeps none, by the rates that were saved."""
    logged = log({step: LINEAR[step] for step in (2, 4, 6, 8)})
    for initial in ((1.0, 0.1), ()):
        marks = [mark(step, LINEAR[step + 1], LINEAR[step + 1] / 10, initial=initial) for step in (3, 6)]
        found, said = known_rates(logged, marks)
        assert said == ()
        assert {4, 6, 7, 8} <= found.keys()
        for step, rates in found.items():
            assert rates == pytest.approx((LINEAR[step], LINEAR[step] / 10))


def test_a_schedule_that_the_log_contradicts_is_not_replayed() -> None:
    marks = [halving(3), halving(6)]
    agreeing = {step: 0.5 ** (step - 1) for step in range(1, 8)}
    assert known_rates(log(agreeing), marks)[0] == {step: (rate,) for step, rate in agreeing.items()}
    by_hand = {**agreeing, 1: 0.1, 2: 0.2}
    found, said = known_rates(log(by_hand), marks)
    assert (found, said) == ({step: (rate,) for step, rate in by_hand.items()}, ())


def test_a_schedule_may_be_that_of_an_older_log() -> None:
    """At the one checkpoint, the log's last step, nothing tells which rate was logged."""
    found, _ = known_rates(log({step: 0.5**step for step in (1, 2, 3)}), [halving(3)])
    assert found == {step: (0.5 ** (step - 1),) for step in range(1, 5)}


def test_a_schedule_without_a_log_and_with_one_mark_is_said_to_be_replayed() -> None:
    assert known_rates(log({}), [halving(3)]) == ({step: (0.5 ** (step - 1),) for step in range(1, 5)}, (REPLAYED,))
    assert known_rates(log({}), [halving(3), halving(6)])[1] == ()


def test_where_the_log_is_not_sure_the_marks_count() -> None:
    """Step 10's rate is between what the log has for it by one reading and by the other."""
    found, [said] = known_rates(log({5: 0.5, 10: 1.0}), [mark(9, 0.95)])
    assert found == {5: (0.5,), 10: (0.95,)} and said.startswith(UNSURE)


def test_a_mark_with_another_rate_than_the_step_after_it_is_of_another_training() -> None:
    logged = log({step: LINEAR[step] for step in range(1, 11)})
    marks = [mark(step, LINEAR[step + 1]) for step in (3, 6, 9)]
    assert contradicted(logged, marks) is None
    other = mark(6, 0.7)
    assert contradicted(logged, [marks[0], other, marks[2]]) is other
    lowered = mark(6, 0.7, factor=0.1, patience=0, cooldown=0)
    assert contradicted(logged, [marks[0], lowered, marks[2]]) is None


def test_a_mark_that_started_at_other_rates_is_of_another_training() -> None:
    one, other = mark(3, 0.1, initial=(1.0,)), mark(6, 0.1, initial=(2.0,))
    assert contradicted(log({}), [one, other]) is one
    assert (
        contradicted(log({}), [one, mark(6, 0.1)]) is contradicted(log({}), [one]) is contradicted(log({}), []) is None
    )


def test_a_log_whose_convention_is_not_known_contradicts_nothing() -> None:
    assert contradicted(log({4: 0.6}), [mark(3, 0.7)]) is None
    assert contradicted(log({5: 0.5, 10: 1.0}), [mark(9, 0.95)]) is None
