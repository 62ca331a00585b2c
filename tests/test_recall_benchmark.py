"""What `benchmarks.recall` counts: the overlap of two orders, from either end."""

import numpy as np
import pytest

from benchmarks.recall import pearson, recall


def test_an_order_that_is_right_at_one_end_only() -> None:
    exact = np.arange(40.0)[None]
    estimate = exact.copy()
    estimate[0, :3] = 100.0  # the three lowest are thought to be the highest
    assert recall(exact, estimate) == (0.7, 0.7)
    assert recall(exact, exact) == (1.0, 1.0)
    assert recall(exact, -exact) == (0.0, 0.0)


def test_recall_is_the_mean_over_queries_and_both_ends_count_apart() -> None:
    exact = np.stack([np.arange(40.0), np.arange(40.0)])
    estimate = exact.copy()
    estimate[1, 30:] = 15.5  # the ten highest of one query fall among the others
    assert recall(exact, estimate) == (0.5, 1.0)


def test_the_correlation_is_over_all_pairs() -> None:
    exact = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert pearson(exact, 2 * exact + 1) == pytest.approx(1)
    assert pearson(exact, np.array([[0.0, 1.0], [0.0, 1.0]])) == pytest.approx(1 / 5**0.5)
