"""The search that a manifest names is the one that is opened, and answers as brute force does."""

from pathlib import Path

import numpy as np
import pytest

from indexer.errors import CorruptIndexError
from indexer.index.manifest import SearchEntry
from indexer.index.objects import Objects
from indexer.index.search.cascade import PrefixSearch
from indexer.index.search.fit import FLAT_UP_TO, fit_search
from indexer.index.search.flat import FlatSearch
from indexer.index.search.opening import open_search
from tests.heavy import brute_force, heavy_vectors, sharded

ROWS = FLAT_UP_TO + 5000


def test_an_index_of_many_rows_is_searched_by_a_prefix(tmp_path: Path, rng: np.random.Generator) -> None:
    rows, objects = heavy_vectors(rng, ROWS, 16), Objects(tmp_path)
    store = sharded(rows, 8192)
    search = open_search(objects, fit_search(store, None, objects), store, None)
    assert isinstance(search, PrefixSearch)
    queries = rng.standard_normal((5, 16))
    for mask in (None, rng.random(ROWS) < 0.9, rng.random(ROWS) < 0.001, np.arange(ROWS) < 4):
        allowed = np.arange(ROWS) if mask is None else np.flatnonzero(mask)
        for query, found in zip(queries, search.search(queries, 10, rows=mask), strict=True):
            scores = rows.astype(np.float64)[allowed] @ query
            assert found.exhaustive
            assert set(allowed[list(brute_force(scores, 10))].tolist()) <= set(found.proponents)
            assert set(allowed[list(brute_force(-scores, 10))].tolist()) <= set(found.opponents)


def test_an_index_without_a_prefix_is_scanned(tmp_path: Path, rng: np.random.Generator) -> None:
    store = sharded(heavy_vectors(rng, 50, 4), 50)
    search = open_search(Objects(tmp_path), SearchEntry(kind="flat"), store, np.ones(50))
    assert isinstance(search, FlatSearch)
    assert search.search(np.ones((1, 4)), 3, "normalised")[0].exhaustive


def test_a_missing_file_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    store, objects = sharded(heavy_vectors(rng, ROWS, 3), ROWS), Objects(tmp_path)
    entry = fit_search(store, None, objects)
    assert entry.prefix is not None
    objects.path(entry.prefix.sides).unlink()
    with pytest.raises(CorruptIndexError, match=r"sides of the search: .* is missing; restore it from a copy"):
        open_search(objects, entry, store, None)
