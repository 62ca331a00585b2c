"""Exact search over all vectors by inner product, proponents and opponents in one pass.

opponents(q) are the proponents of -q: both signs go into FAISS's heaps as one batch, so that nothing is ever sorted out
of the far end of a result. FAISS pads what it does not find with id -1; padding never leaves this file.

Rows stay where the store maps them, and a chunk that fits the cache is read at a time. Of coded rows only the levels
are unpacked: steps go to the query, and scales to the products (`indexer.index.code`). So products come from NumPy and
FAISS keeps the best of them; ``faiss.knn`` would want rows that are scaled already, which costs as much as to unpack
them, and multiplies once for each sign.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import faiss
import numpy as np
from jaxtyping import Float, Float32

from indexer.errors import QuestionError
from indexer.index.store import VectorStore

MOST_TIES = 4096  # a query whose gradient is zero ties with every row: beyond so many, ties are cut by position
MARGIN = 8  # candidates beyond k, so that float32 rounding in the search cannot push a row out of the top k
CHUNK_NUMBERS = (
    2**19
)  # 2 MiB of float32: fewer calls than smaller chunks, and still in the cache; twice as much is not faster

FEW = 4  # queries that are multiplied without BLAS

View = Literal["dot", "normalised"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions of one query's candidates, likely best first: the top k of each direction are among them.

    complete: false where more rows tie with the k-th than are ever fetched, so that some of them are left out.
    """

    proponents: list[int]
    opponents: list[int]
    complete: bool


class FlatSearch:
    """Search over the rows of a store; norms [n] are those of the gradients, for the normalised view."""

    def __init__(self, store: VectorStore, norms: Float[np.ndarray, " n"] | None = None) -> None:
        assert norms is None or len(norms) == len(store), "a norm for every row"
        self._store = store
        scales = None if store.code is None else store.scales()
        self._factors: dict[View, np.ndarray | None] = {"dot": scales}
        if norms is not None:
            self._factors["normalised"] = _over(norms, scales)
        self._longest = self._longest_rows(norms)

    def search(self, queries: Float[np.ndarray, "q m"], k: int, view: View = "dot") -> list[Candidates]:
        """Return candidates for the k proponents and k opponents of every query, ties at the k-th place included.

        view: by the product, or by the product over the row's norm, where a row of norm 0 scores 0.

        Raises:
            QuestionError: the view is normalised, and there are no norms.
        """
        if view not in self._factors:
            raise QuestionError(
                "this index has no norms of gradients, which the normalised view divides by; ask for the view 'dot'"
            )
        k = min(k, len(self._store))
        found = self._fetch(queries, k, k + MARGIN, view)
        narrow = [i for i, candidates in enumerate(found) if not candidates.complete]
        if narrow:
            for i, candidates in zip(narrow, self._fetch(queries[narrow], k, k + MOST_TIES, view), strict=True):
                found[i] = candidates
        return found

    def _fetch(self, queries: np.ndarray, k: int, fetch: int, view: View) -> list[Candidates]:
        """Fetch so many of each direction, and keep those that float32 can have pushed out of the top k.

        The error of an inner product of m terms is about sqrt(m) roundings of |q| |x|. A query is complete if its last
        score is below its k-th by more than that.
        """
        fetch = min(fetch, len(self._store))
        heap = faiss.ResultHeap(2 * len(queries), fetch, keep_max=True)
        for start, scores in self._scores(queries, view):
            both = np.concatenate([scores, -scores])
            heap.add_result(both, np.broadcast_to(np.arange(start, start + both.shape[1]), both.shape))
        heap.finalize()
        lengths = np.linalg.norm(queries, axis=1)
        error = np.tile(4 * self._store.width**0.5 * 2.0**-24 * lengths * self._longest[view], 2)
        threshold = heap.D[:, k - 1] - error
        complete = (heap.D[:, -1] < threshold) | (fetch == len(self._store))
        keep = np.maximum(k + MARGIN, (heap.D >= threshold[:, None]).sum(axis=1))
        found = [[p for p in row[:last].tolist() if p >= 0] for row, last in zip(heap.I, keep, strict=True)]
        half = len(queries)
        whole = complete[:half] & complete[half:]
        return [Candidates(pro, con, bool(c)) for pro, con, c in zip(found[:half], found[half:], whole, strict=True)]

    def _scores(self, queries: np.ndarray, view: View) -> Iterator[tuple[int, Float32[np.ndarray, "q c"]]]:
        factors = self._factors[view]
        for start, scores in self._products(queries):
            if factors is not None:
                scores *= factors[start : start + scores.shape[1]]
            yield start, scores

    def _products(self, queries: np.ndarray) -> Iterator[tuple[int, Float32[np.ndarray, "q c"]]]:
        """Yield products of queries with rows, a chunk at a time; with coded rows before they are scaled."""
        code = self._store.code
        if code is None:
            queries = np.ascontiguousarray(queries, dtype=np.float32)
            for start, rows in self._store.chunks(CHUNK_NUMBERS):
                yield start, _products(queries, rows)
            return
        weights, offsets = code.fold(queries)
        stored = weights.shape[1]
        levels = np.empty((min(len(self._store), CHUNK_NUMBERS // max(1, stored) + 1), stored), np.float32)
        for start, records in self._store.pieces(len(levels)):
            yield start, _products(weights, code.levels(records, levels)) + offsets

    def _longest_rows(self, norms: np.ndarray | None) -> dict[View, float]:
        """Return the norm of the longest row in each view."""
        code, squares = self._store.code, []
        for _, rows in self._store.pieces(max(1, CHUNK_NUMBERS // self._store.width)):
            values = rows if code is None else code.values(rows)
            squares.append(np.einsum("cm,cm->c", values, values))
        lengths = np.sqrt(np.concatenate(squares))
        found: dict[View, float] = {"dot": float(lengths.max())}
        if norms is not None:
            found["normalised"] = float((lengths * _over(norms, None)).max())
        return found


def _products(queries: Float32[np.ndarray, "q s"], rows: Float32[np.ndarray, "c s"]) -> Float32[np.ndarray, "q c"]:
    """Return all products; of few queries without BLAS, whose threads would wait for those of the gradients.

    One question of the demo on two cores: 16 ms with both pools of threads, 5 ms with one (measured).
    """
    found: np.ndarray = np.einsum("qs,cs->qc", queries, rows) if len(queries) <= FEW else queries @ rows.T
    return found


def _over(norms: np.ndarray, scales: np.ndarray | None) -> Float32[np.ndarray, " n"]:
    """Return scales, or 1, over norms; 0 where a norm is 0 or too small for float32 to divide by."""
    numerator = 1.0 if scales is None else scales.astype(np.float64)
    usable = norms >= np.finfo(np.float32).tiny
    quotients: np.ndarray = np.divide(numerator, norms, out=np.zeros(len(norms)), where=usable, dtype=np.float64)
    return quotients.astype(np.float32)
