"""eta by both conventions, against sums over steps by hand, and every refusal by its text."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from indexer.checkpoints.eta import approximate, by_parameter, etas
from indexer.checkpoints.history import history
from indexer.checkpoints.run import Checkpoint, Run
from indexer.errors import LearningRateError

RATES = [[1.0 - step / 12, 0.1 - step / 120] for step in range(12)]  # linear to zero; step t used RATES[t - 1]


def run_of(steps: list[int]) -> Run:
    """A run of 12 steps, 4 an epoch, with every step noted."""
    checkpoints = tuple(Checkpoint(Path(f"r/{s}.pt"), tuple(RATES[s - 1]), step=s) for s in steps)
    return Run(Path("r"), "a test", checkpoints, history(list(range(1, 13)), RATES), steps_per_epoch=4.0)


def test_by_learning_rate_eta_is_the_rate_of_the_last_step() -> None:
    assert etas(run_of([4, 12]), "learning_rate") == (tuple(RATES[3]), tuple(RATES[11]))


@pytest.mark.parametrize("steps", [[4, 8, 12], [3, 11], [12], [1, 2]])
def test_by_interval_eta_sums_the_rates_since_the_checkpoint_before(steps: list[int]) -> None:
    bounds = [0, *steps]
    expected = [[sum(RATES[t][g] for t in range(a, b)) / 4 for g in (0, 1)] for a, b in pairwise(bounds)]
    assert np.array(etas(run_of(steps), "interval")) == pytest.approx(np.array(expected), rel=1e-12)


def test_intervals_count_every_step_once_however_few_checkpoints_are_kept() -> None:
    totals = [np.sum(etas(run_of(steps), "interval"), axis=0) for steps in ([12], [6, 12], [1, 5, 7, 12])]
    assert totals[0] == pytest.approx(totals[1], rel=1e-12) and totals[1] == pytest.approx(totals[2], rel=1e-12)


def test_a_constant_rate_comes_out_as_it_is_written() -> None:
    run = Run(Path("r"), "a test", (Checkpoint(Path("r/1.pt"), step=71),), history([71], [[0.1]]), steps_per_epoch=71.0)
    assert etas(run, "interval") == ((0.1,),)


def test_both_agree_with_a_constant_rate_and_one_checkpoint_an_epoch() -> None:
    checkpoints = tuple(Checkpoint(Path(f"r/{s}.pt"), (0.05,), step=s) for s in (4, 8))
    run = Run(Path("r"), "a test", checkpoints, history([4, 8], [[0.05], [0.05]]), steps_per_epoch=4.0)
    assert np.array(etas(run, "interval")) == pytest.approx(np.array(etas(run, "learning_rate")), rel=1e-12)


def test_another_convention_is_refused() -> None:
    with pytest.raises(LearningRateError, match="eta = 'sum': expected one of 'learning_rate', 'interval'"):
        etas(run_of([4]), "sum")


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((), r"checkpoint 1 of 1 \('4\.pt'\) has no learning_rate; write the rate of the last step before it into"),
        ((0.0,), r"has learning_rate 0\.0; expected a positive number.*Choose `--eta interval`.*with `--steps`"),
        ((-0.1,), r"has learning_rate -0\.1; expected a positive number"),
        ((float("inf"),), "has learning_rate inf; expected a positive number"),
        ((0.0, 0.0), r"has learning_rate \[0\.0, 0\.0\]; expected a positive number"),
        ((0.1, -0.1), r"has learning_rate \[0\.1, -0\.1\]; expected"),
    ],
)
def test_a_rate_that_cannot_weigh_a_checkpoint_is_refused(rates: tuple[float, ...], expected: str) -> None:
    with pytest.raises(LearningRateError, match=expected):
        etas(Run(Path("r"), "a test", (Checkpoint(Path("r/4.pt"), rates),)), "learning_rate")


def test_a_frozen_group_may_have_a_rate_of_zero() -> None:
    run = Run(Path("r"), "a test", (Checkpoint(Path("r/4.pt"), (0.1, 0.0)),))
    assert etas(run, "learning_rate") == ((0.1, 0.0),)


def changed(steps: list[int], **changes: object) -> Run:
    return replace(run_of(steps), **changes)  # type: ignore[arg-type]  # each change is of its field's type


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (changed([4], steps_per_epoch=None), r"'interval' needs the optimizer's steps an epoch, and 'r' does not say"),
        (changed([4], history=history([])), r"\('4\.pt'\): 'r' notes no learning rate of the steps 1 to 4; choose"),
        (changed([4], history=history([1], [[-0.1]])), r"steps 1 to 4 add up to \[-0\.1\]; expected positive numbers"),
        (changed([4], history=history([1], [[0.0]])), r"steps 1 to 4 add up to \[0\.0\]; expected positive numbers"),
        (changed([4, 4]), r"checkpoint 2 of 2 \('4\.pt'\) has step 4; eta = 'interval' expects steps that grow"),
        (changed([4], checkpoints=(Checkpoint(Path("a.pt")),)), r"\('a\.pt'\) has step None; eta = 'interval' expects"),
    ],
)
def test_intervals_that_cannot_be_summed_are_refused(run: Run, expected: str) -> None:
    with pytest.raises(LearningRateError, match=expected):
        etas(run, "interval")


def test_readers_are_told_what_was_not_noted() -> None:
    run = run_of([4, 12])
    assert approximate(run, "learning_rate") is None and approximate(run, "interval") is None
    sparse = replace(run, history=history([3, 6, 9, 12], RATES[2::3]))
    before = "2 before step 3, the first noted, are taken as its, which a warm-up makes too large"
    assert approximate(sparse, "interval") == (
        f"eta: the rates of 8 of 12 steps were not noted: {before}; 6 between noted steps are interpolated"
    )
    short = replace(run, history=history([3, 6, 9], RATES[2:9:3], held=True))
    assert approximate(short, "interval") == (
        f"eta: the rates of 9 of 12 steps were not noted: {before}; 3 after step 9, the last noted, are taken as its; "
        "4 between noted steps are held since the step noted before"
    )
    late = replace(run, history=history([15], [[0.1, 0.2]]))
    assert approximate(late, "interval") == (
        "eta: the rates of 12 of 12 steps were not noted: 12 before step 15, the first noted, are taken as its, "
        "which a warm-up makes too large"
    )
    none = replace(run, history=history([]))
    assert approximate(none, "interval") == "eta: the rates of 12 of 12 steps were not noted"
    told = replace(run, checkpoints=(replace(run.checkpoints[0], rates_from="the next step's"), run.checkpoints[1]))
    assert approximate(told, "learning_rate") == "eta of 4.pt: the next step's"


def test_every_parameter_has_the_eta_of_its_group() -> None:
    found = by_parameter((0.1, 0.3), [("a", "b"), ("c",)], ["c", "a"])
    assert found == {"c": 0.3, "a": 0.1}


def test_names_are_not_needed_where_there_is_one_rate() -> None:
    assert by_parameter((0.1,), None, ["a"]) == by_parameter((0.1, 0.1), None, ["a"]) == {"a": 0.1}


def test_a_parameter_that_was_not_stepped_has_no_rate_though_all_others_have_one() -> None:
    with pytest.raises(LearningRateError, match="parameter 'b' is in no parameter group of the optimizer"):
        by_parameter((0.1,), [("a",)], ["a", "b"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [("a",), ("c",)],
            "parameter 'b' is in no parameter group of the optimizer; leave it out: `--parameters '!b'`",
        ),
        ([("a",), ("b",)], "parameter 'b' has a learning rate of zero; leave it out: `--parameters '!b'`"),
    ],
)
def test_a_parameter_of_the_gradient_that_was_not_stepped_is_refused(
    names: list[tuple[str, ...]], expected: str
) -> None:
    with pytest.raises(LearningRateError, match=expected):
        by_parameter((0.1, 0.0), names, ["a", "b"])
