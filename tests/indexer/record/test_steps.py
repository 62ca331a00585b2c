"""Steps as they are noted: which loss is whose, and what a checkpoint says of them."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from indexer.record.numbers import Number, floats
from indexer.record.steps import Steps, joined


def test_steps_are_numbered_from_where_they_begin() -> None:
    steps = Steps(after=7)
    steps.made([0.5, 0.1], 2.0)
    steps.loss(3.0)
    steps.made([torch.tensor(0.25), 0], torch.tensor(4.0))
    found = steps.history()
    assert (steps.after, steps.last) == (7, 9)
    assert found.steps.tolist() == [8, 9]
    assert found.learning_rates.tolist() == [[0.5, 0.1], [0.25, 0]]
    np.testing.assert_equal(found.losses, [3, np.nan])
    assert found.gradient_norms.tolist() == [2, 4]
    assert steps.rates() == [0.25, 0]


def test_a_loss_belongs_to_the_step_that_ended_its_batch() -> None:
    """Two batches a step; the third step has one batch, and one more waits for a step that never comes."""
    steps = Steps(after=0)
    steps.loss(1)
    for second, then in ((3, 5), (7, 9)):
        steps.made([0.1], 1)
        steps.loss(second)
        steps.loss(then)
    steps.made([0.1], 1)
    assert steps.history().losses.tolist() == [2, 6, 9]
    assert steps.mean_loss() == pytest.approx(17 / 3)


def test_a_batch_without_a_loss_ends_its_step_all_the_same() -> None:
    steps = Steps(after=0)
    steps.loss(1)
    steps.made([0.1], 1)
    steps.loss(None)
    steps.loss(3)
    steps.made([0.1], 1)
    steps.loss(5)
    assert steps.history().losses.tolist() == [1, 4]


def test_a_restart_forgets_steps_and_keeps_early_losses() -> None:
    steps = Steps(after=0)
    steps.made([0.1], 1)
    steps.loss(1)
    steps.loss(5)
    steps.restart()
    assert (steps.after, steps.last, steps.mean_loss()) == (1, 1, None)
    steps.loss(7)
    steps.made([0.1], 1)
    steps.loss(9)
    assert steps.history().losses.tolist() == [7]
    steps.restart()
    steps.loss(11)  # of a step that is saved already: it is not lost
    steps.made([0.1], 1)
    assert steps.history().losses.tolist() == [11]


def test_a_loss_stands_for_the_steps_since_the_one_before() -> None:
    steps = Steps(after=10)
    for loss in (8.0, None, None, 2.0, None):
        steps.made([0.1], 1)
        if loss is not None:
            steps.loss(loss)
    assert steps.mean_loss() == (8 + 3 * 2) / 4
    assert np.isnan(steps.history().losses).tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("batches", [1, 3])
def test_thousands_of_steps_are_as_their_plain_numbers(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """What was converted on the way, at a thousand steps or where it was asked for, is converted once."""
    many = Steps(after=5)
    converted: list[int] = []

    def counted(values: Sequence[Number]) -> list[float]:
        converted.append(len(values))
        return floats(values)

    monkeypatch.setattr("indexer.record.steps.floats", counted)
    losses = np.random.default_rng(0).random((3_000, batches)).astype(np.float32)
    for number, row in enumerate(losses):
        for early in row[:-1].tolist():
            many.loss(torch.tensor(early))
        many.made([torch.tensor(number, dtype=torch.float64), 0.5], torch.tensor(float(number)))
        if number in {10, 1_500, 1_501}:
            many.history()
        many.loss(torch.tensor(row[-1].item()))
    before = sum(converted)
    found = many.history()
    assert 2_500 * (3 + batches) < before < 2_600 * (3 + batches)
    assert found.steps.tolist() == list(range(6, 3_006))
    assert found.learning_rates.tolist() == [[number, 0.5] for number in range(3_000)]
    assert found.gradient_norms.tolist() == list(range(3_000))
    assert found.losses.tolist() == [sum(row) / batches for row in losses.tolist()]
    assert many.mean_loss() == np.average(found.losses)
    assert (many.rates(), many.last) == ([2_999, 0.5], 3_005)


def test_losses_that_wait_for_their_step_for_long_are_plain_numbers() -> None:
    steps = Steps(after=0)
    for _ in range(1_500):
        steps.loss(torch.tensor(0.5))
    assert sum(isinstance(loss, torch.Tensor) for loss in steps._early) == 500
    steps.made([0.1], 1)
    assert steps.history().losses.tolist() == [0.5]


def test_a_step_without_a_finite_gradient_was_made() -> None:
    """Unlike one that was skipped, which has no norm either."""
    steps = Steps(after=0)
    steps.made([0.5], 1.0)
    steps.made([0.25], np.nan)
    steps.skipped(groups=1)
    assert steps.rates() == Steps(0, steps.history()).rates() == [0.25]


@pytest.mark.parametrize("loss", [torch.inf, torch.nan])
def test_what_diverged_has_no_finite_mean(loss: float) -> None:
    steps = Steps(after=0)
    for value in (1.0, loss):
        steps.made([0.1], 1)
        steps.loss(value)
    np.testing.assert_equal(steps.mean_loss(), loss)


def test_a_skipped_step_moves_nothing() -> None:
    steps = Steps(after=0)
    steps.skipped(groups=2)
    assert steps.rates() == [0, 0]
    steps.made([0.5, 0.1], 1)
    steps.skipped(groups=2)
    assert steps.rates() == [0.5, 0.1]
    assert steps.history().learning_rates.tolist() == [[0, 0], [0.5, 0.1], [0, 0]]
    assert np.isnan(steps.history().gradient_norms).tolist() == [True, False, True]


def test_noted_steps_go_on_as_if_they_had_just_been_made() -> None:
    first = Steps(after=3)
    for value in (0.3, None, 0.7):
        first.made([0.5, 0.1], value or np.nan)
        if value is not None:
            first.loss(value)
    second = Steps(3, first.history())
    for steps in (first, second):
        steps.made([0.4, 0.2], 5.0)
        steps.loss(0.9)
    for name in ("steps", "learning_rates", "losses", "gradient_norms"):
        np.testing.assert_array_equal(getattr(first.history(), name), getattr(second.history(), name))
    assert second.mean_loss() == first.mean_loss()
    assert second.rates() == first.rates() == [0.4, 0.2]


def test_the_next_batch_after_noted_steps_is_of_the_step_to_come() -> None:
    first = Steps(after=0)
    first.made([0.1], 1)
    second = Steps(0, first.history())
    second.loss(2)
    second.made([0.1], 1)
    np.testing.assert_equal(second.history().losses, [np.nan, 2])


def test_histories_are_joined_in_their_order() -> None:
    first, second = Steps(after=0), Steps(after=1)
    for steps in (first, second):
        steps.made([0.1 * (steps.after + 1)], 1.0)
    both = joined(first.history(), second.history())
    assert both.steps.tolist() == [1, 2] and both.learning_rates.tolist() == [[0.1], [0.2]]
    empty = Steps(after=0).history()
    assert joined(empty, both) is both and joined(both, empty) is both
