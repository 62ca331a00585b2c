"""Exact search by inner product over all vectors or some of them, proponents and opponents in one pass.

opponents(q) are the proponents of -q: both signs go into FAISS's heaps as one batch, so that nothing is ever sorted out
of the far end of a result. FAISS pads what it does not find with id -1; padding never leaves this file.

Rows stay where the store maps them, and a chunk that fits the cache is read at a time; rows that may not be answered
are not read at all. Of coded rows only the levels are unpacked: steps go to the query, and scales to the products
(`indexer.index.code`). So products come from NumPy and FAISS keeps the best of them; ``faiss.knn`` would want rows that
are scaled already, which costs as much as to unpack them, and multiplies once for each sign.
"""

from collections.abc import Iterator

import faiss
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from indexer.errors import QuestionError
from indexer.index.search.candidates import Candidates, View
from indexer.index.store import VectorStore

MOST_TIES = 4096  # a query whose gradient is zero ties with every row: beyond so many, ties are cut by position
MARGIN = 8  # candidates beyond k, so that float32 rounding in the search cannot push a row out of the top k
CHUNK_NUMBERS = (
    2**19
)  # 2 MiB of float32: fewer calls than smaller chunks, and still in the cache; twice as much is not faster

FEW = 4  # queries that are multiplied without BLAS

Some = Int64[np.ndarray, " r"] | None  # ascending positions of the rows that may be answered; None for all


class FlatSearch:
    """Search over the rows of a store; norms [n] are those of the gradients, for the normalised view.

    longest: a norm that no row exceeds, where that is known; else all rows are read for it at the first search.
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

    def search(
        self,
        queries: Float[np.ndarray, "q m"],
        k: int,
        view: View = "dot",
        rows: Bool[np.ndarray, " n"] | None = None,
    ) -> list[Candidates]:
        """Return candidates, as every `indexer.index.search.candidates.Search` does; raises what `among` does."""
        return self.among(queries, k, view, None if rows is None or rows.all() else np.flatnonzero(rows))

    def among(
        self, queries: Float[np.ndarray, "q m"], k: int, view: View = "dot", positions: Some = None
    ) -> list[Candidates]:
        """Return candidates among the rows at some positions.

        Raises:
            QuestionError: the view is normalised, and there are no norms.
        """
        if view not in self._factors:
            raise QuestionError(
                "this index has no norms of gradients, which the normalised view divides by; ask for the view 'dot'"
            )
        k = min(k, self._count(positions))
        if k == 0:
            return [Candidates([], [], exhaustive=True) for _ in queries]
        found = self._fetch(queries, k, MARGIN, view, positions)
        narrow = [i for i, candidates in enumerate(found) if not candidates.exhaustive]
        if narrow:
            wider = self._fetch(queries[narrow], k, MOST_TIES, view, positions)
            for i, candidates in zip(narrow, wider, strict=True):
                found[i] = candidates
        return found

    def _count(self, positions: Some) -> int:
        return len(self._store) if positions is None else len(positions)

    def _fetch(self, queries: np.ndarray, k: int, more: int, view: View, positions: Some) -> list[Candidates]:
        """Fetch so many more than k of each direction, and keep those that float32 can have pushed out of the top k.

        The error of an inner product of m terms is about sqrt(m) roundings of |q| |x|. A query has all its candidates
        if its last score is below its k-th by more than that.
        """
        count = self._count(positions)
        fetch = min(k + more, count)
        heap = faiss.ResultHeap(2 * len(queries), fetch, keep_max=True)
        for places, scores in self._scores(queries, view, positions):
            both = np.concatenate([scores, -scores])
            heap.add_result(both, np.broadcast_to(places, both.shape))
        heap.finalize()
        lengths = np.linalg.norm(queries, axis=1)
        error = np.tile(4 * self._store.width**0.5 * 2.0**-24 * lengths * self._longest_row(view), 2)
        threshold = heap.D[:, k - 1] - error
        whole = (heap.D[:, -1] < threshold) | (fetch == count)
        keep = np.maximum(k + MARGIN, (heap.D >= threshold[:, None]).sum(axis=1))
        found = [[p for p in row[:last].tolist() if p >= 0] for row, last in zip(heap.I, keep, strict=True)]
        half = len(queries)
        both_whole = whole[:half] & whole[half:]
        ends = zip(found[:half], found[half:], both_whole.tolist(), strict=True)
        return [Candidates(proponents, opponents, exhaustive) for proponents, opponents, exhaustive in ends]

    def _scores(
        self, queries: np.ndarray, view: View, positions: Some
    ) -> Iterator[tuple[Int64[np.ndarray, " c"], Float32[np.ndarray, "q c"]]]:
        factors = self._factors[view]
        for places, scores in self._products(queries, positions):
            if factors is not None:
                scores *= factors[places]
            yield places, scores

    def _products(
        self, queries: np.ndarray, positions: Some
    ) -> Iterator[tuple[Int64[np.ndarray, " c"], Float32[np.ndarray, "q c"]]]:
        """Yield products of queries with rows, a chunk at a time; with coded rows before they are scaled."""
        code = self._store.code
        if code is None:
            queries = np.ascontiguousarray(queries, dtype=np.float32)
            for places, rows in self._chunks(positions, max(1, CHUNK_NUMBERS // self._store.width)):
                yield places, products(queries, rows)
            return
        weights, offsets = code.fold(queries)
        stored = weights.shape[1]
        levels = np.empty((min(self._count(positions), CHUNK_NUMBERS // max(1, stored) + 1), stored), np.float32)
        for places, records in self._chunks(positions, len(levels)):
            yield places, products(weights, code.levels(records, levels)) + offsets

    def _chunks(self, positions: Some, count: int) -> Iterator[tuple[Int64[np.ndarray, " c"], np.ndarray]]:
        """Yield positions and the rows there, at most so many at a time, as they are stored."""
        if positions is None:
            for start, rows in self._store.pieces(count):
                yield np.arange(start, start + len(rows)), rows
            return
        for first in range(0, len(positions), count):
            places = positions[first : first + count]
            yield places, self._store.stored(places)

    def _longest_row(self, view: View) -> float:
        """Return the norm of the longest row in a view, found once."""
        if view not in self._longest:
            over = None if view == "dot" or self._norms is None else _over(self._norms, None)
            self._longest[view] = longest_row(self._store, over)
        return self._longest[view]


def longest_row(store: VectorStore, factors: Float32[np.ndarray, " n"] | None = None, first: int = 0) -> float:
    """Return the norm of the longest row from a position on, each times its factor; 0 where there is none."""
    longest = 0.0
    for start, rows in store.pieces(max(1, CHUNK_NUMBERS // store.width)):
        if start + len(rows) > first:
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


def _over(norms: np.ndarray, scales: np.ndarray | None) -> Float32[np.ndarray, " n"]:
    """Return scales, or 1, over norms; 0 where a norm is 0 or too small for float32 to divide by."""
    numerator = 1.0 if scales is None else scales.astype(np.float64)
    usable = norms >= np.finfo(np.float32).tiny
    quotients: np.ndarray = np.divide(numerator, norms, out=np.zeros(len(norms)), where=usable, dtype=np.float64)
    return quotients.astype(np.float32)
