"""Every kind of search is a `Search`."""

from pathlib import Path

import numpy as np

from indexer.index.search.candidates import Search
from indexer.index.search.flat import FlatSearch
from tests.heavy import heavy_vectors, prefix_search, sharded


def test_every_search_is_one(tmp_path: Path, rng: np.random.Generator) -> None:
    store = sharded(heavy_vectors(rng, 30, 5), 30)
    searches: tuple[Search, ...] = (FlatSearch(store), prefix_search(store, tmp_path, 2))
    assert all(isinstance(search, Search) for search in searches)
    assert searches[0].search(np.ones((2, 5)), 3) == searches[1].search(np.ones((2, 5)), 3)
