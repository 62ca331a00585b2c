"""Intervals over queries: beside a loop over the same draws, and whether they hold the truth as often as they say."""

import numpy as np
import pytest

from indexer.building.bootstrap import CONFIDENCE, RESAMPLES, Measured, _draws, correlation, mean

EXACT = 1e-12  # sums of a few hundred numbers of size 1 in float64
TRIALS = 400
# of 400 trials, the least share that holds the truth. A percentile bootstrap of 50 skewed values covers 93 to 95%, and
# the count of 400 trials has a standard deviation of 1.3%
COVERED = 0.90


def moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Count and sums of pairs [q, n], by their definition."""
    sums = [np.full(len(x), x.shape[1]), x.sum(1), y.sum(1), (x**2).sum(1), (y**2).sum(1), (x * y).sum(1)]
    return np.stack(sums, axis=1).astype(float)


def slow_interval(figures: list[float]) -> tuple[float, float]:
    ordered = sorted(figures)

    def at(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return at((1 - CONFIDENCE) / 2), at((1 + CONFIDENCE) / 2)


def test_the_mean_is_that_of_a_loop(rng: np.random.Generator) -> None:
    values = rng.random(7)
    drawn = [sum(values[i] for i in draw) / 7 for draw in _draws(7)]
    found = mean(values)
    assert found.value == pytest.approx(sum(values) / 7, rel=EXACT)
    assert found.interval == pytest.approx(slow_interval(drawn), rel=EXACT)


def test_the_correlation_is_that_of_the_pairs_of_the_drawn_queries(rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 8))
    y = x + rng.normal(size=(5, 8))
    drawn = [float(np.corrcoef(x[draw].ravel(), y[draw].ravel())[0, 1]) for draw in _draws(5)]
    found = correlation(moments(x, y))
    assert found is not None
    assert found.value == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], rel=EXACT)
    assert found.interval == pytest.approx(slow_interval(drawn), rel=1e3 * EXACT)  # variances of few pairs cancel more


def test_draws_are_the_same_every_time_and_take_every_query_equally_often() -> None:
    draws = _draws(4)
    assert draws.shape == (RESAMPLES, 4) and (draws == _draws(4)).all()
    shares = np.bincount(draws.ravel(), minlength=4) / draws.size
    assert np.abs(shares - 0.25).max() < 4 * (0.25 * 0.75 / draws.size) ** 0.5  # four standard errors


def test_one_query_has_no_interval() -> None:
    assert mean(np.array([0.75])) == Measured(0.75, None)
    one = correlation(moments(np.array([[0.0, 1.0, 2.0]]), np.array([[0.0, 1.0, 2.0]])))
    assert one == Measured(1.0, None)


def test_numbers_that_are_all_equal_have_no_correlation(rng: np.random.Generator) -> None:
    vary, same = rng.normal(size=(3, 5)), np.full((3, 5), 0.1)
    for x, y in ((vary, same), (same, vary), (same, same)):
        assert correlation(moments(x, y)) is None


def test_a_draw_without_a_correlation_has_no_say_in_the_interval() -> None:
    """A quarter of the draws of two queries take the constant one twice."""
    x = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 2.0, -2.0]])
    found = correlation(moments(x, x))
    assert found == Measured(1.0, (1.0, 1.0))


def test_intervals_hold_the_truth_as_often_as_they_say(rng: np.random.Generator) -> None:
    """Recalls of tenths about 0.8, uneven between queries; pairs whose sizes and errors are uneven between queries."""
    held = np.zeros(2)
    noise = 0.01 + 0.01 / 12  # mean square of what is even between 0.05 and 0.15
    truths = 0.8, 1 / (1 + noise) ** 0.5
    for _ in range(TRIALS):
        recalls = rng.binomial(10, rng.beta(8, 2, 50)) / 10
        size, error = rng.uniform(0.5, 1.5, (50, 1)), rng.uniform(0.05, 0.15, (50, 1))
        x = size * rng.normal(size=(50, 60))
        y = x + error * size * rng.normal(size=(50, 60))
        for i, found in enumerate((mean(recalls), correlation(moments(x, y)))):
            assert found is not None and found.interval is not None
            held[i] += found.interval[0] <= truths[i] <= found.interval[1]
    assert (held / TRIALS >= COVERED).all(), held / TRIALS
