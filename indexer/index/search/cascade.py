"""The cascade: bounds leave few rows of a prefix, whose stored vectors are then compared as in a flat search.

What it answers is what a flat search answers, with the same ties; it only reads less. Rows that were appended after the
prefix was fitted are compared beside those that bounds leave.
"""

from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Float64

from indexer.index.search.bounds import survivors
from indexer.index.search.candidates import EXACT_BELOW, Candidates, View
from indexer.index.search.flat import FlatSearch
from indexer.index.search.prefix import Prefix
from indexer.index.search.scan import longest_row, scaled
from indexer.index.store import VectorStore

MOST = 10_000  # rows of a direction that are compared; if bounds leave more, the best by estimate, not exhaustive
SCANNED = 200_000  # rows; so few are scanned where bounds leave too many, which takes about as long
SCARCE = 100  # times k must there be rows, or bounds leave so many that a scan is faster


class PrefixSearch:
    """Search by a prefix over the first rows of a store; norms [n]: of the gradients, for the normalised view."""

    def __init__(self, store: VectorStore, prefix: Prefix, norms: Float[np.ndarray, " n"] | None = None) -> None:
        self._store = store
        self._prefix = prefix
        self._newest = longest_row(store, first=len(prefix))
        self._flat = FlatSearch(store, norms, max(prefix.longest, self._newest))

    def search(
        self,
        queries: Float[np.ndarray, "q m"],
        k: int,
        view: View = "dot",
        rows: Bool[np.ndarray, " n"] | None = None,
    ) -> list[Candidates]:
        """Return candidates, as every `indexer.index.search.candidates.Search` does.

        Few rows are scanned, and so are all of them where k is large, or where norms divide: a short row can be first
        in that view.

        Raises:
            QuestionError: the view is normalised, and there are no norms.
        """
        queries = scaled(queries)
        count = len(self._store) if rows is None else int(np.count_nonzero(rows))
        if view != "dot" or count <= EXACT_BELOW or k > min(MOST, count // SCARCE):
            return self._flat.search(queries, k, view, rows)
        return [self._candidates(query, k, rows, count) for query in queries]

    def _candidates(
        self, query: Float64[np.ndarray, " m"], k: int, rows: Bool[np.ndarray, " n"] | None, count: int
    ) -> Candidates:
        if not np.isfinite(query).all():
            return Candidates([], [], exhaustive=False)
        ends = survivors(self._prefix, query, k, partial(self._store.products, query), rows)
        left = [end.left(MOST) for end in ends]
        complete = all(complete for _, complete in left)
        if not complete and count <= SCANNED:
            return self._flat.search(query[None], k, rows=rows)[0]
        newer = np.arange(len(self._prefix), len(self._store))
        if rows is not None:
            newer = newer[rows[newer]]
        places = np.union1d(*(places for places, _ in left))
        longest = max(self._prefix.longest_of(places), self._newest if len(newer) else 0.0)
        positions = np.concatenate([np.sort(self._prefix.positions(places)), newer])
        [found] = self._flat.among(query[None], k, positions=positions, longest=longest)
        return Candidates(found.proponents, found.opponents, found.exhaustive and complete)
