"""Opening the search that a manifest names."""

import numpy as np
from jaxtyping import Float

from indexer.index.manifest import SearchEntry
from indexer.index.objects import Objects
from indexer.index.search.candidates import Search
from indexer.index.search.cascade import PrefixSearch
from indexer.index.search.flat import FlatSearch
from indexer.index.search.prefix import open_prefix
from indexer.index.store import VectorStore


def open_search(
    objects: Objects, entry: SearchEntry, store: VectorStore, norms: Float[np.ndarray, " n"] | None
) -> Search:
    """Open the search over a store; norms: of the rows' gradients, for the normalised view, None where unknown.

    Raises:
        CorruptIndexError: its files are not what the manifest says, or not of this store.
    """
    if entry.prefix is None:
        return FlatSearch(store, norms)
    return PrefixSearch(store, open_prefix(objects, entry.prefix, store), norms)
