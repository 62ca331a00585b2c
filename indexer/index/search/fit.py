"""Choosing and fitting the search of an index, and measuring it on held-out queries.

A prefix answers exactly while its bounds leave few rows; on directions that hold less of the gradients they leave more,
and then candidates are cut off. So the narrowest prefix is taken that finds as much as was asked for on one half of the
queries, in both directions, and what it finds on the other half is kept beside it.
"""

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, Float32

from indexer.errors import CorruptIndexError
from indexer.index.manifest import SearchEntry, SearchRecallEntry
from indexer.index.objects import Objects
from indexer.index.search.candidates import Search
from indexer.index.search.cascade import PrefixSearch
from indexer.index.search.fit_prefix import fit_prefix
from indexer.index.search.flat import FlatSearch
from indexer.index.search.prefix import open_prefix
from indexer.index.search.scan import longest_row
from indexer.index.store import VectorStore

FLAT_UP_TO = 20_000  # rows; a scan of so few takes 10 ms, and a filter that leaves no more is one anyway
WIDEST = 8192  # numbers of a vector: the directions of wider ones take minutes to find, and gigabytes
WIDTHS = (128, 256, 512)  # of a prefix
TARGET = 0.99  # recall of the first K in each direction
K = 10
OWN = 100  # rows that are queries where no other are
LONGEST = 1e15  # norm; products of longer rows come near the end of float32, where no bound is good
BATCH = 64  # queries that are compared with all rows together


def fit_search(
    store: VectorStore, queries: Float[np.ndarray, "q m"] | None, objects: Objects, *, target: float = TARGET
) -> SearchEntry:
    """Write what the search of these rows needs, and the queries; queries: held-out ones, None if there are none.

    Queries that are zero or not finite say nothing of a search and are left out. Without any, rows of the store itself,
    evenly spaced, are the queries, and the recall says that it is of these. A single query tunes and reports.

    Where no prefix reaches the target all rows are scanned, however many they are, and so where a row is too
    long for bounds in float32.
    """
    kept = None
    asked = np.empty((0, store.width), np.float32) if queries is None else _usable(queries)
    if len(asked):
        kept = objects.add(safetensors.numpy.save({"queries": np.ascontiguousarray(asked)}))
    scanned = is_scanned(store) or longest_row(store) > LONGEST
    if not len(asked) and not scanned:
        positions = np.linspace(0, len(store) - 1, OWN).astype(np.int64)
        asked = _usable(store.rows(positions))
    tune, report = (asked, asked) if len(asked) == 1 else (asked[::2], asked[1::2])
    flat = FlatSearch(store)
    for width in () if scanned or not len(asked) else sorted({min(width, store.width) for width in WIDTHS}):
        entry = fit_prefix(store, objects, width)
        search = PrefixSearch(store, open_prefix(objects, entry, store))
        tuned = measure_recall(search, flat, tune)
        if tuned is not None and min(tuned.proponents, tuned.opponents) >= target:
            recall = measure_recall(search, flat, report)
            if recall is not None and kept is None:
                recall = recall.model_copy(update={"source": "rows"})
            return SearchEntry(kind="prefix", prefix=entry, queries=kept, target=target, recall=recall)
    return SearchEntry(kind="flat", queries=kept, target=target)


def is_scanned(store: VectorStore) -> bool:
    """Say whether all rows are scanned in any case: there are few, or they are too wide to find directions of."""
    return len(store) <= FLAT_UP_TO or store.width > WIDEST


def measure_recall(search: Search, flat: FlatSearch, queries: Float[np.ndarray, "q m"]) -> SearchRecallEntry | None:
    """Return how much of the true first K a search proposes; None where there is no query to tell."""
    if not len(queries):
        return None
    found = search.search(queries, K)
    true = [one for first in range(0, len(queries), BATCH) for one in flat.search(queries[first : first + BATCH], K)]
    pairs = list(zip(found, true, strict=True))
    return SearchRecallEntry(
        k=K,
        queries=len(queries),
        proponents=float(np.mean([_share(one.proponents, other.proponents) for one, other in pairs])),
        opponents=float(np.mean([_share(one.opponents, other.opponents) for one, other in pairs])),
        exhaustive=float(np.mean([one.exhaustive for one in found])),
    )


def read_queries(objects: Objects, entry: SearchEntry, width: int) -> Float[np.ndarray, "q m"] | None:
    """Return the queries that a search was measured on; None if there were none.

    Raises:
        CorruptIndexError: they are not queries of vectors of this width.
    """
    if entry.queries is None:
        return None
    try:
        tensors = safetensors.numpy.load(objects.read(entry.queries, "queries of the search"))
    except (safetensors.SafetensorError, KeyError) as exc:  # KeyError: a dtype that NumPy lacks
        raise CorruptIndexError("the queries of the search are not safetensors; restore them from a copy") from exc
    queries = tensors.get("queries", np.empty(0))
    if len(tensors) != 1 or queries.ndim != 2 or queries.shape[1] != width or queries.dtype != np.float32:
        raise CorruptIndexError(f"the queries of the search: expected float32 of {width:,} columns; restore them")
    if not np.isfinite(queries).all():
        raise CorruptIndexError("the queries of the search hold NaN or infinity; restore them from a copy")
    return queries


def _usable(queries: Float[np.ndarray, "q m"]) -> Float32[np.ndarray, "u m"]:
    with np.errstate(over="ignore"):
        found = queries.astype(np.float32)
    return found[np.isfinite(found).all(axis=1) & found.any(axis=1)]


def _share(found: list[int], true: list[int]) -> float:
    return len(set(true[:K]) & set(found)) / len(true[:K])
