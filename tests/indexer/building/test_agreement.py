"""The figures of the card: beside a loop over pairs, and where they are known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.building import bootstrap
from indexer.building.agreement import (
    ERROR_SHARES,
    RAREST,
    TIE,
    Agreement,
    Recalls,
    agreement,
    card_entry,
)
from indexer.building.bootstrap import Measured
from indexer.errors import BuildError

EXACT = 1e-9  # sums of some thousand products in float64, in another order
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
PERFECT = Recalls(Measured(1.0, (1.0, 1.0)), Measured(1.0, (1.0, 1.0)))


# ---- slow and obvious: lists of pairs, one query after the other ----


def pairs_of(
    exact: np.ndarray, estimate: np.ndarray, left_out: Sequence[int | None]
) -> list[list[tuple[float, float]]]:
    return [
        [(float(s), float(e)) for j, (s, e) in enumerate(zip(xs, es, strict=True)) if j != out]
        for xs, es, out in zip(exact, estimate, left_out, strict=True)
    ]


def slow_recall(pairs: list[tuple[float, float]], k: int, sign: int) -> float:
    best = sorted((sign * s for s, _ in pairs), reverse=True)[:k]
    found = sorted(pairs, key=lambda pair: -sign * pair[1])[:k]  # stable: equal ones by row
    return sum(sign * s >= best[-1] - TIE * abs(best[-1]) for s, _ in found) / len(found)


def slow_correlation(pairs: list[tuple[float, float]]) -> float | None:
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        return None
    a, b = math.fsum(x) / len(x), math.fsum(y) / len(y)
    cross = math.fsum((s - a) * (e - b) for s, e in pairs)
    return cross / math.sqrt(math.fsum((s - a) ** 2 for s in x) * math.fsum((e - b) ** 2 for e in y))


def slow_ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values]


def slow_spearman(pairs: list[tuple[float, float]]) -> float | None:
    ranks = [slow_ranks([pair[side] for pair in pairs]) for side in (0, 1)]
    return slow_correlation(list(zip(*ranks, strict=True)))


def slow_errors(pairs: list[tuple[float, float]]) -> list[float]:
    rms = math.sqrt(sum(s * s for s, _ in pairs) / len(pairs))
    return [abs(e - s) / rms for s, e in pairs] if rms else []


def assert_same(found: Agreement, queries: list[list[tuple[float, float]]]) -> None:
    """Compare every figure with the loops; of intervals only those that are not checked beside ``bootstrap``."""
    for recalls, sign in ((found.proponents, 1), (found.opponents, -1)):
        for measured, k in ((recalls.at_10, 10), (recalls.at_100, 100)):
            by_query = np.array([slow_recall(pairs, k, sign) for pairs in queries])
            assert measured.value == pytest.approx(by_query.mean(), abs=EXACT)
            assert measured.interval == pytest.approx(bootstrap.mean(by_query).interval, abs=EXACT)
    pearson = slow_correlation([pair for pairs in queries for pair in pairs])
    assert (found.pearson and found.pearson.value) == pytest.approx(pearson, abs=EXACT)
    ranked = np.array([rank for pairs in queries if (rank := slow_spearman(pairs)) is not None])
    if found.spearman is None:
        assert not len(ranked)
    else:
        assert found.spearman.value == pytest.approx(ranked.mean(), abs=EXACT)
        assert found.spearman.interval == pytest.approx(bootstrap.mean(ranked).interval, abs=EXACT)
    errors = [error for pairs in queries for error in slow_errors(pairs)]
    expected = [(share, np.quantile(errors, share)) for share in ERROR_SHARES] if errors else []
    assert np.array(found.errors) == pytest.approx(np.array(expected), rel=EXACT)
    shares, scores = found.reference
    assert scores == pytest.approx(np.quantile([e for pairs in queries for _, e in pairs], shares), abs=EXACT)


# ---- cases ----


@pytest.mark.parametrize(("queries", "rows"), [(4, 250), (7, 40), (2, 2), (1, 130)])
@pytest.mark.parametrize("decimals", [0, 12])
def test_every_figure_is_that_of_the_loops(rng: np.random.Generator, queries: int, rows: int, decimals: int) -> None:
    """Without decimals most scores tie."""
    exact = rng.normal(3.0, 2.0, size=(queries, rows)).round(decimals)
    estimate = (exact + rng.normal(size=exact.shape)).round(decimals)
    left_out = [int(rng.integers(rows)) if i % 2 else None for i in range(queries)]
    found = agreement(exact, estimate, left_out)
    assert (found.queries, found.rows) == (queries, rows)
    assert_same(found, pairs_of(exact, estimate, left_out))


@PROPERTY
@given(st.data())
def test_small_whole_numbers_agree_with_the_loops(data: st.DataObject) -> None:
    """Ties, constants and zeros everywhere."""
    queries, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(2, 14))
    numbers = st.lists(st.integers(-2, 2).map(float), min_size=queries * rows, max_size=queries * rows)
    exact, estimate = (np.array(data.draw(numbers)).reshape(queries, rows) for _ in range(2))
    left_out = data.draw(st.lists(st.none() | st.integers(0, rows - 1), min_size=queries, max_size=queries))
    assert_same(agreement(exact, estimate, left_out), pairs_of(exact, estimate, left_out))


def test_a_perfect_estimate(rng: np.random.Generator) -> None:
    exact = rng.normal(size=(5, 300))
    found = agreement(exact, exact.copy(), [None] * 5)
    assert (found.proponents, found.opponents) == (PERFECT, PERFECT)
    assert found.pearson is not None and found.spearman is not None
    assert (found.pearson.value, found.spearman.value) == pytest.approx((1, 1), abs=EXACT)
    assert found.errors == tuple((share, 0.0) for share in ERROR_SHARES)


def test_the_negative_finds_nothing(rng: np.random.Generator) -> None:
    exact = rng.normal(size=(5, 300))
    found = agreement(exact, -exact, [None] * 5)
    for recalls in (found.proponents, found.opponents):
        assert recalls.at_10 == recalls.at_100 == Measured(0.0, (0.0, 0.0))
    assert found.pearson is not None and found.spearman is not None
    assert (found.pearson.value, found.spearman.value) == pytest.approx((-1, -1), abs=EXACT)


def test_half_of_the_first_ten_is_half_a_recall() -> None:
    exact = np.arange(200.0)[::-1][None]
    estimate = exact.copy()
    estimate[0, 5:10] = -1.0
    found = agreement(exact, estimate, [None])
    assert found.proponents == Recalls(Measured(0.5, None), Measured(0.95, None))
    assert found.opponents == Recalls(Measured(0.5, None), Measured(0.95, None))


def test_what_ties_with_the_tenth_is_no_error() -> None:
    """Rows 5 to 14 are equal, or as near as float32 tells: any five of them complete the first ten."""
    exact = np.concatenate([np.full(5, 3.0), np.full(10, 2.0), np.zeros(5)])[None]
    estimate = exact.copy()
    estimate[0, 5:10] -= 0.5
    assert agreement(exact, estimate, [None]).proponents.at_10.value == 1
    exact[0, 10:15] -= TIE
    assert agreement(exact, estimate, [None]).proponents.at_10.value == 1
    exact[0, 10:15] -= 4 * TIE
    assert agreement(exact, estimate, [None]).proponents.at_10.value == 0.5


def test_a_query_that_is_a_row_leaves_itself_out(rng: np.random.Generator) -> None:
    """Whatever its score with itself is; and it does not take a place among the first ten."""
    exact, estimate = rng.normal(size=(2, 3, 50))
    rows = [4, 17, None]
    found = agreement(exact, estimate, rows)
    for i, row in enumerate(rows):
        if row is not None:
            exact[i, row], estimate[i, row] = 1e3, -1e3
    again = agreement(exact, estimate, rows)
    assert (again.proponents, again.opponents, again.errors) == (found.proponents, found.opponents, found.errors)
    assert (again.spearman, again.reference) == (found.spearman, found.reference)
    assert found.pearson is not None and again.pearson is not None
    assert again.pearson.value == pytest.approx(found.pearson.value, abs=EXACT)


def test_with_few_rows_recall_at_100_is_of_them_all() -> None:
    exact = np.arange(12.0)[None]
    found = agreement(exact, -exact, [None]).proponents
    assert (found.at_10.value, found.at_100.value) == (0.8, 1.0)  # ten of twelve overlap in eight at least


def test_where_nothing_varies_there_is_no_correlation_and_no_error() -> None:
    zeros = np.zeros((2, 5), np.float32)
    found = agreement(zeros, zeros, [None, None])
    assert (found.pearson, found.spearman, found.errors) == (None, None, ())
    assert (found.proponents, found.opponents) == (PERFECT, PERFECT)
    assert set(found.reference[1]) == {0.0}


def test_far_from_zero_the_correlation_does_not_cancel(rng: np.random.Generator) -> None:
    exact = rng.normal(size=(3, 400))
    estimate = exact + 0.1 * rng.normal(size=exact.shape)
    near, far = (agreement(1e-6 * exact + 10 * shift, 1e-6 * estimate + shift, [None] * 3) for shift in (0, 1))
    assert near.pearson is not None and far.pearson is not None
    assert far.pearson.value == pytest.approx(near.pearson.value, rel=1e-8)  # numbers of 10 round at 1e-9 of 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (2, 3), (40, 30)])
def test_the_reference_resolves_both_tails(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    scores = rng.normal(size=shape).astype(np.float32)
    shares, values = agreement(scores, scores, [None] * len(scores)).reference
    assert len(shares) == len(values) <= 201
    assert (np.diff(shares) > 0).all() and (np.diff(values) >= 0).all()
    assert (shares[0], shares[-1]) == (0, 1)
    assert (values[0], values[-1]) == (scores.min(), scores.max())
    if scores.size > 2:
        assert (shares[1], 1 - shares[-2]) == pytest.approx((1 / scores.size, 1 / scores.size), rel=EXACT)


def test_the_reference_resolves_one_in_a_million_and_no_less(rng: np.random.Generator) -> None:
    scores = rng.normal(size=(2, 600_000)).astype(np.float32)
    shares, values = agreement(scores, scores, [None, None]).reference
    assert shares[1] == pytest.approx(RAREST, rel=EXACT) and len(shares) == 201
    steps = np.diff(np.log(shares[1:100]))
    assert (steps > 0).all() and steps.max() < math.log(1.16)
    assert values[100] == pytest.approx(0, abs=0.01)  # the median of a million normal numbers


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(wrong: float) -> None:
    exact, estimate = np.ones((2, 3)), np.ones((2, 3))
    estimate[1, 2] = wrong
    with pytest.raises(BuildError, match="a score of query 1 of the index card is not finite; look for examples whose"):
        agreement(exact, estimate, [None, None])


def test_a_query_needs_a_row_besides_itself() -> None:
    with pytest.raises(BuildError, match="query 0 of the index card has no training row but itself; expected at least"):
        agreement(np.ones((1, 1)), np.ones((1, 1)), [0])


def test_the_card_has_the_figures(rng: np.random.Generator) -> None:
    exact = rng.normal(size=(4, 30))
    found = agreement(exact, exact + 0.1 * rng.normal(size=exact.shape), [0, 1, 2, 3])
    card = card_entry(found, source="train", bytes_per_example=128.5, basis_bytes=7)
    assert (card.queries, card.source, card.rows, card.confidence) == (4, "train", 30, 0.95)
    assert (card.bytes_per_example, card.basis_bytes) == (128.5, 7)
    for entry, recalls in ((card.proponents, found.proponents), (card.opponents, found.opponents)):
        assert (entry.recall_at_10, entry.recall_at_10_interval) == (recalls.at_10.value, recalls.at_10.interval)
        assert (entry.recall_at_100, entry.recall_at_100_interval) == (recalls.at_100.value, recalls.at_100.interval)
    assert found.pearson == Measured(card.pearson or 0.0, card.pearson_interval)
    assert found.spearman == Measured(card.spearman or 0.0, card.spearman_interval)
    assert tuple((entry.share, entry.of_rms) for entry in card.error) == found.errors
    assert (card.reference.shares, card.reference.scores) == found.reference


def test_the_card_of_nothing_has_no_correlation() -> None:
    zeros = np.zeros((1, 2))
    card = card_entry(agreement(zeros, zeros, [None]), source="test", bytes_per_example=8.0, basis_bytes=0)
    assert (card.pearson, card.pearson_interval, card.spearman, card.spearman_interval) == (None, None, None, None)
    assert (card.error, card.proponents.recall_at_10_interval) == ((), None)
