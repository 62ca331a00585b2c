"""Flat search against brute force: both directions, ties and duplicates, any k, any sharding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from indexer.index.search.flat import MARGIN, FlatSearch

# small whole numbers: their products are exact in float32, so that ties are ties
NUMBERS = st.integers(-2, 2).map(float)


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows with many duplicates, queries and k, which may exceed the rows."""
    width = draw(st.integers(1, 4))
    distinct = draw(arrays(np.float32, (draw(st.integers(1, 6)), width), elements=NUMBERS))
    rows = distinct[draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=60))]
    queries = draw(arrays(np.float32, (draw(st.integers(1, 3)), width), elements=NUMBERS))
    return rows, queries, draw(st.integers(1, 80))


def brute_force(scores: np.ndarray, k: int) -> set[int]:
    """Every row whose score is among the k best, ties at the k-th place included."""
    return set(np.flatnonzero(scores >= np.sort(scores)[::-1][min(k, len(scores)) - 1]).tolist())


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_candidates_hold_the_top_k_of_both_directions(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    rows, queries, k = problem
    found = FlatSearch([rows], rows.shape[1]).search(queries, k)
    assert len(found) == len(queries)
    for query, candidates in zip(queries, found, strict=True):
        scores = rows @ query
        for positions, direction in ((candidates.proponents, scores), (candidates.opponents, -scores)):
            assert brute_force(direction, k) <= set(positions) <= set(range(len(rows)))
            assert len(set(positions)) == len(positions)
            assert np.all(np.diff(direction[positions]) <= 0)


@given(problems())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_opponents_are_the_proponents_of_the_negated_query(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    rows, queries, k = problem
    search = FlatSearch([rows], rows.shape[1])
    for one, other in zip(search.search(queries, k), search.search(-queries, k), strict=True):
        assert (set(one.opponents), set(one.proponents)) == (set(other.proponents), set(other.opponents))


@given(problems(), st.integers(0, 60))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_shards_make_no_difference(problem: tuple[np.ndarray, np.ndarray, int], cut: int) -> None:
    rows, queries, k = problem
    shards = [shard for shard in (rows[:cut], rows[cut:]) if len(shard)]
    width = rows.shape[1]
    assert FlatSearch(shards, width).search(queries, k) == FlatSearch([rows], width).search(queries, k)


def test_candidates_go_beyond_k_by_the_margin_only(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((200, 5), dtype=np.float32)
    [found] = FlatSearch([rows], 5).search(rng.standard_normal((1, 5), dtype=np.float32), 10)
    assert len(found.proponents) == len(found.opponents) == 10 + MARGIN


@pytest.mark.parametrize("k", [3, 4, 1000])
def test_more_than_all_rows_are_all_rows_and_no_padding(k: int) -> None:
    [found] = FlatSearch([np.eye(3, dtype=np.float32)], 3).search(np.array([[3, 1, 2]], dtype=np.float32), k)
    assert found.proponents == [0, 2, 1]
    assert found.opponents == [1, 2, 0]
