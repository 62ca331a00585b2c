"""When a scheduler stepped, and what the saved rates tell of the steps between."""

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau

from indexer.checkpoints.formats.ticks import REPLAYED, Mark, agree, close, replayed, scheduled, unproven
from indexer.checkpoints.values import Rates


def mark(step: int, tick: Any, rate: float, **more: Any) -> Mark:
    return Mark(step, (rate,), [{"lr": rate}], {"last_epoch": tick, "_last_lr": [rate], **more})


def halving(step: int, tick: int) -> Mark:
    """As StepLR leaves it."""
    return mark(step, tick, 0.1 * 0.5**tick, base_lrs=[0.1], step_size=1, gamma=0.5)


def rates(found: tuple[dict[int, Rates], tuple[str, ...]]) -> dict[int, float]:
    """The rates of a schedule that nothing is to be said of."""
    assert found[1] == ()
    return {step: rate for step, (rate,) in found[0].items()}


def test_a_known_schedule_by_step_tells_all_steps() -> None:
    found = rates(scheduled([halving(2, 2), halving(4, 4)], None, {}))
    assert found == {step: 0.1 * 0.5 ** (step - 1) for step in range(1, 6)}


@pytest.mark.parametrize("ticks", [(0, 1, 1), (1, 1, 2)], ids=["saved before its step", "saved after its step"])
def test_a_known_schedule_by_epoch_tells_all_steps(ticks: tuple[int, int, int]) -> None:
    marks = [halving(step, tick) for step, tick in zip((5, 8, 10), ticks, strict=True)]
    found = rates(scheduled(marks, 5.0, {}))
    expected = {**dict.fromkeys(range(1, 6), 0.1), **dict.fromkeys(range(6, 11), 0.05)}
    assert found == ({**expected, 11: 0.025} if ticks[2] == 2 else expected)


def test_an_unknown_schedule_by_step_tells_the_steps_after_its_marks() -> None:
    assert rates(scheduled([mark(2, 2, 0.3), mark(4, 4, 0.2)], None, {1: (0.4,)})) == {3: 0.3, 5: 0.2}


def test_an_unknown_schedule_by_epoch_tells_the_epochs_that_were_marked_or_noted() -> None:
    found = rates(scheduled([mark(8, 1, 0.3)], 5.0, {2: (0.4,)}))
    assert found == {**dict.fromkeys(range(1, 6), 0.4), **dict.fromkeys(range(6, 10), 0.3)}


def test_within_the_first_epoch_the_rate_is_the_first() -> None:
    assert rates(scheduled([mark(2, 0, 0.3), mark(4, 0, 0.3)], None, {})) == dict.fromkeys(range(1, 6), 0.3)


@pytest.mark.parametrize(
    "marks",
    [[], [mark(4, 2, 0.1)], [mark(4, None, 0.1)], [mark(4, "4", 0.1)], [halving(2, 2), halving(4, 3), halving(6, 3)]],
)
def test_a_scheduler_that_counts_neither_steps_nor_epochs_tells_nothing(marks: list[Mark]) -> None:
    assert scheduled(marks, 5.0, {}) == scheduled(marks, 2.5, {}) == ({}, ())


def test_a_schedule_that_one_of_the_marks_contradicts_is_not_replayed() -> None:
    assert rates(scheduled([mark(2, 2, 0.3), halving(4, 4)], None, {})) == {3: 0.3, 5: 0.1 * 0.5**4}


def test_close() -> None:
    assert close([0.1], [0.1 * (1 + 1e-12)])
    assert not close([0.1], [0.1001]) and not close([0.1], [0.1, 0.1]) and not close([0.0], [1e-12])
    assert close([0.1], [0.1 * (1 + 1e-7)], 1e-6)


def test_noted_rates_are_not_overruled_by_a_schedule_that_only_the_marks_prove() -> None:
    """A warm-up by hand, over by the first mark."""
    marks, noted = [halving(4, 4), halving(6, 6)], {1: (0.01,), 2: (0.02,), 5: (0.1 * 0.5**4 * (1 + 1e-7),)}
    assert replayed(marks, None) is not None
    assert rates(scheduled(marks, None, noted)) == {5: 0.1 * 0.5**4, 7: 0.1 * 0.5**6}
    assert rates(scheduled(marks, None, {5: (0.1 * 0.5**4,)})) == {
        step: 0.1 * 0.5 ** (step - 1) for step in range(1, 8)
    }
    assert rates(scheduled([mark(4, 4, 0.3)], None, {5: (0.2,)})) == {}


def test_an_epoch_in_which_rates_were_set_by_hand_has_none_of_its_own() -> None:
    noted = {1: (0.1,), 2: (0.2,)}
    assert rates(scheduled([mark(8, 1, 0.3)], 5.0, noted)) == {9: 0.3}
    assert rates(scheduled([mark(10, 1, 0.3)], 5.0, noted)) == {10: 0.3}
    assert rates(scheduled([mark(2, 0, 0.1), mark(4, 0, 0.3)], None, {})) == {3: 0.1, 5: 0.3}


def test_a_schedule_with_one_mark_is_replayed_and_said_to_be() -> None:
    found, said = scheduled([halving(4, 4)], None, {})
    assert found == {step: (0.1 * 0.5 ** (step - 1),) for step in range(1, 6)}
    assert said == (REPLAYED,) == unproven([halving(4, 4)], [9])
    assert unproven([halving(4, 4)], [3]) == unproven([halving(4, 4), halving(6, 6)], []) == ()


def test_agree_compares_the_groups_that_were_noted() -> None:
    assert agree({1: (0.1, 0.2)}, {1: (0.1,), 2: (0.7,)}) and not agree({1: (0.1, 0.2)}, {1: (0.1, 0.3)})


def test_only_a_plateau_goes_down_in_steps() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    for make, expected in ((ReduceLROnPlateau, True), (lambda made: ConstantLR(made, 0.5, 4), False)):
        state = make(torch.optim.SGD(weights, lr=0.1)).state_dict()
        assert Mark(1, (0.1,), [], state).goes_down_in_steps == expected
