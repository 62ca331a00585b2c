"""Exact search by inner product over all vectors or some of them, proponents and opponents in one pass.

opponents(q) are the proponents of -q: both signs go into FAISS's heaps as one batch, so that nothing is ever sorted out
of the far end of a result. FAISS pads what it does not find with id -1; padding never leaves this file.

Scores are made in float32 (`indexer.index.search.scan`), and candidates are all rows that can be among the first k for
what float32 can err.
"""

import faiss
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from indexer.errors import QuestionError
from indexer.index.search.candidates import Candidates, View
from indexer.index.search.scan import Scan, Some, scaled
from indexer.index.store import VectorStore

MOST_TIES = 4096  # a query whose gradient is zero ties with every row: beyond so many, ties are cut by position
MARGIN = 8  # candidates beyond k, so that float32 rounding in the search cannot push a row out of the top k
ROUNDING = 2.0**-24  # of float32, relative
TINY = np.finfo(np.float32).tiny  # nothing that float32 loses below its smallest normal number adds up to as much
SPARE = 4  # times what is kept is held before it is cut, so that it is not sorted for every chunk
HIDDEN = 2.0**-75  # what a sum of squares in float32 can hide, as a norm, for each number


class FlatSearch:
    """Search over the rows of a store; norms [n] are those of the gradients, for the normalised view.

    longest: a norm that no row exceeds, where that is known; else all rows are read for it at the first search.
    """

    def __init__(
        self, store: VectorStore, norms: Float[np.ndarray, " n"] | None = None, longest: float | None = None
    ) -> None:
        self._scan = Scan(store, norms, longest)

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
        self,
        queries: Float[np.ndarray, "q m"],
        k: int,
        view: View = "dot",
        positions: Some = None,
        longest: float | None = None,
    ) -> list[Candidates]:
        """Return candidates among the rows at some positions; longest: a norm that none of them exceeds, if known.

        A query that holds NaN or infinity has none, and none of its answers is exhaustive.

        Raises:
            QuestionError: the view is normalised, and there are no norms.
        """
        if view != "dot" and not self._scan.has_norms:
            raise QuestionError(
                "this index has no norms of gradients, which the normalised view divides by; ask for the view 'dot'"
            )
        k = min(k, self._scan.count(positions))
        if k == 0:
            return [Candidates([], [], exhaustive=True) for _ in queries]
        queries = scaled(queries)
        found = [Candidates([], [], exhaustive=False)] * len(queries)
        asked = np.flatnonzero(np.isfinite(queries).all(axis=1))
        if len(asked):
            longest = self._scan.longest_row(view) if longest is None or view != "dot" else longest
            for i, one in zip(asked.tolist(), self._found(queries[asked], k, view, positions, longest), strict=True):
                found[i] = one
        return found

    def _found(self, queries: np.ndarray, k: int, view: View, positions: Some, longest: float) -> list[Candidates]:
        """Fetch a few more than k of each direction; of queries for which these may not be all, what can be more."""
        heap, finite = self._fetch(queries, k, view, positions)
        error = np.tile(self._error(queries), 2) * (longest + HIDDEN * self._scan.width**0.5) + TINY
        with np.errstate(invalid="ignore"):  # an infinite score within an infinite error says nothing
            clear = heap.D[:, -1] + error < heap.D[:, k - 1] - error
        whole = clear | (heap.D.shape[1] == self._scan.count(positions))
        whole &= np.tile(finite, 2)
        found = [row[row >= 0].tolist() for row in heap.I]
        half = len(queries)
        narrow = np.flatnonzero(~(whole[:half] & whole[half:]))
        if len(narrow):
            both = np.concatenate([narrow, half + narrow])
            least = self._least(heap, both, k, view, np.tile(self._error(queries), 2)[both])
            wider = self._reaching(queries[narrow], k, view, positions, least)
        else:
            wider = []
        candidates = [Candidates(*ends, exhaustive=True) for ends in zip(found[:half], found[half:], strict=True)]
        for i, one in zip(narrow.tolist(), wider, strict=True):
            candidates[i] = one
        return candidates

    def _error(self, queries: Float64[np.ndarray, "q m"]) -> Float64[np.ndarray, " q"]:
        """Return how far float32 is from the product of a query with a row of norm 1.

        An inner product of m terms errs by about sqrt(m) roundings of |q| |x|, and at most by m of them, over the 8
        sums or more that are kept side by side.
        """
        width = self._scan.width
        found: np.ndarray = max(4 * width**0.5, width / 8) * ROUNDING * np.linalg.norm(queries, axis=1)
        return found

    def _fetch(
        self, queries: np.ndarray, k: int, view: View, positions: Some
    ) -> tuple[faiss.ResultHeap, Bool[np.ndarray, " q"]]:
        """Fetch the best of each direction, proponents of all queries first, and say whose scores are all finite."""
        heap = faiss.ResultHeap(2 * len(queries), min(k + MARGIN, self._scan.count(positions)), keep_max=True)
        finite = np.ones(len(queries), bool)
        for places, _, scores in self._scan.scores(queries, view, positions):
            finite &= np.isfinite(scores).all(axis=1)
            both = np.concatenate([scores, -scores])
            heap.add_result(both, np.broadcast_to(places, both.shape))
        heap.finalize()
        return heap, finite

    def _least(
        self, heap: faiss.ResultHeap, ends: np.ndarray, k: int, view: View, errors: np.ndarray
    ) -> Float64[np.ndarray, " e"]:
        """Return a score that k rows surely have in each of some directions, each within the error of its length."""
        places, scores = heap.I[ends], heap.D[ends].astype(np.float64)
        places, missing = np.maximum(places, 0), places < 0
        lengths = self._scan.lengths_at(places, view)
        with np.errstate(invalid="ignore"):  # an infinite score within an infinite error says nothing
            lower = scores - errors[:, None] * lengths - TINY
        lower[missing | ~np.isfinite(lower)] = -np.inf
        found: np.ndarray = np.partition(lower, -k, axis=1)[:, -k]
        return found

    def _reaching(
        self, queries: np.ndarray, k: int, view: View, positions: Some, least: Float64[np.ndarray, " e"]
    ) -> list[Candidates]:
        """Return all rows that can have at least such scores, each within the error of its own length, best first."""
        most, half = k + MOST_TIES, len(queries)
        best = [Best(most) for _ in least]
        errors = self._error(queries)[:, None]
        for places, rows, scores in self._scan.scores(queries, view, positions):
            slack = errors * self._scan.lengths(places, rows, view) + TINY
            for i, end in enumerate(best):
                signed = scores[i] if i < half else -scores[i - half]
                with np.errstate(invalid="ignore"):
                    out = signed + slack[i % half] < least[i]
                end.add(places[~out], signed[~out])
        ends = [end.first() for end in best]
        exhaustive = [one and other for (_, one), (_, other) in zip(ends[:half], ends[half:], strict=True)]
        found = zip(ends[:half], ends[half:], exhaustive, strict=True)
        return [Candidates(one, other, whole) for (one, _), (other, _), whole in found]


class Best:
    """The best rows of those that are given, by score and then by position: at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._places = np.empty(0, np.int64)
        self._scores = np.empty(0, np.float32)
        self._all = True

    def add(self, places: Int64[np.ndarray, " c"], scores: Float32[np.ndarray, " c"]) -> None:
        """Take rows, at positions that ascend from call to call."""
        if len(places):
            self._places = np.concatenate([self._places, places])
            self._scores = np.concatenate([self._scores, scores])
            if len(self._places) > SPARE * self._most:
                self._cut()

    def first(self) -> tuple[list[int], bool]:
        """Return positions, best first, and whether they are of all rows that were given."""
        self._cut()
        return self._places.tolist(), self._all

    def _cut(self) -> None:
        order = np.lexsort((self._places, -self._scores))
        self._all &= len(order) <= self._most
        kept = order[: self._most]
        self._places, self._scores = self._places[kept], self._scores[kept]
