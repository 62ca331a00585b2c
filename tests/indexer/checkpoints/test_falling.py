"""The level of a loss: against the definition of the regression, on made curves, and on random losses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.checkpoints import falling as module
from indexer.checkpoints.falling import MOST_BINS, UNSURE, Falling, falling, never_rising, spread, spread_of_neighbours
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


def test_a_rise_that_comes_back_is_none(rng: np.random.Generator) -> None:
    for period in (500, 700, 900):
        assert level_of(1 + 0.3 * np.sin(steps() / period) + 0.1 * rng.standard_normal(STEPS)).rises_from is None
    late = decay() + 0.1 * rng.standard_normal(STEPS)
    late[4000:8500] += 3.0
    assert level_of(late).rises_from is None
    broken = decay() + 0.1 * rng.standard_normal(STEPS)
    broken[4000:] += 3.0
    broken[8500:8600] = 0.1  # a dip
    assert level_of(broken).rises_from == pytest.approx(4001, abs=100)


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


@pytest.mark.parametrize(
    ("count", "curve", "least"),
    [
        (10, "exponential", 0.6),
        (15, "exponential", 0.65),
        (20, "exponential", 0.85),
        (20, "line", 0.6),
        (60, "line", 0.95),
    ],
)
def test_few_losses_that_fall_in_loud_noise_mostly_fall(count: int, curve: str, least: float) -> None:
    """By simulation of more, of 100: 69, 71, 91, 71, 99. Without Kendall's count 69, 64, 85, 38, 94."""
    rng, passed = np.random.default_rng(count), np.arange(1, count + 1) / count
    fall = {"exponential": 0.8 * np.exp(-3 * passed), "line": 0.8 * (1 - passed)}[curve]
    noise = {"exponential": 0.2, "line": 0.3}[curve]
    assert np.mean([level_of(fall + noise * rng.standard_normal(count)).falls for _ in range(200)]) >= least


def test_a_slow_fall_in_loud_noise_is_seen(rng: np.random.Generator) -> None:
    assert level_of(3 - 0.5 * steps() / STEPS + 0.8 * rng.standard_normal(STEPS)).falls


def test_where_a_steady_fall_begins_and_ends() -> None:
    curve = level_of(np.array([5.0, 5.5, 6.0, 4.0, 2.0, 1.0, 1.05, 1.0, 1.05, 1.0]))
    assert curve.flat_until(0.02) == 3.0
    level, by_noise = curve.flat_below(0.02, 5.0)
    assert level == pytest.approx(1.0 + 0.02 * 4.0) and not by_noise
    assert level_of(np.array([5.0, 4.0, 3.0, 3.0])).flat_until(0.02) == -np.inf


def test_the_end_is_as_sure_as_its_last_level() -> None:
    curve = level_of(np.array([9.0, 8.0, 7.0, *[1.3, 0.7] * 4, 1.0]))
    last = int((curve.levels == curve.levels[-1]).sum())
    rest = spread((curve.losses - curve.levels)[6:])
    assert rest > 0
    level, by_noise = curve.flat_below(0.0, 9.0)
    assert level == pytest.approx(curve.levels[-1] + 2 * rest / last**0.5) and by_noise
    swinging = level_of(np.array([3.0, 2.0, *[0.0, 4.0] * 4, 0.0]))
    level, by_noise = swinging.flat_below(0.0, 3.0)
    assert level == pytest.approx(UNSURE * 3.0) and by_noise


def test_the_spread_of_normal_numbers_is_their_deviation(rng: np.random.Generator) -> None:
    assert spread(3.0 * rng.standard_normal(100_000)) == pytest.approx(3.0, rel=0.02)


def test_differences_of_neighbours_have_the_deviation_whatever_the_trend(rng: np.random.Generator) -> None:
    drawn = 3.0 * rng.standard_normal(100_000)
    assert spread_of_neighbours(drawn + np.linspace(0, 1000, 100_000)) == pytest.approx(3.0, rel=0.02)
    assert spread_of_neighbours(np.array([1.0])) == 0.0


@pytest.mark.parametrize("count", [10, 20, 60, 200])
def test_the_noise_of_few_losses_is_not_lost_in_the_fit(count: int) -> None:
    """The residuals of most are 0, as they are blocks of their own."""
    rng, places = np.random.default_rng(count), np.arange(count)
    found = [level_of(np.exp(-3 * places / count) + 0.1 * rng.standard_normal(count)).noise for _ in range(100)]
    assert 0.08 < np.median(found) < 0.16  # of ten losses neighbours differ by the fall, too
    assert min(found) > 0.02


def test_of_many_losses_only_bins_are_fitted(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit is a loop over values: of a million losses it must see 200."""
    sizes: list[int] = []

    def counting(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sizes.append(len(values))
        return never_rising(values)

    monkeypatch.setattr(module, "never_rising", counting)
    losses = np.exp(-np.arange(1e5) / 2e4) + 0.3 * rng.standard_normal(10**5)
    assert falling(np.arange(1, 10**5 + 1), losses).falls
    assert 0 < max(sizes) <= MOST_BINS and len(sizes) < 10
