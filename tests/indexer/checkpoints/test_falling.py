"""The level of a loss: against the definition of the regression, on made curves, and on random losses."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.checkpoints.falling import MOST_BINS, Falling, falling, never_rising, spread
from tests.indexer.checkpoints.curves import STEPS, decay, steps

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
WHOLE = st.integers(-20, 20).map(float)


def level_of(losses: np.ndarray) -> Falling:
    return falling(np.arange(1, len(losses) + 1), np.asarray(losses, dtype=np.float64))


@PROPERTY
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_no_other_fit_that_never_rises_is_nearer(values: list[int]) -> None:
    """An optimal fit takes its levels from the values: all of them can be tried."""
    given_values = np.array(values, dtype=np.float64)
    fit, errors = never_rising(given_values)
    assert (np.diff(fit) <= 0).all()
    for count in range(1, len(values) + 1):
        beginning = given_values[:count]
        tried = itertools.combinations_with_replacement(sorted(set(values), reverse=True), count)
        assert errors[count - 1] == min(np.abs(beginning - np.array(levels)).sum() for levels in tried)
    assert errors[-1] == np.abs(given_values - fit).sum()


@PROPERTY
@given(st.lists(WHOLE, min_size=1, max_size=30), st.sampled_from([2.0**-40, 0.5, 1.0, 2.0**40]), WHOLE)
def test_the_level_has_the_units_of_the_loss(values: list[float], scale: float, shift: float) -> None:
    """Powers of two: the numbers themselves are then exact, so any difference is the curve's."""
    losses = np.array(values)
    one, other = level_of(losses), level_of(losses * scale + shift * scale)
    assert np.array_equal(other.levels, (one.levels + shift) * scale)
    assert (other.falls, other.rises_from) == (one.falls, one.rises_from)


@pytest.mark.parametrize(
    ("losses", "levels"),
    [
        ([5, 4, 3, 2], [5, 4, 3, 2]),
        ([5, 4, 1e6, 3, 2], [5, 4, 4, 3, 2]),  # a spike takes the level before it
        ([5, 4, 3, 1e6, 1e6, 2, 1], [5, 4, 4, 4, 4, 2, 1]),  # a wider one as many neighbours as it is wide
        ([2, 3, 4, 1, 0], [3, 3, 3, 1, 0]),  # a rise before the fall
        ([3, 2, 2, 2, 1], [3, 2, 2, 2, 1]),
        ([7], [7]),
    ],
)
def test_levels_of_short_curves(losses: list[float], levels: list[float]) -> None:
    assert level_of(np.array(losses)).levels.tolist() == levels


def test_many_losses_are_reduced_to_medians(rng: np.random.Generator) -> None:
    noisy = decay() + 0.3 * rng.standard_normal(STEPS)
    noisy[::50] = 1e6
    curve = level_of(noisy)
    assert len(curve.steps) <= MOST_BINS
    assert curve.counts.sum() == STEPS and curve.counts.min() >= 5
    late = curve.steps > 1000
    assert (
        np.abs(curve.levels - decay()[curve.steps.astype(int) - 1])[late].max() < 0.15
    )  # 0.3 / sqrt(30), about three times


def test_the_first_steps_have_bins_of_their_own() -> None:
    """A power law falls most in the first hundredth of its steps."""
    curve = level_of(11 * steps() ** -0.15)
    assert (curve.steps < 100).sum() > 10
    assert curve.levels[0] > 9 and curve.at(np.array([100.0]))[0] == pytest.approx(11 * 100**-0.15, rel=0.02)


def test_between_bins_the_level_is_linear_and_beyond_them_constant() -> None:
    curve = falling(np.array([10, 20, 30]), np.array([3.0, 2.0, 0.0]))
    assert curve.at(np.array([5.0, 15.0, 25.0, 99.0])).tolist() == [3.0, 2.5, 1.0, 0.0]


def test_a_rise_that_stays_is_cut_off_and_a_bump_is_not() -> None:
    broken, bump = decay(), decay()
    broken[6000:] = 7.0
    bump[6000:7000] += 1.0
    curve = level_of(broken)
    assert curve.rises_from == 6001.0
    assert curve.steps[-1] < 6001 and curve.levels[-1] == pytest.approx(decay()[5950], abs=0.01)
    assert level_of(bump).rises_from is None
    assert level_of(np.where(steps() < 2000, decay(), 1e6)).rises_from == pytest.approx(2000, abs=5)


@pytest.mark.parametrize("losses", [[3, 2, 1], [2, 1], [2.0, 1.5, 1.55, 1.2], [3, 2, 1e6, 1, 0.5, 0.4], decay()])
def test_what_falls(losses: np.ndarray) -> None:
    assert level_of(np.array(losses)).falls


@pytest.mark.parametrize("losses", [[1], [1, 2], [1, 1, 1], [1, 2, 3, 4, 5], [1, 2, 0.9, 2.1, 1], -decay()])
def test_what_does_not(losses: np.ndarray) -> None:
    assert not level_of(np.array(losses)).falls


@pytest.mark.parametrize(("count", "series"), [(10, 200), (50, 200), (200, 100), (5000, 60)])
def test_random_losses_seldom_fall(count: int, series: int, rng: np.random.Generator) -> None:
    """By simulation of more 1 to 6 of 100, half of them with heavy tails."""
    drawn = [rng.standard_normal(count) if i % 2 else rng.standard_t(2, count) for i in range(series)]
    assert np.mean([level_of(losses).falls for losses in drawn]) < 0.1


def test_a_slow_fall_in_loud_noise_is_seen(rng: np.random.Generator) -> None:
    assert level_of(3 - 0.5 * steps() / STEPS + 0.8 * rng.standard_normal(STEPS)).falls


def test_where_a_steady_fall_begins_and_ends() -> None:
    curve = level_of(np.array([5.0, 5.5, 6.0, 4.0, 2.0, 1.0, 1.05, 1.0, 1.05, 1.0]))
    assert curve.flat_until(0.02) == 3.0
    assert curve.flat_below(0.02, 5.0) == pytest.approx(1.0 + 0.02 * 4.0)
    assert level_of(np.array([5.0, 4.0, 3.0, 3.0])).flat_until(0.02) == -np.inf


def test_the_end_is_as_sure_as_its_last_level() -> None:
    curve = level_of(np.array([9.0, 8.0, 7.0, *[1.3, 0.7] * 4, 1.0]))
    last = int((curve.levels == curve.levels[-1]).sum())
    assert curve.flat_below(0.0, 9.0) == pytest.approx(curve.levels[-1] + 2 * curve.noise[1] / last**0.5)
    assert curve.noise[1] > 0


def test_the_spread_of_normal_numbers_is_their_deviation(rng: np.random.Generator) -> None:
    assert spread(3.0 * rng.standard_normal(100_000)) == pytest.approx(3.0, rel=0.02)


def test_a_million_steps_take_less_than_a_second(rng: np.random.Generator) -> None:
    losses = np.exp(-np.arange(1e6) / 2e5) + 0.3 * rng.standard_normal(10**6)
    start = time.perf_counter()
    falling(np.arange(1, 10**6 + 1), losses)
    assert time.perf_counter() - start < 1.0
