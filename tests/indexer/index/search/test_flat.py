"""Flat search against brute force: both directions and views, ties, any k, any sharding, coded or not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from indexer.errors import QuestionError
from indexer.index.code import Code
from indexer.index.search import scan
from indexer.index.search.candidates import View
from indexer.index.search.flat import MARGIN, MOST_TIES, FlatSearch
from indexer.index.store import VectorStore

# small whole numbers: their products are exact in float32, so that ties are ties
NUMBERS = st.integers(-2, 2).map(float)
VIEWS: tuple[View, ...] = ("dot", "normalised")


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows with many duplicates, queries and k, which may exceed the rows."""
    width = draw(st.integers(1, 4))
    distinct = draw(arrays(np.float32, (draw(st.integers(1, 6)), width), elements=NUMBERS))
    rows = distinct[draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=60))]
    queries = draw(arrays(np.float32, (draw(st.integers(1, 3)), width), elements=NUMBERS))
    return rows, queries, draw(st.integers(1, 80))


@st.composite
def coded_problems(draw: st.DrawFn) -> tuple[Code, tuple[np.ndarray, ...], np.ndarray, int]:
    """Coded rows with duplicates: steps and scales are powers of two, or 0, so that ties stay ties."""
    bits = draw(st.lists(st.sampled_from([0, 4, 4, 8]), min_size=1, max_size=7))
    code = Code(np.array(bits, np.uint8), np.array([2.0 ** draw(st.integers(-2, 2)) if b else 0 for b in bits], "f4"))
    count = draw(st.integers(1, 6))
    distinct = draw(arrays(np.uint8, (count, code.row_bytes), elements=st.integers(0, 255)))
    scales = draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0]), min_size=count, max_size=count))
    distinct[:, :4] = np.array(scales, np.float32)[:, None].view(np.uint8)
    records = distinct[draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=60))]
    queries = draw(arrays(np.float32, (draw(st.integers(1, 3)), len(bits)), elements=NUMBERS))
    cut = draw(st.integers(0, len(records)))
    shards = tuple(shard for shard in (records[:cut], records[cut:]) if len(shard))
    return code, shards, queries, draw(st.integers(1, 80))


def plain(rows: np.ndarray) -> VectorStore:
    return VectorStore((rows,), rows.shape[1])


def over(scores: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Scores over norms, 0 where the norm is 0."""
    found: np.ndarray = np.divide(scores, norms, out=np.zeros(len(scores)), where=norms > 0)
    return found


def brute_force(scores: np.ndarray, k: int) -> set[int]:
    """Every row whose score is among the k best, ties at the k-th place included."""
    return set(np.flatnonzero(scores >= np.sort(scores)[::-1][min(k, len(scores)) - 1]).tolist())


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_candidates_hold_the_top_k_of_both_directions(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    rows, queries, k = problem
    found = FlatSearch(plain(rows)).search(queries, k)
    assert len(found) == len(queries)
    for query, candidates in zip(queries, found, strict=True):
        scores = rows @ query
        for positions, direction in ((candidates.proponents, scores), (candidates.opponents, -scores)):
            assert brute_force(direction, k) <= set(positions) <= set(range(len(rows)))
            assert len(set(positions)) == len(positions)
            assert np.all(np.diff(direction[positions]) <= 0)


@pytest.mark.parametrize("view", VIEWS)
@given(coded_problems())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_candidates_of_coded_rows_are_those_of_decoded_rows(
    view: View, problem: tuple[Code, tuple[np.ndarray, ...], np.ndarray, int]
) -> None:
    code, shards, queries, k = problem
    store = VectorStore(shards, code.width, code)
    rows = np.concatenate(list(store)).astype(np.float64)
    found = FlatSearch(store, store.scales()).search(queries, k, view)
    for query, candidates in zip(queries, found, strict=True):
        scores = rows @ query
        if view == "normalised":
            scores = over(scores, store.scales())
        for positions, direction in ((candidates.proponents, scores), (candidates.opponents, -scores)):
            assert brute_force(direction, k) <= set(positions) <= set(range(len(rows)))
            assert len(set(positions)) == len(positions)
            assert np.all(np.diff(direction[positions]) <= 0)
        assert candidates.exhaustive


@given(problems())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_normalised_view_is_that_of_scores_over_norms(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    rows, queries, k = problem
    norms = 2.0 ** np.arange(len(rows)).clip(0, 9) * rows.any(axis=1)  # by a power of two, so that ties are ties
    found = FlatSearch(plain(rows), norms).search(queries, k, "normalised")
    for query, candidates in zip(queries, found, strict=True):
        scores = over(rows @ query, norms)
        assert brute_force(scores, k) <= set(candidates.proponents)
        assert brute_force(-scores, k) <= set(candidates.opponents)
        assert np.all(np.diff(scores[candidates.proponents]) <= 0)


def test_norms_that_are_not_the_scales_divide_decoded_rows(rng: np.random.Generator) -> None:
    bits = np.array([8] * 9 + [4] * 20, np.uint8)
    code = Code(bits, rng.uniform(0.1, 1, 29).astype(np.float32))
    vectors, norms = rng.standard_normal((500, 29)), rng.uniform(1, 5, 500)
    store = VectorStore((code.encode(vectors, rng.uniform(0.2, 2, 500)),), 29, code)
    query = rng.standard_normal((1, 29))
    scores = np.concatenate(list(store)) @ query[0] / norms
    [found] = FlatSearch(store, norms).search(query, 10, "normalised")
    assert found.proponents[:10] == np.argsort(-scores)[:10].tolist()
    assert found.opponents[:10] == np.argsort(scores)[:10].tolist()


@pytest.mark.parametrize("norm", [0.0, 1e-39])
def test_a_row_without_a_norm_scores_0(norm: float) -> None:
    rows = np.array([[1], [5], [-1]], np.float32)
    [found] = FlatSearch(plain(rows), np.array([1, norm, 1])).search(np.ones((1, 1)), 3, "normalised")
    assert (found.proponents, found.opponents) == ([0, 1, 2], [2, 1, 0])


def test_without_norms_there_is_no_normalised_view() -> None:
    search = FlatSearch(plain(np.eye(3, dtype=np.float32)))
    with pytest.raises(QuestionError, match=r"this index has no norms of gradients, .*; ask for the view 'dot'"):
        search.search(np.ones((1, 3)), 1, "normalised")


@given(problems())
@settings(max_examples=50, deadline=None, derandomize=True)
def test_opponents_are_the_proponents_of_the_negated_query(problem: tuple[np.ndarray, np.ndarray, int]) -> None:
    rows, queries, k = problem
    search = FlatSearch(plain(rows))
    for one, other in zip(search.search(queries, k), search.search(-queries, k), strict=True):
        assert (one.opponents, one.proponents) == (other.proponents, other.opponents)


@given(problems(), st.integers(0, 60), st.integers(1, 30))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_shards_and_chunks_make_no_difference(
    problem: tuple[np.ndarray, np.ndarray, int], cut: int, numbers: int
) -> None:
    rows, queries, k = problem
    shards = tuple(shard for shard in (rows[:cut], rows[cut:]) if len(shard))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_NUMBERS", numbers)
        apart = FlatSearch(VectorStore(shards, rows.shape[1])).search(queries, k)
    assert apart == FlatSearch(plain(rows)).search(queries, k)


@given(coded_problems(), st.integers(1, 30))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_chunks_of_coded_rows_make_no_difference(
    problem: tuple[Code, tuple[np.ndarray, ...], np.ndarray, int], numbers: int
) -> None:
    code, shards, queries, k = problem
    store = VectorStore(shards, code.width, code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "CHUNK_NUMBERS", numbers)
        apart = FlatSearch(store).search(queries, k)
    assert apart == FlatSearch(store).search(queries, k)


def test_candidates_go_beyond_k_by_the_margin_only(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((200, 5), dtype=np.float32)
    [found] = FlatSearch(plain(rows)).search(rng.standard_normal((1, 5), dtype=np.float32), 10)
    assert len(found.proponents) == len(found.opponents) == 10 + MARGIN
    assert found.exhaustive


def test_one_query_with_ties_does_not_widen_the_others(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((200, 5), dtype=np.float32)
    rows[:50] = 10  # longer than all others
    queries = np.stack([rows[0], np.zeros(5, np.float32), -rows[0]])
    first, zero, last = FlatSearch(plain(rows)).search(queries, 10)
    assert [len(first.proponents), len(first.opponents)] == [50, 10]
    assert [len(zero.proponents), len(zero.opponents)] == [200, 200]
    assert [len(last.proponents), len(last.opponents)] == [10, 50]
    assert first.exhaustive and zero.exhaustive and last.exhaustive


def test_more_ties_than_are_ever_fetched_are_cut_and_said() -> None:
    rows = np.ones((MOST_TIES + 12, 1), np.float32)
    rows[7] = 2
    [found] = FlatSearch(plain(rows)).search(np.ones((1, 1), np.float32), 10)
    assert found.proponents[0] == 7
    assert len(set(found.proponents)) == len(found.proponents) == MOST_TIES + 10
    assert not found.exhaustive


@pytest.mark.parametrize("k", [3, 4, 1000])
def test_more_than_all_rows_are_all_rows_and_no_padding(k: int) -> None:
    [found] = FlatSearch(plain(np.eye(3, dtype=np.float32))).search(np.array([[3, 1, 2]], dtype=np.float32), k)
    assert found.proponents == [0, 2, 1]
    assert found.opponents == [1, 2, 0]


def test_rows_stay_where_they_are(rng: np.random.Generator) -> None:
    """What is written to the rows afterwards is found: no copy was made."""
    rows = rng.standard_normal((20, 3), dtype=np.float32)
    search = FlatSearch(plain(rows))
    rows[11] = 100
    assert search.search(np.ones((1, 3), np.float32), 1)[0].proponents[0] == 11


def test_one_long_row_does_not_hide_that_the_others_are_all_found(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((6000, 16), dtype=np.float32)
    rows[5] *= 1e8
    query = rng.standard_normal((1, 16))
    [found] = FlatSearch(plain(rows)).search(query, 10)
    scores = rows.astype(np.float64) @ query[0]
    assert found.exhaustive and len(found.proponents) < 100
    assert brute_force(scores, 10) <= set(found.proponents) and brute_force(-scores, 10) <= set(found.opponents)


@pytest.mark.parametrize("length", [1e-300, 1e-44, 1e-30, 1e30, 1e300])
def test_the_length_of_a_query_makes_no_difference(rng: np.random.Generator, length: float) -> None:
    rows, query = rng.standard_normal((300, 16), dtype=np.float32), rng.standard_normal((1, 16))
    search = FlatSearch(plain(rows))
    [found], [true] = search.search(query * length, 10), search.search(query, 10)
    assert found == true


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_query_that_is_no_number_has_no_candidates_and_that_is_said(number: float) -> None:
    first, second = FlatSearch(plain(np.eye(3, dtype=np.float32))).search(np.array([[number, 1, 1], [3, 2, 1]]), 1)
    assert (first.proponents, first.opponents, first.exhaustive) == ([], [], False)
    assert second.proponents[0] == 0 and second.exhaustive


def test_rows_whose_scores_overflow_are_not_lost() -> None:
    rows = np.ones((40, 4), np.float32)
    rows[3] = 3e38, 3e38, -3e38, -3e38  # inf - inf in float32, 0 in truth
    rows[4] = 3e38
    [found] = FlatSearch(plain(rows)).search(np.ones((1, 4)), 2)
    assert {3, 4} <= set(found.proponents) and 3 in found.opponents
