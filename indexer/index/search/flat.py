"""Exact inner-product search over all vectors, proponents and opponents in one call.

opponents(q) are the proponents of -q: both signs go to FAISS as one batch, so every kind of index answers both
directions alike, and nothing is ever sorted out of the far end of a result. FAISS pads what it does not find with id
-1; padding never leaves this file.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Float

MOST_TIES = 4096  # a query whose gradient is zero ties with every row: beyond so many, ties are cut by position
MARGIN = 8  # candidates beyond k, so that float32 rounding in the search cannot push a row out of the top k


@dataclass(frozen=True, slots=True)
class Candidates:
    """Positions of one query's candidates, likely best first: the top k of each direction are among them.

    complete: false where more rows tie with the k-th than are ever fetched, so that some of them are left out.
    """

    proponents: list[int]
    opponents: list[int]
    complete: bool


class FlatSearch:
    """``IndexFlatIP`` over the rows of a store."""

    def __init__(self, shards: Iterable[Float[np.ndarray, "_ m"]], width: int) -> None:
        self._index = faiss.IndexFlatIP(width)
        self._longest = 0.0
        for shard in shards:
            rows = np.ascontiguousarray(shard, dtype=np.float32)
            self._index.add(rows)
            self._longest = max(self._longest, float(np.sqrt(np.einsum("nm,nm->n", rows, rows).max())))

    def search(self, queries: Float[np.ndarray, "q m"], k: int) -> list[Candidates]:
        """Return candidates for the k proponents and k opponents of every query, ties at the k-th place included."""
        both = np.ascontiguousarray(np.concatenate([queries, -queries]), dtype=np.float32)
        positions, scores, complete = self._wide_enough(both, k)
        found = [
            [int(p) for p, s in zip(ps, ss, strict=True) if p >= 0] for ps, ss in zip(positions, scores, strict=True)
        ]
        half = len(queries)
        whole = complete[:half] & complete[half:]
        return [Candidates(pro, con, bool(c)) for pro, con, c in zip(found[:half], found[half:], whole, strict=True)]

    def _wide_enough(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fetch until the last score of every query is below its k-th by more than float32 can err.

        The error of an inner product of m terms is about sqrt(m) roundings of |q| |x|.
        """
        k = min(k, self._index.ntotal)
        error = 4 * self._index.d**0.5 * 2.0**-24 * np.linalg.norm(queries, axis=1) * self._longest
        fetch, most = min(k + MARGIN, self._index.ntotal), min(k + MOST_TIES, self._index.ntotal)
        while True:
            scores, positions = self._index.search(queries, fetch)
            apart = scores[:, k - 1] - scores[:, -1] > error
            if fetch >= most or apart.all():
                return positions, scores, apart | (fetch == self._index.ntotal)
            fetch = min(2 * fetch, most)
