"""The cascade against brute force over the stored vectors: filters, deleted and appended rows, shards, ties."""

from pathlib import Path

import numpy as np
import pytest

from indexer.errors import QuestionError
from indexer.index.code import Code
from indexer.index.search import cascade
from indexer.index.search import prefix as prefix_module
from indexer.index.search.candidates import Candidates
from indexer.index.search.cascade import PrefixSearch
from indexer.index.search.flat import MARGIN, FlatSearch
from indexer.index.search.prefix import Prefix
from indexer.index.store import VectorStore
from tests.heavy import brute_force, fitted_prefix, heavy_vectors, prefix_search, sharded

ROWS, WIDTH = 3000, 24


@pytest.fixture(autouse=True)
def no_scan_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even few rows go through the prefix, unless a test says otherwise, and in many chunks: reading may stop early."""
    monkeypatch.setattr(cascade, "EXACT_BELOW", 0)
    monkeypatch.setattr(cascade, "SCARCE", 1)
    monkeypatch.setattr(prefix_module, "CHUNK_NUMBERS", 8 * 100)


def check(search: PrefixSearch, rows: np.ndarray, query: np.ndarray, k: int, mask: np.ndarray | None = None) -> None:
    """What is found holds the first k of brute force in both directions, and only rows that may be answered."""
    allowed = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    scores = rows.astype(np.float64)[allowed] @ query
    [found] = search.search(query[None], k, rows=mask)
    assert found.exhaustive
    for positions, direction in ((found.proponents, scores), (found.opponents, -scores)):
        best = brute_force(direction, k) if len(allowed) else set()
        assert set(allowed[list(best)].tolist()) <= set(positions) <= set(allowed.tolist())
        assert len(set(positions)) == len(positions) <= k + MARGIN
        assert positions[:k] == allowed[np.argsort(-direction, kind="stable")][:k].tolist()


def first_ten(found: list[Candidates]) -> list[tuple[list[int], list[int]]]:
    """What comes behind is only there in case float32 misplaced one of these."""
    return [(one.proponents[:10], one.opponents[:10]) for one in found]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 1.0])
def test_filtered_rows_are_those_of_brute_force(tmp_path: Path, rng: np.random.Generator, share: float) -> None:
    rows = heavy_vectors(rng, ROWS, WIDTH)
    search = prefix_search(sharded(rows, 512), tmp_path, 8)
    mask = rng.random(ROWS) < share
    for query in rng.standard_normal((10, WIDTH)):
        check(search, rows, query, 10, mask)


def test_all_rows_are_searched_without_a_mask(tmp_path: Path, rng: np.random.Generator) -> None:
    rows = heavy_vectors(rng, ROWS, WIDTH)
    search = prefix_search(sharded(rows, ROWS), tmp_path, 8)
    for k in (1, 10, 500):
        for query in rng.standard_normal((5, WIDTH)):
            check(search, rows, query, k)


def test_shards_make_no_difference(tmp_path: Path, rng: np.random.Generator) -> None:
    rows, queries = heavy_vectors(rng, ROWS, WIDTH), rng.standard_normal((5, WIDTH))
    one, many = (prefix_search(sharded(rows, size), tmp_path, 8).search(queries, 10) for size in (ROWS, 77))
    assert one == many
    assert first_ten(one) == first_ten(FlatSearch(sharded(rows, 500)).search(queries, 10))


def test_coded_rows_are_found_as_a_flat_search_finds_them(tmp_path: Path, rng: np.random.Generator) -> None:
    code = Code(np.array([8] * 9 + [4] * 15, np.uint8), rng.uniform(0.1, 1, WIDTH).astype(np.float32))
    vectors = heavy_vectors(rng, ROWS, WIDTH)
    store = VectorStore((code.encode(vectors, np.linalg.norm(vectors, axis=1)),), WIDTH, code)
    queries = rng.standard_normal((5, WIDTH))
    found = prefix_search(store, tmp_path, 8).search(queries, 10)
    assert first_ten(found) == first_ten(FlatSearch(store).search(queries, 10))


@pytest.mark.parametrize("share", [None, 0.5, 0.002])
def test_appended_rows_are_found_beside_those_of_the_prefix(
    tmp_path: Path, rng: np.random.Generator, share: float | None
) -> None:
    rows = heavy_vectors(rng, ROWS, WIDTH)
    prefix = fitted_prefix(sharded(rows[:2800], 512), tmp_path, 8)
    store = sharded(rows, 512)
    search = PrefixSearch(store, prefix)
    for query in rng.standard_normal((10, WIDTH)):
        check(search, rows, query, 10, None if share is None else rng.random(ROWS) < share)
        check(search, rows, query, 10, np.arange(ROWS) >= 2795)


def test_opponents_are_the_proponents_of_the_negated_query(tmp_path: Path, rng: np.random.Generator) -> None:
    search = prefix_search(sharded(heavy_vectors(rng, ROWS, WIDTH), 512), tmp_path, 8)
    queries = rng.standard_normal((5, WIDTH))
    for one, other in zip(search.search(queries, 10), search.search(-queries, 10), strict=True):
        assert (one.opponents, one.proponents) == (other.proponents, other.opponents)


def test_few_rows_are_scanned(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cascade, "EXACT_BELOW", 30)
    monkeypatch.setattr(cascade, "MOST", 5)
    monkeypatch.setattr(cascade, "SCANNED", 0)
    search = prefix_search(sharded(np.ones((100, 3), np.float32), 100), tmp_path, 2)
    for count, exhaustive in ((30, True), (31, False)):
        [found] = search.search(np.ones((1, 3)), 2, rows=np.arange(100) < count)
        assert found.exhaustive == exhaustive


@pytest.mark.parametrize("query", [np.zeros(3), np.ones(3)])
def test_more_ties_than_are_compared_are_cut_and_said(
    tmp_path: Path, query: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "MOST", 20)
    monkeypatch.setattr(cascade, "SCANNED", 0)
    search = prefix_search(sharded(np.ones((100, 3), np.float32), 100), tmp_path, 2)
    [found] = search.search(query[None], 5)
    assert len(found.proponents) == len(set(found.proponents)) >= 5
    assert not found.exhaustive


@pytest.mark.parametrize(("name", "value"), [("MOST", 20), ("SCARCE", 5)])
def test_more_hits_than_a_prefix_is_good_for_are_found_by_a_scan(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(cascade, name, value)
    monkeypatch.setattr(Prefix, "bounded", lambda *_: pytest.fail("the prefix was read"))
    rows = heavy_vectors(rng, 200, 6)
    check(prefix_search(sharded(rows, 200), tmp_path, 3), rows, np.ones(6), 50)


def test_the_normalised_view_is_a_scan(tmp_path: Path, rng: np.random.Generator) -> None:
    rows, norms = heavy_vectors(rng, 300, 6), rng.uniform(1, 9, 300)
    store = sharded(rows, 100)
    flat, mask, queries = FlatSearch(store, norms), rng.random(300) < 0.5, rng.standard_normal((3, 6))
    search = PrefixSearch(store, fitted_prefix(store, tmp_path, 3), norms)
    assert search.search(queries, 5, "normalised", mask) == flat.search(queries, 5, "normalised", mask)


def test_without_norms_there_is_no_normalised_view(tmp_path: Path, rng: np.random.Generator) -> None:
    search = prefix_search(sharded(heavy_vectors(rng, 30, 6), 30), tmp_path, 3)
    with pytest.raises(QuestionError, match="this index has no norms of gradients"):
        search.search(np.ones((1, 6)), 1, "normalised")


def test_where_bounds_leave_too_many_of_few_rows_these_are_scanned(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "MOST", 20)
    rows = rng.standard_normal((500, 16)).astype(np.float32)
    check(prefix_search(sharded(rows, 200), tmp_path, 1), rows, rng.standard_normal(16), 10)


@pytest.mark.parametrize("length", [1e-300, 1e-44, 1e30])
def test_the_length_of_a_query_makes_no_difference(tmp_path: Path, rng: np.random.Generator, length: float) -> None:
    search = prefix_search(sharded(heavy_vectors(rng, ROWS, WIDTH), 512), tmp_path, 8)
    query = rng.standard_normal((1, WIDTH))
    assert search.search(query * length, 10) == search.search(query, 10)


def test_a_query_that_is_no_number_has_no_candidates_and_that_is_said(tmp_path: Path, rng: np.random.Generator) -> None:
    search = prefix_search(sharded(heavy_vectors(rng, 300, 6), 300), tmp_path, 3)
    assert search.search(np.full((1, 6), np.nan), 3) == [Candidates([], [], exhaustive=False)]


def test_a_direction_that_is_done_does_not_end_the_other(tmp_path: Path, rng: np.random.Generator) -> None:
    """Every product is positive: proponents are the longest rows, read first, and opponents the shortest, read last."""
    rows = np.abs(heavy_vectors(rng, ROWS, WIDTH))
    search = prefix_search(sharded(rows, 512), tmp_path, WIDTH)
    for query in np.abs(rng.standard_normal((3, WIDTH))):
        check(search, rows, query, 10)
