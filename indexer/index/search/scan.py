"""Scores of rows, a chunk after the other: what every search of an index multiplies with.

Rows stay where the store maps them, and a chunk that fits the cache is read at a time; rows that may not be answered
are not read at all. Of coded rows only the levels are unpacked: steps go to the query, and scales to the products
(`indexer.index.code`). So products are made here and FAISS's heaps keep the best of them; ``faiss.knn`` would want rows
that are scaled already, which costs as much as to unpack them, and multiplies once for each sign.
"""

from collections.abc import Iterator

import faiss
import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from indexer.index.search.candidates import View
from indexer.index.store import VectorStore

CHUNK_NUMBERS = (
    2**19
)  # 2 MiB of float32: fewer calls than smaller chunks, and still in the cache; twice as much is not faster

FEW = 4  # queries that are multiplied without BLAS

Some = Int64[np.ndarray, " r"] | None  # ascending positions of the rows that may be answered; None for all


class Scan:
    """The rows of a store and their factors by view; norms [n] are those of the gradients, for the normalised view.

    longest: a norm that no row exceeds, where that is known; else all rows are read for it when it is asked for.
    """

    def __init__(
        self, store: VectorStore, norms: Float[np.ndarray, " n"] | None = None, longest: float | None = None
    ) -> None:
        assert norms is None or len(norms) == len(store), "a norm for every row"
        self._store = store
        self._norms = norms
        scales = None if store.code is None else store.scales()
        self._factors: dict[View, np.ndarray | None] = {"dot": scales}
        if norms is not None:
            self._factors["normalised"] = _over(norms, scales)
        self._longest: dict[View, float] = {} if longest is None else {"dot": longest}

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self._store.width

    @property
    def has_norms(self) -> bool:
        """Whether there is a normalised view."""
        return self._norms is not None

    def count(self, positions: Some) -> int:
        """Return how many rows are at these positions."""
        return len(self._store) if positions is None else len(positions)

    def scores(
        self, queries: np.ndarray, view: View, positions: Some
    ) -> Iterator[tuple[Int64[np.ndarray, " c"], np.ndarray, Float32[np.ndarray, "q c"]]]:
        """Yield positions, the rows there as they are stored, and their scores; what overflows is not finite."""
        factors = self._factors[view]
        with np.errstate(over="ignore", invalid="ignore"):
            for places, rows, scores in self._products(queries, positions):
                if factors is not None:
                    scores *= factors[places]
                yield places, rows, scores

    def _products(
        self, queries: np.ndarray, positions: Some
    ) -> Iterator[tuple[Int64[np.ndarray, " c"], np.ndarray, Float32[np.ndarray, "q c"]]]:
        """Yield rows and products of queries with rows, a chunk at a time; with coded rows before they are scaled."""
        code = self._store.code
        if code is None:
            queries = np.ascontiguousarray(queries, dtype=np.float32)
            for places, rows in self._chunks(positions, max(1, CHUNK_NUMBERS // self._store.width)):
                yield places, rows, products(queries, rows)
            return
        weights, offsets = code.fold(queries)
        stored = weights.shape[1]
        levels = np.empty((min(self.count(positions), CHUNK_NUMBERS // max(1, stored) + 1), stored), np.float32)
        for places, records in self._chunks(positions, len(levels)):
            yield places, records, products(weights, code.levels(records, levels)) + offsets

    def _chunks(self, positions: Some, count: int) -> Iterator[tuple[Int64[np.ndarray, " c"], np.ndarray]]:
        """Yield positions and the rows there, at most so many at a time, as they are stored."""
        last = 0 if positions is None else _last_run(positions, len(self._store))
        apart = np.empty(0, np.int64) if positions is None else positions[:last]
        for first in range(0, len(apart), count):
            places = apart[first : first + count]
            yield places, self._store.stored(places)
        if positions is None or last < len(positions):
            for start, rows in self._store.pieces(count, 0 if positions is None else int(positions[last])):
                yield np.arange(start, start + len(rows)), rows

    def lengths(self, places: np.ndarray, rows: np.ndarray, view: View) -> Float64[np.ndarray, " c"]:
        """Return norms, in a view, of rows as they are stored."""
        code = self._store.code
        values = (rows if code is None else code.values(rows)).astype(np.float64)
        lengths: np.ndarray = np.sqrt(np.einsum("cm,cm->c", values, values))
        return lengths if view == "dot" or self._norms is None else lengths * _over(self._norms[places], None)

    def lengths_at(self, places: Int64[np.ndarray, "e f"], view: View) -> Float64[np.ndarray, "e f"]:
        """Return norms, in a view, of the rows at some positions."""
        flat = places.reshape(-1)
        found: np.ndarray = self.lengths(flat, self._store.stored(flat), view).reshape(places.shape)
        return found

    def longest_row(self, view: View) -> float:
        """Return the norm of the longest row in a view, found once."""
        if view not in self._longest:
            over = None if view == "dot" or self._norms is None else _over(self._norms, None)
            self._longest[view] = longest_row(self._store, over)
        return self._longest[view]


def longest_row(store: VectorStore, factors: Float32[np.ndarray, " n"] | None = None, first: int = 0) -> float:
    """Return the norm of the longest row from a position on, each times its factor; 0 where there is none."""
    longest = 0.0
    for start, rows in store.pieces(max(1, CHUNK_NUMBERS // store.width), first):
        values = rows if store.code is None else store.code.values(rows)
        lengths = np.sqrt(np.einsum("cm,cm->c", values, values))
        lengths *= 1 if factors is None else factors[start : start + len(rows)]
        longest = max(longest, float(lengths.max()))
    return longest


def products(queries: Float32[np.ndarray, "q s"], rows: Float32[np.ndarray, "c s"]) -> Float32[np.ndarray, "q c"]:
    """Return all products; of few queries by FAISS's kernel, as BLAS's threads would wait for those of the gradients.

    One question of the demo on two cores: 16 ms with both pools of threads, 5 ms with one. The kernel takes a third of
    the time of ``np.einsum`` (measured at 808 numbers a row).
    """
    if len(queries) > FEW:
        product: np.ndarray = queries @ rows.T
        return product
    count, width = rows.shape
    queries, rows = np.ascontiguousarray(queries), np.ascontiguousarray(rows)
    found = np.empty((len(queries), count), np.float32)
    for query, out in zip(queries, found, strict=True):
        pointers = (faiss.swig_ptr(array) for array in (out, query, rows))
        faiss.fvec_inner_products_ny(*pointers, width, count)  # type: ignore[attr-defined]  # FAISS's stubs forget it
    return found


def scaled(queries: Float[np.ndarray, "q m"]) -> Float64[np.ndarray, "q m"]:
    """Return queries times powers of two, their largest numbers between 1/2 and 1: the order of scores stays the same.

    So no query is too short or too long for float32, and none that is not has other digits.
    """
    double = queries.astype(np.float64)
    _, exponents = np.frexp(np.abs(double).max(axis=1, initial=0))
    found: np.ndarray = np.ldexp(double, -exponents[:, None])
    return found


def _last_run(positions: Int64[np.ndarray, " r"], end: int) -> int:
    """Return how many ascending positions stand before those that follow each other up to the end.

    >>> _last_run(np.array([1, 4, 6, 7]), 8)
    2
    """
    before = np.flatnonzero(positions != np.arange(end - len(positions), end))
    return int(before[-1]) + 1 if len(before) else 0


def _over(norms: np.ndarray, scales: np.ndarray | None) -> Float32[np.ndarray, " n"]:
    """Return scales, or 1, over norms; 0 where a norm is 0 or too small for float32 to divide by."""
    numerator = 1.0 if scales is None else scales.astype(np.float64)
    usable = norms >= np.finfo(np.float32).tiny
    quotients: np.ndarray = np.divide(numerator, norms, out=np.zeros(len(norms)), where=usable, dtype=np.float64)
    return quotients.astype(np.float32)
