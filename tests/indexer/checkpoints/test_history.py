"""Histories: rates as they were noted, interpolated between, and counted."""

import math

import numpy as np
import pytest

from indexer.checkpoints.history import SERIES, History, from_series, history

RATES = history([2, 4, 8], [[0.2, 2.0], [0.4, 4.0], [0.0, 0.0]])


def test_noted_rates_are_returned_as_they_are() -> None:
    assert RATES.rates([8, 2, 4]).tolist() == [[0.0, 0.0], [0.2, 2.0], [0.4, 4.0]]


def test_between_noted_steps_rates_are_linear_and_beyond_them_constant() -> None:
    assert RATES.rates([3, 7, 1, 99]) == pytest.approx(np.array([[0.3, 3.0], [0.1, 1.0], [0.2, 2.0], [0.0, 0.0]]))


def test_a_group_may_be_noted_at_other_steps_than_another() -> None:
    found = history([1, 2, 3], [[0.1, None], [None, 2.0], [0.3, None]])
    assert found.rates([2, 3]) == pytest.approx(np.array([[0.2, 2.0], [0.3, 2.0]]))
    assert found.noted([1, 2, 3]).tolist() == [False, False, False]


def test_a_group_without_any_rate_has_none() -> None:
    found = history([1, 2], [[0.1, None], [0.1, None]]).rates([1])
    assert found[0, 0] == 0.1 and math.isnan(found[0, 1])


def test_what_was_noted_is_told_apart() -> None:
    assert RATES.noted([1, 2, 3, 4, 8, 9]).tolist() == [False, True, False, True, True, False]


def test_a_history_without_rates_knows_none() -> None:
    empty = history([1, 2], losses=[0.5, None])
    assert empty.rates([1, 2]).shape == (2, 0)
    assert empty.noted([1, 2]).tolist() == [False, False]
    assert empty.losses[0] == 0.5 and math.isnan(empty.losses[1]) and np.isnan(empty.gradient_norms).all()


def test_no_step_at_all_is_a_history() -> None:
    assert history([]).rates([]).shape == (0, 0)
    assert isinstance(history([]), History)


def test_held_rates_stay_until_the_next_noted_one() -> None:
    found = history([2, 4, 8], [[0.2], [0.1], [0.05]], held=True)
    assert found.held and not RATES.held
    assert found.rates([1, 2, 3, 4, 7, 8, 99])[:, 0].tolist() == [0.2, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05]
    assert found.noted([3, 4]).tolist() == [False, True]


def test_a_history_is_made_of_its_series() -> None:
    again = from_series({name: getattr(RATES, name) for name in SERIES})
    assert all(getattr(again, name) is getattr(RATES, name) for name in SERIES) and not again.held
