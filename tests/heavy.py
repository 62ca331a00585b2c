"""Vectors like those of gradients: a heavy tail of norms, and few directions that hold most of them."""

from pathlib import Path

import numpy as np

from indexer.index.objects import Objects
from indexer.index.search.cascade import PrefixSearch
from indexer.index.search.fit_prefix import fit_prefix
from indexer.index.search.prefix import Prefix, open_prefix
from indexer.index.store import VectorStore


def heavy_vectors(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Return float32 vectors [n, m] of norms over some orders of magnitude, coordinate j of 1 / j of the spread."""
    lengths = np.exp(2 * rng.standard_normal((count, 1)))
    found: np.ndarray = lengths / np.arange(1, width + 1) * rng.standard_normal((count, width))
    return found.astype(np.float32)


def sharded(rows: np.ndarray, size: int) -> VectorStore:
    """Return rows as a store of shards of so many."""
    return VectorStore(tuple(rows[first : first + size] for first in range(0, len(rows), size)), rows.shape[1])


def fitted_prefix(store: VectorStore, folder: Path, width: int) -> Prefix:
    """Fit a prefix in a folder, and open it."""
    objects = Objects(folder)
    return open_prefix(objects, fit_prefix(store, objects, width), store)


def prefix_search(store: VectorStore, folder: Path, width: int) -> PrefixSearch:
    """Fit a prefix in a folder, and search with it."""
    return PrefixSearch(store, fitted_prefix(store, folder, width))


def brute_force(scores: np.ndarray, k: int) -> set[int]:
    """Return every row whose score is among the k best, ties at the k-th place included."""
    return set(np.flatnonzero(scores >= np.sort(scores)[::-1][min(k, len(scores)) - 1]).tolist())
