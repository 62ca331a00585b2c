"""The first stage of the search, fitted again where rows have come or have other positions; without a model.

The queries that it was measured on are vectors, and kept in the index: they serve once more.
"""

from indexer.index import manifest as m
from indexer.index.search.fit import TARGET, fit_search, read_queries
from indexer.index.store import VectorStore
from indexer.index.versions import IndexVersion


def fitted_again(before: IndexVersion, store: VectorStore) -> m.SearchEntry:
    """Return the search that fits the rows of a store, with the queries and to the recall of the one before.

    Raises:
        CorruptIndexError: the queries have changed.
    """
    search, objects = before.manifest.search, before.objects
    if search.queries is not None:
        objects.check_hash(search.queries, "queries of the search")
    queries = read_queries(objects, search, store.width)
    return fit_search(store, queries, objects, target=search.target or TARGET)
