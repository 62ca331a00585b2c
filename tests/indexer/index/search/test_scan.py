"""What is read of a store, and how queries are scaled."""

import numpy as np
import pytest

from indexer.index.search.scan import Scan, longest_row, scaled
from tests.heavy import sharded


@pytest.mark.parametrize("positions", [None, [0, 3, 9], [2, 5, 6, 7, 8, 9], [4, 5], [9], []])
def test_scores_are_those_of_the_rows_at_positions(rng: np.random.Generator, positions: list[int] | None) -> None:
    rows, queries = rng.integers(-3, 4, (10, 3)).astype(np.float32), np.array([[1.0, 2, -1]])
    some = None if positions is None else np.array(positions, np.int64)
    found = list(Scan(sharded(rows, 4)).scores(queries, "dot", some))
    wanted = list(range(10)) if positions is None else positions
    assert [place for places, _, _ in found for place in places.tolist()] == wanted
    assert [score for _, _, scores in found for score in scores[0].tolist()] == (rows @ queries[0])[wanted].tolist()


def test_the_longest_row_is_that_from_a_position_on(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((10, 3)).astype(np.float32)
    rows[2] = 9
    expected = np.linalg.norm(rows[5:], axis=1).max()
    assert longest_row(sharded(rows, 4), first=5) == pytest.approx(expected, rel=1e-6)  # float32


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1.0, 1e300])
def test_scaled_queries_are_the_same_but_for_a_power_of_two(rng: np.random.Generator, factor: float) -> None:
    queries = rng.standard_normal((4, 6)) * factor
    found = scaled(queries)
    assert (np.abs(found).max(axis=1) >= 0.5).all() and (np.abs(found) < 1).all()
    assert (np.frexp(found)[0] == np.frexp(queries)[0]).all()


def test_zero_stays_zero_and_nan_stays_nan() -> None:
    found = scaled(np.array([[0.0, 0.0], [np.nan, 1.0]]))
    assert found[0].tolist() == [0, 0] and np.isnan(found[1, 0])
